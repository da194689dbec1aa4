"""What the lists have word for word within a sentence, held against what the text model says of it.

The model weighs everything at once and now and then misses what stands there plainly. Two things are certain enough to
be taken from the lists: a stretch of two words or more that is an entry of theirs speaks of what the entry speaks of
("tv static" is noise, whatever static else is); and an entry within one of the frames of what is to be kept ("without
messing with the shadows", "the fog can stay") is kept, if the frame begins and ends where a clause may.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from ..degradation import IDS
from .index import BEYOND, GAP, index
from .labels import ACTS, KINDS, OUTSIDE
from .plain import PLACING, before
from .tagger import Array, Tags
from .tokens import Token

LONGEST = 10
"""Tokens of an entry, or of one side of a frame, that are looked for."""
CERTAIN = 0.98
"""Probability of what the lists have word for word."""
BARE, ENDED = "vc", (".", ";", "!", "but")
"""Slots of imperatives, which stand without any frame at the beginning of a sentence and behind these."""
DOING, NAMING = "voik", "nvcoik"
"""Slots of what undoes a degradation, and of what names it or undoes it."""
MEANT = {"k": "keep", "u": "undo"} | {letter: kind for letter, (kind, _) in BEYOND.items()}
"""What frames mean that mean one thing."""
PAIRING = (["and"], ["or"], ["nor"], ["&"], ["und"], ["oder"], ["y"], ["ni"], ["et"], ["ou"])
"""What makes one of two nouns."""
GENERAL = (KINDS.index("auto"), KINDS.index("rest"))
"""Kinds of the picture at large."""
TRUSTED = {1: 0.6, 2: 0.9, 3: 0.97}
"""Probability of the text model's below which the lists are believed rather: of one word, of two, and of more."""
OPENING = frozenset((
    "please", "just", "only", "but", "and", "though", "although", "while", "whilst", "however", "yet", "because",
    "so", "then", "also", "still", "do", "i", "we", "you", "can", "could", "would", "if", "mind", "be", "or", "that",
    "it", "as", "than", "aber", "und", "bitte", "nur", "pero", "y", "solo", "mais", "et", "seulement", "surtout",
))  # fmt: skip
"""Words behind which a clause may begin."""
CLOSING = frozenset((
    "and", "but", "or", "please", "though", "although", "while", "whilst", "because", "since", "as", "so", "then",
    "too", "also", "in", "on", "of", "at", "from", "for", "around", "behind", "over", "near", "it", "its", "this",
    "that", "i", "you", "we", "with", "without", "before", "after", "once", "until", "if", "when", "where", "which",
    "who", "thanks", "otherwise", "alone", "whatever", "und", "aber", "bitte", "auf", "im", "von", "weil", "pero",
    "porque", "y", "en", "de", "et", "mais", "sur", "dans", "car",
))  # fmt: skip
"""Words before which one may end."""
LEADING = frozenset((
    "without", "except", "while", "leaving", "sparing", "preserving", "keeping", "apart", "aside", "barring", "dont",
    "never", "hands", "off", "out", "no", "away", "gone", "although", "though", "but", "and", "ohne", "sin", "sans",
))  # fmt: skip
"""Words with which one may begin anywhere."""

