"""What of the things heard in a sentence is meant: not what only describes, fills or places another, nor guesses beside
what is said plainly."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

from ..degradation import IDS
from .index import index
from .labels import OUTSIDE
from .phrases import plainness
from .plain import PLACING
from .tokens import Token, is_wide
from .wish import Heard

GUESSED = 0.95
"""Mean probability below which words say nothing that no entry of the lists says, beside what is said more plainly."""
LINKS = frozenset((
    "and", "but", "or", "with", "plus", "also", "then", "while", "und", "aber", "mit", "dann", "y", "con", "pero",
    "luego", "et", "avec", "mais", "puis",
))  # fmt: skip
"""What joins two things in a clause."""


def consisting(tokens: list[Token], heard: list[Heard], spans: Mapping[int, list[int]]) -> list[Heard]:
    """Without the form that something else comes in: "streaks of driven snow" are no rain."""
    said = [token.text for token in tokens]
    found = list(heard)
    for one, other in itertools.pairwise(heard):
        last, start = spans[id(one)][-1], spans[id(other)][0]
        whole = {one.kind, other.kind} <= set(IDS) and one.kind != other.kind and one.act == other.act
        last -= said[last] == "of"
        if whole and said[last] in FORMS and said[last + 1] == "of" and start <= last + 3:
            found.remove(one)
    return found


def plainest(
    tokens: list[Token], heard: list[Heard], spans: Mapping[int, list[int]], chances: Mapping[int, float]
) -> list[Heard]:
    """Without what the model only guesses at beside something plainer: "drops on the lens, I can't make out the
    bumper" asks for no deblurring, "eaten by the enlarger" for no enlargement."""
    said = [token.text for token in tokens]
    best: dict[str, tuple[int, float]] = {}
    for h in heard:
        if h.act == "undo" and h.kind in IDS:
            how = plainness(said, spans[id(h)], h.kind), chances[id(h)]
            best[h.kind] = max(best.get(h.kind, how), how)
    top = max(best.values(), default=None)
    named = {kind for kind, how in best.items() if how[0] > 1}
    heard = [h for h in heard if not (named - {h.kind} and {said[i] for i in spans[id(h)]} <= SEEN)]
    if OPEN.search(" ".join(said)) and any(h.kind == "auto" for h in heard):
        named = {kind for kind, how in best.items() if how[0]}
        heard = [h for h in heard if h.act != "undo" or h.kind not in IDS or h.kind in named]
    guessed = {kind for kind, how in best.items() if how != top and not how[0] and how[1] < GUESSED}
    if top and top[0] > 1:
        guessed |= {h.kind for h in heard if h.kind in OUTSIDE and len(spans[id(h)]) == 1 and chances[id(h)] < GUESSED}
    return [h for h in heard if h.act != "undo" or h.kind not in guessed]


def one_each(tokens: list[Token], heard: list[Heard], spans: Mapping[int, list[int]]) -> list[Heard]:
    """Without what only describes how a thing looks that the same clause names: "half dark from my own shadow"."""
    said = [token.text for token in tokens]
    found = list(heard)
    clear: dict[str, int] = {}
    for h in heard:
        clear[h.kind] = max(clear.get(h.kind, 0), plainness(said, spans[id(h)], h.kind))
    for one, other in itertools.pairwise(heard):
        if one.kind == other.kind or {one.kind, other.kind} - set(IDS) or "undo" not in (one.act, other.act):
            continue
        between = said[spans[id(one)][-1] : spans[id(other)][0] + 1]
        if any(word in LINKS or not (word.isalnum() or word[0] == "#") for word in between) or any(map(is_wide, said)):
            continue
        first, second = clear[one.kind], clear[other.kind]
        lesser = other if first > second else one
        if first != second and (one.act == other.act or (lesser.act == "undo" and not min(first, second))):
            found = [h for h in found if h is not lesser]
    return found


