"""Cast shadows: polygons, figures and blobs with a penumbra, darker and bluer than the sunlit scene.

In a shadow the sun is gone and the blue sky remains, so in linear light each channel keeps its own share
(the model behind SRD and ISTD: Qu et al., CVPR 2017; Wang et al., CVPR 2018).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .ops import grid, per_sample, smooth_noise, to_linear, to_srgb, uniform

_EDGES = 4
_LIMBS = 6
_QUANTILE_SIDE = 64


def _figure(images: Tensor, generator: torch.Generator) -> Tensor:
    """Height (N,1,H,W) of overlapping ellipses stretched to one side, like the shadows of people, trees and signs."""
    n = images.shape[0]
    y, x = grid(images)
    turn = uniform(generator, (n, 1, 1), 0, 2 * math.pi, images)
    drawn_out = uniform(generator, (n, 1, 1), 1, 3, images)
    center = uniform(generator, (2, n, 1, 1), 0.1, 0.9, images)
    along = ((x - center[1]) * turn.cos() + (y - center[0]) * turn.sin()) / drawn_out
    across = (y - center[0]) * turn.cos() - (x - center[1]) * turn.sin()
    place = torch.zeros(2, n, 1, 1, device=images.device)
    height = torch.full(torch.broadcast_shapes(along.shape, across.shape), -math.inf, device=images.device)
    for _ in range(_LIMBS):
        place = place + uniform(generator, (2, n, 1, 1), -0.12, 0.12, images)
        radius = uniform(generator, (2, n, 1, 1), 0.03, 0.12, images)
        away = ((along - place[0]) / radius[0]) ** 2 + ((across - place[1]) / radius[1]) ** 2
        height = torch.maximum(height, 0.1 * (1 - away.sqrt()))
    return height[:, None]


def shadow_mask(images: Tensor, generator: torch.Generator, softness: float, coverage: float) -> Tensor:
    """Where the shadow lies, (N,1,H,W) in [0,1]: about `coverage` of it, edge `softness` of the longer side."""
    n = images.shape[0]
    y, x = grid(images)
    turn = uniform(generator, (n, 1, 1), 0, 2 * math.pi, images)
    center = uniform(generator, (2, n, 1, 1), 0.1, 0.9, images)
    polygon = torch.full((n, 1, 1), math.inf, device=images.device)
    edges = uniform(generator, (n, 1, 1), 1, _EDGES + 1, images).floor()
    for edge in range(_EDGES):
        angle = turn + 2 * math.pi * (edge + uniform(generator, (n, 1, 1), -0.3, 0.3, images)) / _EDGES
        reach = uniform(generator, (n, 1, 1), 0.05, 0.35, images)
        side = reach - (x - center[1]) * angle.cos() - (y - center[0]) * angle.sin()
        polygon = torch.where(edge < edges, torch.minimum(polygon, side), polygon)
    blobs = 0.3 * smooth_noise(generator, images, 3, 2)
    ragged = per_sample(uniform(generator, (n,), 0, 1, images)) ** 3
    leaves = 0.15 * smooth_noise(generator, images, 12, 2)
    mixed = per_sample((uniform(generator, (n,), 0, 1, images) < 0.35).float())
    figure = per_sample((uniform(generator, (n,), 0, 1, images) < 0.3).float())
    field = (1 - mixed) * polygon[:, None] + mixed * blobs
    field = (1 - figure) * field + figure * _figure(images, generator) + ragged * leaves
    small = F.adaptive_avg_pool2d(field, _QUANTILE_SIDE).flatten(1)
    level = torch.quantile(small, min(max(1 - coverage, 0.0), 1.0), dim=1)
    return torch.sigmoid((field - per_sample(level)) * (4 / max(softness, 1e-3)))


def shadow(
    images: Tensor, generator: torch.Generator, *, strength: float, softness: float, coverage: float, tint: float
) -> Tensor:
    """Cast a shadow that removes the fraction `strength` of the linear light, red more than blue by `tint`."""
    n = images.shape[0]
    if coverage == 0 or strength == 0:
        return images
    mask = shadow_mask(images, generator, softness, coverage)
    channel_tint = torch.tensor([-1.0, 0.0, 1.0], device=images.device).view(1, 3, 1, 1)
    amount = per_sample(uniform(generator, (n,), 0.5, 1.5, images)) * tint
    transmittance = ((1 - strength) * (1 + amount * channel_tint)).clamp(0, 1)
    return to_srgb(to_linear(images) * (1 - mask * (1 - transmittance)))
