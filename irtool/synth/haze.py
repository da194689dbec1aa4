"""Haze: the scattering model ``I = J t + A (1 - t)``, ``t = exp(-beta d)``.

The model is Koschmieder's, with the ranges of RESIDE (Li et al. 2019) in mind. True depth is unknown, so depth-like
fields are made of a gradient, smooth noise, and regions that follow the picture's own colours.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .ops import gaussian_blur, grid, per_sample, smooth_noise, uniform

_REGIONS = 7
_REGION_SIDE = 128
_SEEN = 0.2


def _regions(images: Tensor, generator: torch.Generator) -> Tensor:
    """Depth that is flat on patches alike in colour and near in place, (N,1,H,W) in [0,1]."""
    n, _, h, w = images.shape
    shrink = max(1.0, max(h, w) / _REGION_SIDE)
    small = F.interpolate(images, size=(max(1, round(h / shrink)), max(1, round(w / shrink))), mode="area")
    small = gaussian_blur(small, 1.0)
    y, x = grid(small)
    center = uniform(generator, (_REGIONS, n, 2), 0, 1, images)
    color = uniform(generator, (_REGIONS, n, 3, 1, 1), 0, 1, images)
    depth = uniform(generator, (_REGIONS, n, 1, 1, 1), 0, 1, images)
    weighted = torch.zeros_like(small[:, :1])
    total = torch.zeros_like(weighted)
    for region in range(_REGIONS):
        place = (y - center[region, :, 0].view(n, 1, 1)) ** 2 + (x - center[region, :, 1].view(n, 1, 1)) ** 2
        distance = ((small - color[region]) ** 2).sum(1, keepdim=True) + place[:, None]
        membership = torch.exp(-distance * 12)
        weighted += membership * depth[region]
        total += membership
    return F.interpolate(weighted / total.clamp(min=1e-12), size=(h, w), mode="bilinear", align_corners=False)


def depth_field(images: Tensor, generator: torch.Generator) -> Tensor:
    """A depth-like field (N,1,H,W) in [0.05, 1], far at the top more often than not."""
    n = images.shape[0]
    y, x = grid(images)
    tilt = uniform(generator, (n, 1, 1), -math.pi / 3, math.pi / 3, images)
    gradient = (1 - y) * tilt.cos() + (x - 0.5) * tilt.sin()
    weights = uniform(generator, (3, n), 0, 1, images)
    weights = weights / weights.sum(0)
    field = per_sample(weights[0]) * gradient[:, None]
    field = field + per_sample(weights[1]) * (0.5 + 0.5 * smooth_noise(generator, images, 3, 2))
    field = field + per_sample(weights[2]) * _regions(images, generator)
    low, high = field.amin((2, 3), keepdim=True), field.amax((2, 3), keepdim=True)
    field = (field - low) / (high - low).clamp(min=1e-6)
    # The nearest object is seldom at the lens, and some scenes are flat walls.
    near = per_sample(uniform(generator, (n,), 0.05, 0.7, images))
    return near + (1 - near) * field


def transmission(images: Tensor, generator: torch.Generator, beta: float) -> Tensor:
    """Transmission map (N,1,H,W) in (0, 1]."""
    return torch.exp(-beta * depth_field(images, generator))


def airlight_color(like: Tensor, generator: torch.Generator, airlight: float, tint: float) -> Tensor:
    """(N,3,1,1): grey `airlight`, each channel off by at most `tint`, at most 1."""
    n = like.shape[0]
    return (airlight + uniform(generator, (n, 3, 1, 1), -tint, tint, like)).clamp(0, 1)


def haze(images: Tensor, generator: torch.Generator, *, beta: float, airlight: float, tint: float) -> Tensor:
    """Add haze to each picture. `beta` is the optical depth of the farthest point: 1 leaves 37 % of its light."""
    t = transmission(images, generator, beta)
    color = airlight_color(images, generator, airlight, tint)
    return images * t + color * (1 - t)


def dense_fog(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Dense fog, and a target that keeps the fog where the scene cannot be recovered.

    Where less than `_SEEN` of the scene's light arrives, what lies behind is a guess, and a sky is no scene at all:
    there haze stays, as much as that share leaves (the lower bound of the transmission in He et al., "Single image haze
    removal using dark channel prior", CVPR 2009). Without it whatever is pale turns to black smears in a real fog.
    Little light falls on a scene in fog, so the picture is exposed for the fog; the target is exposed for the scene.

    Returns:
        (hazy, target), each (N,3,H,W) in [0, 1].
    """
    n = images.shape[0]
    # Below that it is haze, and the brightness of the scene would be ambiguous.
    beta = per_sample(uniform(generator, (n,), 2.5, 7, images))
    t = torch.exp(-beta * depth_field(images, generator))
    gray = per_sample(uniform(generator, (n,), 0.6, 1, images))
    color = (gray + uniform(generator, (n, 3, 1, 1), -0.04, 0.04, images)).clamp(0, 1)
    lit = per_sample(uniform(generator, (n,), 0.55, 1, images))
    return images * lit * t + color * (1 - t), color + (images - color) * (t / _SEEN).clamp(max=1)
