"""Whether words can mean what they were taken for.

The text model guesses at words that it never met. Alone, such a guess is better than nothing; beside something that the
lists do know it is mostly wrong ("a dark picture from Dublin" is not blurred), so there it does not count.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from functools import lru_cache

from ..degradation import IDS
from . import grammar
from .spelling import entries, latin, listed
from .tokens import is_wide, normalise

OFTEN = 2.0
"""How much more often than elsewhere the lists have a word for a kind, if it speaks for it."""
ALIKE = 0.75
"""Likeness (Ratcliff and Obershelp) from which on a word that no list has may be a misspelt one."""


def speaks(words: Sequence[str], kind: str) -> bool:
    """Whether any of some words, or of their pairs of Chinese or Japanese characters, speaks for a degradation."""
    telling = _telling()[kind]
    return any(unit in telling or _misspelt(unit, kind) for unit in _units(words))


@lru_cache(maxsize=1024)
def _misspelt(word: str, kind: str) -> bool:
    if len(word) < 4 or not word.isascii() or listed(word):
        return False
    return bool(get_close_matches(word, _telling()[kind], 1, ALIKE))


def _units(words: Sequence[str]) -> list[str]:
    wide = [w if is_wide(w) else " " for w in words]
    return [w for w in words if not is_wide(w)] + _pairs("".join(wide))


def _pairs(text: str) -> list[str]:
    return [a + b for a, b in itertools.pairwise(text) if is_wide(a) and is_wide(b)] + re.findall(
        "[\u4e00-\u9fff]", text
    )


@lru_cache(maxsize=1)
def _telling() -> dict[str, frozenset[str]]:
    """For each degradation the words, characters and pairs of characters that the lists have for it above all."""
    counts = {kind: Counter[str]() for kind in IDS}
    for language in grammar.LANGUAGES:
        for kind in IDS:
            text = " . ".join(entries(grammar.words(language)[kind]))
            counts[kind].update(_pairs(normalise(text)) if language in grammar.WIDE else latin(text))
    total = Counter[str]()
    for count in counts.values():
        total.update(count)
    size = sum(total.values())
    sizes = {kind: sum(count.values()) for kind, count in counts.items()}
    return {
        kind: frozenset(w for w, n in count.items() if n * size > OFTEN * total[w] * sizes[kind])
        for kind, count in counts.items()
    }
