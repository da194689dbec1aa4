"""irtool train: carry out a recipe; look at recipes; turn a checkpoint into a model file."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import EXIT_OK, EXIT_USAGE, UsageError
from . import options
from .output import Output, is_plain, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..training.log import Callback


class _Verbs(typer.core.TyperGroup):
    """A group whose verb may be left out: it is then `run`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


train = typer.Typer(cls=_Verbs, rich_markup_mode=None, help="Train a network by a recipe, and what belongs to it.")
Data = Annotated[
    Path | None,
    typer.Option("--data", envvar="IRTOOL_DATA", metavar="DIR", help="Folder that the data folders lie in."),
]
Changes = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Changes to the recipe, such as minutes=5 or model.width=32."),
]
Name = Annotated[str, typer.Argument(metavar="NAME|FILE.toml", help="A built-in recipe or a file.")]


@train.command()
def run(
    changes: Changes = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", metavar="NAME|FILE.toml", help="A built-in recipe or a file.")
    ] = None,
    data: Data = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder of the run, resumed if begun."),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option("--start", metavar="FILE", help="Checkpoint or .safetensors that a new run starts from."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan: data, sizes, time of three steps, files to write.")
    ] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write TensorBoard's event files.")] = False,
    device: options.Device = "auto",
    threads: options.Threads = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Train by a recipe; `irtool train --recipe` is short for it.

    A run that was interrupted goes on from its last checkpoint with the same command. Several processes, on one machine
    or many, are started with torchrun -m -- irtool train and the rest of the command.
    """
    printer = Output(json=json, quiet=quiet)
    options.check_device(device)
    if recipe is None:
        raise UsageError("Name a recipe with --recipe.", "irtool train --recipe default --data DATA --out runs/default")
    from ..training import recipe as recipes

    loaded_recipe = recipes.load(recipes.find(recipe), changes or [])
    if data is not None and not data.is_dir():
        raise UsageError(f"--data {data} is not a folder.")
    if threads is not None:  # else all: a run of hours does not go by what the machine does at its start
        options.set_threads(threads)
    if dry_run:
        from ..engine import pick_device
        from ..training.estimate import estimate_run, lines

        plan = estimate_run(loaded_recipe, data, out, pick_device(device))
        printer.record({"type": "recipe", **dataclasses.asdict(loaded_recipe), "plan": plan})
        for line in lines(plan):
            printer.result(line)
        return EXIT_OK
    if data is None or out is None:
        raise UsageError("A run needs --data and --out.", "Use --dry-run to look at the plan alone.")
    if start is not None and not start.is_file():
        raise UsageError(f"--start {start} is not a file.")

    from ..engine import pick_device
    from ..training import loop
    from ..training.distributed import is_rank_zero

    with _watching(printer) as callback:
        checkpoint = loop.train(
            loaded_recipe,
            data,
            out,
            device=pick_device(device),
            start=start,
            callback=callback,
            tensorboard=tensorboard,
        )
    if is_rank_zero():
        printer.result(str(checkpoint))
        printer.record({"type": "summary", "checkpoint": str(checkpoint)})
    return EXIT_OK


@train.command("recipes")
def list_recipes(json: options.Json = False) -> int:
    """List the built-in recipes, each with what it says of itself."""
    from ..training import recipe as recipes

    printer = Output(json=json)
    for name in recipes.built_in():
        path = recipes.find(name)
        summary = recipes.comment(path)
        printer.record(
            {"type": "recipe", "name": name, "kind": recipes.table(path).get("kind", "restorer"), "comment": summary}
        )
        printer.result(name)
        for line in summary.splitlines():
            printer.result(f"    {line}".rstrip())
    return EXIT_OK


@train.command("cp")
def copy(
    name: Name,
    target: Annotated[
        Path | None, typer.Argument(metavar="FILE.toml", help="File to write; else one of that name here.")
    ] = None,
) -> int:
    """Copy a recipe out, to be changed."""
    from ..picture import save_bytes
    from ..training import recipe as recipes

    source = recipes.find(name)
    target = target or Path(source.name)
    if target.is_dir():
        target = target / source.name
    if target.suffix != ".toml":
        raise UsageError(f"{target} is no .toml file.", "A recipe's name ends in .toml.")
    if target.exists():
        raise UsageError(f"{target} exists and is left as it is.", "Name another file.")
    save_bytes(source.read_bytes(), target)
    Output().result(str(target))
    return EXIT_OK


@train.command()
def validate(name: Name, changes: Changes = None, data: Data = None, json: options.Json = False) -> int:
    """Print all that is wrong with a recipe.

    One line for each problem; with --data also for each folder that is missing.
    """
    from ..training import recipe as recipes

    printer = Output(json=json)
    path = recipes.find(name)
    checked_recipe, problems = recipes.check(recipes.change(recipes.table(path), changes or []))
    if checked_recipe is not None and data is not None:
        problems += recipes.missing_data(checked_recipe, data)
    for problem in problems:
        printer.result(f"{path.name}: {problem}")
    printer.record({"type": "validation", "recipe": str(path), "problems": problems})
    if problems:
        return EXIT_USAGE
    printer.result(f"{path.name}: sound" + ("" if data else "; give --data to look for its data too"))
    return EXIT_OK


@train.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="checkpoint.pt or best.pt of a run.")],
    target: Annotated[Path, typer.Argument(metavar="FILE.safetensors", help="The model file to write.")],
    note: Annotated[
        list[str] | None, typer.Option("--note", metavar="KEY=TEXT", help="For its header, such as licence=Apache-2.0.")
    ] = None,
    blend: Annotated[
        Path | None,
        typer.Option("--blend", metavar="CHECKPOINT", help="Write the weighted mean with this one instead."),
    ] = None,
    share: Annotated[float, typer.Option("--share", metavar="0..1", help="Weight of --blend in the mean.")] = 0.5,
    only: Annotated[str, typer.Option("--only", metavar="TASK", help="Blend only the adapter of this task.")] = "",
    existing: options.Overwrite = "error",
    json: options.Json = False,
) -> int:
    """Write a checkpoint's averaged weights as a model file."""
    from ..degradation import lookup
    from ..training.export import export as write

    if target.suffix != ".safetensors":
        raise UsageError(f"{target} is no .safetensors file.", "A model file ends in .safetensors.")
    notes = {}
    for text in note or []:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise UsageError(f"--note '{text}' is no KEY=TEXT.")
        notes[key] = value
    if not 0 <= share <= 1:
        raise UsageError(f"--share lies from 0 to 1, not {share:g}.")
    options.may_overwrite(existing, target)
    written = write(checkpoint, target, notes, blend=blend, share=share, only=lookup(only).id if only else "")
    printer = Output(json=json)
    printer.result(f"{checkpoint} -> {written}")
    printer.record({"type": "summary", "checkpoint": str(checkpoint), "output": str(written)})
    return EXIT_OK


