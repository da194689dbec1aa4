"""From words to wishes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from ..degradation import IDS
from ..errors import UsageError
from ..weights import locate
from .evidence import speaks
from .index import index
from .labels import ACTS, KINDS, LEVELS, ORDERS, OUTSIDE, STRENGTHS
from .meant import consisting, meant, one_each, plainest
from .phrases import described, settle
from .plain import PLACING, plain
from .rephrase import rephrase, written_out
from .sequence import sequence
from .spelling import mend
from .tagger import Array, Tagger, Tags
from .tokens import Token, is_wide, normalise, tokenise
from .wish import Heard, Wish

DEFAULT_TEXT_MODEL = "irtool-words.v1"
SURE, KNOWN, LIKELY = 0.7, 0.5, 0.35
"""Mean probability below which a stretch of words is taken to say nothing: as a rule; where it has words that the lists
have for that very thing; where it has such words and the sentence says nothing otherwise."""
STAND_INS = {
    "": {"noise": "noise", "haze": "fog", "rain": "rain", "snow": "snow", "blur": "blur"},
    "zh": {"noise": "噪点", "haze": "雾", "rain": "雨", "snow": "雪", "blur": "模糊"},
    "ja": {"noise": "ノイズ", "haze": "霧", "rain": "雨", "snow": "雪", "blur": "ぼけ"},
}
"""Nouns by script and kind, one of which takes the place of a word that the text model cannot know."""


class TextModel(Protocol):
    """Understands sentences."""

    def wish(self, text: str, own: Sequence[str] = ()) -> Wish:
        """What one sentence asks for; `own` are words of tasks that are somebody's own."""
        ...


class Words:
    """The text model that ships: tags every token and reads the tags."""

    def __init__(self, tagger: Tagger) -> None:
        self.tagger = tagger

    def wish(self, text: str, own: Sequence[str] = ()) -> Wish:
        said = written_out(normalise(text))
        places = {word: _place(normalise(word)) for word in own}
        named = [word for word, place in places.items() if place.search(said)]
        if not named:
            return self._wish(text, said)
        # A word that is never met is said through one that is, of a kind that the sentence does not speak of otherwise.
        bare = said
        for word in named:
            bare = places[word].sub(" ", bare)
        spoken = {h.kind for h in self._wish(text, bare).heard}
        script = "ja" if re.search("[\u3040-\u30ff]", said) else "zh" if any(map(is_wide, said)) else ""
        free = {kind: noun for kind, noun in STAND_INS[script].items() if kind not in spoken}
        if len(free) < len(named):
            raise UsageError(f"'{text}' speaks of too much at once.", "Say it in several sentences.")
        meant = dict(zip(named, free.items(), strict=False))
        for word, (_, noun) in meant.items():
            said = places[word].sub(noun, said)
        return _renamed(self._wish(text, said), {kind: (word, noun) for word, (kind, noun) in meant.items()})

    def _wish(self, text: str, said: str) -> Wish:
        tokens = rephrase(mend(tokenise(said)))
        if not tokens:
            return Wish(text=text)
        if (found := plain(tokens)) is not None:
            kind, act, named = found
            return _wish(text, [Heard(_said(said, tokens, named), kind, act)], "")
        tags = self.tagger(tokens)
        tags.kind[:] = steady(tokens, tags.kind)
        for clause in clauses(tokens, tags):
            # A strength belongs to its own clause: "remove the rain and brighten it a little". What is to become of a
            # thing mostly does: "don't touch the grain, remove the rain".
            alone = self.tagger([tokens[i] for i in clause])
            tags.level[clause] = alone.level
            tags.act[clause] *= alone.act
        settle(tokens, tags)
        return read(text, said, tokens, tags)


def _place(word: str) -> re.Pattern[str]:
    """Where a normalised word stands in a sentence: as a word, or its plural; in Chinese and Japanese anywhere."""
    named = re.escape(word)
    return re.compile(named if any(map(is_wide, word)) else rf"(?<![a-z0-9]){named}(?:e?s)?(?![a-z0-9])")


def _renamed(wish: Wish, names: Mapping[str, tuple[str, str]]) -> Wish:
    """A wish in which kinds go by other words: kind -> (word, the noun that stood for it)."""

    def word(kind: str) -> str:
        return names[kind][0] if kind in names else kind

    def heard(h: Heard) -> Heard:
        if h.kind not in names:
            return h
        name, noun = names[h.kind]
        return replace(h, kind=name, words=h.words.replace(noun, name))

    return replace(
        wish,
        undo={word(kind): s for kind, s in wish.undo.items()},
        keep=tuple(map(word, wish.keep)),
        asked=tuple(map(word, wish.asked)),
        heard=tuple(map(heard, wish.heard)),
    )


def steady(tokens: list[Token], kind: Array) -> Array:
    """Probabilities of kinds (T, kinds) in which a character of Chinese or Japanese script that stands alone between
    two of one other kind is of that kind too: it is within a word."""
    found = kind.copy()
    best = kind.argmax(axis=1)
    for i in range(1, len(tokens) - 1):
        if is_wide(tokens[i].text) and best[i - 1] == best[i + 1] != 0 and best[i]:
            found[i] = (kind[i - 1] + kind[i + 1]) / 2
    return found


