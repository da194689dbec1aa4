"""Rain: layers of motion-blurred streaks and their veil.

Streaks of several directions and widths over the scene, as in Rain100L and Rain100H (Yang et al., CVPR 2017),
and a thin veil for the rain too far away to be seen as streaks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .ops import filter_rows, per_sample, uniform
from .splat import streaks

_PIXELS_PER_STREAK = 40  # at density 1
_MAX_ANGLE = math.radians(45)


def _layer(
    images: Tensor, generator: torch.Generator, count: int, angles: Tensor, length: float, width: float
) -> Tensor:
    """One layer of `count` streaks per picture, (N,1,H,W), brightness from 0 up; `angles` is (N, directions)."""
    n, _, h, w = images.shape
    m = n * count
    sample = torch.arange(n, device=images.device).repeat_interleave(count)
    which = torch.arange(count, device=images.device).repeat(n) % angles.shape[1]
    angle = angles[sample, which] + uniform(generator, (m,), -0.03, 0.03, images)
    angle = angle.clamp(-_MAX_ANGLE, _MAX_ANGLE)
    long = length * uniform(generator, (m,), 0.5, 1.3, images)
    slope = angle.tan()
    rows = (long * angle.cos()).clamp(min=2)
    reach = length * 1.3
    top = uniform(generator, (m,), -reach, h, images)
    # Streaks that lean in from the sides must start beyond them.
    left = uniform(generator, (m,), -reach, w + reach, images) - slope * rows / 2
    light = uniform(generator, (m,), 0.25, 1, images)
    canvas = torch.zeros(n, 1, h, w, device=images.device)
    streaks(canvas, sample, top, left, rows, slope, light)
    radius = max(1, math.ceil(width * 1.3))
    # Peak 1, full width at half maximum `width`.
    taps = [math.exp(-0.5 * (x * 2.355 / width) ** 2) for x in range(-radius, radius + 1)]
    return filter_rows(canvas, taps)


def rain(
    images: Tensor,
    generator: torch.Generator,
    *,
    density: float,
    angle: float,
    length: float,
    width: float,
    strength: float,
    directions: int,
    spread: float,
    veil: float,
    cover: float,
) -> Tensor:
    """Add rain. Streaks only brighten; the veil blends everything with a light gray."""
    n, _, h, w = images.shape
    off = uniform(generator, (n, directions), -spread, spread, images)
    angles = torch.deg2rad(angle + off)
    reach = length * 1.3
    count = density * (h + reach) * (w + 2 * reach) / _PIXELS_PER_STREAK
    if density > 0:
        fine = _layer(images, generator, math.ceil(0.8 * count), angles, length, width)
        near = _layer(images, generator, math.ceil(0.2 * count), angles, 1.4 * length, 2 * width)
        alpha = (strength * (fine + 0.8 * near)).clamp(max=1)
    else:
        alpha = torch.zeros(n, 1, h, w, device=images.device)
    color = per_sample(uniform(generator, (n,), 0.85, 1.0, images))
    gray = per_sample(uniform(generator, (n,), 0.65, 0.9, images))
    misty = images + veil * (gray - images)
    # Between adding light, as the rain data sets do, and covering the scene, as slow near drops do.
    covering = cover * per_sample(uniform(generator, (n,), 0, 1, images))
    return misty + alpha * (color - covering * misty).clamp(min=0)
