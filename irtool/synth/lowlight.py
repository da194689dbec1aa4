"""Low light: less exposure in linear light, the noise of few photons, and a darker tone curve."""

from __future__ import annotations

import torch
from torch import Tensor

from .ops import normal, per_sample, to_linear, to_srgb, uniform


def lowlight(
    images: Tensor, generator: torch.Generator, *, ev: float, gamma: float, noise: float, tint: float
) -> Tensor:
    """Darken each picture by `ev` stops, after a tone curve ``x**gamma`` that pulls its shadows down.

    `noise` is the standard deviation, in 8-bit levels of the dark picture, where the scene was mid grey; the shot
    part falls with the square root of the light and the read part does not. `tint` shifts the white balance, each
    channel's exposure by a factor up to 1 +- tint.

    Most LOL pairs are met by ev 4..8 and gamma 1.2..2.2: the dark picture is about 0.04..0.3 times x**gamma.
    """
    n = images.shape[0]
    gain = 2.0**-ev * uniform(generator, (n, 3, 1, 1), 1 - tint, 1 + tint, images)
    linear = to_linear(images if gamma == 1 else images.clamp(min=0) ** gamma) * gain
    if noise > 0:
        gray = float(to_linear(torch.tensor(0.5**gamma))) * 2.0**-ev
        probe = torch.tensor([gray, gray * 1.02], dtype=torch.float64)
        slope = float(to_srgb(probe).diff() / probe.diff())
        std = noise / 255 / slope
        read_share = per_sample(uniform(generator, (n,), 0.1, 0.6, images))
        variance = (1 - read_share) * linear / gray + read_share
        linear = linear + std * variance.sqrt() * normal(generator, images.shape, images)
    return to_srgb(linear)
