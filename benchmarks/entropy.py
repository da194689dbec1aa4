"""L1 against spatial entropy losses on one small low-light run, several seeds.

    python benchmarks/entropy.py --train DATA/train_pairs/lowlight_lol --test DATA/test/lowlight_lol_eval15 \\
        --runs runs/entropy

Both folders hold pairs in low/ and high/. Pictures are reduced to a quarter, so that a crop of 16 pixels shows some of
the scene. Trains a small IR-SDE (recipe ir-sde) with each loss between the predicted and the optimum reverse state,
from the same seeds on the same samples, and restores the middle of every test picture by 10 posterior steps. Prints
PSNR and SSIM, and how well noise was predicted at the end of training, mean and standard deviation over the seeds. Runs
that are in --runs are resumed, and measured once.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean, stdev

import torch
from PIL import Image
from torch import Tensor

from irtool import metrics, picture
from irtool.diffusion import irsde
from irtool.diffusion.schedules import times
from irtool.training import loop, recipe
from irtool.training.export import load_checkpoint
from irtool.training.irsde import IRSDETask

CPU = torch.device("cpu")
REDUCED, SIDE = 4, 48
"""Factor by which pictures are reduced, and side of what is measured of them."""


def reduced(pairs: Path, to: Path) -> Path:
    """Write the pictures of low/ and high/ at a quarter of their size."""
    for side in ("low", "high"):
        (to / side).mkdir(parents=True, exist_ok=True)
        for path in sorted((pairs / side).iterdir()):
            target = to / side / f"{path.stem}.png"
            if not target.exists():
                with Image.open(path) as image:
                    image.convert("RGB").reduce(REDUCED).save(target)
    return to


def middles(folder: Path) -> Tensor:
    """(N, 3, SIDE, SIDE) in [0, 1]."""
    found = []
    for path in sorted(folder.iterdir()):
        pixels = torch.from_numpy(picture.read(path).pixels).permute(2, 0, 1)
        top, left = (pixels.shape[-2] - SIDE) // 2, (pixels.shape[-1] - SIDE) // 2
        found.append(pixels[:, top : top + SIDE, left : left + SIDE])
    return torch.stack(found)


def made(loss: str, seed: int, steps: int) -> recipe.Recipe:
    """The recipe ir-sde for the reduced pairs, with a small network."""
    table = recipe.table(recipe.find("ir-sde"))
    table |= {
        "steps": steps, "rate": 1e-3, "warmup": 20, "ema": 0.98, "seed": seed, "precision": "fp32", "region": 16,
        "group": 8, "pool": 64, "report_every": 50, "save_every": 10**6, "preview_every": 10**6, "data": [],
        "weights": {}, "pairs": [{"task": ["lowlight"], "degraded": "low", "clean": "high"}],
        "phases": [{"until": 1.0, "crop": 16, "batch": 8}], "model": {"nf": 16, "depth": 2},
    }  # fmt: skip
    table["settings"] = {**table["settings"], "loss": loss}
    return recipe.build(table, "ir-sde")


@torch.inference_mode()
def measured(checkpoint: Path, low: Tensor, high: Tensor) -> tuple[float, float]:
    """Mean PSNR in dB and SSIM of restored pictures."""
    net, r, _ = load_checkpoint(checkpoint)
    p, g = IRSDETask().process(r), torch.Generator().manual_seed(0)
    restored = irsde.sample(
        p, net, low, times(p.T, 10), "posterior", lambda: torch.randn(low.shape, generator=g)
    ).clamp(0, 1)  # fmt: skip
    return scores(restored, high)


def scores(found: Tensor, high: Tensor) -> tuple[float, float]:
    pairs = [[metrics.to_8bit(x.permute(1, 2, 0).numpy()) for x in pair] for pair in zip(high, found, strict=True)]
    return mean(metrics.psnr(*pair) for pair in pairs), mean(metrics.ssim(*pair) for pair in pairs)


def noise_error(run: Path) -> float:
    """Mean absolute error of the predicted noise, of unit variance, over the last stretch of a run."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return float(next(line["noise_error"] for line in reversed(lines) if "noise_error" in line))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--losses", nargs="+", default=["l1", "hellinger"])
    given = parser.parse_args()
    root = reduced(given.train, given.runs / "train")
    test = reduced(given.test, given.runs / "test")
    low, high = middles(test / "low"), middles(test / "high")
    print("| loss | PSNR | SSIM | error of the predicted noise |\n|---|---|---|---|")
    print("| (the input) | {:.2f} | {:.3f} | |".format(*scores(low, high)), flush=True)
    for loss in given.losses:
        found = []
        for seed in given.seeds:
            out = given.runs / f"{loss}-{seed}"
            kept = out / f"scores-{given.steps}.json"
            if not kept.exists():
                checkpoint = loop.train(made(loss, seed, given.steps), root, out, device=CPU)
                kept.write_text(json.dumps(measured(checkpoint, low, high)))
            found.append((*json.loads(kept.read_text()), noise_error(out)))
        cells = []
        for values, digits in zip(zip(*found, strict=True), (2, 3, 3), strict=True):
            spread = stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{mean(values):.{digits}f} ± {spread:.{digits}f}")
        print(f"| {loss} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
