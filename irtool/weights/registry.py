"""weights.toml read and checked."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..degradation import IDS
from ..errors import IrtoolError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_RESTORER = "irtool-small.v1"
DEFAULT_DETECTOR = "irtool-detector.v1"

FAMILIES = ("compact", "detector")
_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Record:
    """One checkpoint.

    Attributes:
        id: ``architecture.tag``.
        family: the network it fits, one of `FAMILIES`.
        file: ``asset:NAME``, a file that ships in ``irtool/assets``.
        bytes: size of the file.
        sha256: of the file, lower-case hexadecimal.
        licence: SPDX expression of the weights.
        origin: who trained it and on what.
        tasks: ids of the degradations it removes or finds.
    """

    id: str
    family: str
    file: str
    bytes: int
    sha256: str
    licence: str
    origin: str
    tasks: tuple[str, ...]

    @property
    def path(self) -> Path:
        """Where the file belongs, whether it is there or not."""
        return _PACKAGE / "assets" / self.file.removeprefix("asset:")


def table_path() -> Path:
    """weights.toml: inside the package when installed, beside it in a source tree."""
    installed = _PACKAGE / "weights.toml"
    return installed if installed.is_file() else _PACKAGE.parent / "weights.toml"


@cache
def records() -> tuple[Record, ...]:
    """All records, in the order of the file.

    Raises:
        IrtoolError: the file is absent or wrong; every mistake is named.
    """
    path = table_path()
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise IrtoolError(f"{path} cannot be read: {error.strerror}.", "Install irtool again.") from error


def get(id: str) -> Record:
    """The record called `id`.

    Raises:
        UsageError: there is none; the hint names the closest one.
    """
    known = {r.id: r for r in records()}
    if id in known:
        return known[id]
    close = difflib.get_close_matches(id, known, n=1)
    hint = f"Did you mean '{close[0]}'?" if close else "irtool models lists them; a file is given as local:PATH."
    raise UsageError(f"There is no model '{id}'.", hint)


def parse(text: str, name: str) -> tuple[Record, ...]:
    """Records from the text of a weights.toml; `name` is for messages.

    Raises:
        IrtoolError: the text is no TOML or breaks the schema; the message names every mistake at once.
    """
    try:
        tables = tomllib.loads(text).get("weights", [])
    except tomllib.TOMLDecodeError as error:
        raise IrtoolError(f"{name} is not valid TOML: {error}.") from error
    if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
        raise IrtoolError(f"{name}: 'weights' must be a list of tables, each begun by [[weights]].")
    problems: list[str] = []
    seen: set[object] = set()
    for number, table in enumerate(tables, 1):
        owner = str(table.get("id", f"record {number}"))
        problems += [f"{owner}: {problem}" for problem in _problems(table)]
        if table.get("id") in seen:
            problems.append(f"{owner}: the id is used twice")
        seen.add(table.get("id"))
    if problems:
        raise IrtoolError(f"{name} has {len(problems)} problem(s): " + "; ".join(problems) + ".")
    return tuple(Record(**{**t, "tasks": tuple(t["tasks"])}) for t in tables)


_TYPES: dict[str, type] = {
    "id": str,
    "family": str,
    "file": str,
    "bytes": int,
    "sha256": str,
    "licence": str,
    "origin": str,
    "tasks": list,
}


def _problems(table: Mapping[str, Any]) -> list[str]:
    problems = []
    for key in table:
        if key not in _TYPES:
            close = difflib.get_close_matches(key, _TYPES, n=1)
            problems.append(f"unknown key '{key}'" + (f", did you mean '{close[0]}'?" if close else ""))
    for key, kind in _TYPES.items():
        if key not in table:
            problems.append(f"'{key}' is missing")
        elif not isinstance(table[key], kind) or isinstance(table[key], bool):
            problems.append(f"'{key}' must be {kind.__name__}, not {type(table[key]).__name__}")
    if problems:
        return problems
    if table["family"] not in FAMILIES:
        problems.append(f"family '{table['family']}' is not one of {', '.join(FAMILIES)}")
    if not re.fullmatch(r"asset:[\w.-]+\.safetensors", table["file"]):
        problems.append(f"file '{table['file']}' is not of the form asset:NAME.safetensors")
    if not re.fullmatch(r"[0-9a-f]{64}", table["sha256"]):
        problems.append("sha256 must be 64 lower-case hexadecimal digits")
    if table["bytes"] < 0:
        problems.append("bytes must not be negative")
    unknown = [str(t) for t in table["tasks"] if t not in IDS]
    if unknown:
        problems.append(f"unknown tasks: {', '.join(unknown)}")
    return problems
