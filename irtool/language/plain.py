"""The plainest sentences, by the book: one noun of the word lists in one of their frames ("take out the noise").

The text model gets nearly all of them right, and what everybody says must not fail at all. Anything else is left to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from ..degradation import IDS
from . import grammar
from .tokens import Token, normalise, tokenise

Words = tuple[str, ...]
_MARKS = frozenset(".!?,;。、")


def plain(tokens: list[Token]) -> tuple[str, slice] | None:
    """The degradation that a whole sentence asks to be undone, and which of its tokens name it; None if it is not so
    plain."""
    first, last = 0, len(tokens)
    while last and tokens[last - 1].text in _MARKS | _polite():
        last -= 1
    while first < last and tokens[first].text in _polite():
        first += 1
    said = tuple(token.text for token in tokens)
    for i in range(first, last):
        for j in range(last, i, -1):
            kind = _nouns().get(said[i:j])
            if kind and any((said[first:k], said[j:last]) in _frames() for k in _before(said, i)):
                return kind, slice(i, j)
    return None


def _before(said: Words, noun: int) -> Iterator[int]:
    """Where a frame may end before a noun: before it, and before its articles."""
    yield noun
    while noun and said[noun - 1] in articles():
        noun -= 1
        yield noun


def words(text: str) -> Words:
    """The tokens of an entry."""
    return tuple(token.text for token in tokenise(normalise(text)))


@lru_cache(maxsize=1)
def articles() -> frozenset[str]:
    """Words that may stand before a noun."""
    lists = [grammar.words(language)["the"] for language in grammar.LANGUAGES if language not in grammar.WIDE]
    return frozenset(word for entries in lists for entry in entries for word in words(entry))


@lru_cache(maxsize=1)
def _polite() -> frozenset[str]:
    """Single words before and behind a wish that add nothing."""
    lists = [grammar.words(language)[name] for language in grammar.LANGUAGES for name in ("please", "thanks")]
    split = [words(entry) for entries in lists for entry in entries]
    return frozenset(entry[0] for entry in split if len(entry) == 1)


@lru_cache(maxsize=1)
def _nouns() -> dict[Words, str]:
    """Nouns that stand for one degradation and no other."""
    found: dict[Words, set[str]] = {}
    for language in grammar.LANGUAGES:
        for kind in IDS:
            for entry in grammar.words(language)[kind]["n"]:
                found.setdefault(words(entry), set()).add(kind)
    return {noun: kinds.pop() for noun, kinds in found.items() if len(kinds) == 1}


@lru_cache(maxsize=1)
def _frames() -> set[tuple[Words, Words]]:
    """What stands before and behind the noun where it is to be undone, and nowhere else."""

    def of(act: str) -> set[tuple[Words, Words]]:
        found = set()
        for language in grammar.LANGUAGES:
            for frame in grammar.words(language)[act]["n"]:
                for settled in grammar.settlings(frame):
                    before, _, behind = settled.rstrip("".join(_MARKS)).partition("{n}")
                    if "{" not in before + behind:
                        found.add((words(before), words(behind)))
        return found

    return of("undo") - of("keep") - of("ask")
