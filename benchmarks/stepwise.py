"""PSNR by step of a stepwise agent, and where it stops by itself.

    python benchmarks/stepwise.py --model rl.safetensors --data FOLDER_OF_PHOTOGRAPHS

Crops of 64x64 from the middle of the photographs with Gaussian noise of 10, 25 and 50 of 255 (seeded). Prints the mean
PSNR after every step, and what stopping gives once both critics expect less than so many dB of the rest; --figure draws
the former.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from irtool import picture
from irtool.models import loading
from irtool.models.rl_i2it import StepwiseNet
from irtool.training.curve import chart


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """dB of each picture (N,)."""
    return -10 * (a.clamp(0, 1) - b).square().mean(dim=(1, 2, 3)).clamp_min(1e-6).log10()


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--least", type=float, nargs="*", default=[0.0, 1.0, 2.0, 4.0], help="predicted gains, in dB")
    parser.add_argument("--figure", type=Path, help="a PNG to draw the curves in")
    given = parser.parse_args()
    net, _ = loading.read(given.model)
    assert isinstance(net, StepwiseNet)
    found = []
    for path in sorted(given.data.iterdir()):
        pixels = torch.from_numpy(picture.read(path).pixels).permute(2, 0, 1)
        top, left = (pixels.shape[-2] - 64) // 2, (pixels.shape[-1] - 64) // 2
        found.append(pixels[:, top : top + 64, left : left + 64])
    clean = torch.stack(found)
    steps = range(net.max_steps + 1)
    stops = [f"stops at {least:g} dB (steps)" for least in given.least]
    print("| sigma | " + " | ".join([*(f"step {k}" for k in steps), *stops]) + " |")
    print("|---" * (len(steps) + len(stops) + 1) + "|")
    curves = {}
    for sigma in (10, 25, 50):
        g = torch.Generator().manual_seed(sigma)
        degraded = (clean + sigma / 255 * torch.randn(clean.shape, generator=g)).clamp(0, 1)
        cells, x = [float(psnr(degraded, clean).mean())], degraded
        for _ in range(net.max_steps):
            x, _ = net.step(x, degraded)
            cells.append(float(psnr(x, clean).mean()))
        row = [f"{value:.2f}" for value in cells]
        curves[f"sigma {sigma}"] = list(enumerate(cells))
        for least in given.least:
            x, going, taken = degraded, torch.ones(len(clean), dtype=torch.bool), torch.zeros(len(clean))
            for _ in range(net.max_steps):
                following, moves = net.step(x, degraded, least)
                going = going & moves
                taken += going
                x = torch.where(going.view(-1, 1, 1, 1), following, x)
            row.append(f"{float(psnr(x, clean).mean()):.2f} ({float(taken.mean()):.1f})")
        print(f"| {sigma} | " + " | ".join(row) + " |", flush=True)
    if given.figure is not None:
        Image.fromarray(chart({"PSNR in dB by step": curves})).save(given.figure)


if __name__ == "__main__":
    main()
