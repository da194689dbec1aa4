"""From words to wishes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np

from ..degradation import IDS
from ..errors import UsageError
from ..weights import locate
from . import grammar
from .labels import ACTS, KINDS, LEVELS, ORDERS, OUTSIDE, STRENGTHS
from .tagger import Tagger, Tags
from .tokens import Token, normalise, tokenise
from .wish import Heard, Wish

SURE = 0.5
"""Mean probability below which a stretch of words is taken to say nothing."""


class TextModel(Protocol):
    """Understands sentences."""

    def wish(self, text: str) -> Wish:
        """What one sentence asks for."""
        ...


class Words:
    """The text model that ships: tags every token and reads the tags."""

    def __init__(self, tagger: Tagger) -> None:
        self.tagger = tagger

    def wish(self, text: str) -> Wish:
        tokens = tokenise(normalise(text))
        if not tokens:
            return Wish(text=text)
        tags = self.tagger(tokens)
        for clause in clauses(tokens, tags):
            # A strength belongs to its own clause: "remove the rain and brighten it a little".
            tags.level[clause] = self.tagger([tokens[i] for i in clause]).level
        return read(text, tokens, tags)


def clauses(tokens: list[Token], tags: Tags) -> list[list[int]]:
    """The clauses of a sentence that speak of one thing each, as places of tokens; none where it is not clearly so.

    "remove the rain and brighten it a little" has two. "remove the rain and the fog a little" has one: what follows the
    "and" has no verb of its own. "remove the rain and the fog, but only a little" is not taken apart either.
    """
    kinds = tags.kind.argmax(axis=1)
    parts: list[list[int]] = [[]]
    for i, token in enumerate(tokens):
        if token.text in JOINTS:
            parts.append([])
        else:
            parts[-1].append(i)
    parts = [part for part in parts if part]
    if len(parts) < 2 or not all(kinds[part].any() for part in parts):
        return []
    found: list[list[int]] = []
    for part in parts:
        first = next(i for i in part if kinds[i])
        led = any(tokens[i].text not in _articles() for i in part if i < first)
        if found and not led and tokens[first].text not in _verbs():
            found[-1] += part
        else:
            found.append(part)
    return found if len(found) > 1 else []


JOINTS = frozenset(
    (",", ";", ".", "&", "+", "and", "but", "y", "pero", "et", "mais", "und", "aber", "和", "并", "、", "。")
)


@lru_cache(maxsize=1)
def _articles() -> frozenset[str]:
    """Words that may stand between an "and" and a noun."""
    lists = [grammar.words(language)["the"] for language in grammar.LANGUAGES if language not in grammar.WIDE]
    return frozenset(t.text for entries in lists for e in entries for t in tokenise(normalise(e)))


@lru_cache(maxsize=1)
def _verbs() -> frozenset[str]:
    """Words that begin a clause, being what is to be done, and are no nouns besides."""

    def first(*slots: str) -> set[str]:
        tables = [grammar.words(language) for language in grammar.LANGUAGES]
        entries = [e for table in tables for kind in (*IDS, "auto") for s in slots for e in table[kind].get(s, ())]
        return {tokens[0].text for e in entries if (tokens := tokenise(normalise(e)))}

    return frozenset(first("v", "c") - first("n"))


def read(text: str, tokens: list[Token], tags: Tags) -> Wish:
    """Make a wish of tagged tokens: stretches of one kind vote on what is to become of it and how much."""
    heard: list[Heard] = []
    kinds = tags.kind.argmax(axis=1)
    for kind, group in itertools.groupby(range(len(tokens)), key=lambda i: int(kinds[i])):
        span = list(group)
        if not kind or tags.kind[span, kind].mean() < SURE:
            continue
        act = ACTS[int(np.log(tags.act[span] + 1e-9).sum(axis=0).argmax())]
        level = LEVELS[int(np.log(tags.level[span] + 1e-9).sum(axis=0).argmax())]
        strength = STRENGTHS.get(level) or _number(tokens, span)
        words = _words(tokens[span[0] : span[-1] + 1])
        heard.append(Heard(words, KINDS[kind], act, 1.0 if act != "undo" else strength))
    return _wish(text, heard, ORDERS[int(tags.order.argmax())])


def _words(tokens: Sequence[Token]) -> str:
    """The tokens as they stood, with a space where there was one."""
    told = ""
    for token in tokens:
        wide = len(token.text) == 1 and ord(token.text) > 0x2E80
        told += token.text if wide or not told else f" {token.text}"
    return told


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
    auto = None
    # "It is noisy, fix it": the general word means the special one.
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


DEFAULT_TEXT_MODEL = "irtool-words.v1"


@lru_cache(maxsize=2)
def load(reference: str = DEFAULT_TEXT_MODEL) -> TextModel:
    """A text model by reference.

    Args:
        reference: "irtool-words.v1", ``local:PATH`` of another file of its kind, or "instructir" (``instructir:NAME``
            for another sentence encoder than its own, by its name on the hub or its folder; see `encoder`).

    Raises:
        UsageError: there is no such model.
        UnavailableError: its files or packages are not here.
    """
    if reference == DEFAULT_TEXT_MODEL or reference.startswith("local:"):
        return Words(Tagger.load(locate(reference)))
    if reference == "instructir" or reference.startswith("instructir:"):
        from . import encoder

        return encoder.load(reference.partition(":")[2] or encoder.ENCODER)
    raise UsageError(f"There is no text model '{reference}'.", f"Known: {DEFAULT_TEXT_MODEL}, instructir, local:PATH.")


def understand(text: str | Sequence[str], *, text_model: str = DEFAULT_TEXT_MODEL) -> list[Wish]:
    """What one or several sentences ask for.

    Args:
        text: a sentence (or a few in one string), or several in the order in which they are to be carried out.
        text_model: see `load`.

    Raises:
        UsageError, UnavailableError: as `load`.
    """
    sentences = [text] if isinstance(text, str) else list(text)
    model = load(text_model)
    return [model.wish(re.sub(r"\s+", " ", s).strip()) for s in sentences]
