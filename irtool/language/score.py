"""How well sentences are understood:

    python -m irtool.language score tests/instructions.tsv

The file has a head line and five columns separated by tabs: split, language, kind, plan, text. A plan is written as
``rain lowlight@.5 -noise`` (undo rain, undo half of low light, keep noise), ``rain > haze`` (in this order), ``auto``,
``auto@.5``, ``?blur``, ``?auto`` (questions), ``none`` (leave it) or ``oos`` (outside, turned away).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .understand import TextModel
from .wish import Wish


@dataclass(frozen=True)
class Case:
    """A sentence and the plan it asks for."""

    split: str
    language: str
    kind: str
    plan: str
    text: str


def cases(path: Path) -> list[Case]:
    """The sentences of a file."""
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    return [Case(*line.split("\t")) for line in lines if line]


def told(wish: Wish) -> str:
    """A wish in the notation of the file."""
    if wish.outside or not wish.heard:
        return "oos"
    if wish.question:
        return " ".join(f"?{i}" for i in wish.asked) or "?auto"

    def at(strength: float) -> str:
        return "" if strength == 1 else f"@{strength:g}".replace("@0.", "@.")

    undone = [f"{i}{at(s)}" for i, s in wish.undo.items()]
    parts = [" > ".join(undone)] if wish.ordered else undone
    if wish.auto is not None:
        parts.append(f"auto{at(wish.auto)}")
    return " ".join(parts + [f"-{i}" for i in wish.keep]) or "none"


def same(plan: str, other: str) -> bool:
    """Whether two plans are equal, whatever the order of what has none."""
    if ">" in plan or ">" in other:
        return plan.split() == other.split()
    return sorted(plan.split()) == sorted(other.split())


def table(model: TextModel, found: Iterable[Case]) -> tuple[str, list[tuple[Case, str]]]:
    """Exact plans per kind of sentence and per language, in Markdown; and what went wrong."""
    right: dict[tuple[str, str], list[bool]] = defaultdict(list)
    wrong = []
    for case in found:
        got = told(model.wish(case.text))
        hit = same(case.plan, got)
        if not hit:
            wrong.append((case, got))
        single = case.plan if case.kind == "single" else None
        language = "English" if case.language == "en" else "other languages"
        groups = [
            f"{language}: {case.kind}",
            f"all of {case.language}",
            f"{language}: all",
            *([f"{language}: single {single}"] if single else []),
        ]
        for group in groups:
            right[group, case.split].append(hit)
    splits = sorted({split for _, split in right})
    lines = [f"| sentences | {' | '.join(splits)} |", "|---" * (len(splits) + 1) + "|"]
    for group in sorted({g for g, _ in right}):
        cells = []
        for split in splits:
            hits = right.get((group, split), [])
            cells.append(f"{sum(hits)}/{len(hits)} {sum(hits) / len(hits):.0%}" if hits else "")
        lines.append(f"| {group} | {' | '.join(cells)} |")
    return "\n".join(lines), wrong
