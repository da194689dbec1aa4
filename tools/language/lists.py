"""The word lists (`words/*.toml`): per language, how people speak of each degradation (nouns, adjectives, verbs, whole
sentences), frames for requests, exceptions, denials and questions, words for strengths and orders, and requests that
irtool has no model for. `words/foreign.toml` has short lists of languages that irtool does not claim.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LANGUAGES = ("en", "zh", "es", "de", "fr", "ja")
UNSPACED = ("zh", "ja")
FOLDER = Path(__file__).parent / "words"
CHOICE = re.compile(r"\[([^\[\]]*/[^\[\]]*)\]")


@cache
def words(language: str) -> dict[str, Any]:
    """The word list of a language ("foreign": those of all unclaimed languages by code), its entries split at " | "."""
    with (FOLDER / f"{language}.toml").open("rb") as file:
        table = tomllib.load(file)

    def split(text: str) -> list[str]:
        return [" ".join(entry.split()) for entry in text.replace("\n", " ").split(" | ")]

    return {k: split(v) if isinstance(v, str) else {n: split(t) for n, t in v.items()} for k, v in table.items()}


def expansions(entry: str) -> list[str]:
    """All strings that the [alternatives/in/brackets] of an entry stand for."""
    match = CHOICE.search(entry)
    if match is None:
        return [entry]
    return [s for one in match[1].split("/") for s in expansions(entry[: match.start()] + one + entry[match.end() :])]
