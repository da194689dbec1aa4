"""Raindrops on the lens or a window: each shows the scene wide, upside down and out of focus.

The refraction idea follows Roser and Geiger (ICCVW 2009) and Porav et al. (ICRA 2019); the looks follow
DeRaindrop (Qian et al., CVPR 2018), whose drops are soft discs filled with the light of the sky.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .ops import gaussian_blur, uniform
from .splat import chunks, stamp

# Share of the drops, and smallest and largest radius (times size): many small drops, few large ones.
_SIZES = ((0.45, 0.35, 0.65), (0.35, 0.65, 1.15), (0.2, 1.15, 2.0))
_WOBBLE = 1.15
_MAX_ASPECT = 1.35


def _drops(generator: torch.Generator, radius: Tensor, soft: Tensor) -> Tensor:
    """Patches (M,4,p,p): opacity, and opacity times the shift (columns, rows) and the shade of each pixel."""
    m = radius.numel()
    tall = uniform(generator, (m, 1, 1), 0.9, _MAX_ASPECT, radius)
    reach = math.ceil(float((radius * (1 + soft / 2)).max()) * _MAX_ASPECT * _WOBBLE) + 1
    axis = torch.arange(-reach, reach + 1, device=radius.device, dtype=torch.float32)
    y, x = axis.view(1, -1, 1), axis.view(1, 1, -1)
    r, soft = radius.view(m, 1, 1), soft.view(m, 1, 1)
    turn = torch.atan2(y, x)
    phase = uniform(generator, (2, m, 1, 1), 0, 2 * math.pi, radius)
    wobble = 1 + 0.09 * torch.sin(2 * turn + phase[0]) + 0.06 * torch.sin(3 * turn + phase[1])
    distance = torch.sqrt(x * x + (y / tall) ** 2) / (r * wobble)
    edge = ((1 + soft / 2 - distance) / soft).clamp(0, 1)
    # Out of focus drops are thinner veils than sharp ones.
    thinnest = (1.2 - soft).clamp(0.45, 0.85)
    opacity = edge * edge * (3 - 2 * edge) * (thinnest + (1 - thinnest) * uniform(generator, (m, 1, 1), 0, 1, radius))
    # A lens that turns the view over; its edge bends more, so it sees farther out. Defocus mixes the views of a whole
    # drop, which leaves something near what lies behind it.
    sharp = (1.15 - soft).clamp(max=1)
    zoom = sharp * (1 + uniform(generator, (m, 1, 1), 2, 5, radius) * (1 + distance.clamp(max=1) ** 2))
    shift_x, shift_y = -x * zoom, -y * zoom
    # The sky, turned over, lights the lower half; the upper rim is dark. Defocus washes both out.
    up = (y / (r * tall)).clamp(-1, 1)
    rim = ((distance - 0.6) / 0.4).clamp(0, 1)
    spot = torch.exp(-(((x + 0.3 * r) / (0.22 * r)) ** 2 + ((y + 0.35 * r) / (0.22 * r)) ** 2))
    spot = spot * uniform(generator, (m, 1, 1), 0, 1, radius)
    shade = 0.1 * up + sharp * (0.35 * spot - 0.3 * rim * (-up).clamp(min=0))
    return torch.stack([opacity, opacity * shift_x, opacity * shift_y, opacity * shade], 1)


def raindrop(
    images: Tensor, generator: torch.Generator, *, count: float, size: float, softness: float, glow: float
) -> Tensor:
    """Put drops on the glass: `count` per 256x256 pixels, of radius about `size` pixels.

    A drop shows the scene, by the share `glow` replaced with the light of the scene's bright parts.
    """
    n, _, h, w = images.shape
    maps = torch.zeros(n, 4, h, w, device=images.device)
    drops = count * (h + 2 * size) * (w + 2 * size) / 65536
    for share, small, large in _SIZES:
        each = math.ceil(share * drops)
        points = (2 * math.ceil(large * size * _MAX_ASPECT * _WOBBLE * (1 + softness)) + 3) ** 2
        for part in chunks(n * each, 4 * points):
            sample = torch.arange(part.start, min(part.stop, n * each), device=images.device) // each
            m = sample.numel()
            radius = (size * uniform(generator, (m,), small, large, images)).clamp(min=1)
            soft = (softness * uniform(generator, (m,), 0.7, 1.3, images)).clamp(0.08, 1)
            patches = _drops(generator, radius, soft)
            reach = patches.shape[-1] // 2
            row = uniform(generator, (m,), -size, h + size, images).round().long() - reach
            column = uniform(generator, (m,), -size, w + size, images).round().long() - reach
            stamp(maps, sample, row, column, patches)
    weight = maps[:, :1].clamp(min=1e-6)
    inside = _refracted(images, maps[:, 1:3] / weight, size * (0.15 + 0.7 * softness**2)) + maps[:, 3:] / weight
    bright = F.adaptive_avg_pool2d(images, 12).flatten(2).quantile(0.85, dim=2)[..., None, None]
    lift = uniform(generator, (n, 1, 1, 1), 0, 0.12, images) + uniform(generator, (n, 3, 1, 1), -0.015, 0.015, images)
    sky = 0.5 * bright + 0.5 * bright.mean(1, keepdim=True) + lift
    amount = glow * uniform(generator, (n, 1, 1, 1), 0.6, 1.4, images)
    inside = inside + amount.clamp(max=1) * (sky - inside)
    return images + maps[:, :1].clamp(max=1) * (inside - images)


def _refracted(images: Tensor, shift: Tensor, cell: float) -> Tensor:
    """The scene, blurred over `cell` pixels, at each pixel's place plus `shift` (N,2,H,W), columns then rows."""
    h, w = images.shape[-2:]
    factor = max(1, round(cell))
    small = F.avg_pool2d(images, factor, ceil_mode=True, count_include_pad=False) if factor > 1 else images
    small = gaussian_blur(small, 1.0)
    y = torch.arange(h, device=images.device, dtype=torch.float32).view(1, -1, 1) + shift[:, 1] + 0.5
    x = torch.arange(w, device=images.device, dtype=torch.float32).view(1, 1, -1) + shift[:, 0] + 0.5
    place = torch.stack([x * (2 / w) - 1, y * (2 / h) - 1], -1)
    return F.grid_sample(small, place, mode="bilinear", padding_mode="reflection", align_corners=False)
