"""Which labeled spans are requests, and in which order: what the text model cannot tell from single labels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from ..degradation import TASK_IDS
from .intent import Span
from .tokens import is_wide
from .vocabulary import vocabulary

UNSURE = 0.95
"""Mean probability below which a span without a phrase of the vocabulary is a guess."""
JOINING = frozenset((
    "and", "but", "or", "with", "plus", "also", "then", "while", "und", "aber", "mit", "dann", "y", "con", "pero",
    "luego", "et", "avec", "mais", "puis",
))  # fmt: skip
"""Words between two things that are both meant."""
PLACING = ("on", "in", "of", "at", "behind", "auf", "im", "von", "sur", "dans", "de", "en", "sobre", "del")
"""Words before a place."""
DONE = frozenset(("gone", "done", "finished", "removed", "cleared", "filled", "fixed", "out"))
DESIRING = frozenset(("m", "im", "am", "are", "was", "were", "look", "looking"))
"""Words before an "after" that gives no order: "the look I'm after"."""


@dataclass(frozen=True)
class Candidate:
    """A labeled run of tokens.

    Attributes:
        span: what the text model takes it for.
        start, stop: its tokens.
        probability: mean over its tokens of the probability of its kind.
    """

    span: Span
    start: int
    stop: int
    probability: float


def requests(words: list[str], found: list[Candidate]) -> list[Candidate]:
    """The spans that ask for something.

    Args:
        words: the tokens of the sentence.
        found: its spans, from left to right.
    """
    plainness = [
        vocabulary().plainness(words, one.start, one.stop, one.span.kind) if one.span.kind in TASK_IDS else 0
        for one in found
    ]
    dropped = _guesses(found, plainness) | _descriptions(words, found, plainness) | _parts(words, found)
    return [one for i, one in enumerate(found) if i not in dropped]


def _guesses(found: list[Candidate], plainness: list[int]) -> set[int]:
    """Spans to undo that the text model is unsure of and the vocabulary does not know, beside one that is plainer:
    "drops on the lens, I can't make out the bumper" asks for no deblurring."""
    best: dict[str, tuple[int, float]] = {}
    for one, plain in zip(found, plainness, strict=True):
        if one.span.act == "undo" and one.span.kind in TASK_IDS:
            best[one.span.kind] = max(best.get(one.span.kind, (0, 0.0)), (plain, one.probability))
    top = max(best.values(), default=None)
    guessed = {kind for kind, how in best.items() if how != top and not how[0] and how[1] < UNSURE}
    return {i for i, one in enumerate(found) if one.span.act == "undo" and one.span.kind in guessed}


def _descriptions(words: list[str], found: list[Candidate], plainness: list[int]) -> set[int]:
    """Spans that describe what the same clause names more plainly: "half dark from my own shadow" is a shadow."""
    clearest: dict[str, int] = {}
    for one, plain in zip(found, plainness, strict=True):
        clearest[one.span.kind] = max(clearest.get(one.span.kind, 0), plain)
    dropped = set()
    for i, (one, other) in enumerate(itertools.pairwise(found)):
        kinds = {one.span.kind, other.span.kind}
        if len(kinds) == 1 or kinds - set(TASK_IDS) or one.span.act != other.span.act:
            continue
        between = words[one.stop - 1 : other.start + 1]
        if any(word in JOINING or is_wide(word) or not (word.isalnum() or word[0] == "#") for word in between):
            continue
        first, second = clearest[one.span.kind], clearest[other.span.kind]
        if first != second:
            dropped.add(i + 1 if first > second else i)
    return dropped


def _parts(words: list[str], found: list[Candidate]) -> set[int]:
    """Spans that keep a part of what is undone, which no restorer can: "leave the snow on the roofs"."""
    undone: set[str] = set()
    dropped = set()
    for i, one in enumerate(found):
        if one.span.act == "undo":
            undone.add(one.span.kind)
        placed = one.stop < len(words) and words[one.stop] in PLACING
        if one.span.act == "keep" and one.span.kind in undone and placed:
            dropped.add(i)
    return dropped


def order_of(words: Sequence[str], starts: Sequence[int], predicted: str) -> str:
    """The order of a sentence, of `labels.ORDERS`.

    Args:
        words: its tokens.
        starts: the first token of each task, in the order of the sentence.
        predicted: by the text model; decides whether there is an order unless the words leave no doubt.
    """
    if len(starts) < 2:
        return predicted
    for i, word in enumerate(words[: starts[-1]]):
        previous, following = words[i - 1] if i else "", words[i + 1]
        done = not DONE.isdisjoint(words[i + 1 : i + 9])
        if word == "before" or (word == "prior" and following == "to"):
            earlier, certain = True, word == "prior"
        elif word == "after" and previous not in DESIRING:
            earlier, certain = False, done or previous == "only"
        elif (word in ("once", "until") and previous != "at" and done) or (word == "when" and done):
            earlier, certain = False, True
        else:
            continue
        if not (predicted or certain):
            return ""
        if i < starts[0]:
            return "backward" if earlier else "forward"
        # "before that" refers back to the task already named, "before you sharpen" ahead.
        refers_back = following in ("that", "this", "which") or previous == "not"
        return "forward" if earlier != refers_back else "backward"
    return predicted
