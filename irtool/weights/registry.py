"""weights.toml read and checked."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ..degradation import IDS
from ..errors import IrtoolError, UsageError, closest, nearest
from ..models.architectures import names

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_RESTORER = "irtool-small.v1"
DEFAULT_DETECTOR = "irtool-detector.v1"

# What a published pickle may name beside tensors and plain containers, where a record asks for it.
ALLOWABLE = ("argparse.Namespace",)
_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class File:
    """One published file, or one set of tensors in it.

    Attributes:
        source: where it is: ``asset:NAME`` (ships in ``irtool/assets``), ``hf-hub:ORG/REPO@REVISION:PATH``,
            ``https://...``, or ``manual:NAME`` for what only a person can fetch.
        bytes: its size; None where it is not known.
        sha256: lower-case hexadecimal; None where it is not known.
        state: place of the tensors inside a pickle, such as ``state_dict.model_R``; empty to find them.
        prefix: put before the names of its tensors.
    """

    source: str
    bytes: int | None = None
    sha256: str | None = None
    state: str = ""
    prefix: str = ""

    @property
    def kind(self) -> str:
        """ "asset", "hf-hub", "https" or "manual"."""
        return self.source.partition(":")[0]

    @property
    def name(self) -> str:
        """The name of the file itself."""
        return re.split(r"[:/]", self.source)[-1]


@dataclass(frozen=True)
class Record:
    """One checkpoint.

    Attributes:
        id: ``architecture.tag``.
        family: the network it fits, one of `irtool.models.architectures.names`.
        files: what it is made of, mostly one file.
        licence: SPDX expression of the weights, as their authors state it.
        origin: who trained it and on what.
        tasks: ids of the degradations it removes or finds.
        page: where a person reads about it, and downloads it where no program can.
        needs: ids of the records it does not work without, such as the controller of a restorer.
        settings: what the network's wrapper must know beside the tensors, such as the noise level of a process.
        allow: classes its pickle may name, of `ALLOWABLE`.
    """

    id: str
    family: str
    files: tuple[File, ...]
    licence: str
    origin: str
    tasks: tuple[str, ...] = ()
    page: str = ""
    needs: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    allow: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """How its files come: "asset", "hf-hub", "https" or "manual"."""
        return self.files[0].kind

    def called(self, id: str) -> bool:
        """Whether `id` is its id, with or without the tag."""
        return id in (self.id, self.id.partition(".")[0])

    @property
    def originals(self) -> tuple[File, ...]:
        """Its files, each once."""
        return tuple({file.source: file for file in self.files}.values())

    @property
    def bytes(self) -> int | None:
        """Size of its files together; None where one is not known."""
        sizes = [file.bytes for file in self.originals]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @property
    def path(self) -> Path:
        """Where the file of a record that ships belongs, whether it is there or not."""
        return _PACKAGE / "assets" / self.files[0].name


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
    """The record called `id`; a name without its tag stands for the first record of that name.

    Raises:
        UsageError: there is none; the hint names the closest one.
    """
    known = {r.id: r for r in records()}
    if id in known:
        return known[id]
    for record in known.values():
        if record.called(id):
            return record
    names_of_all = [*known, *(k.partition(".")[0] for k in known)]
    hint = closest(id, names_of_all, "irtool models lists them; a file is given as local:PATH.")
    raise UsageError(f"There is no model '{id}'.", hint)


def restorers() -> tuple[Record, ...]:
    """The restorers that ship with irtool, all sizes of one network."""
    return tuple(record for record in records() if record.kind == "asset" and record.family == "compact")


def needs(reference: str, family: str) -> tuple[str, ...]:
    """Ids of the models that the one called `reference` does not work without.

    Args:
        reference: an id, or a file (``local:``, ``hf-hub:``), for which the first record of its family speaks.
        family: of the network, as `irtool.models.loading.describe` gives it.
    """
    if ":" not in reference:
        return get(reference).needs
    return next((record.needs for record in records() if record.family == family), ())


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
    ids = [table.get("id") for table in tables]
    for number, table in enumerate(tables, 1):
        owner = str(table.get("id", f"record {number}"))
        problems += [f"{owner}: {problem}" for problem in _problems(table, ids)]
        if table.get("id") in ids[: number - 1]:
            problems.append(f"{owner}: the id is used twice")
    if problems:
        raise IrtoolError(f"{name} has {len(problems)} problem(s): " + "; ".join(problems) + ".")
    return tuple(_record(table) for table in tables)


_FILE: dict[str, type] = {"file": str, "bytes": int, "sha256": str, "state": str, "prefix": str}
_KEYS: dict[str, type] = {
    "id": str,
    "family": str,
    "licence": str,
    "origin": str,
    "tasks": list,
    "page": str,
    "needs": list,
    "settings": dict,
    "allow": list,
    "files": list,
    **_FILE,
}
_ALWAYS = ("id", "family", "licence", "origin", "tasks")
_SOURCES = {
    "asset": r"asset:[\w.-]+\.safetensors",
    "hf-hub": r"hf-hub:[\w.-]+/[\w.-]+@[\w.-]+:[\w./ -]+",
    "https": r"https://\S+",
    "manual": r"manual:[\w. -]+",
}


def _record(table: Mapping[str, Any]) -> Record:
    own = {key: value for key, value in table.items() if key not in _FILE and key != "files"}
    files = tuple(File(**{"source" if k == "file" else k: v for k, v in part.items()}) for part in _parts(table))
    lists = {key: tuple(value) for key, value in own.items() if isinstance(value, list)}
    return Record(**{**own, **lists, "files": files})


def _parts(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The files of a record: a list under `files`, or the one that is written in the record itself."""
    return list(table["files"]) if "files" in table else [{k: v for k, v in table.items() if k in _FILE}]


