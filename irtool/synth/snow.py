"""Snow: flakes of several sizes, the near ones large and out of focus, drawn out by their fall.

After the looks of Snow100K (Liu et al., "DesnowNet", IEEE TIP 2018).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .ops import per_sample, uniform
from .splat import chunks, stamp

# Per layer: share of the flakes, smallest and largest radius (times size), softness of the edge, opacity.
_LAYERS = ((0.80, 0.2, 0.6, 1.2, 0.95), (0.17, 0.5, 1.4, 1.1, 0.9), (0.03, 1.4, 3.2, 1.3, 0.5))
_PIXELS_PER_FLAKE = 70  # at density 1 and size 3


def _flakes(
    generator: torch.Generator, radius: Tensor, heading: Tensor, drawn: Tensor, soft: float, opacity: float
) -> Tensor:
    """Opacity patches (M,1,p,p) of irregular flakes smeared along `heading` by `drawn` pixels."""
    m = radius.numel()
    reach = math.ceil(float((radius * 1.4 + drawn / 2).max())) + 1
    axis = torch.arange(-reach, reach + 1, device=radius.device, dtype=torch.float32)
    shift = uniform(generator, (2, m, 1, 1), -0.5, 0.5, radius)
    y, x = axis.view(1, -1, 1) + shift[0], axis.view(1, 1, -1) + shift[1]
    sine, cosine = heading.sin().view(m, 1, 1), heading.cos().view(m, 1, 1)
    along, across = x * sine + y * cosine, x * cosine - y * sine
    half = drawn.view(m, 1, 1) / 2
    along = (along.abs() - half).clamp(min=0) * along.sign()
    turn = torch.atan2(across, along)
    phase = uniform(generator, (2, m, 1, 1), 0, 2 * math.pi, radius)
    wobble = 1 + 0.18 * torch.sin(2 * turn + phase[0]) + 0.12 * torch.sin(3 * turn + phase[1])
    distance = torch.hypot(along, across) / (radius.view(m, 1, 1) * wobble)
    edge = ((1 + soft / 2 - distance) / soft).clamp(0, 1)
    light = opacity * uniform(generator, (m, 1, 1), 0.25, 1, radius)
    # A flake drawn out covers each point for a shorter time.
    faded = (radius.view(m, 1, 1) / (radius.view(m, 1, 1) + 0.4 * half)).clamp(max=1)
    return (light * faded * edge * edge * (3 - 2 * edge))[:, None]


def snow(
    images: Tensor,
    generator: torch.Generator,
    *,
    density: float,
    size: float,
    speed: float,
    angle: float,
    veil: float,
) -> Tensor:
    """Add snow. Flakes only brighten; the veil blends everything with white."""
    n, _, h, w = images.shape
    depth = torch.zeros(n, 1, h, w, device=images.device)
    winds = torch.deg2rad(angle + uniform(generator, (n,), -15, 15, images))
    for share, small, large, soft, opacity in _LAYERS:
        margin = large * size * 1.5 + speed
        area = (h + 2 * margin) * (w + 2 * margin)
        count = round(share * density * area / (_PIXELS_PER_FLAKE * (size / 3) ** 1.5)) if density > 0 else 0
        points = (2 * math.ceil(margin + 1) + 1) ** 2
        for part in chunks(n * count, points):
            sample = torch.arange(part.start, min(part.stop, n * count), device=images.device) // count
            m = sample.numel()
            radius = size * uniform(generator, (m,), small, large, images)
            heading = winds[sample] + uniform(generator, (m,), -0.2, 0.2, images)
            drawn = speed * uniform(generator, (m,), 0.5, 1.2, images) * (radius / size).clamp(0.4, 1.5)
            patches = _flakes(generator, radius, heading, drawn, soft, opacity)
            reach = patches.shape[-1] // 2
            row = uniform(generator, (m,), -margin, h + margin, images).round().long() - reach
            column = uniform(generator, (m,), -margin, w + margin, images).round().long() - reach
            stamp(depth, sample, row, column, -torch.log1p(-patches.clamp(max=0.98)))
    alpha = 1 - torch.exp(-depth)
    white = per_sample(uniform(generator, (n,), 0.92, 1.0, images))
    misty = images + veil * (0.9 - images)
    return misty + alpha * (white - misty).clamp(min=0)
