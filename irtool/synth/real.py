"""A second-order chain like the history of a picture found in the wild.

Blur, resizing, noise and JPEG in random order, twice, then back to the first size, with sharpening halos: after
Real-ESRGAN (Wang et al., ICCVW 2021) and the wild-IR pipeline (Luo et al., 2024), whose ranges it takes at level 1.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .jpeg import jpeg
from .noise import noise
from .tools import convolve, gaussian_blur, seed_from

_Stage = Callable[[Tensor], Tensor]


def _kernel(dice: random.Random, size: int, sigma_high: float, sinc: float, like: Tensor) -> Tensor:
    """A random blur kernel (1,k,k): Gaussian round or stretched, plateau, disc, or a ringing sinc low-pass."""
    axis = torch.arange(size, device=like.device, dtype=torch.float32) - size // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    if dice.random() < sinc:
        cutoff = dice.uniform(math.pi / (3 if size < 13 else 5), math.pi)
        r = torch.hypot(x, y)
        kernel = cutoff * torch.special.bessel_j1(cutoff * r) / (2 * math.pi * r.clamp(min=1e-6))
        kernel[size // 2, size // 2] = cutoff**2 / (4 * math.pi)
    elif dice.random() < 0.1:
        radius = dice.uniform(0.8, 1.6) * sigma_high
        kernel = (radius + 0.5 - torch.hypot(x, y)).clamp(0, 1)
    else:
        first = dice.uniform(0.2, sigma_high)
        second = first if dice.random() < 0.5 else dice.uniform(0.2, sigma_high)
        turn = dice.uniform(0, math.pi)
        u = (x * math.cos(turn) + y * math.sin(turn)) / first
        v = (y * math.cos(turn) - x * math.sin(turn)) / second
        shape = dice.uniform(0.5, 2) if dice.random() < 0.15 else 1.0
        kernel = torch.exp(-0.5 * (u * u + v * v) ** shape)
    return (kernel / kernel.sum())[None]


def _resized(images: Tensor, size: tuple[int, int], dice: random.Random) -> Tensor:
    mode = dice.choice(("area", "bilinear", "bicubic"))
    smooth = {} if mode == "area" else {"align_corners": False, "antialias": dice.random() < 0.5}
    return F.interpolate(images, size=size, mode=mode, **smooth).clamp(0, 1)


def _one(image: Tensor, generator: torch.Generator, dice: random.Random, level: float) -> Tensor:
    """The whole chain on one picture (1,3,H,W)."""
    h, w = image.shape[-2:]

    def blurred(chance: float, sizes: range, sigma: float, sinc: float) -> _Stage:
        def stage(x: Tensor) -> Tensor:
            if dice.random() >= chance:
                return x
            size = dice.choice(sizes)
            return convolve(x, _kernel(dice, size, 0.2 + (sigma - 0.2) * level, sinc, x)).clamp(0, 1)

        return stage

    def resized(x: Tensor) -> Tensor:
        scale = 1 / (1 + (dice.uniform(0.5, 1.4) - 1) * min(level, 2.0))
        return _resized(x, (max(1, round(h * scale)), max(1, round(w * scale))), dice)

    def noisy(chance: float) -> _Stage:
        def stage(x: Tensor) -> Tensor:
            if dice.random() >= chance:
                return x
            kind = dice.choices(("gaussian", "poisson", "camera"), (3, 2, 3))[0]
            strong = noise(x, generator, sigma=dice.uniform(1, 5 + 5 * level) * level, kind=kind) - x
            if dice.random() < 0.4:
                strong = strong.mean(1, keepdim=True)
            return (x + strong).clamp(0, 1)

        return stage

    def compressed(chance: float, low: int, high: int) -> _Stage:
        def stage(x: Tensor) -> Tensor:
            if dice.random() >= chance:
                return x
            q = round(100 - (100 - dice.uniform(low, high)) * min(level, 2.0))
            return jpeg(x, generator, q=max(5, q), subsampling=dice.choice(("420", "420", "444")))

        return stage

    def sharpened(x: Tensor) -> Tensor:
        if dice.random() >= 0.25:
            return x
        halo = x - gaussian_blur(x, dice.uniform(0.6, 2.5))
        return (x + dice.uniform(0.3, 1.5) * level * halo).clamp(0, 1)

    resizes = dice.random() < 0.8
    orders: list[list[_Stage]] = [
        [blurred(0.8, range(5, 20, 2), 2.2, 0.1), *([resized] if resizes else []), noisy(0.4), compressed(0.4, 60, 95)],
        [blurred(0.4, range(5, 10, 2), 1.5, 0.1), noisy(0.2), sharpened],
        [
            blurred(0.8, range(5, 20, 2), 1.0, 0.8),
            *([lambda x: _resized(x, (h, w), dice)] if resizes else []),
            compressed(0.4, 80, 100),
        ],
    ]
    for stages in orders:
        dice.shuffle(stages)
        for stage in stages:
            image = stage(image)
    return image if image.shape[-2:] == (h, w) else _resized(image, (h, w), dice)


def real(images: Tensor, generator: torch.Generator, *, level: float) -> Tensor:
    """Send each picture through its own random history; `level` scales how strong every stage may be."""
    if level == 0:
        return images
    dice = random.Random(seed_from(generator))
    return torch.cat([_one(image[None], generator, dice, level) for image in images])