def _problems(table: Mapping[str, Any], ids: list[Any]) -> Iterator[str]:
    wrong = [*_misfits(table, _KEYS), *(f"'{key}' is missing" for key in _ALWAYS if key not in table)]
    if "files" in table and any(key in table for key in _FILE):
        wrong.append("'files' excludes " + ", ".join(f"'{key}'" for key in _FILE))
    if wrong:
        yield from wrong
        return
    parts = _parts(table)
    if not parts:
        yield "'files' is empty"
    for part in parts:
        yield from _file_problems(part, table)
    if table["family"] not in names():
        yield f"family '{table['family']}' is not one of {', '.join(names())}"
    if not re.fullmatch(r"[a-z0-9-]+\.[a-z0-9-]+", table["id"]):
        yield "an id is NAME.TAG, of lower-case letters, digits and hyphens"
    for key, known in (("tasks", list(IDS)), ("needs", ids), ("allow", list(ALLOWABLE))):
        unknown = [str(value) for value in table.get(key, ()) if value not in known]
        if unknown:
            yield f"unknown {key}: {', '.join(unknown)}"


def _file_problems(part: Any, table: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(part, dict):
        yield "each of 'files' must be a table"
        return
    wrong = [*_misfits(part, _FILE), *(["'file' is missing"] if "file" not in part else [])]
    if wrong:
        yield from wrong
        return
    source = part["file"]
    kind = source.partition(":")[0]
    if not re.fullmatch(_SOURCES.get(kind, "(?!)"), source) or ".." in source:
        yield (
            f"file '{source}' is not asset:NAME.safetensors, hf-hub:ORG/REPO@REVISION:PATH, https://... or manual:NAME"
        )
    if kind == "manual" and not table.get("page"):
        yield "a file that is fetched by hand needs a 'page'"
    for key in ("bytes", "sha256"):
        if kind in ("asset", "https") and key not in part:
            yield f"'{key}' is missing"
    if not re.fullmatch(r"[0-9a-f]{64}", part.get("sha256", "0" * 64)):
        yield "sha256 must be 64 lower-case hexadecimal digits"
    if part.get("bytes", 0) < 0:
        yield "bytes must not be negative"


def _misfits(table: Mapping[str, Any], types: Mapping[str, type]) -> Iterator[str]:
    """Keys that nobody knows, and values of the wrong type."""
    for key, value in table.items():
        if key not in types:
            close = nearest(key, types)
            yield f"unknown key '{key}'" + (f", did you mean '{close}'?" if close else "")
        elif not isinstance(value, types[key]) or isinstance(value, bool):
            yield f"'{key}' must be {types[key].__name__}, not {type(value).__name__}"
