"""irtool presets, and how restore and instruct take options from a preset and from the user's configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import settings
from ..errors import EXIT_OK, IrtoolError, UsageError
from ..fileio import read_text
from . import options
from .models import table
from .output import Output

VARIABLE = "IRTOOL_PRESET"
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset", envvar=VARIABLE, metavar="NAME|FILE.toml", help="Options kept under a name; see irtool presets."
    ),
]


class ConfiguredCommand(typer.core.TyperCommand):
    """A verb whose options are also taken from a preset and from the user's configuration."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:  # as of shell completion
            given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
            if not given.get("help"):
                kept = _kept(given)
                if ctx.info_name == "instruct":  # the words say what is to be done
                    kept = {key: value for key, value in kept.items() if key not in settings.EXCLUSIVE[0]}
                ctx.default_map = {param.name: kept[param.name] for param in self.params if param.name in kept}
        return super().parse_args(ctx, args)


def _kept(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that the preset and the user's configuration set, beside those given on the command line.

    Raises:
        FileError, UsageError: one of the files is not there, or something in it is wrong.
    """
    if "hdr" in (given.get("task") or ()):  # it fuses exposures, and hardly an option of restoring goes with it
        return {}
    configured = settings.configuration()
    _check(configured, settings.configuration_file())
    kept = configured.to_dict()
    name = given.get("preset") or os.environ.get(VARIABLE) or configured.preset
    if name:
        preset = settings.load(name)
        _check(preset, settings.find(name))
        kept = settings.overlaid(kept, preset.to_dict())
    taken = {key for group in settings.EXCLUSIVE if any(given.get(key) for key in group) for key in group}
    return {key: value for key, value in kept.items() if key not in taken}


def _check(kept: settings.Settings, path: Path) -> None:
    """Raise a UsageError that names the file where the verbs would turn a value of it away."""
    from ..degradation import lookup_task
    from ..naming import Template

    values = kept.to_dict()
    texts = ("existing", "format", "dtype", "tile", "padding", "device", "max_memory", "quality")
    named = {key: values[key] for key in texts if key in values}
    try:
        options.Request((), "", "", **named)
        options.jobs(values.get("jobs", "1"), 1)
        if "name" in values:
            Template(values["name"])
        for word in ",".join(values.get("task", ())).split(","):
            if word.strip():
                lookup_task(word)
        choices = {"guidance": options.GUIDANCE, "sampler": options.SAMPLERS}
        for key in choices.keys() & values.keys():
            options.one_of(values[key], choices[key], f"--{key}")
    except IrtoolError as error:
        raise UsageError(f"{path}: {error.message}", error.hint) from error


presets = typer.Typer(rich_markup_mode=None, help="List, show and save presets: options kept under a name.")
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a preset.", show_default=False)]


@presets.callback(invoke_without_command=True)
def list_by_default(context: typer.Context) -> int:
    return list_presets() if context.invoked_subcommand is None else EXIT_OK


@presets.command("list")
def list_presets(json: options.Json = False) -> int:
    """List the presets that ship and your own."""
    out = Output(json=json)
    rows = [("PRESET", "FROM", "ABOUT")]
    for name, path in settings.presets().items():
        origin = "irtool" if path.parent == settings.SHIPPED else str(path)
        try:
            about = settings.load(str(path)).about or ""
        except IrtoolError as error:  # a file of the user's that is broken must not hide the others
            about = f"broken: {error.message}"
        rows.append((name, origin, about))
        out.record({"type": "preset", "name": name, "file": str(path), "about": about})
    for line in table(rows):
        out.result(line)
    return EXIT_OK


@presets.command("show")
def show_preset(name: Name, json: options.Json = False) -> int:
    """Print a preset, as TOML or, with --json, as an object."""
    out = Output(json=json)
    kept, path = settings.load(name), settings.find(name)
    out.record({"type": "preset", "name": path.stem, "file": str(path), "about": kept.about, "options": kept.to_dict()})
    out.note(f"# {path}")
    for line in read_text(path).splitlines():
        out.result(line)
    return EXIT_OK


@presets.command("save", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def save_preset(
    context: typer.Context,
    name: Name,
    about: Annotated[str, typer.Option("--about", metavar="TEXT", help="A line on what it is for.")] = "",
) -> int:
    """Keep options of restore under a name.

    irtool presets save mine --task denoise --strength 0.6

    With --preset among them the new one begins with what that one sets.
    """
    from .restore import restore

    verb = typer.Typer(rich_markup_mode=None)
    verb.command(cls=ConfiguredCommand)(restore)
    parsed = typer.main.get_command(verb).make_context("irtool presets save", ["-", *context.args])
    given = {
        key: value
        for key, value in parsed.params.items()
        if getattr(parsed.get_parameter_source(key), "name", "") == "COMMANDLINE" and key != "inputs"
    }
    base = given.pop("preset", None)
    if wrong := settings.unkept(given):
        raise UsageError(f"--{wrong[0].replace('_', '-')} is of one run, and no preset keeps it.", "Leave it out.")
    values = {key: str(value) if isinstance(value, Path) else value for key, value in given.items()}
    values = settings.overlaid(settings.load(base).to_dict() if base else {}, values)
    if not values:
        raise UsageError("No option is named that the preset could keep.", f"irtool presets save {name} --task denoise")
    kept = settings.parse(({"about": about} if about else {}) | values, f"preset {name}")
    path = settings.folder() / "presets" / f"{name}.toml"
    _check(kept, path)
    path = settings.save(name, ({"about": about} if about else {}) | kept.to_dict())
    Output().result(f"{path}: {', '.join(kept.to_dict())}")
    return EXIT_OK
