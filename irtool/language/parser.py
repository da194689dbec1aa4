"""From sentences to intents: the text model labels every token, runs of one label become spans, and spans an intent."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import UsageError
from ..weights import locate
from . import enlargement
from .intent import UPSCALE, Intent, Span
from .labels import ACTS, FOREIGN, KINDS, LEVELS, ORDERS, STRENGTHS
from .scope import Candidate, order_of, requests
from .tagger import Array, Tagger, Tags
from .tokens import Token, is_wide, normalize, tokenize, unclaimed_script

DEFAULT_TEXT_MODEL = "irtool-words.v3"
CONFIDENT, POSSIBLE = 0.5, 0.35
"""Mean probability from which a span counts; and from which it does where no span reaches the former."""
JOINTS = frozenset((
    ",", ";", ".", "&", "+", "and", "but", "y", "pero", "et", "mais", "und", "aber", "和", "并", "、", "。",
))  # fmt: skip
ARTICLES = frozenset((
    "a", "an", "the", "my", "your", "his", "her", "its", "our", "their", "el", "la", "los", "las", "un", "una", "le",
    "les", "des", "der", "die", "das", "den", "dem",
))  # fmt: skip
STAND_INS = {
    "": {"noise": "noise", "haze": "fog", "rain": "rain", "snow": "snow", "blur": "blur"},
    "zh": {"noise": "噪点", "haze": "雾", "rain": "雨", "snow": "雪", "blur": "模糊"},
    "ja": {"noise": "ノイズ", "haze": "霧", "rain": "雨", "snow": "雪", "blur": "ぼけ"},
}
"""By script and degradation, the noun that replaces the word of a custom task, which the text model cannot know."""


class TextModel(Protocol):
    """Understands sentences."""

    def parse(self, text: str, own: Sequence[str] = ()) -> Intent:
        """What one sentence asks for; `own` are the words of custom tasks."""


class TaggerModel:
    """The text model that ships.

    Args:
        tagger: labels the tokens of a sentence.
    """

    def __init__(self, tagger: Tagger) -> None:
        self.tagger = tagger

    def parse(self, text: str, own: Sequence[str] = ()) -> Intent:
        """As `TextModel.parse`.

        Raises:
            UsageError: there are more custom tasks in the sentence than stand-ins for them.
        """
        sentence = normalize(text)
        patterns = {word: _pattern(normalize(word)) for word in own}
        named = [word for word, pattern in patterns.items() if pattern.search(sentence)]
        if not named:
            return self._parse(text, sentence)
        # The word of a custom task is replaced by the noun of a degradation that the sentence does not mention.
        without = sentence
        for word in named:
            without = patterns[word].sub(" ", without)
        mentioned = {span.kind for span in self._parse(text, without).spans}
        script = "ja" if re.search("[\u3040-\u30ff]", sentence) else "zh" if any(map(is_wide, sentence)) else ""
        free = {kind: noun for kind, noun in STAND_INS[script].items() if kind not in mentioned}
        if len(free) < len(named):
            raise UsageError(f"'{text}' names too many tasks at once.", "Say it in several sentences.")
        pairs = dict(zip(named, free.items(), strict=False))
        for word, (_, noun) in pairs.items():
            sentence = patterns[word].sub(noun, sentence)
        return _renamed(self._parse(text, sentence), {kind: (word, noun) for word, (kind, noun) in pairs.items()})

    def _parse(self, text: str, sentence: str) -> Intent:
        tokens = tokenize(sentence)
        if not tokens:
            return Intent(text=text)
        if unclaimed_script(sentence):
            return Intent(outside=(FOREIGN,), text=text)
        tags = self.tagger(tokens)
        for clause in clauses(tokens, tags.kind.argmax(axis=1)):
            # A strength belongs to its own clause: "remove the rain and brighten it a little".
            tags.level[clause] = self.tagger([tokens[i] for i in clause]).level
        return read(text, sentence, tokens, tags)


def clauses(tokens: list[Token], kinds: Array) -> list[list[int]]:
    """The tokens of each clause where every one is about something; none where one is not. What begins with an article
    has no verb of its own: "remove the rain and the fog a little" is one."""
    parts: list[list[int]] = [[]]
    for i, token in enumerate(tokens):
        if token.text in JOINTS:
            parts.append([])
        else:
            parts[-1].append(i)
    found: list[list[int]] = []
    for part in filter(None, parts):
        if not kinds[part].any():
            return []
        if found and tokens[part[0]].text in ARTICLES:
            found[-1] += part
        else:
            found.append(part)
    return found if len(found) > 1 else []


def _pattern(word: str) -> re.Pattern[str]:
    """Where a normalized word stands in a sentence: as a word or its plural; in Chinese and Japanese anywhere."""
    named = re.escape(word)
    return re.compile(named if any(map(is_wide, word)) else rf"(?<![a-z0-9]){named}(?:e?s)?(?![a-z0-9])")


def _renamed(intent: Intent, names: Mapping[str, tuple[str, str]]) -> Intent:
    """An intent with the words of custom tasks put back: degradation id -> (word, the noun that replaced it)."""

    def word(kind: str) -> str:
        return names[kind][0] if kind in names else kind

    def span(old: Span) -> Span:
        name, noun = names.get(old.kind, ("", ""))
        return replace(old, kind=name, words=old.words.replace(noun, name)) if name else old

    return replace(
        intent,
        tasks={word(kind): strength for kind, strength in intent.tasks.items()},
        keep=tuple(map(word, intent.keep)),
        asked=tuple(map(word, intent.asked)),
        spans=tuple(map(span, intent.spans)),
    )


def read(text: str, sentence: str, tokens: list[Token], tags: Tags) -> Intent:
    """The intent of labeled tokens: the tokens of a span vote on what is to be done and how strongly.

    Args:
        text: the sentence.
        sentence: the same, normalized.
        tokens: of the normalized sentence.
        tags: of the tokens.
    """
    probabilities = smooth(tokens, tags.kind)
    words = [i for i, token in enumerate(tokens) if token.text[0].isalpha()]
    if words and probabilities[words, KINDS.index(FOREIGN)].mean() > CONFIDENT:
        return Intent(outside=(FOREIGN,), text=text)
    probabilities[:, KINDS.index(FOREIGN)] = 0  # single words: names, misspelt ones
    kinds = probabilities.argmax(axis=1)
    found: list[Candidate] = []
    for kind, group in itertools.groupby(range(len(tokens)), key=lambda i: int(kinds[i])):
        run = list(group)
        probability = float(probabilities[run, kind].mean())
        if not kind or probability < POSSIBLE:
            continue
        act = ACTS[int(np.log(tags.act[run] + 1e-9).sum(axis=0).argmax())]
        level = LEVELS[int(np.log(tags.level[run] + 1e-9).sum(axis=0).argmax())]
        strength = 1.0 if act != "undo" else STRENGTHS.get(level) or _share(tokens, run)
        end = tokens[run[-1] + 1].start if run[-1] + 1 < len(tokens) else len(sentence)
        phrase = sentence[tokens[run[0]].start : end].strip()
        found.append(Candidate(Span(phrase, KINDS[kind], act, strength), run[0], run[-1] + 1, probability))
    found = [one for one in found if one.probability >= CONFIDENT] or found
    texts = [token.text for token in tokens]
    found = requests(texts, found)
    tasks = [one.start for one in found if one.span.act == "undo"]
    return Intent.of(text, [one.span for one in found], order_of(texts, tasks, ORDERS[int(tags.order.argmax())]))


def smooth(tokens: list[Token], kind: Array) -> Array:
    """Probabilities of kinds (T, kinds) in which a Chinese or Japanese character between two of one other kind, so
    within a word, is of that kind too."""
    found = kind.copy()
    best = kind.argmax(axis=1)
    for i in range(1, len(tokens) - 1):
        if is_wide(tokens[i].text) and best[i - 1] == best[i + 1] != 0 and best[i]:
            found[i] = (kind[i - 1] + kind[i + 1]) / 2
    return found


def _share(tokens: list[Token], run: list[int]) -> float:
    """The figure nearest to some tokens, in the same sentence if there is one; 1 if there is none."""
    shares = [(i, t) for i, t in enumerate(tokens) if t.share is not None]
    if any(t.percent for _, t in shares):
        shares = [(i, t) for i, t in shares if t.percent]

    def distance(i: int) -> tuple[int, bool]:
        between = tokens[min(i, run[0]) : max(i, run[-1])]
        stops = 100 * sum(t.text in (".", "。", ";") for t in between)
        return stops + (run[0] - i if i < run[0] else max(0, i - run[-1])), i < run[0]

    return min(shares, key=lambda s: distance(s[0]))[1].share or 0.0 if shares else 1.0


@lru_cache(maxsize=2)
def load(reference: str = DEFAULT_TEXT_MODEL) -> TextModel:
    """A text model by reference.

    Args:
        reference: "irtool-words.v3"; ``local:PATH`` of another file of its kind, or of InstructIR's language head
            (``local:PATH@ENCODER`` over an encoder of your choice); "instructir" or ``instructir:ENCODER``, the
            published head. An encoder is an id on the hub or a folder.

    Raises:
        UsageError: there is no such model.
        UnavailableError: its files or packages are not available.
    """
    if reference == DEFAULT_TEXT_MODEL:
        return TaggerModel(Tagger.load(locate(reference)))
    family, _, rest = reference.partition(":")
    if family == "local":
        path, _, name = (rest, "", "") if Path(rest).exists() else rest.partition("@")
        located = locate(f"local:{path}")
        if not name and Tagger.fits(located):
            return TaggerModel(Tagger.load(located))
        from ..models import instructir_text

        return instructir_text.head(located, name or instructir_text.ENCODER)
    if reference == "instructir" or (family == "instructir" and rest):
        from ..models import instructir_text

        return instructir_text.load(rest or instructir_text.ENCODER)
    known = f"{DEFAULT_TEXT_MODEL}, instructir, instructir:ENCODER, local:PATH"
    raise UsageError(f"There is no text model '{reference}'.", f"Known: {known}.")


def parse(text: str | Sequence[str], *, text_model: str = DEFAULT_TEXT_MODEL, own: Sequence[str] = ()) -> list[Intent]:
    """What one or several sentences ask for.

    Args:
        text: a sentence (or a few in one string), or several in the order of execution.
        text_model: see `load`.
        own: words of custom tasks, such as "moire"; they come back as kinds.

    Raises:
        UsageError, UnavailableError: as `load`.
    """
    sentences = [text] if isinstance(text, str) else list(text)
    model = load(text_model)
    return [understand(model, re.sub(r"\s+", " ", s).strip(), own) for s in sentences]


def understand(model: TextModel, text: str, own: Sequence[str] = ()) -> Intent:
    """What one sentence asks for: a request to enlarge is read by rule, the rest by the text model.

    Raises:
        UsageError: as `TextModel.parse`, or it is to be enlarged by a factor that irtool has no network for.
    """
    found = enlargement.find(text)
    if found is None:
        return model.parse(text, own)
    rest = model.parse(found.rest, own) if found.rest else Intent()
    if rest.outside == ("outchat",) and not rest.tasks:  # "please"
        rest = Intent()
    spans = (*rest.spans, Span(found.words, UPSCALE, "undo"))
    return replace(rest, scale=found.scale, spans=spans, text=text, question=False, asked=())
