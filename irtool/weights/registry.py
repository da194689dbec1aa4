"""weights.toml read and checked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from ..degradation import IDS
from ..errors import IrtoolError, UnavailableError, UsageError, closest
from ..fileio import is_regular
from ..models.architectures import names
from ..tables import fill, number, parse_toml

DEFAULT_RESTORER = "irtool-small.v3"
DEFAULT_DETECTOR = "irtool-detector.v5"
DEFAULT_REPAIR = {"scratches": "irtool-scratches.v1", "fade": "irtool-fade.v1"}
DEFAULT_UPSCALER = "irtool-upscale-x{scale}.v1"

# What a published pickle may name beside tensors and plain containers, where a record asks for it.
ALLOWABLE = ("argparse.Namespace",)
_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class File:
    """One published file, or one set of tensors in it.

    Attributes:
        source: where it is: ``asset:NAME`` (ships in ``irtool/assets``), ``hf-hub:ORG/REPO@REVISION:PATH``,
            ``https://...``, ``npm:PACKAGE@VERSION:FILE``, or ``manual:NAME`` for what only a person can fetch.
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
        """ "asset", "hf-hub", "https", "npm" or "manual"."""
        return self.source.partition(":")[0]

    @property
    def name(self) -> str:
        """The name of the file itself."""
        return re.split(r"[:/]", self.source)[-1]


@dataclass(frozen=True)
class Score:
    """What was measured with a model on one task.

    Attributes:
        task: id of the degradation.
        set: what it was measured on, with the number of images.
        psnr: dB, mean over the images.
        default: dB of the default model on the same images under the same protocol.
        seconds: processor seconds a megapixel on one thread.
        eligible: it may be taken by ``--model best``; False where the set is unlike photographs.
        protocol: id of the rules of `irtool eval` that it was measured by; ``--model best`` goes by "canonical".
    """

    task: str
    set: str
    psnr: float = number(MISSING, 0, 100)
    default: float = number(MISSING, 0, 100)
    seconds: float = number(MISSING, 0, 1e6)
    eligible: bool = True
    protocol: str = "canonical"


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
        also: names of other files with the same weights, of which nothing else is known: a file with such a suffix is
            taken from a person where its tensors fit.
        scores: what was measured with it, one entry a task.
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
    also: tuple[str, ...] = ()
    scores: tuple[Score, ...] = ()

    @property
    def kind(self) -> str:
        """How its files come: "asset", "hf-hub", "https", "npm" or "manual"."""
        return self.files[0].kind

    def is_named(self, id: str) -> bool:
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
        if record.is_named(id):
            return record
    words = [*known, *(k.partition(".")[0] for k in known)]
    hint = closest(id, words, "irtool models lists them; a file is given as local:PATH.")
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


def companions(reference: str, family: str, header: Mapping[str, str]) -> tuple[str, ...]:
    """The models that a model is loaded with, as references.

    Args:
        reference: of the model.
        family: of its network.
        header: of its file, whose "needs" (JSON, a list) names them where irtool has trained it.

    Returns:
        Ids of known records, or files of this disk (``local:``) where the model is one too; of the latter, one of that
        name beside the model comes first.

    Raises:
        UnavailableError: the header is damaged.
        UsageError: it names something that is neither. A file that a person has named must not make irtool fetch from
            repositories that nobody has named, which it would do with that person's token.
    """
    try:
        named = json.loads(header.get("needs", "[]"))
    except (ValueError, RecursionError):
        named = None
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named) or len(named) > 8:
        raise UnavailableError(f"{reference} has a damaged header: needs.", "Export or fetch it again.")
    if not named:
        return needs(reference, family)
    return tuple(_companion(reference, name) for name in named)


def _companion(reference: str, name: str) -> str:
    if name.startswith("local:") and reference.startswith("local:"):
        sibling = Path(reference.removeprefix("local:")).parent / Path(name.removeprefix("local:")).name
        return f"local:{sibling}" if is_regular(sibling) else name
    if ":" not in name and any(record.is_named(name) for record in records()):
        return name
    raise UsageError(
        f"{reference} names '{name}' as a model that it needs, which is neither a known one nor a local file.",
        f"If you trust it, ask for it by name: --controller {name}.",
    )


