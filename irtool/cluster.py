"""Items carried through stages on a Ray cluster (the extra ``irtool[ray]``): Ray Data over a pool of actors.

Every actor loads its networks once. Ray starts more of them while there is work, and does again what a lost one held;
an output that is there by then is not written again. The nodes must see the same files, or the inputs and outputs are
addresses (`irtool.remote`).
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Generator, Sequence
from typing import Any

from .engine.pipeline import JobResult
from .engine.workers import Stages
from .errors import UnavailableError, UsageError, reason

RAY = "ray"


class _Actor:
    """A worker of the pool: stages in a process of their own, one row in and one out."""

    def __init__(self, make: Callable[[int | None], Stages], threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.stages = make(None)
        self.stages.load()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        stages, item = self.stages, pickle.loads(row["item"])
        try:
            answer: tuple[Any, Exception | None] = (stages.write(item, stages.work(item, stages.read(item))), None)
        except Exception as error:
            answer = (None, error)
        try:
            packed = pickle.dumps(answer)
        except Exception:
            packed = pickle.dumps((None, RuntimeError(f"{type(answer[1]).__name__}: {answer[1]}")))
        return {"place": row["place"], "answer": packed}


def on_ray(
    items: Sequence[Any], make: Callable[[int | None], Stages], where: str, *, threads: int | None, gpu: bool,
    on_end: Callable[[], None] = lambda: None,
) -> Generator[JobResult[Any, Any], None, None]:  # fmt: skip
    """Carry items through stages on a cluster.

    Args:
        items: picklable.
        make: makes the stages in an actor.
        where: "ray", for the cluster that RAY_ADDRESS names or else this machine; or "ray:ADDRESS".
        threads: of torch in each actor, which takes as many cores; 1 unless given.
        gpu: each actor takes a GPU.
        on_end: called when an item is done.

    Yields:
        One `JobResult` per item, in order.

    Raises:
        UsageError: `where` names no engine that is known.
        UnavailableError: ray is not installed, or the cluster is not there.
    """
    name, _, address = where.partition(":")
    if name != RAY:
        raise UsageError(f"`on` {where} is no cluster that is known.", "Write ray, or ray:ADDRESS.")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UnavailableError("`on` ray needs the package ray.", "pip install 'irtool[ray]'") from error
    started = not ray.is_initialized()
    if started:
        try:
            ray.init(address=address or None, log_to_driver=False, logging_level="error")
        except Exception as error:
            raise UnavailableError(
                f"There is no Ray cluster {address}: {reason(error)}.", "ray status says more."
            ) from error
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        cores = threads or 1
        most = max(1, int(ray.cluster_resources().get("GPU" if gpu else "CPU", 1)) // (1 if gpu else cores))
        rows = [{"place": place, "item": pickle.dumps(item)} for place, item in enumerate(items)]
        answers = ray.data.from_items(rows, override_num_blocks=min(len(rows), 8 * most)).map(
            _Actor,
            fn_constructor_args=(make, cores),
            concurrency=(1, most),
            num_cpus=cores,
            num_gpus=1 if gpu else None,
        )
        done: dict[int, tuple[Any, Exception | None]] = {}
        following = 0
        for row in answers.iter_rows():
            done[row["place"]] = pickle.loads(row["answer"])
            on_end()
            while following in done:
                yield JobResult(items[following], *done.pop(following))
                following += 1
    finally:
        if started:
            ray.shutdown()
