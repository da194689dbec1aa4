"""Spatial entropy losses: pictures compared by the local densities of (pixel, neighborhood mean) pairs.

Wan et al., "Enhancing Low-Light Image with Spatial Entropy Loss" (CVPRW 2024, arXiv 2404.09735). The published code
departs from the formulas in three ways that are kept here because its outputs depend on them: the neighborhood kernel
is divided by its sum over all channels (so for three channels a mean is a third of the true one), the densities of the
three window sizes lie side by side along the width, and no density sums to exactly 1. Square roots of densities, whose
gradient at 0 is infinite, take an epsilon here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

WINDOWS = (1, 3, 5)
KINDS = ("relative", "hellinger", "hellinger-smooth", "cross")
LEVELS = {"relative": 32, "hellinger": 8, "hellinger-smooth": 8, "cross": 64}
"""Bins along each axis where the option file names none."""
BANDWIDTH = 0.5
EPS = 1e-10
MEMORY = 1 << 26
"""Floats of a density that are held at once."""


def neighborhood(u: Tensor, weight: Tensor | None = None) -> Tensor:
    """Weighted sum over the eight neighbors of each pixel, borders zero: (N, C, H, W) -> the same shape.

    Args:
        weight: (1, 1, 3, 3); its center does not count. None for equal weights.
    """
    channels = u.shape[1]
    kernel = u.new_ones(1, 1, 3, 3)
    kernel[..., 1, 1] = 0
    if weight is not None:
        kernel = kernel * weight.to(u)
    kernel = kernel.expand(channels, 1, 3, 3)
    return F.conv2d(u, kernel / kernel.sum(), padding=1, groups=channels)


def _kernel(v: Tensor) -> Tensor:
    s = v.sigmoid()
    # 1 - s cancels to 0 where s rounds to 1; sigmoid(-v) does not, and no density is 0 then.
    return s * (-v).sigmoid()


def density(u: Tensor, neighbors: Tensor, bins: Tensor, bandwidth: float = BANDWIDTH) -> Tensor:
    """Kernel density of (pixel, neighborhood) pairs in windows about every pixel.

    Args:
        u, neighbors: (N, C, H, W), in units of bins.
        bins: (B, 2) where to evaluate it: first the pixel, then the neighborhood.
        bandwidth: of the kernel, the derivative of the logistic function.

    Returns:
        (N, B, C, H, 3 W): the three window sizes side by side.
    """
    of_pixel = _kernel((bins[:, 0].view(1, -1, 1, 1, 1) - u[:, None]) / bandwidth)
    joint = of_pixel * _kernel((bins[:, 1].view(1, -1, 1, 1, 1) - neighbors[:, None]) / bandwidth)
    flat = joint.flatten(0, 2)[:, None]
    parts = []
    for width in WINDOWS:
        box = F.avg_pool2d(flat, width, 1, width // 2) if width > 1 else flat
        parts.append((box / (0.5 * bandwidth)).view_as(joint))
    return torch.cat(parts, dim=-1)


def grid(levels: int, like: Tensor) -> Tensor:
    """All pairs of bins (levels^2, 2), the pixel's running fastest, on the device of `like`."""
    line = torch.arange(levels, dtype=like.dtype, device=like.device)
    return torch.cartesian_prod(line, line).flip(1)


def _summed(terms: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor, levels: int, weight: Tensor | None,
            bandwidth: float) -> Tensor:  # fmt: skip
    """Sum over all bins of ``terms(density of a, density of b)``: (N, C, H, 3 W). Bins are taken in portions, and made
    again for the gradient, so that memory does not grow with their number."""
    pairs = [(u, neighborhood(u, weight)) for u in (x.clamp(0, 1) * (levels - 1) for x in (a, b))]
    bins = grid(levels, a)
    total = torch.zeros((), device=a.device)

    def portion(some: Tensor, u: Tensor, nu: Tensor, v: Tensor, nv: Tensor) -> Tensor:
        return terms(density(u, nu, some, bandwidth), density(v, nv, some, bandwidth)).sum(1)

    for some in bins.split(max(1, MEMORY // (6 * a.numel()))):
        arguments = (some, *pairs[0], *pairs[1])
        learns = torch.is_grad_enabled() and any(x.requires_grad for x in (a, b))
        total = total + (checkpoint(portion, *arguments, use_reentrant=False) if learns else portion(*arguments))
    return total


def relative_entropy(
    image: Tensor, target: Tensor, levels: int = 32, weight: Tensor | None = None, bandwidth: float = BANDWIDTH
) -> Tensor:
    """Kullback-Leibler divergence from the target's densities to the image's, averaged over space and channels.

    Args:
        image, target: (N, C, H, W) in [0, 1]; clamped.
        levels: bins along each axis.
        weight: of the neighborhood (1, 1, 3, 3); drawn anew for every comparison in the published code.
        bandwidth: of the kernel density.
    """
    return _summed(
        lambda p, q: p * ((p + EPS).log() - (q + EPS).log()), target, image, levels, weight, bandwidth
    ).mean()


def hellinger(image: Tensor, target: Tensor, levels: int = 8, weight: Tensor | None = None) -> Tensor:
    """Hellinger distance between the densities, averaged over space and channels; arguments as `relative_entropy`."""

    def terms(p: Tensor, q: Tensor) -> Tensor:
        return ((p + EPS).sqrt() - (q + EPS).sqrt()).square()

    return 2**-0.5 * (_summed(terms, image, target, levels, weight, BANDWIDTH) + EPS).sqrt().mean()


def cross_entropy(image: Tensor, target: Tensor, levels: int = 64) -> Tensor:
    """Cross entropy between the image's densities and the target's, averaged over space and channels."""
    return _summed(lambda p, q: -p * (q + EPS).log(), image, target, levels, None, BANDWIDTH).mean()


def spatial_entropy(image: Tensor, levels: int = 32, weight: Tensor | None = None) -> Tensor:
    """Entropy of a picture's densities, averaged over space and channels."""
    return _summed(lambda p, _: -p * (p + EPS).log(), image, image, levels, weight, BANDWIDTH).mean()


def smooth_l1(image: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference after a 3x3 Gaussian of 1.5 pixels."""
    line = torch.exp(-(torch.tensor([-1.0, 0, 1], device=image.device) ** 2) / (2 * 1.5**2))
    kernel = torch.outer(line, line)
    kernel = (kernel / kernel.sum()).expand(image.shape[1], 1, 3, 3)
    a, b = (F.conv2d(x, kernel, padding=1, groups=x.shape[1]) for x in (image, target))
    return (a - b).abs().mean()


def entropy_loss(
    image: Tensor, target: Tensor, kind: str, generator: torch.Generator, levels: int | None = None
) -> Tensor:
    """A loss of `KINDS`, the neighborhood's weights drawn as published.

    Args:
        image, target: (N, C, H, W) in [0, 1]; clamped.
        kind: one of `KINDS`.
        generator: draws the weights, on the CPU.
        levels: bins along each axis; by default those of `LEVELS`.
    """
    levels = levels or LEVELS[kind]
    if kind == "cross":
        return cross_entropy(image, target, levels)
    weight = torch.randn(1, 1, 3, 3, generator=generator)
    if kind == "relative":
        return relative_entropy(image, target, levels, weight)
    loss = hellinger(image, target, levels, weight)
    return loss + smooth_l1(image, target) if kind == "hellinger-smooth" else loss
