"""Which labeled spans are requests."""
from __future__ import annotations
from dataclasses import dataclass
from .intent import Span


@dataclass(frozen=True)
class Candidate:
    """A labeled run of tokens.

    Attributes:
        span: what the text model takes it for.
        start, stop: its tokens.
        probability: mean over its tokens of that of its kind.
    """

    span: Span
    start: int
    stop: int
    probability: float


def requests(words: list[str], found: list[Candidate]) -> list[Candidate]:
    return found