@contextmanager
def _watching(printer: Output) -> Iterator[Callback]:
    """Lines of the log on stderr, or a bar that shows the last of them where that is a terminal."""
    from ..training.log import Callback

    class Lines(Callback):
        def line(self, line: Mapping[str, Any]) -> None:
            printer.record(line)
            if not printer.json:
                printer.note(_format_line(line))

        def note(self, text: str) -> None:
            printer.note(text)

    if printer.quiet or printer.json or is_plain(sys.stderr):
        yield Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("step {task.fields[step]}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[told]}"), console=Console(stderr=True)) as shown:
        task = shown.add_task("", total=1.0, step=0, told="")

        class Bar(Lines):
            def step(self, step: int, progress: float) -> None:
                shown.update(task, completed=progress, step=step)

            def line(self, line: Mapping[str, Any]) -> None:
                if line.get("type") == "log":
                    shown.update(task, told=f"loss {line['loss']:.4g}")
                if line.get("type") != "log" or any(key.startswith("held_out/") for key in line):
                    shown.console.print(printable(_format_line(line)), markup=False, highlight=False)

            def note(self, text: str) -> None:
                shown.console.print(printable(text), markup=False, highlight=False)

        yield Bar()


def _format_line(line: Mapping[str, Any]) -> str:
    values = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in line.items() if k not in ("type", "digest")}
    return "  ".join(f"{k} {v}" for k, v in values.items())