WEAK = frozenset((
    "drag", "wiggle", "movement", "handshake", "jolt", "steady", "moved", "vague", "double", "distinct", "readable",
    "legible", "unreadable", "sway", "woolly", "cottony", "trailed", "mashed", "swished", "veil", "gauze", "dust",
    "dusty", "plume", "plumes", "pollution", "cloudy", "whitish", "chalky", "filmy", "soupy", "tiles", "cubes",
    "boxes", "mosaic", "patchwork", "checkerboard", "chequerboard", "crunch", "crunchy", "chunky", "compress", "fried",
    "crusty", "boxy", "checkered", "squared", "ringing", "black", "light", "bright", "visible", "lit", "seen", "sunlit",
    "luminous", "exposure", "lighting", "backlight", "nocturnal", "dusky", "sombre", "dots", "static", "pepper", "salt",
    "sprinkles", "roughness", "specs", "fuzz", "confetti", "rough", "sandy", "flecks", "spotty", "spotted", "porous",
    "coarse", "hiss", "spray", "splash", "splashes", "splashed", "drip", "drips",
    "beads", "beaded", "globules", "shower", "showers", "streaks", "streaky", "torrent", "deluge", "hail", "snowy",
    "flake", "mask", "bent", "broken", "burnt", "whole", "complete", "chewed",
    "damage", "damaged", "cut", "nick", "blot", "blots", "chipped", "blank", "folded",
    "wrinkled", "mould", "notch", "void", "losses", "dappled",
))  # fmt: skip
"""Entries of one word that speak of other things as often, so that beside what is plainer they are only a guess."""
RID = ["rid", "of"]
SHOWN = ("picture", "photo", "photograph", "image", "shot", "frame", "scene", "pic")
ALL = ("all", "everything", "anything", "whatever")
NEGATED = frozenset(("left", "dont", "doesnt", "not", "nothing", "no", "never", "without"))
SPARING = frozenset(("leave", "keep", "touch", "dont", "not", "never", "ignore", "preserve"))
"""Words behind which all of something is not to be undone."""


@dataclass(frozen=True)
class Found:
    """An entry of the lists in a sentence: tokens from `start` up to `stop`, slots that it fills, what it speaks of."""

    start: int
    stop: int
    slots: str
    kind: str


def settle(tokens: list[Token], tags: Tags) -> None:
    """Change, in place, what the text model says of tokens where the lists say otherwise."""
    said = [token.text for token in tokens]
    entries = list(_entries(said))
    heard = tags.kind.argmax(axis=1)
    framed = [(entry, found) for entry in entries if (found := _framed(said, entry)) is not None]
    for one, other in itertools.pairwise(entries):
        if (both := _both(said, one, other)) and (found := _framed(said, both)) is not None:
            framed += [(one, found), (other, found)]
    nothing = not set(heard.tolist()) - {0, *GENERAL}  # "the corner is gone, can you restore it?"
    for entry in entries:
        part = slice(entry.start, entry.stop)
        kind = KINDS.index(entry.kind)
        others = set(heard[part]) - {0, kind}
        place = any(said[max(0, at - 1)] in PLACING for at in (*before(said, entry.start), entry.start + 1))
        place = place and "s" not in entry.slots  # "at the lowest quality setting" says more than where
        size = min(entry.stop - entry.start, 2 if set(entry.slots) & set(DOING) else 3)
        doubted = tags.kind[part].max(axis=1).mean() < TRUSTED[size]
        if size == 1 and not nothing and _weak(said, entry.start):
            continue
        if doubted and not place and (others or nothing or (size > 2 and kind in heard[part])):
            _say(tags.kind, part, kind)
        if entry.slots == "s" and NEGATED & set(said[part]):  # "nothing is left of the corner" leaves nothing
            _say(tags.act, part, ACTS.index("undo"))
        if said[0] == said[entry.start - 1] == "no" and "n" in entry.slots:  # "no rain, no fog, but keep the grain"
            _say(tags.act, part, ACTS.index("undo"))
    if (beside := _taken_out(said, entries)) is not None:
        _say(tags.kind, beside, KINDS.index("outedit"))
        _say(tags.act, beside, ACTS.index("undo"))
    kept = {entry.kind for entry, (act, _) in framed if act == "keep"}
    settled = {entry for entry, _ in framed}
    for entry in entries:  # "without removing the mist, we waited hours for that mist"
        if entry.kind in kept and entry not in settled and "n" in entry.slots:
            _say(tags.kind, slice(entry.start, entry.stop), 0)
    for entry, (act, frame) in framed:
        named = {KINDS.index(e.kind) for e in entries if e in settled or not frame.start <= e.start < frame.stop}
        for i in range(frame.start, frame.stop):
            # "everything but the rain": the rest of it is still wanted. "drop the rain" is about no drops.
            if act == "keep" and heard[i] not in GENERAL:
                _say(tags.kind, slice(i, i + 1), 0)
            elif act == "undo" and KINDS[heard[i]] in IDS and heard[i] not in named:
                _say(tags.kind, slice(i, i + 1), KINDS.index(entry.kind))
    for _, (act, frame) in framed:  # "all but the grain can be fixed"
        if act == "keep" and not SPARING & set(said[: frame.start]):
            for i in range(max(0, frame.start - 1), frame.start + 1):
                if said[i] in ALL:
                    _say(tags.kind, slice(i, i + 1), KINDS.index("auto"))
                    _say(tags.act, slice(i, i + 1), ACTS.index("undo"))
    for entry, (act, frame) in framed:
        part = slice(entry.start, entry.stop)
        if act in OUTSIDE:
            _say(tags.kind, frame, KINDS.index(act))
            _say(tags.act, frame, ACTS.index("undo"))
        elif act == "keep":
            _say(tags.kind, part, KINDS.index(entry.kind))
            _say(tags.act, part, ACTS.index("keep"))
        else:
            if frame != part and "n" in entry.slots and not tags.kind[part].argmax(axis=1).any():
                _say(tags.kind, part, KINDS.index(entry.kind))  # "there is a slit in it"
        if act == "undo" and "?" not in said:
            _say(tags.act, frame, ACTS.index("undo"))
    if (left := _left(said, entries, framed)) is not None:
        part = slice(min(before(said, left.start)), left.stop)
        _say(tags.kind, part, KINDS.index(left.kind))
        _say(tags.act, part, ACTS.index("keep"))


