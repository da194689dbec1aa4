"""What the detector finds and what it leaves alone: recall and precision by kind, clean pictures by content.

    python benchmarks/detector.py --data DATA --tables TABLES [--detector FILE] [--out benchmarks/detector.md]

DATA holds test/ (and nothing of it was trained on); TABLES is the folder that tools/detector_tables.py wrote: its
detector_held.tsv lists the photographs of sources that were kept back from training (the thresholds were chosen with
them). What is found in a photograph is undone with the default restorer, to see what the check after it keeps.
"""

from __future__ import annotations

import csv
import hashlib
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from publish import publish
from quality import PAIRS, SINGLE, Bench, arguments, degrade, eight, load, pairs, rounded, seeded

from irtool import metrics, synth
from irtool.degradation import CLEAN, IDS
from irtool.detection import Diagnosis
from irtool.detection import load as load_detector
from irtool.engine import pick_device

Case = tuple[str, str, str]  # group, label, file


def held_back(tables: Path) -> Iterator[Case]:
    with (tables / "detector_held.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            kind = row["source"].split()[1]
            yield kind.split("/")[-1] if row["label"] == CLEAN else "kept back", row["label"], str(tables / row["file"])


def real(test: Path) -> Iterator[Case]:
    for folder in sorted(test.glob("real_*")):
        for path in sorted(folder.iterdir()):
            yield "test/real", folder.name.removeprefix("real_"), str(path)


def both_sides(test: Path) -> Iterator[Case]:
    for _, task, low, highs in PAIRS:
        truths = set()
        for _, degraded, truth in pairs(test, low, highs):
            yield "pairs", task, str(degraded)
            truths.add(str(truth))
        yield from (("clean halves of pairs", CLEAN, truth) for truth in sorted(truths))
    for path in sorted((test / "clean_kodak").iterdir()):
        yield "Kodak", CLEAN, str(path)


def drawn(test: Path) -> Iterator[tuple[str, str, torch.Tensor]]:
    """Single degradations on Kodak: at the strengths of quality.md, and three draws from the training ranges."""
    kodak = {path.name: load(path) for path in sorted((test / "clean_kodak").iterdir())}
    for kind, chain in SINGLE:
        for name, pixels in kodak.items():
            yield "synthetic", kind, degrade(pixels, chain, name)
    for kind in IDS:
        for name, pixels in kodak.items():
            for draw in range(3):
                g = seeded("detector", kind, name, str(draw))
                yield "synthetic draws", kind, rounded(synth.random_chain(kind, g).apply(pixels[None], g)[0])


class Tally:
    """Diagnoses of one group of pictures."""

    def __init__(self) -> None:
        self.found: list[tuple[str, Diagnosis]] = []
        self.undone: list[tuple[str, tuple[str, ...]]] = []
        """Of photographs with a degradation, what `--auto` removed and the check kept."""

    def table(self) -> Iterator[str]:
        done = "undone | " if self.undone else ""
        yield f"| kind | pictures | found | {done}as strongest | uncertain | something else instead | precision |"
        yield "|---|---|---|---|---|---|---|" + "---|" * bool(self.undone)
        recalls, kept = [], []
        for kind in IDS:
            mine = [d for label, d in self.found if label == kind]
            if not mine:
                continue
            hits = sum(kind in d.present for d in mine)
            first = sum(d.present[:1] == (kind,) for d in mine)
            perhaps = sum(kind in d.uncertain for d in mine)
            other = sum(bool(d.present) and kind not in d.present for d in mine)
            claimed = sum(kind in d.present for _, d in self.found)
            recalls.append(hits / len(mine))
            precision = f"{hits / claimed:.0%}" if claimed else "-"
            share = f"{hits} ({hits / len(mine):.0%})"
            if self.undone:
                removed = sum(kind in ids for label, ids in self.undone if label == kind)
                kept.append(removed / len(mine))
                share += f" | {removed} ({kept[-1]:.0%})"
            yield f"| {kind} | {len(mine)} | {share} | {first} | {perhaps} | {other} | {precision} |"
        if recalls:
            after = f" Undone: {np.mean(kept):.1%}." if kept else ""
            yield from ("", f"Recall, mean over {len(recalls)} kinds: {np.mean(recalls):.1%}.{after}")


def cost(detector: Path) -> Iterator[str]:
    """What a detector takes of this machine: loading it, and one diagnosis of 12 megapixels."""
    pixels = torch.rand(3, 3000, 4000, generator=torch.Generator().manual_seed(0))
    rounds = []
    for _ in range(5):
        start = time.perf_counter()
        loaded = load_detector(detector, pick_device("cpu"))
        between = time.perf_counter()
        loaded.diagnose(pixels)
        rounds.append((between - start, time.perf_counter() - between))
    load, diagnosis = (statistics.median(column) for column in zip(*rounds, strict=True))
    threads = torch.get_num_threads()
    yield f"Loading it takes {load:.2f} s, one diagnosis of 12 megapixels {diagnosis:.2f} s ({threads} threads)."


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--tables", type=Path, required=True)
    given = parser.parse_args()
    bench = Bench(given.model, given.detector, pick_device("cpu"), "fp32", False)
    assert bench.detector is not None
    groups: dict[str, Tally] = defaultdict(Tally)
    clean: dict[str, list[tuple[str, Diagnosis]]] = defaultdict(list)
    changed: list[str] = []
    decibels: list[float] = []
    test = given.data / "test"
    for group, label, path in (*held_back(given.tables), *real(test), *both_sides(test)):
        pixels = load(Path(path))
        diagnosis = bench.detector.diagnose(pixels)
        if label != CLEAN:
            groups[group].found.append((label, diagnosis))
            if group != "pairs":
                groups[group].undone.append((label, bench.auto(pixels)[1] if diagnosis.present else ()))
            continue
        groups["kept back"].found.append((label, diagnosis))
        clean[group].append((path, diagnosis))
        if diagnosis.present:
            result, undone = bench.auto(pixels)
            if undone:
                decibels.append(metrics.psnr(eight(pixels), eight(result)))
                changed.append(f"| {group} | {Path(path).name} | {', '.join(undone)} | {decibels[-1]:.1f} |")
                print(changed[-1], file=sys.stderr, flush=True)
    for group, label, pixels in drawn(test):
        groups[group].found.append((label, bench.detector.diagnose(pixels)))
    sha = hashlib.sha256(given.detector.read_bytes()).hexdigest()[:16]
    lines = [
        "# Detector",
        "",
        "Printed by `python benchmarks/detector.py --data DATA --tables TABLES --out benchmarks/detector.md`.",
        f"Detector {given.detector.name} (sha256 {sha}...), restorer {given.model.name}.",
        *cost(given.detector),
        "Found: its score reaches the threshold, so `--auto` removes it. Undone: and the check of the result kept it.",
        "Uncertain: named, but left.",
    ]
    titles = {
        "kept back": "Real photographs of sources kept back from training",
        "test/real": "test/real_*: real photographs",
        "pairs": "Degraded halves of the test pairs",
        "synthetic": "Single degradations on 12 Kodak photographs",
        "synthetic draws": "Three draws from the training ranges on each of them",
    }
    for group, title in titles.items():
        lines += ["", f"## {title}", "", *groups[group].table()]
    lines += ["", "## Clean photographs", "", "| set | pictures | left alone | found instead |", "|---|---|---|---|"]
    total = alone = 0
    for group, rows in sorted(clean.items()):
        kept = sum(not d.present for _, d in rows)
        wrong = Counter(i for _, d in rows for i in d.present[:1])
        total, alone = total + len(rows), alone + kept
        instead = ", ".join(f"{kind} {count}" for kind, count in wrong.items())
        lines.append(f"| {group} | {len(rows)} | {kept} ({kept / len(rows):.1%}) | {instead} |")
    lines += ["", f"Left alone, all together: {alone} of {total} ({alone / total:.1%})."]
    rest = total - len(changed)
    lines += [f"After the check of the result: {rest} ({rest / total:.1%})."]
    if changed:
        lines += ["", "What `--auto` changes among them (after its check of the result):", ""]
        lines += ["| set | file | undone | PSNR to the input, dB |", "|---|---|---|---|", *changed]
    publish(lines, given.out)


if __name__ == "__main__":
    main()
