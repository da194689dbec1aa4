"""Presets and the user's configuration: options of ``irtool restore`` and ``instruct`` that are kept in TOML files.

A key is the name of an option, such as ``max-memory``. An option is taken from the first of `PRECEDENCE` that sets it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from .errors import FileError, UsageError, closest
from .fileio import atomic_write, exists
from .tables import fill, number, read_toml

PRECEDENCE = ("command line", "environment (IRTOOL_...)", "preset", "user configuration", "default")
EXCLUSIVE = (("auto", "task", "adapter", "operator", "mask"), ("jobs", "on", "ask", "watch"))
"""Options that say the same thing in different ways: one of them that goes before overrides the others too."""
SHIPPED = Path(__file__).with_name("assets") / "presets"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Settings:
    """What a preset or the user's configuration may set; None leaves an option as it is.

    Attributes:
        about: a line on what a preset is for.
        preset: of the user's configuration alone: the preset to take where the command line names none.
        The others are the options of the same names.
    """

    about: str | None = None
    preset: str | None = None
    auto: bool | None = None
    task: tuple[str, ...] | None = None
    adapter: str | None = None
    operator: str | None = None
    strength: float | None = number(None, 0, 1)
    scale: int | None = number(None, 2, 4)
    upscaler: str | None = None
    model: str | None = None
    detector: str | None = None
    controller: str | None = None
    text_model: str | None = None
    steps: int | None = number(None, 1, 100_000)
    sampler: str | None = None
    seed: int | None = number(None, -(2**53), 2**53)
    guidance: str | None = None
    guidance_strength: float | None = None
    published: bool | None = None
    recursive: bool | None = None
    existing: str | None = None
    format: str | None = None
    name: str | None = None
    quality: int | None = number(None, 1, 100)
    strip: bool | None = None
    side_by_side: bool | None = None
    preview_steps: bool | None = None
    device: str | None = None
    dtype: str | None = None
    tile: str | None = None
    padding: str | None = None
    max_memory: str | None = None
    ensemble: bool | None = None
    threads: int | None = number(None, 1, 65535)
    jobs: str | None = None
    offline: bool | None = None
    log: str | None = None
    json: bool | None = None
    quiet: bool | None = None
    verbose: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """What is set, by option; without `about` and `preset`, which are none of the verbs' own."""
        found = {key: value for key, value in asdict(self).items() if value is not None}
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in found.items()
            if key not in ("about", "preset")
        }


KEYS = tuple(field.name for field in fields(Settings))


def parse(table: Mapping[str, Any], name: str) -> Settings:
    """The settings of a table; ``max-memory`` and ``max_memory`` are one key.

    Args:
        table: as read from TOML.
        name: of the file, for messages.

    Raises:
        UsageError: a key is unknown, or a value of the wrong type or out of range; all mistakes are named.
    """
    problems: list[str] = []
    settings = fill(Settings, {key.replace("-", "_"): value for key, value in table.items()}, problems)
    if settings is None or problems:
        raise UsageError(f"{name} has {len(problems)} problem(s): " + "; ".join(problems) + ".")
    return settings


def folder() -> Path:
    """Where the user's configuration and presets lie: IRTOOL_CONFIG, else as the system has it (platformdirs)."""
    if named := os.environ.get("IRTOOL_CONFIG"):
        return Path(named)
    from platformdirs import user_config_path

    return user_config_path("irtool", appauthor=False)


def configuration_file() -> Path:
    """The user's configuration, whether it is there or not."""
    return folder() / "config.toml"


def configuration() -> Settings:
    """The user's configuration; empty where there is none.

    Raises:
        FileError, UsageError: it cannot be read, or something in it is wrong.
    """
    path = configuration_file()
    return parse(read_toml(path), str(path)) if exists(path) else Settings()


def presets() -> dict[str, Path]:
    """Name -> file of all presets. The user's own go before those that ship."""
    found: dict[str, Path] = {}
    for place in (SHIPPED, folder() / "presets"):
        found |= {path.stem: path for path in sorted(place.glob("*.toml"))}
    return found


def find(name: str) -> Path:
    """The file of a preset: a name of `presets`, or a path that ends in ``.toml``.

    Raises:
        UsageError: there is none of that name.
    """
    if name.lower().endswith(".toml"):
        return Path(name)
    known = presets()
    if name not in known:
        raise UsageError(f"There is no preset '{name}'.", closest(name, known))
    return known[name]


def load(name: str) -> Settings:
    """The settings of a preset, named as for `find`.

    Raises:
        FileError, UsageError: it is not there, cannot be read, or something in it is wrong.
    """
    path = find(name)
    settings = parse(read_toml(path), str(path))
    if settings.preset is not None:
        raise UsageError(f"{path} has 1 problem(s): a preset names no other preset.", "Copy its keys instead.")
    return settings


def overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Options of two places; those of `above` go before, and override what excludes them (`EXCLUSIVE`)."""
    dropped = {key for group in EXCLUSIVE if any(above.get(key) for key in group) for key in group}
    return {key: value for key, value in below.items() if key not in dropped} | dict(above)


def to_toml(values: Mapping[str, Any]) -> str:
    """Settings as the text of a TOML file."""
    # Strings, numbers, booleans and lists of strings look in TOML as in JSON.
    lines = (f"{key.replace('_', '-')} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())
    return "".join(lines)


def save(name: str, values: Mapping[str, Any]) -> Path:
    """Write a preset of the user's; returns its file.

    Raises:
        UsageError: the name is none, or taken.
        FileError: it cannot be written.
    """
    if not _NAME.fullmatch(name) or name.lower().endswith(".toml"):
        raise UsageError(f"'{name}' is no name of a preset.", "Use letters, digits, - and _.")
    known = presets()
    if name in known:
        own = known[name].parent != SHIPPED
        raise UsageError(
            f"There is a preset '{name}' already: {known[name]}.",
            "Remove that file first, or choose another name." if own else "Choose another name.",
        )
    path = folder() / "presets" / f"{name}.toml"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{path.parent} cannot be created ({error.strerror}).", "Name one in IRTOOL_CONFIG.") from error
    return atomic_write(path, to_toml(values), replace=False)


def unkept(keys: Iterable[str]) -> list[str]:
    """Those of some options that no file may set, since they are of one run."""
    return [key for key in keys if key not in KEYS]
