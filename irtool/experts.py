"""The best model that is here for a task: what ``--model best`` and ``--model best-permissive`` stand for.

Records in weights.toml carry what was measured with them (`Score`). An expert is a model that gained over the default
on the images it was measured on. Nothing is downloaded here: an expert that is not here is named, and the next one is
taken, in the end the default.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .weights.registry import DEFAULT_RESTORER, Record, Score, records

BEST, PERMISSIVE_BEST = "best", "best-permissive"
PERMISSIVE = frozenset({"Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "CC0-1.0", "CC-BY-4.0"})
"""Licenses that allow commercial use; of all others `best-permissive` takes nothing."""
WORKSPACE = 512 << 20
"""Bytes of working memory, beside its weights in float32, that a model needs to be taken."""


@dataclass(frozen=True)
class Choice:
    """The model for one task, and why.

    Attributes:
        task: id of the degradation.
        model: id of the record.
        reason: for people.
    """

    task: str
    model: str
    reason: str


def is_best(model: str) -> bool:
    """Whether a reference leaves the choice to irtool."""
    return model in (BEST, PERMISSIVE_BEST)


def ranked(task: str, permissive: bool = False) -> list[tuple[Record, Score]]:
    """The experts for a task, the largest gain over the default first."""
    found = [
        (record, score)
        for record in records()
        for score in record.scores
        if score.task == task and score.protocol == "canonical" and score.eligible and score.psnr > score.default
        if not permissive or record.licence in PERMISSIVE
    ]
    return sorted(found, key=lambda pair: pair[1].default - pair[1].psnr)


def choose(task: str, model: str = BEST) -> Choice:
    """The best model for a task that is here and fits the memory that is free."""
    from .weights.files import state

    passed: list[str] = []
    for record, score in ranked(task, model == PERMISSIVE_BEST):
        reason = f"{record.id} +{score.psnr - score.default:.1f} dB on {score.set}"
        if state(record) != "here":
            passed.append(f"{reason} is not here: irtool download {record.id}")
        elif not _fits(record):
            passed.append(f"{reason} does not fit the free memory")
        else:
            return Choice(task, record.id, f"{task}: " + "; ".join([reason, *passed]))
    if not passed:
        passed = ["no other model that may be taken was measured to be better"]
    return Choice(task, DEFAULT_RESTORER, f"{task}: the default; " + "; ".join(passed))


def wanted(tasks: Iterable[str] = (), permissive: bool = False) -> Iterator[Record]:
    """The best expert of each of these tasks, or of all that have one, each once: what ``download experts`` fetches."""
    from .degradation import IDS

    visited = set()
    for task in tuple(tasks) or IDS:
        for record, _ in ranked(task, permissive)[:1]:
            if record.id not in visited:
                visited.add(record.id)
                yield record


def _fits(record: Record) -> bool:
    free = _free_bytes()
    return free is None or free > 2 * (record.bytes or 0) + WORKSPACE


def _free_bytes() -> int | None:
    """Free memory, without torch; None where the system does not tell."""
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