def parse(text: str, name: str) -> tuple[Record, ...]:
    """Records from the text of a weights.toml; `name` is for messages.

    Raises:
        IrtoolError: the text is no TOML or breaks the schema; the message names every mistake at once.
    """
    try:
        tables = parse_toml(text, name).get("weights", [])
    except UsageError as error:
        raise IrtoolError(error.message) from error
    if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
        raise IrtoolError(f"{name}: 'weights' must be a list of tables, each begun by [[weights]].")
    problems: list[str] = []
    found: list[Record] = []
    ids = [table.get("id") for table in tables]
    for number_, table in enumerate(tables, 1):
        owner = str(table.get("id", f"record {number_}"))
        wrong: list[str] = []
        filled = fill(_Table, table, wrong)
        if filled is not None:
            wrong += _problems(filled, ids)
            found += [] if wrong else [_record(filled)]
        if table.get("id") in ids[: number_ - 1]:
            wrong.append("the id is used twice")
        problems += [f"{owner}: {problem}" for problem in wrong]
    if problems:
        raise IrtoolError(f"{name} has {len(problems)} problem(s): " + "; ".join(problems) + ".")
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A file as it is written; see `File`."""

    file: str
    bytes: int | None = number(None, 0, 10**15)
    sha256: str | None = None
    state: str = ""
    prefix: str = ""


@dataclass(frozen=True, kw_only=True)
class _Table:
    """A record as it is written; see `Record`. Its one file is written in the record, several are under `files`."""

    id: str
    family: str
    licence: str
    origin: str
    tasks: tuple[str, ...]
    page: str = ""
    needs: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    allow: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    scores: tuple[Score, ...] = ()
    files: tuple[_Part, ...] | None = None
    file: str | None = None
    bytes: int | None = number(None, 0, 10**15)
    sha256: str | None = None
    state: str = ""
    prefix: str = ""

    @property
    def parts(self) -> tuple[_Part, ...]:
        """Its files."""
        if self.files is not None:
            return self.files
        own = {f.name: getattr(self, f.name) for f in fields(_Part)}
        return (_Part(**own),) if self.file is not None else ()


_SOURCES = {
    "asset": r"asset:[\w.-]+\.safetensors",
    "hf-hub": r"hf-hub:[\w.-]+/[\w.-]+@[\w.-]+:[\w./ -]+",
    "https": r"https://\S+",
    "npm": r"npm:@?[\w.-]+(?:/[\w.-]+)?@[\w.-]+:[\w.-]+\.tgz",
    "manual": r"manual:[\w. -]+",
}


def _record(table: _Table) -> Record:
    files = tuple(File(part.file, part.bytes, part.sha256, part.state, part.prefix) for part in table.parts)
    own = {f.name: getattr(table, f.name) for f in fields(Record) if f.name != "files"}
    return Record(**own, files=files)


def _problems(table: _Table, ids: list[Any]) -> Iterator[str]:
    inline = [f.name for f in fields(_Part) if getattr(table, f.name) not in (None, "")]
    if table.files is not None and inline:
        yield "'files' excludes " + ", ".join(f"'{key}'" for key in inline)
        return
    if not table.parts:
        yield "'files' is empty" if table.files is not None else "'file' is missing"
    for part in table.parts:
        yield from _file_problems(part, table)
    if table.family not in names():
        yield f"family '{table.family}' is not one of {', '.join(names())}"
    if not re.fullmatch(r"[a-z0-9-]+\.[a-z0-9-]+", table.id):
        yield "an id is NAME.TAG, of lower-case letters, digits and hyphens"
    for score in table.scores:
        if score.task not in IDS:
            yield f"a score's task '{score.task}' is not one of {', '.join(IDS)}"
    for key, known in (("tasks", list(IDS)), ("needs", ids), ("allow", list(ALLOWABLE))):
        strange = [value for value in getattr(table, key) if value not in known]
        if strange:
            yield f"unknown {key}: {', '.join(strange)}"


def _file_problems(part: _Part, table: _Table) -> Iterator[str]:
    kind = part.file.partition(":")[0]
    if not re.fullmatch(_SOURCES.get(kind, "(?!)"), part.file) or ".." in part.file:
        yield (
            f"file '{part.file}' is not asset:NAME.safetensors, hf-hub:ORG/REPO@REVISION:PATH, https://..., "
            "npm:PACKAGE@VERSION:FILE.tgz or manual:NAME"
        )
    if kind == "manual" and not table.page:
        yield "a file that is fetched by hand needs a 'page'"
    for key in ("bytes", "sha256"):
        if kind in ("asset", "https", "npm") and getattr(part, key) is None:
            yield f"'{key}' is missing"
    if part.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", part.sha256):
        yield "sha256 must be 64 lower-case hexadecimal digits"