SEEN = frozenset((
    "visible", "readable", "legible", "recognisable", "recognizable", "seen", "see", "clearly", "make", "made", "it",
    "be", "is", "are", "the", "them", "can", "cant", "could", "poorly", "to", "so", "again", "more", "hidden", ",",
))  # fmt: skip
"""Words of how well something can be seen, which is what comes of the damage that a sentence names."""
OPEN = re.compile(
    r"\b(?:however|whatever|whichever|as|what|any way|the way) you (?:think|see fit|like|want|prefer|feel)\b"
)
"""What leaves it to irtool to find out what is wrong."""
VAGUE = frozenset((
    "smooth", "light", "clean", "clear", "even", "polish", "wipe", "draw", "wash", "brush", "lift", "pull", "mend",
    "reconstruct", "rebuild", "restore", "repair",
))  # fmt: skip
"""What is done to more than one thing; with a pronoun behind, to what was named before."""
PLACES = ("shadow", "snow", "rain")
"""What pictures have of their own accord, so that something else can be in or on it."""
FILLED = frozenset((
    ("full", "of"), ("covered", "in"), ("covered", "with"), ("covered", "by"), ("drowns", "in"), ("drown", "in"),
    ("riddled", "with"), ("peppered", "with"), ("speckled", "with"), ("spoiled", "by"), ("ruined", "by"),
    ("buried", "in"), ("alive", "with"), ("teeming", "with"), ("littered", "with"), ("crawling", "with"),
    ("infested", "with"), ("dotted", "with"), ("sprinkled", "with"), ("strewn", "with"), ("swamped", "with"),
    ("swamped", "by"), ("lost", "in"), ("hidden", "by"), ("hidden", "behind"), ("hidden", "in"), ("swarming", "with"),
))  # fmt: skip
"""What stands before something that is all over what was spoken of before."""
SWARMING = re.compile(r"[a-z]{3,}(?:ed|ing)$")
"""What else stands so, before "with"."""
MARKS = frozenset((
    "lines", "line", "marks", "mark", "streaks", "stripes", "spots", "specks", "dots", "blotches", "blobs", "patches",
    "smudges", "smears", "stuff", "mess",
))  # fmt: skip
FORMS = MARKS | frozenset((
    "flecks", "dashes", "curtain", "veil", "sheet", "sheets", "wall", "film", "layer", "squall", "speckles", "blob",
    "spot", "speck", "dot", "fleck", "streak", "stripe", "patch", "smear", "grains", "tears", "pearls",
))  # fmt: skip
"""What something may come in: "specks of water"."""
POINTING = frozenset((
    "remove", "get", "take", "make", "go", "away", "off", "out", "wipe", "clean", "erase", "delete", "clear", "lose",
    "rid", "of", "disappear", "vanish", "up",
))  # fmt: skip
"""Nouns for many things, and the verbs that make them point at what was named before."""
SHOWING = ("show", "shows", "showed", "appear", "appears", "appeared", "seen", "drawn", "up")
TURNING = re.compile(
    r"\b(?:it|that|they|this|these|those)(?: ?s| ?re| is| was| are| were) (?:just|only|really|actually|simply)\b"
)
"""What stands before "as" where it likens, and what says after such words what a thing really is."""
PAST = frozenset(("sent", "emailed", "mailed", "uploaded", "posted", "forwarded", "saved", "exported", "shared"))
"""What was done to a picture, not what is to be."""
DEFINITE = ("the", "my", "his", "her", "its", "our", "their", "your", "that", "those", "these", "this", "all")
THOSE = ("it", "that", "them", "those", "these", "this", "the")


