"""Several kinds of damage in a picture: undone at once, or one after the other?

    python benchmarks/mixtures.py --data DATA [--model FILE] [--pictures 12] [--mixtures "rain|haze" ...]

Kodak pictures at half size, damaged in the order written, as in training (strengths drawn anew for every picture,
seeded by its name and the mixture). PSNR in dB after 8-bit rounding, mean over the pictures: of the damaged picture, of
one pass under all tasks, of a pass for each in the order of `irtool.degradation.RESTORE_ORDER`, of the same the other
way round, and of the passes that a plan makes (`irtool.plan.passes`).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from quality import eight, load, rounded, seeded
from torch import Tensor

from irtool import engine, metrics, models, picture, synth
from irtool.degradation import RESTORE_ORDER
from irtool.models.base import Condition
from irtool.plan import passes
from irtool.training.data import MIXED
from irtool.weights import DEFAULT_RESTORER, locate

MET = tuple("|".join(mixture) for mixture in MIXED)
"""What the shipped restorer was trained on together."""
OTHERS = (
    "rain|lowlight", "haze|lowlight", "snow|lowlight", "blur|lowlight", "shadow|lowlight", "raindrop|noise",
    "rain|blur", "rain|raindrop", "haze|jpeg", "snow|jpeg", "shadow|jpeg", "haze|blur", "missing|noise", "missing|jpeg",
)  # fmt: skip


class Bench:
    """A restorer that remembers its mixtures."""

    def __init__(self, path: Path) -> None:
        self.restorer, self.experts = models.load(path), {}

    def restore(self, pixels: Tensor, groups: Sequence[tuple[str, ...]]) -> Tensor:
        """Several passes, each under the tasks of a group."""
        for ids in groups:
            if ids not in self.experts:
                self.experts[ids] = self.restorer.bind(Condition(dict.fromkeys(ids, 1.0)))
            pixels = engine.run(self.experts[ids], pixels, device=torch.device("cpu")).pixels
        return rounded(pixels)


def measure(bench: Bench, mixture: str, pictures: Sequence[tuple[str, Tensor]]) -> np.ndarray:
    """PSNR (pictures, 5): input, at once, in order, the other way round, as planned."""
    ids = tuple(mixture.split("|"))
    order = sorted(ids, key=RESTORE_ORDER.index)
    rows = []
    for name, clean in pictures:
        g = seeded(mixture, name)
        bad = clean[None]
        for each in ids:
            bad = synth.random_chain(each, g).apply(bad, g)
        bad = rounded(bad)[0]
        ways = ([], [tuple(order)], [(i,) for i in order], [(i,) for i in reversed(order)], passes(ids))
        rows.append([metrics.psnr(eight(clean), eight(bench.restore(bad, way))) for way in ways])
    return np.array(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with test/clean_kodak")
    parser.add_argument("--model", type=Path, default=None, help="by default the shipped one")
    parser.add_argument("--pictures", type=int, default=12)
    parser.add_argument("--mixtures", nargs="*", default=[*MET, *OTHERS])
    args = parser.parse_args()
    begun = time.monotonic()
    found = picture.find([args.data / "test" / "clean_kodak"], recursive=True)
    kept = [found[i * len(found) // args.pictures] for i in range(args.pictures)]
    kodak = [(f.path.name, F.avg_pool2d(load(f.path), 2)) for f in kept]
    path = args.model or locate(DEFAULT_RESTORER)
    bench = Bench(path)
    print("| damage | input | at once | in order | other way round | as planned | planned - at once, ± error |")
    print("|---" * 7 + "|")
    gains: dict[str, list[float]] = {"met in training": [], "not met in training": []}
    for mixture in args.mixtures:
        table = measure(bench, mixture, kodak)
        gain = table[:, 4] - table[:, 1]
        gains["met in training" if mixture in MET else "not met in training"].append(float(gain.mean()))
        cells = " | ".join(f"{v:.2f}" for v in table.mean(axis=0))
        error = gain.std(ddof=1) / len(gain) ** 0.5 if len(gain) > 1 else 0.0
        star = "" if mixture in MET else " *"
        named = mixture.replace("|", ", ") + star
        print(f"| {named} | {cells} | {gain.mean():+.2f} ± {error:.2f} |", flush=True)
    print("\n\\* not met in training.")
    for kind, values in gains.items():
        if values:
            worse = sum(v < -0.005 for v in values)
            print(f"\nMixtures {kind}: as planned {np.mean(values):+.2f} dB; worse on {worse} of {len(values)}.")
    shown = f"{path.name}, {len(kodak)} pictures, torch {torch.__version__}"
    print(f"\n{shown}, {(time.monotonic() - begun) / 60:.1f} minutes.")


if __name__ == "__main__":
    main()
