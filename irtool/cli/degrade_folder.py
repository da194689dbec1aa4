"""irtool degrade of a folder: every picture below it made worse, each with a seed of its own."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..shard import Shard
from .batch import Run, StatusRecord
from .output import Output


class _Degrader:
    """Degrades one picture after the other (`irtool.engine.workers.Stages`).

    A picture's seed comes of the seed given and its path below the folder, so that it is the same in every shard.
    """

    def __init__(self, chain: str, seed: int, policy: str, number: int | None, run: Run | None = None) -> None:
        self.chain, self.seed, self.policy = chain, seed, policy

    def load(self) -> list[str]:
        from ..synth import parse

        self.parsed = parse(self.chain)
        return []

    def read(self, item: Any) -> Any:
        from ..picture import read

        return read(item.source)

    def work(self, item: Any, picture: Any) -> bytes:
        import torch

        from ..evaluation.degrade import seed_of
        from ..picture import encode

        generator = torch.Generator().manual_seed(seed_of(str(self.seed), item.relative))
        pixels = torch.from_numpy(picture.pixels).permute(2, 0, 1)[None].contiguous()
        degraded = self.parsed.apply(pixels, generator)[0].permute(1, 2, 0)
        return encode(picture.with_pixels(degraded.contiguous().numpy()), item.format)

    def write(self, item: Any, data: bytes) -> StatusRecord:
        from ..picture import save_bytes
        from ..targets import may_replace

        save_bytes(data, item.target, replace=may_replace(item.target, self.policy), like=item.source)
        return StatusRecord(str(self.parsed), {"chain": self.chain, "seed": self.seed})


def degrade_folder(
    source: str, chain: str, output: str, *, recursive: bool, existing: str, seed: int, jobs: str, shard: Shard | None,
    json: bool, quiet: bool,
) -> int:  # fmt: skip
    """Degrade the pictures of a folder into another one, as PNG; returns the exit code.

    Raises:
        UsageError, NothingToDoError: as `irtool.targets.make_items`; or the chain is none.
    """
    from ..errors import EXIT_OK
    from ..synth import parse
    from ..targets import make_folders, make_items, resolve_existing

    parse(chain)
    items = make_items([source], output=output, recursive=recursive, format="png", shard=shard)
    items, skipped = resolve_existing(items, existing)
    out = Output(json=json, quiet=quiet)
    run = Run(out, ("degraded", "skipped"), "Run the same command with --existing skip to go on.")
    for item in skipped:
        run.count(item, "skipped", {})
    if not items:
        return run.summary(EXIT_OK)

    def report(item: Any, done: StatusRecord) -> None:
        run.count(item, "degraded", done.record)
        if not quiet:
            out.result(f"{item.name} -> {item.target}: {done.words}, seed {seed}")

    make = partial(_Degrader, chain, seed, existing)
    results = run.results(items, make, jobs=jobs, device="cpu", threads=None)
    make_folders(items)
    return run.process(items, results, report)