def meant(tokens: list[Token], heard: list[Heard], spans: Mapping[int, list[int]]) -> list[Heard]:
    """Without what only points back at what was named before ("there are blocks in the sky, smooth it away", "a curtain
    of rain; draw that curtain away"), and without where it is ("the grit in the shadows")."""
    said = [token.text for token in tokens]
    found: list[Heard] = []
    for h in heard:
        start, stop = spans[id(h)][0], spans[id(h)][-1] + 1
        named = [f for f in found if f.kind in IDS and f.kind != h.kind and f.act == h.act == "undo"]
        beside = found and spans[id(found[-1])][-1] + 1 == start and said[start] in PLACING
        if beside and found[-1].kind in IDS and not plainness(said, spans[id(h)], h.kind):
            continue  # "the snow on the ground"
        points = said[start] in VAGUE and said[start + 1 : start + 2] and said[start + 1] in THOSE[:-1]
        points = points and "up" not in said[start:stop]
        again = h.kind in OUTSIDE and any(
            said[i] in THOSE and (said[i + 1], "of") in itertools.pairwise(said[:start]) for i in range(start, stop - 1)
        )
        told = h.kind in OUTSIDE and bool(PAST & set(said[start:stop]))
        if named and (again or told or ((points or _looks_back(said, spans[id(h)])) and h.kind in IDS)):
            continue
        if named and _likened(said, start) and max(plainness(said, spans[id(f)], f.kind) for f in named) > 1:
            continue
        if named and _owned(said, spans[id(named[-1])], stop):
            found, named = [f for f in found if f is not named[-1]], named[:-1]
        if _fills(said, [i for f in named for i in spans[id(f)]], spans[id(h)]):
            found, named = [f for f in found if f not in named], []
        if named and named[-1] is found[-1] and _placed(said, spans[id(found[-1])], spans[id(h)], h.kind):
            continue
        found.append(h)
    return found


def _looks_back(said: list[str], span: list[int]) -> bool:
    """Whether words only point, with a verb, at what a clause before them named: ", make the lines go away"."""
    at = next((i for i in span if said[i] in MARKS), -1)
    if at < 3 or said[at - 1] not in THOSE or not {said[i] for i in span} <= POINTING | MARKS | set(THOSE):
        return False
    begun = next((i for i in range(at, 0, -1) if not said[i].isalnum()), 0)
    verbs = set(said[begun:at]) & POINTING
    return bool(begun and verbs) and not verbs & set(said[:begun]) and "and" not in said[begun:at]


def _likened(said: list[str], start: int) -> bool:
    """Whether words only say what something looks like: "the flakes look like confetti", "it shows as scratches"."""
    at = start - 1
    while at > 0 and (said[at] in index().articles or said[at] in ("faint", "little", "tiny", "white", "so", "many")):
        at -= 1
    return at > 0 and (said[at] == "like" or (said[at] == "as" and said[at - 1] in SHOWING))


def _owned(said: list[str], before: list[int], stop: int) -> bool:
    """Whether what looked like one thing turns out to be another: "looks like pencil strokes, but that's just rain"."""
    likened = "like" in said[max(0, before[0] - 5) : before[-1] + 1]
    return likened and bool(TURNING.search(" ".join(said[before[-1] + 1 : stop])))


def _fills(said: list[str], before: list[int], span: list[int]) -> bool:
    """Whether one thing is all over what else was spoken of: "the dark wall is full of grain"."""
    if not before:
        return False
    between = said[before[-1] + 1 : span[0]] + said[span[0] : span[-1] + 1]
    at = next(
        (
            i
            for i, pair in enumerate(itertools.pairwise(between))
            if pair in FILLED or (SWARMING.match(pair[0]) and pair[1] == "with")
        ),
        None,
    )
    return at is not None and not any(word in LINKS or not word.isalpha() for word in between[:at])


def _placed(said: list[str], before: list[int], span: list[int], kind: str) -> bool:
    """Whether one stretch of words only says where the one before it is: the noise "in the shadows"."""
    bare = next((i for i in span if said[i] not in DEFINITE and said[i] not in PLACING), span[-1])
    at = bare - 1
    while at > before[0] and said[at] in DEFINITE:
        at -= 1
    between = said[before[-1] + 1 : at]
    return (
        (kind in PLACES or said[bare - 1] in ("his", "her", "their"))
        and bare - at > 1
        and said[at] in ("in", "on", "of")
        and len(between) <= 1
        and not any(word in LINKS or not word.isalpha() for word in between)
    )
