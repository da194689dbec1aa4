"""What removing a degradation in vain does to clean pictures, and what removing it gains where it is present.

    python benchmarks/harm.py --data DATA --tables TABLES [--count 24] [--out benchmarks/harm.md]

The costs of the detector's thresholds (`irtool.training.calibrate`) come from here. Clean pictures: those kept back
from training (detector_held.tsv in TABLES), every n-th. Gains: the degraded ones synthesised on them with the ranges of
training, and the test pairs of DATA. Protocol of quality.md.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from publish import publish
from quality import PAIRS, Bench, eight, load, pairs, rounded, seeded

from irtool import metrics, models, synth
from irtool.degradation import CLEAN, IDS
from irtool.engine import pick_device

UNSEEN = 45.0  # dB: a change that nobody sees


def clean(tables: Path, count: int) -> list[Path]:
    with (tables / "detector_held.tsv").open(encoding="utf-8", newline="") as file:
        files = sorted(row["file"] for row in csv.DictReader(file, delimiter="\t") if row["label"] == CLEAN)
    return [tables / files[round(i * (len(files) - 1) / (count - 1))] for i in range(count)]


def report(bench: Bench, data: Path, tables: Path, count: int) -> Iterator[str]:
    yield "| kind | in vain, mean dB | worst | below 45 dB by (harm) | gain, synthetic | gain, pairs | pictures |"
    yield "|---|---|---|---|---|---|---|"
    pictures = {path.name: load(path) for path in clean(tables, count)}
    for kind in IDS:
        vain, gains, paired = [], [], []
        for name, pixels in pictures.items():
            vain.append(min(60.0, metrics.psnr(eight(pixels), eight(bench.restore(pixels, (kind,))))))
            g = seeded("harm", kind, name)
            degraded = rounded(synth.random_chain(kind, g).apply(pixels[None], g)[0])
            before = metrics.psnr(eight(pixels), eight(degraded))
            gains.append(metrics.psnr(eight(pixels), eight(bench.restore(degraded, (kind,)))) - before)
        for _, task, low, highs in PAIRS:
            if task == kind:
                for _, a, b in list(pairs(data / "test", low, highs))[:4]:
                    x, y = load(a), load(b)
                    after = metrics.psnr(eight(y), eight(bench.restore(x, (kind,))))
                    paired.append(after - metrics.psnr(eight(y), eight(x)))
        harm = np.mean([max(0.0, UNSEEN - v) for v in vain])
        real = f"{np.mean(paired):+.1f}" if paired else "-"
        yield (
            f"| {kind} | {np.mean(vain):.1f} | {min(vain):.1f} | {harm:.1f} | {np.mean(gains):+.1f} | {real} "
            f"| {len(vain)} + {len(paired)} |"
        )


def main() -> None:
    assets = Path(models.__file__).parent.parent / "assets"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--model", type=Path, default=assets / "irtool-small.v1.safetensors")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    bench = Bench(given.model, None, pick_device("cpu"), "fp32", False)
    head = [
        "# Harm and gain",
        "",
        "Printed by `python benchmarks/harm.py --data DATA --tables TABLES`.",
        f"{given.model.name}.",
        "",
    ]
    publish([*head, *report(bench, given.data, given.tables, given.count)], given.out)


if __name__ == "__main__":
    main()
