"""What removing a degradation in vain does to clean pictures, and what removing it gains where it is present.

    python benchmarks/harm.py --data DATA --tables TABLES [--count 12] [--out benchmarks/harm.md]

The costs of the detector's thresholds (`irtool.training.calibrate`) come from here. Clean pictures: of those kept back
from training (detector_held.tsv in TABLES) the ones that look most as if they had the degradation, by the detector's
score: these are what a threshold lets through. Each is restored as `--auto` would, at the strength that the severity
says and with the check afterwards. Gains: degradations synthesised on other clean ones with the ranges of training, and
the test pairs of DATA. Protocol of quality.md;
pictures of more than 0.36 megapixels are reduced to that, or cut where the kind shows at native resolution only.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from publish import publish
from quality import PAIRS, Bench, arguments, eight, load, pairs, rounded, seeded
from torch import Tensor

from irtool import metrics, synth
from irtool.degradation import CLEAN, IDS
from irtool.detection.network import reduced
from irtool.engine import pick_device

UNSEEN = 45.0  # dB: a change that nobody sees
AREA = 600 * 600  # pixels to which larger pictures are reduced, for the time it takes
SIDE = 600  # or to which they are cut: what shows at native resolution only


def clean(tables: Path) -> dict[str, Path]:
    with (tables / "detector_held.tsv").open(encoding="utf-8", newline="") as file:
        files = sorted(row["file"] for row in csv.DictReader(file, delimiter="\t") if row["label"] == CLEAN)
    return {name: tables / name for name in files}


def small(pixels: Tensor, kind: str) -> Tensor:
    if kind not in ("noise", "jpeg", "blur"):
        return rounded(reduced(pixels[None], AREA)[0])
    top, left = (max(0, side - SIDE) // 16 * 8 for side in pixels.shape[1:])  # on the grid of JPEG's blocks
    return pixels[:, top : top + SIDE, left : left + SIDE]


def report(bench: Bench, data: Path, tables: Path, count: int) -> Iterator[str]:
    assert bench.detector is not None
    files = clean(tables)
    scores = {name: bench.detector.diagnose(load(path)).scores for name, path in files.items()}
    yield "| kind | kept by the check | their mean PSNR | worst | harm | gain, synthetic | gain, pairs | pictures |"
    yield "|---|---|---|---|---|---|---|---|"
    others = [files[name] for name in sorted(files)[:: max(1, len(files) // count)]][:count]
    for kind in IDS:
        kept, gains, paired = [], [], []
        for name in sorted(files, key=lambda name: -scores[name][kind])[:count]:
            pixels = small(load(files[name]), kind)
            result, share = bench.vain(pixels, kind)
            if share:
                kept.append(min(60.0, metrics.psnr(eight(pixels), eight(result))))
        for path in others:
            pixels, g = small(load(path), kind), seeded("harm", kind, path.name)
            degraded = rounded(synth.random_chain(kind, g).apply(pixels[None], g)[0])
            before = metrics.psnr(eight(pixels), eight(degraded))
            gains.append(metrics.psnr(eight(pixels), eight(bench.restore(degraded, (kind,)))) - before)
        for _, task, low, highs in PAIRS:
            if task == kind:
                for _, a, b in list(pairs(data / "test", low, highs))[:4]:
                    x, y = load(a), load(b)
                    after = metrics.psnr(eight(y), eight(bench.restore(x, (kind,))))
                    paired.append(after - metrics.psnr(eight(y), eight(x)))
        harm = sum(max(0.0, UNSEEN - v) for v in kept) / count
        real = f"{np.mean(paired):+.1f}" if paired else "-"
        mean, worst = (f"{f(kept):.1f}" if kept else "-" for f in (np.mean, min))
        yield (
            f"| {kind} | {len(kept)} of {count} | {mean} | {worst} | {harm:.1f} | {np.mean(gains):+.1f} | {real} "
            f"| {count} + {len(gains)} + {len(paired)} |"
        )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--count", type=int, default=12)
    given = parser.parse_args()
    bench = Bench(given.model, given.detector, pick_device("cpu"), "fp32", False)
    head = [
        "# Harm and gain",
        "",
        "Printed by `python benchmarks/harm.py --data DATA --tables TABLES`.",
        f"{given.model.name}, {given.detector.name}. Harm: dB below 45, a change that nobody sees, mean over all;",
        "what the check sends back does none.",
        "",
    ]
    publish([*head, *report(bench, given.data, given.tables, given.count)], given.out)


if __name__ == "__main__":
    main()
