"""The plainest sentences, by the book: one entry of the word lists in one of their frames ("take out the noise", "it is
too dark", "make it sharper"), or one of their whole sentences.

The text model gets nearly all of them right, and what everybody says must not fail at all. Anything else is left to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from ..degradation import IDS
from . import grammar
from .labels import OUTSIDE
from .spelling import latin
from .tokens import Token, normalise, tokenise

Words = tuple[str, ...]
SLOTS = "naogc"
"""Those of the lists that are read: nouns, adjectives, what to do, how it shall be, and whole requests."""
_MARKS = frozenset(".!?,;。、")


def plain(tokens: list[Token]) -> tuple[str, str, slice] | None:
    """What a sentence speaks of, what is to become of it and which tokens say so; None if it is not so plain."""
    said = tuple(token.text for token in tokens)
    first, last = _core(said)
    asking = bool(tokens) and tokens[-1].text == "?"
    if (found := _sentences().get(said[first:last])) and not (asking and found[0] in IDS):
        return *found, slice(first, last)
    for i in range(first, last):
        for j in range(last, i, -1):
            for slot, kind in _entries().get(said[i:j], {}).items():
                starts = _before(said, i) if slot == "n" else (i,)
                if any((said[first:k], said[j:last]) in _frames(slot, asking) for k in starts):
                    return kind, "undo", slice(i, j)
    return None


def _core(said: Words) -> tuple[int, int]:
    """Where a sentence begins and ends but for marks and what is merely polite."""
    first, last = 0, len(said)
    while last and said[last - 1] in _MARKS | _polite():
        last -= 1
    while first < last and said[first] in _polite():
        first += 1
    return first, last


def _before(said: Words, noun: int) -> Iterator[int]:
    """Where a frame may end before a noun: before it, and before its articles."""
    yield noun
    while noun and said[noun - 1] in articles():
        noun -= 1
        yield noun


def words(entry: str) -> Words:
    """The tokens of an entry."""
    if entry.isascii() and entry.replace(" ", "").replace("'", "").isalpha():  # most are: no need to look closer
        return tuple(latin(entry))
    return tuple(token.text for token in tokenise(normalise(entry)))


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
def _sentences() -> dict[Words, tuple[str, str]]:
    """Whole sentences that mean one thing, with what they speak of and what is to become of it."""
    found: dict[Words, set[tuple[str, str]]] = {}
    for language in grammar.LANGUAGES:
        lists = grammar.words(language)
        for name, kind, act in (
            *((kind, kind, "undo") for kind in (*IDS, "auto", *OUTSIDE)),
            ("nothing", "auto", "keep"),
            ("ask", "auto", "ask"),
        ):
            for entry in lists[name]["s"]:
                if "{" not in entry:
                    said = words(entry)
                    found.setdefault(said[slice(*_core(said))], set()).add((kind, act))
    return {sentence: meant.pop() for sentence, meant in found.items() if len(meant) == 1}


@lru_cache(maxsize=1)
def _entries() -> dict[Words, dict[str, str]]:
    """Entries that stand for one degradation and nothing else: for each slot that they fill, for which."""
    found: dict[Words, dict[str, set[str]]] = {}
    for language in grammar.LANGUAGES:
        for kind in (*IDS, "auto"):
            for slot in SLOTS:
                for entry in grammar.words(language)[kind].get(slot, ()):
                    if "{" not in entry:
                        found.setdefault(words(entry), {}).setdefault(slot, set()).add(kind)
    sole = {e: slots for e, slots in found.items() if len(set.union(*slots.values()) - {"auto"}) == 1}
    return {e: {s: min(k) for s, k in slots.items() if "auto" not in k} for e, slots in sole.items()}


@lru_cache(maxsize=2 * len(SLOTS))
def _frames(slot: str, asking: bool) -> set[tuple[Words, Words]]:
    """What stands before and behind an entry where it is to be undone, and nowhere else in sentences with or without a
    question mark."""

    def of(act: str) -> set[tuple[Words, Words]]:
        found = set()
        for language in grammar.LANGUAGES:
            for frame in grammar.words(language)[act].get(slot, ()):
                if act == "ask" and not asking and frame.endswith("?"):
                    continue
                for settled in grammar.settlings(frame):
                    before, _, behind = settled.rstrip("".join(_MARKS)).partition(f"{{{slot}}}")
                    if "{" not in before + behind:
                        found.add((words(before), words(behind)))
        return found

    return of("undo") - of("keep") - of("ask")
