"""The word lists as sentences are held against them: looked through once, and kept as one small file beside them.

To read and compare 40,000 entries takes a third of a second, the file a few milliseconds. It holds the checksum of the
lists that it was made from; where these have changed since, it is made anew in memory (slower, as right), and
`python -m irtool.language index` writes it.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from functools import cache

from ..degradation import IDS
from .labels import ACTS, OUTSIDE
from .lists import FOLDER, LANGUAGES, WIDE, entries, settlings, words
from .tokens import is_wide, normalise, tokenise

FILE = FOLDER / "index.json.gz"
SLOTS = "naogcvsik"
"""Lists that are read: nouns, adjectives, operations, how it shall be, whole requests, verbs in three forms,
sentences."""
OFTEN = 2.0
"""How much more often than elsewhere the lists have a word for a kind, if it speaks for it."""
GAP = "_"
"""Stands for the slot of a frame; no token is one."""
BEYOND = {"+": ("outedit", "add"), "?": ("outchat", "about"), "/": ("outshape", "about")}
"""Frames for what irtool undoes that ask for something else: to add it, to tell of it, to crop it away."""
CONTRACTED = (
    ("it is", "it's"), ("that is", "that's"), ("there is", "there's"), ("i am", "i'm"), ("i would", "i'd"),
    ("i have", "i've"), ("i will", "i'll"), ("we are", "we're"), ("do not", "don't"), ("does not", "doesn't"),
    ("is not", "isn't"), ("are not", "aren't"), ("should not", "shouldn't"), ("must not", "mustn't"),
    ("can not", "can't"), ("need not", "needn't"), ("did not", "didn't"), ("was not", "wasn't"),
    ("would not", "wouldn't"), ("you are", "you're"), ("they are", "they're"), ("what is", "what's"),
    ("let us", "let's"),
)  # fmt: skip
"""What is written in two ways in English."""
PLURALS = {
    "is": "are", "isnt": "arent", "was": "were", "has": "have", "does": "do", "doesnt": "dont", "stays": "stay",
    "makes": "make", "gives": "give", "adds": "add", "belongs": "belong", "needs": "need", "looks": "look",
    "remains": "remain", "suits": "suit", "lends": "lend", "works": "work", "tells": "tell", "bothers": "bother",
}  # fmt: skip
"""Verbs behind what is one, and behind what is several."""
SETS = ("articles", "polite", "verbs", "leaving")
"""Fields of `Index` that JSON has as lists."""
POSSESSIVE = ("its", "his", "her", "our", "their", "your")
_HOLE = "qqq"
"""Stands for the slot of a frame while its tokens are told apart."""
_JOINED = re.compile(r"(?<=[a-z]{3})'(?=[a-z])|\{[^{}]*\}")
MARKS = ".!?,;。、"


@dataclass(frozen=True)
class Index:
    """What the lists hold. Stretches of words are written as their tokens with spaces between.

    Attributes:
        counts: every word of Latin letters -> how many times the lists have it.
        telling: degradation -> the words, characters and pairs of characters that they have for it above all.
        entries: entry -> slot that it fills -> the degradation, where it stands for that and nothing else.
        frames: slot -> frame, with `GAP` in it -> the acts that it is a frame of, their first letters; "A" is an act
            only of sentences that end in a question mark; those of `BEYOND` ask for something outside.
        sentences: whole sentence that means one thing -> what it speaks of and what is to become of it.
        articles: words that may stand before a noun.
        polite: single words before and behind a wish that add nothing.
        verbs: words that begin a clause, being what is to be done, and are no nouns besides.
        leaving: what says that the thing named before is to be left: "don't touch it".
    """

    counts: dict[str, int]
    telling: dict[str, list[str]]
    entries: dict[str, dict[str, str]]
    frames: dict[str, dict[str, str]]
    sentences: dict[str, tuple[str, str]]
    articles: frozenset[str]
    polite: frozenset[str]
    verbs: frozenset[str]
    leaving: frozenset[str]


@cache
def index() -> Index:
    """That of the lists as they are."""
    try:
        held = json.loads(gzip.decompress(FILE.read_bytes()))
        if held.pop("lists") == checksum():
            return Index(**held | {name: frozenset(held[name]) for name in SETS})
    except (OSError, EOFError, ValueError, TypeError, KeyError):
        pass  # to be made anew
    return build()


@cache
def telling(kind: str) -> frozenset[str]:
    """The words, characters and pairs of characters that the lists have for a degradation above all."""
    return frozenset(index().telling[kind])


def write() -> None:
    """Bring the file up to date."""
    held = {"lists": checksum(), **asdict(build())}
    text = json.dumps(held, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=sorted)
    FILE.write_bytes(gzip.compress(text.encode(), mtime=0))


def checksum() -> str:
    """Of all lists, whatever the line ends."""
    texts = ((FOLDER / f"{language}.toml").read_bytes().replace(b"\r\n", b"\n") for language in LANGUAGES)
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def build() -> Index:
    """Look through the lists."""
    found = (spoken(e) for name in ("please", "thanks") for lang in LANGUAGES for e in words(lang)[name])
    polite = frozenset(said[0] for said in found if len(said) == 1)
    latins = [lang for lang in LANGUAGES if lang not in WIDE]
    return Index(
        counts=dict(Counter(w for lang in latins for w in latin(" ".join(entries(words(lang)))))),
        telling=_telling(),
        entries=_entries(),
        frames={slot: _frames(slot) for slot in SLOTS},
        sentences=_sentences(polite),
        articles=frozenset(w for lang in latins for entry in words(lang)["the"] for w in spoken(entry))
        | {"a", "an", *POSSESSIVE},
        polite=polite,
        verbs=_verbs(),
        leaving=frozenset(
            " ".join(said)
            for lang in LANGUAGES
            for e in words(lang)["pronoun"].get("keep", ())
            for said in _spellings(e)
        ),
    )


def core(said: Sequence[str], polite: Collection[str]) -> tuple[int, int]:
    """Where a sentence begins and ends but for marks and what is merely polite."""
    first, last = 0, len(said)
    while last and (said[last - 1] in MARKS or said[last - 1] in polite):
        last -= 1
    while first < last and said[first] in polite:
        first += 1
    return first, last


def spoken(entry: str) -> tuple[str, ...]:
    """The tokens of an entry."""
    return tuple(token.text for token in tokenise(normalise(entry)))


def _spellings(entry: str) -> set[tuple[str, ...]]:
    """The tokens of an entry, and of the same with its contractions written out or the other way round."""
    text = f" {normalise(entry)} "
    short = functools.reduce(lambda s, pair: s.replace(f" {pair[0]} ", f" {pair[1]} "), CONTRACTED, text)
    full = functools.reduce(lambda s, pair: s.replace(f" {pair[1]} ", f" {pair[0]} "), CONTRACTED, text)
    return {spoken(one) for one in (text, short, full)}


def _numbers(frames: set[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """English frames for one thing and for several: "the grain is fine", "the shadows are fine"."""
    found = set(frames)
    for frame in frames:
        at = frame.index(_HOLE) + 1
        if at < len(frame) and frame[at] in PLURALS:
            found.add((*frame[:at], PLURALS[frame[at]], *frame[at + 1 :]))
    return found


def latin(text: str) -> list[str]:
    """The words of Latin letters in a text, as `tokenise` has them, but fast."""
    return re.findall("[a-z]+", _JOINED.sub("", normalise(text)))


def pairs(text: str) -> list[str]:
    """Pairs of neighbouring characters of Chinese or Japanese script, and the Chinese characters alone."""
    return [a + b for a, b in itertools.pairwise(text) if is_wide(a) and is_wide(b)] + re.findall(
        "[\u4e00-\u9fff]", text
    )


def _telling() -> dict[str, list[str]]:
    counts = {kind: Counter[str]() for kind in IDS}
    for language in LANGUAGES:
        for kind in IDS:
            text = " . ".join(entries(words(language)[kind]))
            counts[kind].update(pairs(normalise(text)) if language in WIDE else latin(text))
    total = Counter[str]()
    for count in counts.values():
        total.update(count)
    size = sum(total.values())
    sizes = {kind: sum(count.values()) for kind, count in counts.items()}
    return {
        kind: sorted(w for w, n in count.items() if n * size > OFTEN * total[w] * sizes[kind])
        for kind, count in counts.items()
    }


def _entries() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, set[str]]] = {}
    for language in LANGUAGES:
        for kind in (*IDS, "auto"):
            for slot in SLOTS:
                for entry in words(language)[kind].get(slot, ()):
                    for settled in settlings(entry) if "{" not in entry else ():
                        for said in _spellings(settled):
                            found.setdefault(" ".join(said), {}).setdefault(slot, set()).add(kind)
    sole = {e: slots for e, slots in found.items() if len(set.union(*slots.values()) - {"auto"}) == 1}
    return {e: {s: min(k) for s, k in slots.items() if "auto" not in k} for e, slots in sole.items()}


def _frames(slot: str) -> dict[str, str]:
    found: dict[str, set[str]] = {}
    for language in LANGUAGES:
        named = [(act[0], words(language)[act].get(slot, ())) for act in ACTS]
        if slot == "n":
            named += [(letter, words(language)[kind].get(name, ())) for letter, (kind, name) in BEYOND.items()]
        for act, frames in named:
            for frame in frames:
                letter = "A" if act == "a" and frame.endswith("?") else act
                for settled in settlings(frame):
                    bare = settled.rstrip(MARKS).replace(f"{{{slot}}}", f" {_HOLE} ", 1)
                    for said in _numbers(_spellings(bare)) if _HOLE in bare and "{" not in bare else ():
                        found.setdefault(" ".join(GAP if w == _HOLE else w for w in said), set()).add(letter)
    return {frame: "".join(sorted(acts)) for frame, acts in found.items()}


def _sentences(polite: frozenset[str]) -> dict[str, tuple[str, str]]:
    found: dict[str, set[tuple[str, str]]] = {}
    named = [(kind, kind, "undo") for kind in (*IDS, "auto", *OUTSIDE)]
    for language in LANGUAGES:
        for name, kind, act in (*named, ("nothing", "auto", "keep"), ("ask", "auto", "ask")):
            for entry in words(language)[name]["s"]:
                for settled in settlings(entry) if "{" not in entry else ():
                    said = spoken(settled)
                    found.setdefault(" ".join(said[slice(*core(said, polite))]), set()).add((kind, act))
    return {sentence: meant.pop() for sentence, meant in found.items() if len(meant) == 1}


def _verbs() -> frozenset[str]:
    def first(*slots: str) -> set[str]:
        found = [e for lang in LANGUAGES for k in (*IDS, "auto") for s in slots for e in words(lang)[k].get(s, ())]
        return {tokens[0] for e in found if (tokens := spoken(e))}

    return frozenset(first("v", "c") - first("n"))