def _left(said: list[str], entries: list[Found], framed: list[tuple[Found, tuple[str, slice]]]) -> Found | None:
    """What the end of a sentence says is to be left: "the sundial needs its shadow, don't touch it"."""
    stop = len(said)
    while stop and said[stop - 1] in (".", "!", "please", "thanks"):
        stop -= 1
    start = next((i for i in range(1, stop) if " ".join(said[i:stop]) in index().leaving), 0)
    if not start or (said[start - 1].isalpha() and said[start - 1] not in OPENING):
        return None
    named = [entry for entry in entries if entry.stop <= start and "n" in entry.slots]
    if not named:
        return None
    last, bare = named[-1], index().articles
    around = [said[frame.start : last.start] + said[last.stop : frame.stop] for e, (_, frame) in framed if e == last]
    return last if all(set(words) <= bare for words in around) else None


def _taken_out(said: list[str], entries: list[Found]) -> slice | None:
    """What is to be taken out of the picture or swapped and is nothing that the lists have: "get the bins out of the
    shot"."""
    for i, word in enumerate(said):
        if word in ("get", "take", "cut", "edit", "clone", "photoshop", "move") and (not i or said[i - 1] in OPENING):
            for j in range(i + 2, min(len(said) - 3, i + 12)):
                if said[j : j + 3] == ["out", "of", "the"] and said[j + 3] in SHOWN:
                    named = any(i < e.stop and e.start < j for e in entries)
                    return None if named or {",", ".", ";"} & set(said[i:j]) else slice(i + 1, j)
        if word in ("swap", "exchange") and (not i or said[i - 1] in OPENING):
            stop = next((j for j in range(i + 2, min(len(said) - 1, i + 8)) if said[j] in ("for", "with")), 0)
            if stop and not any(i < e.stop and e.start < stop for e in entries):
                return slice(i, stop)
    return None


def plainness(said: list[str], span: list[int], kind: str) -> int:
    """How plainly tokens speak of a degradation: 3 is its name, or that of what undoes it; 2 a sentence or some words
    that describe it; 1 a description in one; 0 nothing that the lists have for it, or a word that may mean anything."""
    best = 0
    for i in span:
        for j in range(i + 1, span[-1] + 2):
            for slot, of in index().entries.get(" ".join(said[i:j]), {}).items():
                if of == kind and not (j == i + 1 and _weak(said, i)):
                    best = max(best, 3 if slot in NAMING else 2 if j - i > 1 else 1)
    return best


