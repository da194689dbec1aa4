"""Tables that people write: TOML into dataclasses and CSV into rows, with every mistake named at once.

The dataclass is the schema: its annotations are the types, its defaults say what may be left out, and `number` gives a
field its range. Supported are str, bool, int, float, tuples of these, mappings to float or to plain values, and tuples
of other dataclasses.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from .errors import UsageError, nearest
from .fileio import read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")
LARGEST_FILE = 64 * 2**20
"""Bytes of a table that are read; no list of pictures comes near."""
LARGEST_INT = 2**53
DEEPEST = 4
_NAMES: dict[Any, str] = {str: "str", int: "int", float: "float", bool: "bool"}


def parse_toml(text: str, name: str) -> dict[str, Any]:
    """The table of a TOML text; `name` is for messages.

    Raises:
        UsageError: it is no TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{name} is not valid TOML: {error}.") from error
    except (RecursionError, ValueError) as error:  # nested thousands deep; a number of thousands of digits
        raise UsageError(f"{name} is not valid TOML: nested too deeply, or a number too long.") from error


def read_toml(path: Path) -> dict[str, Any]:
    """The table of a TOML file.

    Raises:
        FileError: it cannot be read.
        UsageError: it is no TOML.
    """
    return parse_toml(read_text(path, LARGEST_FILE), str(path))


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table, as `numbered_rows` gives them, without their lines."""
    return [row for _, row in numbered_rows(path)]


def numbered_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows of a table with a header, each with the line it ends on. Columns are separated by tabs, commas or
    semicolons, as the header shows.

    Raises:
        FileError: it cannot be read.
        UsageError: it is no such table.
    """
    text = read_text(path, LARGEST_FILE)
    head = text.partition("\n")[0]
    # Excel separates by semicolons where the comma is the decimal mark.
    delimiter = "," if path.suffix.lower() == ".csv" else "\t"
    if delimiter not in head:
        delimiter = next((mark for mark in "\t,;" if mark in head), delimiter)
    try:
        if "\0" in text:
            raise csv.Error("it holds NUL characters")
        read = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
        return [
            (read.line_num, {key: value or "" for key, value in row.items() if isinstance(key, str)}) for row in read
        ]
    except csv.Error as error:
        raise UsageError(f"{path} is no table: {error}.") from error


def number(default: Any, least: float, most: float, *, above: bool = False, below: bool = False) -> Any:
    """A field of a dataclass that is an int or a float within a range.

    Args:
        default: where nothing is said; `dataclasses.MISSING` for a field that must be given.
        least, most: the range, both included.
        above, below: `least`, or `most`, itself is excluded.
    """
    return dataclasses.field(default=default, metadata={"range": (least, most, above, below)})


def fill(cls: type[T], table: Mapping[str, Any], problems: list[str], place: str = "") -> T | None:
    """An instance of a dataclass from a table.

    Args:
        cls: the dataclass.
        table: as read.
        problems: gets a phrase for everything that is wrong.
        place: put before every phrase.

    Returns:
        The instance with what was right, defaults for the rest; None where something without a default is missing.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = _hints(cls)  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in fields:
            problems.append(f"{place}unknown key {unknown(key, fields)}")
            continue
        before = len(problems)
        found = _value(hints[key], value, f"{place}{key}", problems)
        if len(problems) == before and "range" in fields[key].metadata:
            problems += _range(f"{place}{key}", found, *fields[key].metadata["range"])
        if found is not None and (len(problems) == before or not isinstance(found, (int, float))):
            values[key] = found
    required = [f.name for f in fields.values() if f.default is f.default_factory is dataclasses.MISSING]
    problems += [f"{place}'{name}' is missing" for name in required if name not in table]
    return cls(**values) if all(name in values for name in required) else None


def unknown(word: str, known: Iterable[str]) -> str:
    """A phrase about a word that is not known, with the closest that is."""
    close = nearest(word, known)
    return f"'{word}'" + (f", did you mean '{close}'?" if close else "")


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _value(kind: Any, value: Any, place: str, problems: list[str]) -> Any:
    """A value as a type wants it; None, or what is left of a table, where it is wrong."""
    arguments = get_args(kind)
    if type(None) in arguments:  # T | None
        kind = next(a for a in arguments if a is not type(None))
        arguments = get_args(kind)
    origin = get_origin(kind)
    if kind in (float, int) and isinstance(value, (int, kind)) and not isinstance(value, bool):
        return _number(kind, value, place, problems)
    if kind in (str, bool) and isinstance(value, kind):
        return value
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return fill(kind, value, problems, f"{place}: ")  # type: ignore[arg-type]
    if origin is tuple:
        return _list(arguments[0], value, place, problems)
    if origin is not None and issubclass(origin, Mapping) and isinstance(value, Mapping):
        if arguments[1] is float:
            read = {k: _value(float, v, f"{place}.{k}", problems) for k, v in value.items()}
            return {k: v for k, v in read.items() if v is not None}
        problems += _plain(value, place)
        return value
    expected = "table" if origin is not None or dataclasses.is_dataclass(kind) else _NAMES[kind]
    problems.append(f"{place}: expected {expected}, found {type(value).__name__}")
    return None


def _number(kind: Any, value: float, place: str, problems: list[str]) -> float | None:
    if kind is float:
        if abs(value) <= sys.float_info.max:  # NaN is not
            return float(value)
        problems.append(f"{place}: a finite number, not {value}")
        return None
    if abs(value) <= LARGEST_INT:
        return value
    problems.append(f"{place}: at most {LARGEST_INT}")
    return None


def _list(kind: Any, value: Any, place: str, problems: list[str]) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if isinstance(value, (list, tuple)) and all(isinstance(v, Mapping) for v in value):
            filled = [fill(kind, v, problems, f"{place}: entry {i + 1}: ") for i, v in enumerate(value)]
            return tuple(entry for entry in filled if entry is not None)
        problems.append(f"{place}: expected tables, found {type(value).__name__}")
        return None
    listed: Sequence[Any] = (value,) if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple)):
        problems.append(f"{place}: expected list of {_NAMES[kind]}, found {type(value).__name__}")
        return None
    wrong = [v for v in listed if not isinstance(v, kind)]
    if wrong:
        problems.append(f"{place}: expected list of {_NAMES[kind]}, found {type(wrong[0]).__name__} in it")
    return tuple(v for v in listed if isinstance(v, kind))  # what is right may be wrong otherwise, which is said too


def _range(place: str, value: float, least: float, most: float, above: bool, below: bool) -> list[str]:
    if (value > least if above else value >= least) and (value < most if below else value <= most):
        return []
    low = f"above {least:g}" if above else f"{least:g} or more"
    return [f"{place}: {low} and {'below' if below else 'at most'} {most:g}, not {value}"]


def _plain(value: Any, place: str, depth: int = 0) -> list[str]:
    """What is wrong with a table whose keys nobody knows: numbers without bound, and nesting."""
    if depth > DEEPEST:
        return [f"{place}: nested more than {DEEPEST} deep"]
    if isinstance(value, Mapping):
        return [p for k, v in value.items() for p in _plain(v, f"{place}.{k}", depth + 1)]
    if isinstance(value, (list, tuple)):
        return [p for v in value for p in _plain(v, place, depth + 1)]
    if isinstance(value, (int, float)) and not abs(value) <= LARGEST_INT:  # NaN is no more than anything
        return [f"{place}: a finite number, at most {LARGEST_INT}"]
    return []
