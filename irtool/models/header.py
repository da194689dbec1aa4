"""What a safetensors file says of itself, read as the word of a stranger.

The format holds nothing that runs, and its library checks where tensors lie. The header's own entries are free text:
they must not make the reader fail in unknown ways, nor build a network that is larger than the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..errors import FileError, UnavailableError
from ..fileio import open_regular
from .architectures import Shapes

LARGEST_NUMBER = 10**6
LONGEST_LIST = 1000
DEEPEST = 6


def look(path: Path) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """Header and shapes of a file, the aliases among its tensors included.

    Raises:
        UnavailableError: the file is absent, no regular file, no safetensors, or its header is damaged.
    """
    try:
        open_regular(path).close()
        with safe_open(str(path), framework="pt") as file:
            header = dict(file.metadata() or {})
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except FileError as error:
        message = f"{path} does not exist" if not path.exists() else error.message
        raise UnavailableError(f"{message}.", "Give the path of a .safetensors file.") from error
    except (SafetensorError, OSError, ValueError, UnicodeError) as error:
        hint = "irtool download NAME mends a file that irtool has fetched."
        raise UnavailableError(f"{path} is not a readable safetensors file: {_short(error)}.", hint) from error
    for alias, key in aliases(header, path).items():
        if key not in shapes:
            raise UnavailableError(f"{path} has a damaged header: aliases.")
        shapes[alias] = shapes[key]
    return header, shapes


def aliases(header: Mapping[str, str], path: object) -> dict[str, str]:
    """Further names of tensors that a file holds once: alias -> name.

    Raises:
        UnavailableError: the header is damaged.
    """
    found = _json(header.get("aliases", "{}"))
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        raise UnavailableError(f"{path} has a damaged header: aliases.")
    return found


def config_of(header: Mapping[str, str], path: object) -> dict[str, Any]:
    """The keyword arguments of the network that a header names.

    Raises:
        UnavailableError: they are damaged, or ask for more than any network does.
    """
    return _table(header, "config", path)


def settings_of(header: Mapping[str, str], path: object) -> dict[str, Any]:
    """What the header says beside the tensors.

    Raises:
        UnavailableError: it is damaged.
    """
    return _table(header, "settings", path)


def _table(header: Mapping[str, str], key: str, path: object) -> dict[str, Any]:
    found = _json(header.get(key, "{}"))
    if not isinstance(found, dict) or not _is_modest(found, 0):
        raise UnavailableError(f"{path} has a damaged header: {key}.")
    return found


def guess(recognize: Callable[[Shapes], dict[str, Any] | None], shapes: Shapes) -> dict[str, Any] | None:
    """What a family makes of the shapes of a file; None where they are not its own, also where they trip it: a file of
    strangers may have the names of a family and shapes that no network of it has."""
    try:
        found = recognize(shapes)
    except Exception:  # an index, a division, a negative size: whatever comes of shapes that do not fit
        return None
    return found if found is None or _is_modest(found, 0) else None


def _json(text: str) -> Any:
    """A value of a header; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None


def _is_modest(value: Any, depth: int) -> bool:
    if isinstance(value, bool) or value is None:
        return True
    if isinstance(value, (int, float)):
        return abs(value) <= LARGEST_NUMBER  # NaN is not
    if isinstance(value, str):
        return len(value) <= LONGEST_LIST
    if isinstance(value, Mapping):
        inside = list(value.values())
    elif isinstance(value, (list, tuple)):
        inside = list(value)
    else:
        return False
    return depth < DEEPEST and len(inside) <= LONGEST_LIST and all(_is_modest(v, depth + 1) for v in inside)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
