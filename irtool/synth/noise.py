"""Noise: exact Gaussian, Poisson, and that of a camera after its processing."""

from __future__ import annotations

import torch
from torch import Tensor

from .tools import (
    filter_columns,
    filter_rows,
    gaussian_blur,
    luminance,
    normal,
    per_sample,
    to_linear,
    to_srgb,
    uniform,
)

# The slope of the sRGB curve at mid grey (0.5): what noise in linear light is multiplied by there.
_SLOPE_AT_GREY = 1.12
_LINEAR_GREY = 0.214


def noise(images: Tensor, generator: torch.Generator, *, sigma: float, kind: str) -> Tensor:
    """Add noise of standard deviation `sigma` (8-bit levels; poisson: at mid grey; camera: about that, there).

    gaussian is N(0, (sigma/255)^2), independent per value, and nothing else: the protocol of the benchmarks.
    """
    std = sigma / 255
    if kind == "gaussian" or std == 0:
        return images + std * normal(generator, images.shape, images)
    if kind == "poisson":
        peak = 0.5 / std**2
        counts = torch.poisson((images * peak).to(generator.device), generator=generator).to(images.device)
        return counts / peak
    return _camera(images, generator, std)


def _camera(images: Tensor, generator: torch.Generator, std: float) -> Tensor:
    """Shot and read noise in linear light, smeared as by demosaicing, with in-camera chroma smoothing."""
    n = images.shape[0]
    linear = to_linear(images)
    read_share = per_sample(uniform(generator, (n,), 0.05, 0.5, images))
    variance = (1 - read_share) * linear / _LINEAR_GREY + read_share
    # White balance multiplies red and blue after the sensor, and their noise with them.
    gains = uniform(generator, (n, 3, 1, 1), 0.8, 1.4, images)
    gains[:, 1] = 1.0
    field = normal(generator, images.shape, images) * gains
    taps = (0.25, 0.5, 0.25)
    smeared = filter_columns(filter_rows(field, taps), taps) / 0.375
    mix = per_sample(uniform(generator, (n,), 0.3, 1.0, images))
    field = mix * smeared + (1 - mix) * field
    grey = luminance(field)
    chroma = field - grey
    keep = per_sample(uniform(generator, (n,), 0.2, 1.0, images))
    field = grey + keep * chroma + (1 - keep) * 1.5 * gaussian_blur(chroma, 1.5)
    field = field / field.std(dim=(1, 2, 3), keepdim=True, unbiased=False).clamp(min=1e-6)
    return to_srgb(linear + (std / _SLOPE_AT_GREY) * variance.sqrt() * field)
