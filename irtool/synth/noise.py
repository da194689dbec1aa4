"""Noise: exact Gaussian, Poisson, and that of a camera after its processing."""

from __future__ import annotations

import torch
from torch import Tensor

from .ops import (
    filter_columns,
    filter_rows,
    gaussian_taps,
    luminance,
    normal,
    per_sample,
    to_linear,
    to_srgb,
    uniform,
)

# The slope of the sRGB curve at mid grey (0.5): what noise in linear light is multiplied by there.
_SLOPE_AT_GRAY = 1.12
_LINEAR_GRAY = 0.214


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
    """Shot and read noise in linear light, smeared by demosaicing and denoising, flattened by the tone curve.

    The ranges are those of the CC15 and PolyU pairs of real noise: neighbours correlate by 0.4 to 0.85, channels by
    0.1 to 0.85, and in sRGB the noise is about as strong in shadows as in mid tones, and weaker in highlights.
    """
    n = images.shape[0]
    linear = to_linear(images)
    read_share = per_sample(uniform(generator, (n,), 0.0005, 0.02, images))
    variance = (1 - read_share) * linear / _LINEAR_GRAY + read_share
    flattening = per_sample(uniform(generator, (n,), 0.2, 0.7, images))
    tone = 1 - flattening * (2 * images - 1).abs() ** 1.5
    # White balance multiplies red and blue after the sensor, and their noise with them.
    gains = uniform(generator, (n, 3, 1, 1), 0.9, 1.6, images)
    gains[:, 1] = 1.0
    field = normal(generator, images.shape, images) * gains
    taps = gaussian_taps(0.9)
    smeared = filter_columns(filter_rows(field, taps), taps) / sum(tap * tap for tap in taps)
    mix = per_sample(uniform(generator, (n,), 0.5, 1.0, images))
    field = mix * smeared + (1 - mix) * field
    gray = luminance(field)
    keep = per_sample(uniform(generator, (n,), 0.15, 1.0, images))
    field = gray + keep * (field - gray)
    field = field / field.std(dim=(1, 2, 3), keepdim=True, unbiased=False).clamp(min=1e-6)
    return to_srgb(linear + (std / _SLOPE_AT_GRAY) * tone * variance.sqrt() * field)
