"""The plainest sentences, by the book: one entry of the word lists in one of their frames ("take out the noise", "it is
too dark", "make it sharper"), or one of their whole sentences.

The text model gets nearly all of them right, and what everybody says must not fail at all. Anything else is left to it.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..degradation import IDS
from .index import GAP, core, index
from .tokens import Token

SLOTS = "naogc"
"""Those of the lists that are read: nouns, adjectives, what to do, how it shall be, and whole requests."""
PLACING = ("on", "in", "of", "at", "behind", "auf", "im", "von", "sur", "dans", "de", "en", "sobre", "del")
"""What says where a thing is."""


def plain(tokens: list[Token]) -> tuple[str, str, slice] | None:
    """What a sentence speaks of, what is to become of it and which tokens say so; None if it is not so plain."""
    said = [token.text for token in tokens]
    lists = index()
    first, last = core(said, lists.polite)
    asking = bool(tokens) and tokens[-1].text == "?"
    if (found := lists.sentences.get(" ".join(said[first:last]))) and not (asking and found[0] in IDS):
        return found[0], found[1], slice(first, last)
    for i in range(first, last):
        for j in range(last, i, -1):
            for slot, kind in lists.entries.get(" ".join(said[i:j]), {}).items():
                if slot not in SLOTS:
                    continue
                starts = before(said, i) if slot == "n" else (i,)
                if any(_undoes(slot, [*said[first:k], GAP, *said[j:last]], asking) for k in starts):
                    return kind, "undo", slice(i, j)
    return None


def before(said: list[str], noun: int) -> Iterator[int]:
    """Where a frame may end before a noun: before it, and before its articles."""
    yield noun
    while noun and said[noun - 1] in index().articles:
        noun -= 1
        yield noun


def _undoes(slot: str, frame: list[str], asking: bool) -> bool:
    """Whether a frame is one of what is to be undone, and of nothing else in sentences with or without a question
    mark."""
    acts = index().frames[slot].get(" ".join(frame), "")
    return "u" in acts and not set(acts) - set("u" if asking else "uA")
