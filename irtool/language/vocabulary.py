"""Phrases that name or describe a degradation, as one file built by `tools/language`."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("vocabulary.json.gz")


@dataclass(frozen=True)
class Vocabulary:
    """What the file holds.

    Attributes:
        phrases: degradation id -> phrase, as tokens joined by spaces, that stands for it alone -> how plainly: 3 names
            it or what undoes it, 2 describes it in several words, 1 in one.
    """

    phrases: Mapping[str, Mapping[str, int]]

    def plainness(self, words: list[str], start: int, stop: int, kind: str) -> int:
        """How plainly words[start:stop] stand for a degradation, 0 to 3; 0 where no phrase of it is among them."""
        phrases = self.phrases[kind]
        runs = (" ".join(words[i:j]) for i in range(start, stop) for j in range(i + 1, stop + 1))
        return max((phrases.get(run, 0) for run in runs), default=0)


@cache
def vocabulary() -> Vocabulary:
    """The vocabulary that ships."""
    return Vocabulary(json.loads(gzip.decompress(FILE.read_bytes()))["phrases"])
