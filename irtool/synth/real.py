"""A second-order degradation chain, like the history of a picture found on the web.

Blur, resizing, noise and JPEG in random order, twice, then back to the first size, with sharpening halos: after
Real-ESRGAN (Wang et al., ICCVW 2021) and the wild-IR pipeline (Luo et al., 2024), whose ranges it takes at level 1.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .jpeg import jpeg
from .noise import noise
from .ops import convolve, gaussian_blur, seed_from

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


class _History:
    """Draws the stages of one picture's history, each a function of a picture (1, 3, H, W)."""

    def __init__(self, size: tuple[int, int], generator: torch.Generator, dice: random.Random, level: float) -> None:
        self.size, self.generator, self.dice, self.level = size, generator, dice, level

    def blurred(self, x: Tensor, chance: float, sizes: range, sigma: float, sinc: float) -> Tensor:
        if self.dice.random() >= chance:
            return x
        size = self.dice.choice(sizes)
        return convolve(x, _kernel(self.dice, size, 0.2 + (sigma - 0.2) * self.level, sinc, x)).clamp(0, 1)

    def resized(self, x: Tensor) -> Tensor:
        scale = 1 / (1 + (self.dice.uniform(0.5, 1.4) - 1) * min(self.level, 2.0))
        return _resized(x, (max(1, round(self.size[0] * scale)), max(1, round(self.size[1] * scale))), self.dice)

    def restored_size(self, x: Tensor) -> Tensor:
        return _resized(x, self.size, self.dice)

    def noisy(self, x: Tensor, chance: float) -> Tensor:
        if self.dice.random() >= chance:
            return x
        kind = self.dice.choices(("gaussian", "poisson", "camera"), (3, 2, 3))[0]
        sigma = self.dice.uniform(1, 5 + 5 * self.level) * self.level
        added = noise(x, self.generator, sigma=sigma, kind=kind) - x
        if self.dice.random() < 0.4:
            added = added.mean(1, keepdim=True)
        return (x + added).clamp(0, 1)

    def compressed(self, x: Tensor, chance: float, low: int, high: int) -> Tensor:
        if self.dice.random() >= chance:
            return x
        q = round(100 - (100 - self.dice.uniform(low, high)) * min(self.level, 2.0))
        return jpeg(x, self.generator, q=max(5, q), subsampling=self.dice.choice(("420", "420", "444")))

    def sharpened(self, x: Tensor) -> Tensor:
        if self.dice.random() >= 0.25:
            return x
        halo = x - gaussian_blur(x, self.dice.uniform(0.6, 2.5))
        return (x + self.dice.uniform(0.3, 1.5) * self.level * halo).clamp(0, 1)

    def orders(self) -> list[list[_Stage]]:
        """The stages of the first order, the second, and the way back to the first size, not shuffled yet."""
        resizes = self.dice.random() < 0.8
        first: list[_Stage] = [
            partial(self.blurred, chance=0.8, sizes=range(5, 20, 2), sigma=2.2, sinc=0.1),
            *([self.resized] if resizes else []),
            partial(self.noisy, chance=0.4),
            partial(self.compressed, chance=0.4, low=60, high=95),
        ]
        second: list[_Stage] = [
            partial(self.blurred, chance=0.4, sizes=range(5, 10, 2), sigma=1.5, sinc=0.1),
            partial(self.noisy, chance=0.2),
            self.sharpened,
        ]
        last: list[_Stage] = [
            partial(self.blurred, chance=0.8, sizes=range(5, 20, 2), sigma=1.0, sinc=0.8),
            *([self.restored_size] if resizes else []),
            partial(self.compressed, chance=0.4, low=80, high=100),
        ]
        return [first, second, last]


def _one(image: Tensor, generator: torch.Generator, dice: random.Random, level: float) -> Tensor:
    """The whole chain on one picture (1, 3, H, W)."""
    size = (image.shape[-2], image.shape[-1])
    history = _History(size, generator, dice, level)
    for stages in history.orders():
        dice.shuffle(stages)
        for stage in stages:
            image = stage(image)
    return image if image.shape[-2:] == size else history.restored_size(image)


def real(images: Tensor, generator: torch.Generator, *, level: float) -> Tensor:
    """Degrade each picture (N, 3, H, W) by its own random chain; `level` scales the strength of every stage."""
    if level == 0:
        return images
    dice = random.Random(seed_from(generator))
    return torch.cat([_one(image[None], generator, dice, level) for image in images])
