"""irtool train: carry out a recipe, or turn its checkpoint into a model file."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import EXIT_OK, UsageError
from . import options
from .output import Output

if TYPE_CHECKING:
    from ..training.recipe import Recipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def train(
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Changes to the recipe, such as minutes=5 or model.width=32."),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", metavar="NAME|FILE.toml", help="A built-in recipe or a file.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", envvar="IRTOOL_DATA", metavar="DIR", help="Folder that the data folders lie in."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder of the run, resumed if begun."),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option("--start", metavar="FILE", help="Checkpoint or .safetensors that a new run starts from."),
    ] = None,
    export: Annotated[
        tuple[Path, Path] | None,
        typer.Option("--export", metavar="CHECKPOINT FILE.safetensors", help="Write a checkpoint as a model file."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the recipe and show what would be done.")] = False,
    device: options.Device = "auto",
    threads: options.Threads = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Train a network by a recipe.

    A run that was interrupted goes on from its last checkpoint with the same command.
    """
    printer = Output(json=json, quiet=quiet)
    options.check_device(device)
    if export is not None:
        if recipe is not None:
            raise UsageError("--export and --recipe exclude each other.", "A checkpoint knows its own recipe.")
        return _export(printer, *export)
    if recipe is None:
        raise UsageError("Name a recipe with --recipe.", "irtool train --recipe default --data DATA --out runs/default")
    made = _recipe(recipe, changes or [])
    if dry_run:
        return _show(printer, made)
    if data is None or out is None:
        raise UsageError("A run needs --data and --out.", "Use --dry-run to look at the recipe alone.")
    if not data.is_dir():
        raise UsageError(f"--data {data} is not a folder.")
    if start is not None and not start.is_file():
        raise UsageError(f"--start {start} is not a file.")
    options.set_threads(threads)

    from ..engine import pick_device
    from ..training.loop import train as run

    def report(line: dict[str, Any]) -> None:
        printer.record({"type": "log", **line})
        if not json:
            shown = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in line.items()}
            printer.note("  ".join(f"{k} {v}" for k, v in shown.items()))

    checkpoint = run(made, data, out, device=pick_device(device), start=start, report=report)
    printer.result(str(checkpoint))
    printer.record({"type": "summary", "checkpoint": str(checkpoint)})
    return EXIT_OK


def _recipe(name: str, changes: list[str]) -> Recipe:
    """A recipe with changes applied; values are TOML, and bare words are strings."""
    from ..training import recipe as recipes

    made = recipes.load(recipes.find(name))
    if not changes:
        return made
    table: dict[str, Any] = dataclasses.asdict(made)
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not key:
            raise UsageError(f"'{change}' is no change to a recipe.", "Write key=value, such as minutes=5.")
        try:
            value: Any = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        *path, last = key.split(".")
        place: Any = table
        for part in path:
            place = place.get(part)
            if not isinstance(place, dict):
                raise UsageError(f"A recipe has no table '{part}'.", "Tables: model, weights.")
        place[last] = value
    return recipes.build(table, f"{name} with changes")


def _show(printer: Output, made: Recipe) -> int:
    table = dataclasses.asdict(made)
    printer.record({"type": "recipe", **table})
    for key, value in table.items():
        printer.result(f"{key:<14}{value}")
    return EXIT_OK


def _export(printer: Output, checkpoint: Path, target: Path) -> int:
    from ..training.export import export

    if target.suffix != ".safetensors":
        raise UsageError(f"{target} is no .safetensors file.", "A model file ends in .safetensors.")
    written = export(checkpoint, target)
    printer.result(f"{checkpoint} -> {written}")
    printer.record({"type": "summary", "checkpoint": str(checkpoint), "output": str(written)})
    return EXIT_OK
