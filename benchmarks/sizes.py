"""The restorers that ship, side by side: size, speed and quality, printed as markdown.

    python benchmarks/sizes.py --data DATA [--rounds 5] [--out benchmarks/sizes.md]

Protocol as in benchmarks/quality.py, the task given. Speed: a megapixel of one tile, runs of all of them in turn in one
process, the median.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from publish import publish
from quality import Bench, degrade, eight, load, pairs
from speed import seconds
from torch import Tensor

from irtool import engine, metrics, weights

PAIRS = (
    ("CC15", "noise", "noise_cc15/noisy", ("noise_cc15/gt",)),
    ("LOL eval15", "lowlight", "lowlight_lol_eval15/low", ("lowlight_lol_eval15/high",)),
    ("SOTS indoor", "haze", "haze_sots_indoor/hazy", ("haze_sots_indoor/gt",)),
    ("Rain100H", "rain", "rain_rain100h/rain", ("rain_rain100h/gt",)),
)
SYNTHETIC = (
    ("noise", "noise(25)"), ("noise", "noise(50)"), ("jpeg", "jpeg(10)"), ("blur", "blur"), ("rain", "rain"),
    ("snow", "snow"), ("haze", "haze"), ("raindrop", "raindrop"), ("missing", "missing"),
)  # fmt: skip


def sets(root: Path) -> Iterator[tuple[str, str, list[tuple[Tensor, Tensor]]]]:
    """(name, task, pairs of degraded and true) of everything that is measured."""
    for name, task, low, highs in PAIRS:
        yield name, task, [(load(a), load(b)) for _, a, b in pairs(root, low, highs)]
    kodak = {p.name: load(p) for p in sorted((root / "clean_kodak").iterdir())}
    for task, chain in SYNTHETIC:
        yield f"`{chain}`", task, [(degrade(x, chain, n), x) for n, x in kodak.items()]


def speeds(benches: dict[str, Bench], rounds: int) -> dict[str, float]:
    """Megapixels per second of each."""
    pixels = torch.rand(3, 1024, 1024, generator=torch.Generator().manual_seed(0))
    elapsed: dict[str, list[float]] = {name: [] for name in benches}
    for count in range(rounds + 1):
        for name, bench in benches.items():
            once = seconds(lambda bench=bench: bench.restore(pixels, ("noise",)), bench.device)  # type: ignore[misc]
            if count:  # the first round warms up
                elapsed[name].append(once)
    return {name: 1.048576 / statistics.median(each) for name, each in elapsed.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds test/")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    device = engine.pick_device(args.device)
    benches = {
        f"{r.id}{' --ensemble' if ensemble else ''}": Bench(weights.locate(r.id), None, device, "auto", ensemble)
        for r in weights.restorers()
        for ensemble in ((False, True) if r.id == weights.DEFAULT_RESTORER else (False,))
    }
    lines = [
        "# The sizes that ship",
        "",
        "Printed by `python benchmarks/sizes.py --data DATA --out benchmarks/sizes.md`.",
        "PSNR in dB, the task given, by the protocol of [quality.md](quality.md).",
        "",
        f"| | input | {' | '.join(benches)} |",
        "|---" * (len(benches) + 2) + "|",
    ]
    capabilities = [bench.restorer.info for bench in benches.values()]
    fast = speeds(benches, args.rounds)
    lines += [
        f"| parameters, millions | | {' | '.join(f'{c.parameters / 1e6:.2f}' for c in capabilities)} |",
        f"| file, MB | | {' | '.join(f'{weights.locate(n.split()[0]).stat().st_size / 1e6:.1f}' for n in benches)} |",
        f"| megapixels a second | | {' | '.join(f'{v:.2f}' for v in fast.values())} |",
    ]
    for name, task, cases in sets(args.data / "test"):
        figures = [np.mean([metrics.psnr(eight(x), eight(y)) for y, x in cases])]
        for bench in benches.values():
            figures.append(np.mean([metrics.psnr(eight(x), eight(bench.restore(y, (task,)))) for y, x in cases]))
        lines.append(f"| {name} ({len(cases)}) | {' | '.join(f'{f:.2f}' for f in figures)} |")
        print(lines[-1], file=sys.stderr, flush=True)
    kind = str(engine.pick_dtype("auto", device, probe=True)).removeprefix("torch.")
    lines += ["", f"torch {torch.__version__}, {device.type}, {kind}, {torch.get_num_threads()} thread(s)."]
    publish(lines, args.out)


if __name__ == "__main__":
    main()
