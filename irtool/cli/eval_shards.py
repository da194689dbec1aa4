"""irtool eval in several processes: each scores a shard into a folder of its own, and the run is resumed from those."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from ..evaluation.report import RUN, SHARDS
from . import options
from .output import Output

POLL = 0.2  # seconds between two looks at what the processes have written


def score_shards(arguments: Mapping[str, Any], count: int, report: Path, pairs: int, out: Output) -> None:
    """Let `count` processes score a shard each, below the folder `report`; what one of them leaves out is left out.

    Args:
        arguments: of `irtool.cli.eval.eval`.
        count: of the processes, which share the threads.
        report: the folder of the whole run.
        pairs: of the whole run, for the progress.
        out: where to print.
    """
    context = get_context("spawn")
    share = max(1, options.thread_count(arguments["threads"]) // count)
    own = {**arguments, "report": report, "resume": True, "csv": None, "jobs": "1", "threads": share, "against": None}
    own |= {"json": False, "quiet": True, "verbose": False}
    processes = [
        context.Process(target=_score, args=({**own, "shard": f"{number + 1}/{count}"},), daemon=True)
        for number in range(count)
    ]
    try:
        for process in processes:
            process.start()
        with out.progress(pairs) as bar:
            seen = 0
            while any(process.is_alive() for process in processes):
                time.sleep(POLL)
                for _ in range(seen, scored := _scored(report)):
                    bar.end()
                seen = max(seen, scored)
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
            if process.pid is not None:
                process.join()


def _scored(report: Path) -> int:
    count = 0
    for file in (report / SHARDS).glob(f"*/{RUN}"):
        with contextlib.suppress(OSError):
            count += max(0, file.read_bytes().count(b"\n") - 1)
    return count


def _score(arguments: dict[str, Any]) -> None:
    """A process: what goes wrong here is said by the parent, which scores what is missing."""
    from .eval import eval

    for number in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    with contextlib.suppress(Exception, KeyboardInterrupt):
        eval(**arguments)