def _weak(said: list[str], i: int) -> bool:
    """Whether a word may mean anything, being neither listed beside something nor asked to go: "spotty and hazy"."""
    if said[i] not in WEAK:
        return False
    before = i - 1
    while before > 0 and said[before] in ("the", "a", "too", "so", "very", "all"):
        before -= 1
    listed = said[i + 1 : i + 2] in PAIRING or (before >= 0 and ([said[before]] in PAIRING or said[before] == ","))
    asked = before >= 0 and (
        said[before] in ("remove", "fix", "correct") or said[max(0, before - 1) : before + 1] == RID
    )
    return not (listed or asked)


def described(said: list[str], span: list[int], kind: str) -> bool:
    """Whether tokens only tell what happened, in one of the lists' sentences."""
    found = {
        slot
        for i in span
        for j in range(i + 1, span[-1] + 2)
        for slot, of in index().entries.get(" ".join(said[i:j]), {}).items()
        if of == kind
    }
    return bool(found) and found <= {"s"}


def _say(table: Array, part: slice, label: int) -> None:
    """Make a label certain for some tokens."""
    table[part] = (1 - CERTAIN) / (table.shape[1] - 1)
    table[part, label] = CERTAIN


def _entries(said: list[str]) -> Iterator[Found]:
    """The longest entries from left to right, that do not overlap."""
    i, held = 0, index().entries
    while i < len(said):
        for j in range(min(len(said), i + LONGEST), i, -1):
            if slots := held.get(" ".join(said[i:j])):
                yield Found(i, j, "".join(slots), next(iter(slots.values())))
                i = j - 1
                break
        i += 1


def _both(said: list[str], one: Found, other: Found) -> Found | None:
    """Two nouns with an "and" between them as one: "leave the grain and the shadows alone"."""
    between = [word for word in said[one.stop : other.start] if word not in index().articles]
    if between in PAIRING and "n" in one.slots and "n" in other.slots:
        return Found(one.start, other.stop, "n", "")
    return None


def _begun(said: list[str], noun: int) -> Iterator[int]:
    """Where a frame may end before a noun; also before what follows its article: "the long evening shadows"."""
    yield from before(said, noun)
    articles = index().articles
    if noun > 1 and said[noun - 2] in articles and said[noun - 1].isalpha() and said[noun - 1] not in articles:
        yield from before(said, noun - 1)


def _framed(said: list[str], entry: Found) -> tuple[str, slice] | None:
    """What is to become of an entry by the longest frame around it, if it is a frame of that alone, or what it asks for
    outside; and where the frame is."""
    best, acts, closing = slice(entry.start, entry.stop), "", CLOSING
    for slot in entry.slots:
        frames = index().frames[slot]
        for at in _begun(said, entry.start) if slot == "n" else (entry.start,):
            for start in range(max(0, at - LONGEST), at + 1):
                for stop in range(entry.stop, min(len(said), entry.stop + LONGEST) + 1):
                    found = frames.get(" ".join((*said[start:at], GAP, *said[entry.stop : stop])), "")
                    if found and (stop - start > best.stop - best.start or (slot in BARE and not acts)):
                        best, acts = slice(start, stop), found
                        # "without brightening the picture": what is done is done to something
                        closing = CLOSING | index().articles if slot in DOING else CLOSING
    if acts not in MEANT:
        return None
    if best == slice(entry.start, entry.stop) and best.start and said[best.start - 1] not in ENDED:
        return None
    led = best.start == 0 or not said[best.start - 1].isalpha() or said[best.start - 1] in OPENING
    opens = led or said[best.start] in LEADING
    closes = best.stop == len(said) or not said[best.stop].isalpha() or said[best.stop] in closing
    return (MEANT[acts], best) if opens and closes else None
