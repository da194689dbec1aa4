"""irtool detect: what is wrong with pictures."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import cores
from ..shard import parse as parse_shard
from ..weights.registry import DEFAULT_DETECTOR
from . import options
from .output import Output, is_plain, printable

if TYPE_CHECKING:
    from ..detection import Diagnosis
    from ..picture import Picture
    from ..targets import Item


def detect(
    inputs: options.Inputs,
    recursive: options.Recursive = False,
    detector: Annotated[
        str,
        typer.Option(
            "--detector", "--model", envvar="IRTOOL_DETECTOR", metavar="ID|local:PATH", help="The model that diagnoses."
        ),
    ] = DEFAULT_DETECTOR,
    where: Annotated[
        Path | None,
        typer.Option("--where", metavar="FOLDER", help="Also draw where it is: a picture NAME.where.jpg for each."),
    ] = None,
    scratches: Annotated[
        bool,
        typer.Option(
            "--scratches",
            help="Look for scratches, dust and creases in pictures of many colors too; in those of one hue they are "
            "always looked for.",
        ),
    ] = False,
    device: options.Device = "auto",
    threads: options.Threads = None,
    jobs: options.Jobs = "1",
    shard: options.ShardOption = None,
    offline: options.Offline = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> int:
    """Say what is wrong with pictures.

    More than one degradation can be present, and clean is an answer. What is called "perhaps" is likely, but looks like
    things that belong to pictures, and restore --auto leaves it. -v shows the scores of all.
    """
    from ..targets import Item, gather, make_folder, name_in_shards
    from .batch import Run

    options.check_device(device)
    share = None if shard is None else parse_shard(shard)
    found = [one for one in gather(inputs, recursive=recursive) if share is None or share.takes(name_in_shards(one))]
    items = [Item(None if one is None else one.path, None, None) for one in found]
    out = Output(json=json, quiet=quiet, verbose=verbose)
    run = Run(out, ("degraded", "clean"))

    def report(item: Item, diagnosis: Diagnosis) -> None:
        status = "clean" if diagnosis.is_clean and not diagnosis.scratched else "degraded"
        run.count(item, status, {"diagnosis": diagnosis.to_dict()})
        if not json:
            _show(out, item.name, diagnosis)

    make = partial(_Looker, detector, device, where, scratches)
    results = run.results(items, make, jobs=jobs, device=device, threads=threads)
    if where is not None:
        make_folder(where)
    return run.process(items, results, report)


class _Looker:
    """Diagnoses one picture after the other (`irtool.engine.workers.Stages`).

    `number` is that of the process, None of the only one.
    """

    def __init__(
        self, detector: str, device: str, where: Path | None, scratches: bool, number: int | None, run: object = None
    ) -> None:
        self.detector, self.where, self.scratches = detector, where, scratches
        self.device = cores.device_of(device, number)

    def load(self) -> list[str]:
        from ..api import prepare

        prepare(detector=self.detector, device=self.device)
        return []

    def read(self, item: Item) -> Picture:
        from ..memory import Budget
        from ..picture import Picture
        from .batch import read

        found = read(item, Budget(), several=True)
        return found if isinstance(found, Picture) else found.middle

    def work(self, item: Item, picture: Picture) -> tuple[Diagnosis, Picture]:
        from ..api import detect as diagnose
        from ..repairs.mend import with_scratches

        diagnosis = diagnose(picture, model=self.detector, device=self.device)
        return with_scratches(diagnosis, picture, self.device, always=self.scratches), picture

    def write(self, item: Item, seen: tuple[Diagnosis, Picture]) -> Diagnosis:
        """Draw where things are, where that is wanted; the diagnosis without its tensors."""
        if self.where is not None:
            _draw(*seen, self.where / f"{'stdin' if item.source is None else item.source.name}.where.jpg")
        return replace(seen[0], maps={}, features=None)


def _draw(diagnosis: Diagnosis, picture: Picture, path: Path) -> None:
    """Write where things are; a detector without maps only names them."""
    from ..detection.overlay import overlay
    from ..picture import write_page

    write_page(overlay(picture.pixels, diagnosis), path)


def _show(out: Output, name: str, diagnosis: Diagnosis) -> None:
    """A table on a terminal; in a pipe one line that can be searched."""
    ranked = sorted(diagnosis.scores, key=lambda i: (i not in diagnosis.present, -diagnosis.scores[i]))
    # Shares of one whole say little one by one.
    rows = [i for i in ranked if out.verbose or diagnosis.exclusive or i in diagnosis.present + diagnosis.uncertain]
    if is_plain(sys.stdout):
        labels = [f"{'perhaps ' * (i in diagnosis.uncertain)}{i} {diagnosis.scores[i]:.2f}" for i in rows]
        if diagnosis.scratched:
            labels.append(f"scratches {diagnosis.scratched:.1%}")
        elif diagnosis.is_clean:
            labels.insert(0, "clean")
        out.result(f"{name}: {', '.join(labels)}")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ..degradation import DEGRADATIONS, INDEX

    table = Table(title=Text(printable(name)), title_justify="left", show_header=False, box=None, padding=(0, 1))
    if diagnosis.scratched:
        table.add_row(Text("scratches", "bold"), f"{diagnosis.scratched:.1%}", "of the picture")
    elif diagnosis.is_clean:
        table.add_row(Text("clean", "green"), "", "nothing to undo")
    for i in rows:
        style = "bold" if i in diagnosis.present else "dim"
        score, name = diagnosis.scores[i], DEGRADATIONS[INDEX[i]].name
        name = f"perhaps {name}" if i in diagnosis.uncertain else name
        table.add_row(Text(name, style), f"{score:.2f}", Text("█" * round(20 * score), style))
    Console().print(table)
