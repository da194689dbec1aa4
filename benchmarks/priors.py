"""Conditional samplers over one prior: PSNR against steps.

    python benchmarks/priors.py --model prior.safetensors --data FOLDER_OF_PHOTOGRAPHS

Every photograph gives one crop of the prior's size from its middle, after a reduction by --downscale. PSNR is over the
whole crop, known pixels included, in 8-bit RGB; printed are the mean over the crops, and that of a plain answer:
the observation itself, its missing pixels filled with the mean color of the others.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from irtool import picture
from irtool.diffusion import guidance as gdp
from irtool.diffusion import guided
from irtool.diffusion.conditional import Prior
from irtool.diffusion.gaussian import gaussian_diffusion
from irtool.diffusion.observation import observe, parse
from irtool.diffusion.operators import Mask
from irtool.diffusion.schedules import times
from irtool.models import loading

OPERATORS = ("mask", "downsample(4)", "blur(sigma=1.2)|noise(10)")


def crops(folder: Path, count: int, size: int, downscale: int) -> Tensor:
    """(N, 3, size, size) in [0, 1]."""
    found = []
    for path in sorted(folder.iterdir())[:count]:
        pixels = torch.from_numpy(picture.read(path).pixels).permute(2, 0, 1)[None]
        small = F.avg_pool2d(pixels, downscale)
        top, left = (small.shape[-2] - size) // 2, (small.shape[-1] - size) // 2
        found.append(small[..., top : top + size, left : left + size])
    return torch.cat(found)


def psnr(a: Tensor, b: Tensor) -> float:
    error = ((a.clamp(0, 1) * 255).round() - b * 255).square().mean(dim=(1, 2, 3))
    return float((10 * torch.log10(255**2 / error.clamp_min(1e-3))).mean())


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--downscale", type=int, default=2)
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 30, 100])
    parser.add_argument("--operators", nargs="+", default=OPERATORS)
    parser.add_argument("--guidance", nargs="+", default=["ddrm", "ddnm", "diffpir", "dps", "gdp", "repaint"])
    given = parser.parse_args()
    net, _ = loading.read(given.model)
    clean = crops(given.data, given.count, net.image_size, given.downscale)
    g = torch.Generator().manual_seed(0)
    missing = (F.interpolate(torch.rand(1, 1, 8, 8, generator=g), clean.shape[-2:]) < 0.35)[0].float()

    def call(x: Tensor, t: int) -> Tensor:
        return net(x, torch.full((1,), float(t)))[:, :3]

    print("| operator | guidance | " + " | ".join(f"{s} steps" for s in given.steps) + " |")
    print("|---|---|" + "---|" * len(given.steps))
    for text in given.operators:
        parts, label = parse(text), text.replace("|", r"\|")
        found = observe(parts, clean, missing if text == "mask" else None)
        noise = torch.randn(found.y.shape, generator=torch.Generator().manual_seed(2))
        y = found.operator(clean) + found.sigma * noise  # type: ignore[misc]
        if isinstance(found.operator, Mask):
            y = y * found.operator.keep
        observation = type(found)(found.operator, found.sigma, y, parts)
        plain = found.linear.pinv(y) if text.startswith("down") else y
        if text == "mask":
            known = 1 - missing
            plain = y + missing * (y.sum((2, 3), keepdim=True) / known.sum())
        print(f"| {label} | none | " + " | ".join([f"{psnr(plain, clean):.2f}"] * len(given.steps)) + " |", flush=True)
        for name in (n for n in given.guidance if n != "repaint" or text == "mask"):
            row = []
            for steps in given.steps:
                seed = torch.Generator().manual_seed(1)
                if name == "gdp":
                    p = gaussian_diffusion(T=1000, respacing=str(steps))
                    base = gdp.SCALES["blur" if text.startswith("blur") else parts[0].name]
                    scale = gdp.steady_scale(base, clean[0].numel(), p.steps)
                    start = torch.randn(clean.shape, generator=seed)
                    x = (gdp.gdp(p, call, start, 2 * y - 1, found.operator, scale,  # type: ignore[arg-type]
                                 lambda i, seed=seed: torch.randn(clean.shape, generator=seed)) + 1) / 2  # fmt: skip
                else:
                    prior = Prior.of_gaussian(gaussian_diffusion(), call)
                    route = guided.route(name, times(1000, steps))
                    x = guided.sample(name, prior, observation, torch.full_like(clean, 0.5), 0.5, route, seed)
                row.append(f"{psnr(x, clean):.2f}")
            print(f"| {label} | {name} | " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
