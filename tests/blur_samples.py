"""A photograph, and what camera shake makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from irtool.synth.blur import blur_with_kernels


def photograph(height: int = 256, width: int = 320) -> torch.Tensor:
    """Part of a photograph, (1, 3, H, W)."""
    with Image.open(Path(__file__).parent / "pictures" / "kodak23.png") as file:
        pixels = torch.from_numpy(np.array(file.convert("RGB"))).permute(2, 0, 1)[None].float() / 255
    return pixels[..., :height, :width]


def shaken(
    pixels: torch.Tensor, seed: int = 0, length: float = 13, vary: float = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """A photograph taken with an unsteady hand, in 8 bit, and its kernel (1, k, k)."""
    g = torch.Generator().manual_seed(seed)
    blurry, kernel = blur_with_kernels(pixels, g, length=length, shake=0.3, vary=0)
    return (blurry * 255).round() / 255, kernel
