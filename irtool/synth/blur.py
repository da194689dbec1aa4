"""Motion blur along a random trajectory.

The trajectory is a random walk of a particle with inertia, shaken by small and seldom large impulses and pulled
back to its start, in the spirit of Boracchi and Foi, "Modeling the performance of image restoration from motion
blur" (IEEE TIP 2012). Light adds up in linear light, so the filter runs there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .ops import convolve, normal, per_sample, smooth_noise, to_linear, to_srgb, uniform

_STEPS = 48
_BETWEEN = 8


def trajectories(generator: torch.Generator, n: int, length: float, shake: float, like: Tensor) -> Tensor:
    """Camera trajectories during the exposure, (N, points, 2) as (x, y) in pixels, centered on the mean.

    The longer side of each path's box is `length` pixels. `shake` 0 gives straight lines, 1 a nervous hand.
    """
    heading = uniform(generator, (n,), 0, 2 * math.pi, like)
    velocity = torch.stack([heading.cos(), heading.sin()], 1)
    position = torch.zeros(n, 2, device=like.device)
    small = normal(generator, (_STEPS, n, 2), like) * (0.25 * shake)
    jerk_mask = uniform(generator, (_STEPS, n, 1), 0, 1, like) < 0.06 * shake
    jerks = normal(generator, (_STEPS, n, 2), like) * 1.2 * jerk_mask
    path = [position]
    for step in range(_STEPS):
        velocity = velocity + small[step] + jerks[step] - (0.02 * shake) * position
        velocity = velocity / velocity.norm(dim=1, keepdim=True).clamp(min=1e-6)
        position = position + velocity
        path.append(position)
    points = torch.stack(path, 1)
    extent = (points.amax(1) - points.amin(1)).amax(1).clamp(min=1e-6)
    points = points * ((length - 1) / extent).view(n, 1, 1)
    between = torch.linspace(0, 1, _BETWEEN + 1, device=like.device)[:-1].view(1, 1, -1, 1)
    fine = points[:, :-1, None] * (1 - between) + points[:, 1:, None] * between
    fine = torch.cat([fine.reshape(n, -1, 2), points[:, -1:]], 1)
    return fine - fine.mean(1, keepdim=True)


def kernels_along(paths: Tensor) -> Tensor:
    """Rasterise paths (N,P,2) into kernels (N,k,k) of unit sum, each point shared by its four nearest pixels."""
    n = paths.shape[0]
    radius = math.ceil(float(paths.abs().max())) + 1
    size = 2 * radius + 1
    corner = paths.floor()
    share = paths - corner
    flat = torch.zeros(n, size * size, device=paths.device)
    for right in (0, 1):
        for down in (0, 1):
            column = corner[..., 0].long() + right + radius
            row = corner[..., 1].long() + down + radius
            weight = (share[..., 0] if right else 1 - share[..., 0]) * (share[..., 1] if down else 1 - share[..., 1])
            flat.scatter_add_(1, row * size + column, weight)
    return (flat / flat.sum(1, keepdim=True)).view(n, size, size)


def blur(images: Tensor, generator: torch.Generator, *, length: float, shake: float, vary: float) -> Tensor:
    """Blur each picture along its own trajectory; with `vary` above 0 the trajectory changes across the picture."""
    return blur_with_kernels(images, generator, length=length, shake=shake, vary=vary)[0]


def blur_with_kernels(
    images: Tensor, generator: torch.Generator, *, length: float, shake: float, vary: float
) -> tuple[Tensor, Tensor]:
    """`blur`, and the kernels (N, k, k) of the path of each picture; where it changes, of the path it changes from."""
    n = images.shape[0]
    linear = to_linear(images)
    kernels = kernels_along(trajectories(generator, n, length, shake, images))
    result = convolve(linear, kernels)
    if vary > 0:
        other = kernels_along(trajectories(generator, n, max(1.0, length * (1 - 0.7 * vary)), shake, images))
        mask = torch.sigmoid(4 * smooth_noise(generator, images, 2) - 1) * vary
        mask = mask * per_sample(uniform(generator, (n,), 0.5, 1, images))
        result = result + mask * (convolve(linear, other) - result)
    return to_srgb(result), kernels
