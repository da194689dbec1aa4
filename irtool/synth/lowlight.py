"""Low light: less exposure in linear light, the noise of few photons, and a darker tone curve."""

from __future__ import annotations

import torch
from torch import Tensor

from .tools import normal, per_sample, to_linear, to_srgb, uniform


def lowlight(
    images: Tensor, generator: torch.Generator, *, ev: float, gamma: float, noise: float, tint: float
) -> Tensor:
    """Darken each picture by `ev` stops.

    `noise` is the standard deviation, in 8-bit levels of the dark picture, where the scene was mid grey; the shot
    part falls with the square root of the light and the read part does not. `gamma` above 1 darkens the darks
    further. `tint` shifts the white balance, each channel's exposure by a factor up to 1 +- tint.
    """
    n = images.shape[0]
    gain = 2.0**-ev * uniform(generator, (n, 3, 1, 1), 1 - tint, 1 + tint, images)
    linear = to_linear(images) * gain
    if noise > 0:
        grey = 0.214 * 2.0**-ev
        probe = torch.tensor([grey, grey * 1.02], dtype=torch.float64)
        slope = float(to_srgb(probe).diff() / probe.diff())
        std = noise / 255 / slope
        read_share = per_sample(uniform(generator, (n,), 0.2, 0.8, images))
        variance = (1 - read_share) * linear / grey + read_share
        linear = linear + std * variance.sqrt() * normal(generator, images.shape, images)
    dark = to_srgb(linear)
    return dark if gamma == 1 else dark.clamp(min=0) ** gamma
