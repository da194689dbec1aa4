"""Fading and yellowing: dyes that have lost density, unevenly, over paper that has turned yellow."""

from __future__ import annotations

import torch
from torch import Tensor

from .ops import normal, uniform

_BLACK, _WHITE = 0.36, 0.16  # how far black rises and white falls where all is lost that can be
_PAPER = (0.0, 0.10, 0.38)  # of red, green and blue, what yellow paper takes of white


def fade(images: Tensor, generator: torch.Generator, *, amount: float, yellow: float, cast: float) -> Tensor:
    """Draw the tones of each picture together: ``black + (white - black) x**gamma``, of each channel its own.

    The red, green and blue of a print are the density of its cyan, magenta and yellow dye, which fade at rates of their
    own (Wilhelm and Brower, "The Permanence and Care of Color Photographs", 1993): so black turns into a color, and
    the middle into another.
    """
    n = len(images)
    spread = normal(generator, (2, n, 3), images).clamp(-2, 2)
    paper = torch.tensor(_PAPER, device=images.device) * yellow * uniform(generator, (n, 1), 0.8, 1.2, images)
    black = amount * _BLACK * (1 + 0.6 * cast * spread[0]).clamp(min=0)
    white = 1 - amount * _WHITE - paper
    black = black * white  # what the paper takes, it takes of every tone
    gamma = (0.35 * cast * spread[1]).exp()
    black, white, gamma = (t[:, :, None, None] for t in (black, white, gamma))
    return black + (white - black) * images.clamp(0, 1) ** gamma
