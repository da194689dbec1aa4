"""Misspelt words put right before they are tagged.

The text model knows a misspelt word by what letters it shares with the right one; where the slip is plain, the right
word is better. Plain is: the word is in no list of ours, one that begins alike is, and between them lies one slip of
a typist. Two real words can be one letter apart ("snake", "shake"), so a letter is taken for another only where the
keys are neighbours, both are vowels, or they sound alike; and short words are only mended where two letters have
changed places, the last one stands twice, or (in words of five letters) a vowel is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from .index import index
from .tokens import Token

SHORT = 6
"""Letters from which on a word may have a letter too many, too few or another one."""
_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_VOWELS = "aeiouy"
_DRAWN = re.compile(r"([a-z])\1{2,}")
_LIKE = (_VOWELS, "sz", "ckq", "iy", "fv", "dt", "bp", "mn")


def mend(tokens: list[Token]) -> list[Token]:
    """The tokens with plain slips put right."""
    return [replace(t, text=_right(t.text)) for t in tokens]


@lru_cache(maxsize=4096)
def _right(word: str) -> str:
    counts = index().counts
    if word in counts or len(word) < 4 or not word.isascii() or not word.isalpha():
        return word
    if _DRAWN.search(word):  # "sooo daaark"
        shorter = (_DRAWN.sub(r"\1" * n, word) for n in (1, 2))
        return next((w for w in shorter if w in counts), _DRAWN.sub(r"\1\1", word))
    if word[-1] == word[-2] and word[:-1] in counts:
        return word[:-1]
    found = [w for w in _near(word[0], len(word)) if _slip(word, w)]
    return max(found, key=lambda w: (_alike(word, w), counts[w], w)) if found else word


def _slip(wrong: str, right: str) -> bool:
    """Whether one slip leads from a word to the other."""
    if wrong[0] != right[0]:
        return False
    at = _alike(wrong, right)
    a, b = wrong[at:], right[at:]
    if len(a) == len(b):
        swapped = a[:2] == b[1::-1] and a[2:] == b[2:]
        return swapped or (len(wrong) >= SHORT and a[1:] == b[1:] and b[0] in _confused()[a[0]])
    least = SHORT - 1 if a == b[1:] and b[0] in _VOWELS else SHORT
    return len(wrong) >= least and (a[1:] == b or a == b[1:])


def _alike(a: str, b: str) -> int:
    """Letters that two words begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@lru_cache(maxsize=1)
def _confused() -> dict[str, set[str]]:
    """For each letter, those that it is typed for."""
    found: dict[str, set[str]] = {letter: set() for row in _KEYBOARD for letter in row}
    for group in (*_LIKE, *(row[i : i + 2] for row in _KEYBOARD for i in range(len(row) - 1))):
        for letter in group:
            found[letter] |= set(group)
    return found


def listed(word: str) -> bool:
    """Whether the lists have a word of Latin letters."""
    return word in index().counts


def _near(first: str, length: int) -> Iterator[str]:
    """The words of the lists that begin with a letter and are at most one letter longer or shorter than a length."""
    return (w for w in index().counts if w[0] == first and len(w) >= 4 and abs(len(w) - length) <= 1)
