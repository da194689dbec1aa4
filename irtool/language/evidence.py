"""Whether words can mean what they were taken for.

The text model guesses at words that it never met. Alone, such a guess is better than nothing; beside something that the
lists do know it is mostly wrong ("a dark picture from Dublin" is not blurred), so there it does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from functools import lru_cache

from .index import pairs, telling
from .spelling import listed
from .tokens import is_wide

ALIKE = 0.75
"""Likeness (Ratcliff and Obershelp) from which on a word that no list has may be a misspelt one."""


def speaks(words: Sequence[str], kind: str) -> bool:
    """Whether any of some words, or of their pairs of Chinese or Japanese characters, speaks for a degradation."""
    known = telling(kind)
    return any(unit in known or _misspelt(unit, kind) for unit in _units(words))


@lru_cache(maxsize=1024)
def _misspelt(word: str, kind: str) -> bool:
    if len(word) < 4 or not word.isascii() or listed(word):
        return False
    return bool(get_close_matches(word, telling(kind), 1, ALIKE))


def _units(words: Sequence[str]) -> list[str]:
    wide = [w if is_wide(w) else " " for w in words]
    return [w for w in words if not is_wide(w)] + pairs("".join(wide))
