"""irtool detect: what is wrong with pictures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
    device: options.Device = "auto",
    threads: options.Threads = None,
    offline: options.Offline = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> int:
    """Say what is wrong with pictures.

    More than one degradation can be present, and clean is an answer. What is called "perhaps" is likely, but looks like
    things that belong to pictures, and restore --auto leaves it. -v shows the scores of all.
    """
    from ..targets import Item, gather, make_folder
    from .batch import Run

    options.check_device(device)
    items = [Item(None if found is None else found.path, None, None) for found in gather(inputs, recursive=recursive)]
    out = Output(json=json, quiet=quiet, verbose=verbose)
    run = Run(out, ("degraded", "clean"))
    options.set_threads(threads)

    from ..api import detect as diagnose
    from ..api import prepare

    def report(item: Item, diagnosis: Diagnosis) -> None:
        run.count(item, "clean" if diagnosis.is_clean else "degraded", {"diagnosis": diagnosis.to_dict()})
        if not json:
            _show(out, item.name, diagnosis)

    def look(item: Item, picture: Picture) -> tuple[Diagnosis, Picture]:
        return diagnose(picture, model=detector, device=device), picture

    def write(item: Item, seen: tuple[Diagnosis, Picture]) -> Diagnosis:
        if where is not None:
            _draw(*seen, where / f"{'stdin' if item.source is None else item.source.name}.where.jpg")
        return seen[0]

    prepare(detector=detector, device=device)
    if where is not None:
        make_folder(where)
    return run.process(items, look, write, report)


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
        if diagnosis.is_clean:
            labels.insert(0, "clean")
        out.result(f"{name}: {', '.join(labels)}")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ..degradation import DEGRADATIONS, INDEX

    table = Table(title=Text(printable(name)), title_justify="left", show_header=False, box=None, padding=(0, 1))
    if diagnosis.is_clean:
        table.add_row(Text("clean", "green"), "", "nothing to undo")
    for i in rows:
        style = "bold" if i in diagnosis.present else "dim"
        score, name = diagnosis.scores[i], DEGRADATIONS[INDEX[i]].name
        name = f"perhaps {name}" if i in diagnosis.uncertain else name
        table.add_row(Text(name, style), f"{score:.2f}", Text("█" * round(20 * score), style))
    Console().print(table)
