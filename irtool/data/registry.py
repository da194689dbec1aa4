"""datasets.toml read and checked; a user's own sets in the same words."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from ..degradation import lookup
from ..errors import FileError, IrtoolError, UsageError, closest
from ..fileio import read_text, resolved
from ..tables import LARGEST_FILE, fill, number, parse_toml
from ..weights.registry import File
from .protocol import get_protocol


@dataclass(frozen=True)
class Known:
    """PSNR of a complete degraded set against its ground truth.

    Attributes:
        psnr: in dB, mean over pictures.
        protocol: it was taken under.
        within: dB that decoders may differ by.
        source: where the figure is from; empty where it was measured on the complete set.
    """

    psnr: float
    protocol: str = "canonical"
    within: float = 0.05
    source: str = ""


@dataclass(frozen=True)
class Dataset:
    """One data set; `datasets.toml` says what each field means.

    Attributes beyond that file's:
        lq, gt: folders of a user's own set, beside its file; empty for those that irtool knows.
        archive: what a program may fetch; None for most.
    """

    name: str
    title: str = ""
    task: str = ""
    page: str = ""
    licence: str = "NOASSERTION"
    pairs: int = number(0, 0, 10**9)
    layout: str = ""
    degrade: tuple[str, ...] = ()
    protocol: str = "canonical"
    suites: tuple[str, ...] = ()
    names: str = ""
    input: Known | None = None
    note: str = ""
    lq: str = ""
    gt: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    archive: File | None = None
    members: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Archive:
    """An archive as it is written; see `irtool.weights.registry.File`."""

    file: str
    sha256: str | None = None
    bytes: int | None = number(None, 0, 10**15)


@dataclass(frozen=True, kw_only=True)
class _Table(Dataset):
    """A data set as it is written."""

    archive: _Archive | None = None  # type: ignore[assignment]


@cache
def datasets() -> tuple[Dataset, ...]:
    """All that irtool knows, in the order of the file."""
    path = Path(__file__).with_name("datasets.toml")
    return parse(path.read_text(encoding="utf-8"), path.name, chains=False)


def get_dataset(name: str) -> Dataset:
    """The data set called `name`; a path ending in .toml stands for a user's own set.

    Raises:
        UsageError: there is none (the hint names the closest), or the file breaks the rules; every mistake is named.
    """
    if name.endswith(".toml"):
        return read_custom_data_set(Path(name))
    known = {d.name: d for d in datasets()}
    if name in known:
        return known[name]
    raise UsageError(f"There is no data set '{name}'.", f"{closest(name, known)} irtool eval datasets lists them.")


def read_custom_data_set(path: Path) -> Dataset:
    """A user's own set: the words of datasets.toml, with `lq` and `gt`, folders relative to the file.

    Raises:
        UsageError: it cannot be read, or breaks the rules.
    """
    try:
        text = read_text(path, LARGEST_FILE)
    except FileError as error:
        raise UsageError(f"{error.message}.", error.hint) from error
    try:
        found = parse(text, str(path))
    except IrtoolError as error:
        raise UsageError(error.message, error.hint) from error
    if len(found) != 1:
        raise UsageError(f"{path} describes {len(found)} data sets; one is wanted.", "Begin it with [[dataset]].")
    data_set = found[0]
    if not data_set.gt:
        raise UsageError(f"{path} does not say where its pictures are.", 'Add gt = ["FOLDER"], and lq = "FOLDER".')
    home = resolved(path).parent
    return replace(
        data_set,
        lq=str(home / data_set.lq) if data_set.lq else "",
        gt=tuple(str(home / folder) for folder in data_set.gt),
    )


def parse(text: str, name: str, *, chains: bool = True) -> tuple[Dataset, ...]:
    """Data sets from the text of a TOML file; `name` is for messages.

    Args:
        chains: check the degradations too, which imports torch; irtool's own file is checked by a test.

    Raises:
        IrtoolError: the text is no TOML or breaks the rules; the message names every mistake at once.
    """
    try:
        tables = parse_toml(text, name).get("dataset", [])
    except UsageError as error:
        raise IrtoolError(error.message) from error
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise IrtoolError(f"{name}: 'dataset' must be a list of tables, each begun by [[dataset]].")
    names = [table.get("name") for table in tables]
    problems = [f"'{n}' comes twice" for n in dict.fromkeys(n for n in names if n is not None and names.count(n) > 1)]
    found = []
    for number_, table in enumerate(tables, 1):
        wrong: list[str] = []
        filled = fill(_Table, table, wrong)
        wrong += _problems(table, chains)
        problems += [f"{table.get('name', f'table {number_}')}: {problem}" for problem in wrong]
        if filled is not None and not wrong:
            found.append(_dataset(filled))
    if problems:
        raise IrtoolError(f"{name}: " + "; ".join(problems) + ".")
    return tuple(found)


def _problems(table: Mapping[str, Any], chains: bool) -> Iterable[str]:
    """Words that stand for nothing, whatever else is wrong with the table."""
    checks: list[tuple[Callable[[str], Any], list[Any]]] = [
        (lookup, [table.get("task")]),
        (get_protocol, [table.get("protocol")]),
    ]
    degrade = table.get("degrade", [])
    if chains and degrade and isinstance(degrade, list):
        from ..synth import parse as parse_chain

        checks.append((parse_chain, degrade))
    for check, values in checks:
        for value in values:
            if isinstance(value, str) and value:
                try:
                    check(value)
                except UsageError as error:
                    yield error.message.rstrip(".")


def _dataset(table: _Table) -> Dataset:
    values = {f.name: getattr(table, f.name) for f in fields(_Table)}
    archive = table.archive
    return Dataset(**values | {"archive": archive and File(archive.file, archive.bytes, archive.sha256)})


def names_hash(names: Sequence[str]) -> str:
    """sha256 over sorted names, each closed by a newline."""
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(names)).encode()).hexdigest()
