"""Build the vocabulary file that irtool looks phrases up in, from the word lists:

python -m tools.language vocabulary
"""

from __future__ import annotations

import gzip
import json
import random
from collections import defaultdict
from pathlib import Path

from irtool.degradation import IDS
from irtool.language.labels import OUTSIDE
from irtool.language.tokens import normalize, tokenize
from irtool.language.vocabulary import FILE, Vocabulary

from .grammar import Composer, Mark
from .lists import LANGUAGES, expansions, words

NAMING, DESCRIBING = "nvcoik", "ags"
"""Lists whose entries name a degradation or what undoes it, and lists whose entries describe it."""
EXAMPLES = 6
"""Sentences per language and kind."""


def build() -> Vocabulary:
    """The vocabulary of the word lists as they are."""
    kinds: dict[str, set[str]] = defaultdict(set)
    ranks: dict[str, int] = {}
    for language in LANGUAGES:
        for kind in (*IDS, "auto"):
            for name in NAMING + DESCRIBING:
                for entry in words(language)[kind].get(name, ()):
                    for text in expansions(entry) if "{" not in entry else ():
                        tokens = _tokens(text)
                        phrase = " ".join(tokens)
                        kinds[phrase].add(kind)
                        rank = 3 if name in NAMING else 2 if len(tokens) > 1 else 1
                        ranks[phrase] = max(ranks.get(phrase, 0), rank)
    phrases: dict[str, dict[str, int]] = {kind: {} for kind in IDS}
    for phrase, found in sorted(kinds.items()):
        if len(found) == 1 and (kind := min(found)) in phrases:
            phrases[kind][phrase] = ranks[phrase]
    return Vocabulary(phrases, tuple(_examples()))


def write(path: Path = FILE) -> None:
    """Bring the file up to date."""
    found = build()
    fields = {"phrases": found.phrases, "examples": found.examples}
    text = json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def _tokens(text: str) -> list[str]:
    return [token.text for token in tokenize(normalize(text))]


def _examples() -> list[tuple[str, str]]:
    """(kind, sentence) of every kind in every language, always the same."""
    found = []
    for language in LANGUAGES:
        composer = Composer(language, random.Random(0))
        for kind in (*IDS, "auto", *OUTSIDE):
            for _ in range(EXAMPLES):
                if kind in OUTSIDE:
                    text = composer.about(composer.words[kind]["s"])
                else:
                    pieces = composer.auto(Mark("auto")) if kind == "auto" else composer.clause(Mark(kind))
                    text = "".join(piece for piece, _ in pieces)
                found.append((kind, normalize(text)))
    return found
