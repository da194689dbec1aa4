"""Records of a run into figures: means with confidence intervals, what was left out, and two runs side by side."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FileError, UsageError
from ..fileio import is_folder, read_text

Record = dict[str, Any]
BOOTSTRAP_DRAWS = 2000
CONFIDENCE = 0.95
LARGEST_RUN = 2**30
"""Bytes of a run that are read: some two million pictures."""
BOOTSTRAP_CHUNK = 1 << 20
"""Values drawn at once for a bootstrap: what bounds its memory on a set of any size."""
MUST_MATCH = ("protocol", "dataset", "listing", "degrade", "seed")
"""What two runs must share for their pictures to be comparable one by one."""


def interval(
    values: Sequence[float], *, draws: int = BOOTSTRAP_DRAWS, level: float = CONFIDENCE
) -> tuple[float, float]:
    """Bootstrap confidence interval of a mean: percentiles of the means of samples drawn with replacement, seeded.

    Args:
        values: at least one.
        draws: samples drawn.
        level: share of the means that the interval holds.
    """
    data = np.asarray(values, dtype=np.float64)
    generator = np.random.default_rng(0)
    at_once = max(1, BOOTSTRAP_CHUNK // len(data))
    counts = [min(at_once, draws - done) for done in range(0, draws, at_once)]
    means = [data[generator.integers(0, len(data), (count, len(data)))].mean(axis=1) for count in counts]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mean_of(values: Iterable[float | None]) -> dict[str, Any]:
    """Mean, bootstrap interval and number of the values; None, an infinite PSNR, is counted and not averaged."""
    known = [value for value in values]
    finite = [value for value in known if value is not None]
    if not finite:
        return {"mean": None, "low": None, "high": None, "n": 0, "infinite": len(known)}
    low, high = interval(finite)
    statistics: dict[str, Any] = {"mean": float(np.mean(finite)), "low": low, "high": high, "n": len(finite)}
    return statistics | ({"infinite": len(known) - len(finite)} if len(known) > len(finite) else {})


def summarize(records: Sequence[Record], sets: Mapping[str, float | None] | None = None) -> Record:
    """The summary of a run.

    Args:
        records: one per pair.
        sets: figures of the whole set, such as FID.

    Returns:
        For JSON; `input` and `output` hold each metric's mean with its interval, `gain` that of the PSNR's rise.
    """
    scored = [record for record in records if "error" not in record]
    failed = [record["name"] for record in records if "error" in record]
    summary: Record = {"type": "summary", "pairs": len(records), "scored": len(scored), "failed": len(failed)}
    if failed:
        summary["failed_names"] = failed
    if scored:
        for side in ("input", "output"):
            summary[side] = {m: mean_of(r[side].get(m) for r in scored) for m in scored[0][side]}
        gains = [_psnr_gain(r) for r in scored]
        summary["gain"] = mean_of(value for value in gains if value is not None)
        summary["seconds"] = round(sum(r["seconds"] for r in scored), 3)
        peaks = [r["peak_bytes"] for r in scored if r["peak_bytes"]]
        summary["peak_bytes"] = max(peaks) if peaks else None
        summary["content"] = hashlib.sha256("".join(r["content"] for r in scored).encode()).hexdigest()
    for metric, value in (sets or {}).items():
        if value is not None:
            summary.setdefault("output", {})[metric] = {"mean": value, "n": len(scored)}
    return summary


def _psnr_gain(record: Record) -> float | None:
    before, after = record["input"]["psnr"], record["output"]["psnr"]
    return None if before is None or after is None else after - before


def read_run(path: Path) -> tuple[Record, list[Record]]:
    """Header and records of a run: what `--json` printed, or a folder that `--report` wrote.

    The last line of a run that was killed may be half; it is left out.

    Raises:
        UsageError: it is no such file.
    """
    file = path / "run.jsonl" if is_folder(path) else path
    try:
        lines = read_text(file, LARGEST_RUN).splitlines()
    except FileError as error:
        raise UsageError(error.message + ".", error.hint) from error
    found: list[Record] = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            raise UsageError(f"{file} is no run: line {number} is no JSON.") from error
        if isinstance(record, dict):
            if record.get("type") == "image" and not _is_sound(record):
                raise UsageError(f"{file} is no run: line {number} is no record of a picture.", "It was changed.")
            found.append(record)
    if not found or found[0].get("type") != "run" or not isinstance(found[0].get("model"), str):
        raise UsageError(f"{file} is no run.", "A run is what irtool eval --json prints, or a folder of --report.")
    return found[0], [record for record in found if record.get("type") == "image"]


def _is_sound(record: Record) -> bool:
    """Whether a record of a picture has all that is read of it, of the right types."""

    def is_number(value: Any) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max

    if not isinstance(record.get("name"), str):
        return False
    if "error" in record:
        return isinstance(record["error"], str)
    sides = [record.get(side) for side in ("input", "output")]
    return (
        all(isinstance(side, dict) and {"psnr", "ssim"} <= set(side) for side in sides)
        and all(value is None or is_number(value) for side in sides for value in side.values())  # type: ignore[union-attr]
        and all(is_number(record.get(key)) for key in ("width", "height", "seconds"))
        and (record.get("peak_bytes") is None or is_number(record["peak_bytes"]))
        and isinstance(record.get("content"), str)
        and isinstance(record.get("plan", ""), str)
    )


def compare(first: tuple[Record, Sequence[Record]], second: tuple[Record, Sequence[Record]]) -> Record:
    """Paired differences, second less first, over the pictures both runs scored.

    Returns:
        For JSON: what the runs do not share, and for each metric both means, the mean difference with its interval, and
        how many pictures rose and fell.

    Raises:
        UsageError: the runs share no picture.
    """
    (head1, records1), (head2, records2) = first, second
    by_name = {r["name"]: r for r in records1 if "error" not in r}
    both = [(by_name[r["name"]], r) for r in records2 if "error" not in r and r["name"] in by_name]
    if not both:
        raise UsageError("The two runs share no picture.", "They must be of one data set.")
    comparison: Record = {
        "type": "comparison",
        "models": [head1["model"], head2["model"]],
        "pictures": len(both),
        "alone": [len(by_name) - len(both), sum("error" not in r for r in records2) - len(both)],
        "differ": [key for key in MUST_MATCH if head1.get(key) != head2.get(key)],
        "content_differs": sum(a["content"] != b["content"] for a, b in both),
        "metrics": {},
    }
    for metric in both[0][0]["output"]:
        pairs = [(a["output"].get(metric), b["output"].get(metric)) for a, b in both]
        known = [(a, b) for a, b in pairs if a is not None and b is not None]
        if known:
            differences = [b - a for a, b in known]
            comparison["metrics"][metric] = {
                "first": float(np.mean([a for a, _ in known])),
                "second": float(np.mean([b for _, b in known])),
                "difference": mean_of(differences),
                "higher": sum(difference > 0 for difference in differences),
                "lower": sum(difference < 0 for difference in differences),
            }
    return comparison