def clauses(tokens: list[Token], tags: Tags) -> list[list[int]]:
    """The clauses of a sentence that speak of one thing each, as places of tokens; none where it is not clearly so.

    "remove the rain and brighten it a little" has two. "remove the rain and the fog a little" has one: what follows the
    "and" has no verb of its own. "remove the rain and the fog, but only a little" is not taken apart either.
    """
    kinds = tags.kind.argmax(axis=1)
    parts: list[list[int]] = [[]]
    apart: set[int] = set()
    for i, token in enumerate(tokens):
        if token.text in JOINTS:
            parts.append([])
            if token.text in (";", "."):  # the next word begins a clause, whatever it is
                apart.add(i + 1)
        else:
            parts[-1].append(i)
    parts = [part for part in parts if part]
    if len(parts) < 2 or not all(kinds[part].any() for part in parts):
        return []
    found: list[list[int]] = []
    for part in parts:
        first = next(i for i in part if kinds[i])
        # Chinese and Japanese say what is to be done behind the noun as well.
        beside = (i for i in part if i < first or (is_wide(tokens[i].text) and not kinds[i]))
        led = any(tokens[i].text not in index().articles for i in beside)
        if found and not led and part[0] not in apart and tokens[first].text not in index().verbs:
            found[-1] += part
        else:
            found.append(part)
    return found if len(found) > 1 else []


JOINTS = frozenset(
    (",", ";", ".", "&", "+", "and", "but", "y", "pero", "et", "mais", "und", "aber", "和", "并", "、", "。")
)


def read(text: str, said: str, tokens: list[Token], tags: Tags) -> Wish:
    """Make a wish of tagged tokens: stretches of one kind vote on what is to become of it and how much.

    Args:
        text: the sentence.
        said: the same, normalised.
        tokens: of what was said.
        tags: of the tokens.
    """
    heard: list[Heard] = []
    guessed: list[Heard] = []
    spans: dict[int, list[int]] = {}
    chances: dict[int, float] = {}
    sure: set[str] = set()
    aside = -1
    kinds = tags.kind.argmax(axis=1)
    for kind, group in itertools.groupby(range(len(tokens)), key=lambda i: int(kinds[i])):
        span = list(group)
        chance = tags.kind[span, kind].mean()
        known = KINDS[kind] in IDS and speaks([tokens[i].text for i in span], KINDS[kind])
        least = LIKELY if known else KNOWN if KINDS[kind] == "auto" else SURE
        if not kind or chance < least:
            continue
        act = ACTS[int(np.log(tags.act[span] + 1e-9).sum(axis=0).argmax())]
        level = LEVELS[int(np.log(tags.level[span] + 1e-9).sum(axis=0).argmax())]
        strength = STRENGTHS.get(level) or _number(tokens, span)
        if level != "number" and described([t.text for t in tokens], span, KINDS[kind]):
            strength = 1.0  # "slightly off the focal plane" tells what happened
        words = _said(said, tokens, slice(span[0], span[-1] + 1))
        found = Heard(words, KINDS[kind], act, 1.0 if act != "undo" else strength)
        after = tokens[span[-1] + 1].text if span[-1] + 1 < len(tokens) else ""
        if act == "keep" and after in PLACING and any((h.kind, h.act) == (KINDS[kind], "undo") for h in heard):
            aside = span[-1] + 1
            continue  # "remove the falling snow but leave the snow on the roofs": no part of it can be left
        if span[0] == aside and act == "keep":
            continue  # "on the roofs"
        spans[id(found)], chances[id(found)] = span, chance
        (heard if chance >= KNOWN else guessed).append(found)
        if known and chance >= KNOWN:
            sure.add(KINDS[kind])
    if sure:
        heard = [h for h in heard if h.kind not in IDS or h.kind in sure]
    heard = plainest(tokens, consisting(tokens, heard, spans), spans, chances)
    heard = meant(tokens, one_each(tokens, heard, spans), spans)
    heard = heard or guessed
    starts = [spans[id(h)][0] for h in heard]
    order, ranks = sequence([token.text for token in tokens], starts, ORDERS[int(tags.order.argmax())])
    if ranks:
        heard = [h for _, h in sorted(zip(ranks, heard, strict=True), key=lambda pair: pair[0])]
    return _wish(text, _pointed_at(said, heard), order)


REMOVE_IT = re.compile(
    r"(?:[,.;:!?-]|\bplease|\bso|\bcan you|\bcould you) ?"
    r"(?:remove|erase|delete|take|get|clear|wipe|edit) (?:it|that|this|them|those)(?: (?:out|away|off))?"
    r"(?: please)?[.!?]*$"
)
"""What asks, at the end of a sentence, for what was named before to go."""


