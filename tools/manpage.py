"""Writes the manual page irtool(1) from the command line's own help.

python tools/manpage.py -o docs/man/irtool.1
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from irtool import __version__
from irtool.cli import app

EXIT_STATUS = (
    ("0", "All done."), ("1", "Some pictures failed; each is named."), ("2", "Usage: a flag or an argument is wrong."),
    ("3", "A model, a data set or an optional package is unavailable."), ("4", "Nothing to do."),
    ("130", "Interrupted."),
)  # fmt: skip


def escaped(text: str) -> str:
    """Text for roff: no control line, no escape, and hyphens that can be copied."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text[:1] in (".", "'") else text


def paragraphs(text: str) -> Iterator[str]:
    """The paragraphs of a help text, without the marks of the help's own layout."""
    for i, part in enumerate(inspect.cleandoc(text).replace("\b", "").split("\n\n")):
        if i:
            yield ".PP"
        yield escaped(" ".join(part.split()))


def options(params: list[Any]) -> Iterator[str]:
    """The arguments and options of a verb."""
    for param in params:
        told = getattr(param, "help", None) or ""
        if param.param_type_name == "argument":
            name = f"\\fI{escaped(param.metavar or param.name.upper())}\\fR"
        else:
            names = ", ".join(f"\\fB{escaped(opt)}\\fR" for opt in param.opts)
            name = names if param.is_flag else f"{names} \\fI{escaped(param.metavar or param.type.name.upper())}\\fR"
        variable = getattr(param, "envvar", None)
        yield from (".TP", name, escaped(told + (f" Environment: {variable}." if variable else "")) or "\\&")


def verbs(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every verb below a command, those of groups too."""
    for name, verb in sorted(getattr(command, "commands", {}).items()):
        if getattr(verb, "commands", None):
            yield from verbs(verb, (*path, name))
        else:
            yield (*path, name), verb


def page() -> str:
    """The manual page."""
    command = typer.main.get_command(app.app)
    lines = [f'.TH IRTOOL 1 "" "irtool {__version__}" "User Commands"', ".SH NAME"]
    lines += [f"irtool \\- {escaped('restores degraded photographs')}", ".SH SYNOPSIS", ".B irtool"]
    lines += ["\\fIVERB\\fR [\\fIOPTIONS\\fR] ...", ".SH DESCRIPTION", *paragraphs(command.help or "")]
    for path, verb in verbs(command):
        lines += [f".SH {escaped(' '.join(('irtool', *path)))}", *paragraphs(verb.help or "")]
        lines += options([param for param in verb.params if param.name != "help"])
    lines.append(".SH EXIT STATUS")
    for code, meaning in EXIT_STATUS:
        lines += [".TP", code, meaning]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True, help="the page to write")
    arguments = parser.parse_args()
    arguments.output.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
