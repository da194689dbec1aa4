"""Score a text model on sentences written by hand:

    python -m tools.language score tests/instructions.tsv

The file has a head line and five columns separated by tabs: split, language, kind, plan, text. A plan is written as
``rain lowlight@.5 -noise`` (undo rain, undo half of low light, keep noise), ``rain > haze`` (in this order), ``auto``,
``auto@.5``, ``x2`` (enlarge twice), ``?blur``, ``?auto`` (questions), ``none`` (leave it) or ``oos`` (refused). A
sentence counts only if the whole plan is right.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from irtool.errors import UsageError
from irtool.language import Intent, TextModel
from irtool.language.parser import understand

from .lists import LANGUAGES

UNSEEN = ("unseen",)
"""Splits that nothing was changed after: scored once."""


@dataclass(frozen=True)
class Case:
    """A sentence and the plan it asks for."""

    split: str
    language: str
    kind: str
    plan: str
    text: str

    @property
    def group(self) -> str:
        """English, the other claimed languages, or the unclaimed ones."""
        if self.language == "en":
            return "English"
        return "other languages" if self.language in LANGUAGES else "unclaimed languages"


def read_cases(path: Path) -> list[Case]:
    """The sentences of a file."""
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    return [Case(*line.split("\t")) for line in lines if line]


def notation(intent: Intent) -> str:
    """An intent in the notation of the file."""
    if intent.outside or not intent.spans:
        return "oos"
    if intent.question:
        return " ".join(f"?{i}" for i in intent.asked) or "?auto"

    def at(strength: float) -> str:
        return "" if strength == 1 else f"@{strength:g}".replace("@0.", "@.")

    undone = [f"{i}{at(s)}" for i, s in intent.tasks.items()]
    parts = [" > ".join(undone)] if intent.ordered else undone
    if intent.auto is not None:
        parts.append(f"auto{at(intent.auto)}")
    if intent.scale is not None:
        parts.append(f"x{intent.scale}")
    return " ".join(parts + [f"-{i}" for i in intent.keep]) or "none"


def same(plan: str, other: str) -> bool:
    """Whether two plans are equal; the order counts only where one of them gives it."""
    if ">" in plan or ">" in other:
        return plan.split() == other.split()
    return sorted(plan.split()) == sorted(other.split())


def mistakes(model: TextModel, cases: Iterable[Case]) -> list[tuple[Case, str]]:
    """The cases that a model gets wrong, with what it makes of them."""
    found = [(case, plan_of(model, case.text)) for case in cases]
    return [(case, got) for case, got in found if not same(case.plan, got)]


def plan_of(model: TextModel, text: str) -> str:
    """What a model, and the rules beside it, make of a sentence, in the notation of the file."""
    try:
        return notation(understand(model, text))
    except UsageError:
        return "oos"


def table(cases: Sequence[Case], wrong: Iterable[tuple[Case, str]]) -> str:
    """Right plans by split, kind of sentence and language, in Markdown: first the splits never looked at, then the
    others, each on its own."""
    counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])

    def count(case: Case, place: int) -> None:
        for name in (f"{case.group}: all", f"{case.group}: {case.kind}", f"all of {case.language}", "all"):
            counts[name, case.split][place] += 1

    for case in cases:
        count(case, 1)
    for case, _ in wrong:
        count(case, 0)
    splits = sorted({case.split for case in cases}, key=lambda split: (split not in UNSEEN, split))
    parts = []
    for title, chosen in (
        ("never looked at", [s for s in splits if s in UNSEEN]),
        ("seen", [s for s in splits if s not in UNSEEN]),
    ):
        lines = [f"| {title} | {' | '.join(chosen)} |", "|---" * (len(chosen) + 1) + "|"]
        for name in sorted({n for n, split in counts if split in chosen}):
            cells = []
            for split in chosen:
                bad, total = counts.get((name, split), (0, 0))
                cells.append(f"{total - bad}/{total} {(total - bad) / total:.0%}" if total else "")
            lines.append(f"| {name} | {' | '.join(cells)} |")
        if chosen:
            parts.append("\n".join(lines))
    return "\n\n".join(parts)