def _pointed_at(said: str, heard: list[Heard]) -> list[Heard]:
    """With the last thing undone where the end of a sentence asks for that, whatever was said of it before: "I love the
    umbrella but not the rain around it, please remove that"."""
    kept = bool(heard) and heard[-1].kind in IDS and heard[-1].act == "keep"
    alone = {h.act for h in heard} == {"keep"} or len({h.kind for h in heard}) == 1
    if kept and alone and REMOVE_IT.search(said):
        return [*heard[:-1], replace(heard[-1], act="undo")]
    return heard


def _said(said: str, tokens: list[Token], part: slice) -> str:
    """Some tokens as they stood in the normalised sentence."""
    end = tokens[part.stop].start if part.stop < len(tokens) else len(said)
    return said[tokens[part.start].start : end].strip()


def _number(tokens: list[Token], span: list[int]) -> float:
    """The share named nearest to a stretch of tokens, in the same sentence if there is one; else the whole."""
    shares = [(i, t) for i, t in enumerate(tokens) if t.share is not None]
    if any(t.percent for _, t in shares):
        shares = [(i, t) for i, t in shares if t.percent]

    def distance(i: int) -> tuple[int, bool]:
        between = tokens[min(i, span[0]) : max(i, span[-1])]
        broken = 100 * sum(t.text in (".", "。", ";") for t in between)
        return broken + (span[0] - i if i < span[0] else max(0, i - span[-1])), i < span[0]

    return min(shares, key=lambda s: distance(s[0]))[1].share or 0.0 if shares else 1.0


def _wish(text: str, heard: list[Heard], order: str) -> Wish:
    wanted: dict[str, float] = {}
    keep: dict[str, None] = {}
    asked: dict[str, None] = {}
    for h in heard:
        if h.kind not in IDS:
            continue
        if h.act == "undo":
            keep.pop(h.kind, None)
            # Of several mentions, the one that names a strength has it: "It is dark. Brighten it a little."
            said = wanted.get(h.kind, 1.0)
            wanted[h.kind] = h.strength if h.strength < 1 else said
        elif h.act == "keep":
            wanted.pop(h.kind, None)
            keep[h.kind] = None
        else:
            asked[h.kind] = None
    general = [h for h in heard if h.kind == "auto"]
    rest = any(h.kind == "rest" and h.act == "undo" for h in heard)
    doing = [h.strength for h in general if h.act == "undo"]
    if doing and asked and not wanted:  # "Is it dark? Fix it.": the general word means what was asked about
        wanted = dict.fromkeys(asked, min(doing))
    auto = None
    # "It is noisy, fix it": likewise.
    if rest or (doing and not wanted):
        auto = min(doing, default=1.0)
    question = not wanted and auto is None and any(h.act == "ask" for h in heard)
    forward = list(wanted.items())
    return Wish(
        undo=dict(reversed(forward) if order == "backward" else forward),
        keep=tuple(i for i in IDS if i in keep),
        auto=auto,
        asked=tuple(i for i in IDS if i in asked) if question else (),
        question=question,
        ordered=bool(order) and len(wanted) > 1,
        outside=tuple(dict.fromkeys(h.kind for h in heard if h.kind in OUTSIDE and h.act == "undo")),
        heard=tuple(heard),
        text=text,
    )


@lru_cache(maxsize=2)
def load(reference: str = DEFAULT_TEXT_MODEL) -> TextModel:
    """A text model by reference.

    Args:
        reference: "irtool-words.v1"; ``local:PATH`` of another file of its kind, or of InstructIR's head
            (``local:PATH@ENCODER`` over an encoder of one's own); "instructir", ``instructir:ENCODER`` or
            ``encoder:ENCODER``, see `encoder.load`. An encoder is an id on the hub or a folder.

    Raises:
        UsageError: there is no such model.
        UnavailableError: its files or packages are not here.
    """
    if reference == DEFAULT_TEXT_MODEL:
        return Words(Tagger.load(locate(reference)))
    family, _, rest = reference.partition(":")
    if family == "local":
        path, _, name = (rest, "", "") if Path(rest).exists() else rest.partition("@")
        located = locate(f"local:{path}")
        if not name and Tagger.fits(located):
            return Words(Tagger.load(located))
        from . import encoder

        return encoder.head(located, name or encoder.ENCODER)
    if reference == "instructir" or (family in ("instructir", "encoder") and rest):
        from . import encoder

        return encoder.load(reference)
    known = f"{DEFAULT_TEXT_MODEL}, instructir, encoder:NAME, local:PATH"
    raise UsageError(f"There is no text model '{reference}'.", f"Known: {known}.")


def understand(
    text: str | Sequence[str], *, text_model: str = DEFAULT_TEXT_MODEL, own: Sequence[str] = ()
) -> list[Wish]:
    """What one or several sentences ask for.

    Args:
        text: a sentence (or a few in one string), or several in the order in which they are to be carried out.
        text_model: see `load`.
        own: words that somebody has for tasks of their own, such as "moire"; they come back as kinds.

    Raises:
        UsageError, UnavailableError: as `load`.
    """
    sentences = [text] if isinstance(text, str) else list(text)
    model = load(text_model)
    return [model.wish(re.sub(r"\s+", " ", s).strip(), own) for s in sentences]
