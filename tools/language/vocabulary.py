"""Build the vocabulary file that irtool looks phrases up in, from the word lists:

python -m tools.language vocabulary
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from pathlib import Path

from irtool.degradation import TASK_IDS
from irtool.language.tokens import normalize, tokenize
from irtool.language.vocabulary import FILE, Vocabulary

from .lists import LANGUAGES, expansions, words

NAMING, DESCRIBING = "nvcoik", "ags"
"""Lists whose entries name a degradation or what undoes it, and lists whose entries describe it."""


def build() -> Vocabulary:
    """The vocabulary of the word lists as they are."""
    kinds: dict[str, set[str]] = defaultdict(set)
    ranks: dict[str, int] = {}
    for language in LANGUAGES:
        for kind in (*TASK_IDS, "auto"):
            for name in NAMING + DESCRIBING:
                for entry in words(language)[kind].get(name, ()):
                    for text in expansions(entry) if "{" not in entry else ():
                        tokens = _tokens(text)
                        phrase = " ".join(tokens)
                        kinds[phrase].add(kind)
                        rank = 3 if name in NAMING else 2 if len(tokens) > 1 else 1
                        ranks[phrase] = max(ranks.get(phrase, 0), rank)
    phrases: dict[str, dict[str, int]] = {kind: {} for kind in TASK_IDS}
    for phrase, found in sorted(kinds.items()):
        if len(found) == 1 and (kind := min(found)) in phrases:
            phrases[kind][phrase] = ranks[phrase]
    return Vocabulary(phrases)


def write(path: Path = FILE) -> None:
    """Bring the file up to date."""
    text = json.dumps({"phrases": build().phrases}, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def _tokens(text: str) -> list[str]:
    return [token.text for token in tokenize(normalize(text))]
