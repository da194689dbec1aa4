"""The word lists (`words/*.toml`): per language, how people speak of each degradation (nouns, adjectives, verbs, whole
sentences), frames that say what is to become of it (undo, keep, ask), words for strengths and orders, and much that
lies outside.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LANGUAGES = ("en", "zh", "es", "de", "fr", "ja")
WIDE = ("zh", "ja")
FOLDER = Path(__file__).parent / "words"
CHOICE = re.compile(r"\[([^\[\]]*/[^\[\]]*)\]")


@cache
def words(language: str) -> dict[str, Any]:
    """The word list of a language, its entries split."""
    with (FOLDER / f"{language}.toml").open("rb") as file:
        table = tomllib.load(file)

    def split(text: str) -> list[str]:
        return [" ".join(entry.split()) for entry in text.replace("\n", " ").split(" | ")]

    return {k: split(v) if isinstance(v, str) else {n: split(t) for n, t in v.items()} for k, v in table.items()}


def settlings(entry: str) -> list[str]:
    """All that an entry's [alternatives/in/brackets] can be settled to."""
    match = CHOICE.search(entry)
    if match is None:
        return [entry]
    return [s for one in match[1].split("/") for s in settlings(entry[: match.start()] + one + entry[match.end() :])]


def entries(part: Any) -> Iterator[str]:
    """All entries of a part of a word list."""
    if isinstance(part, dict):
        for inner in part.values():
            yield from entries(inner)
    else:
        yield from part
