"""A contact sheet of every degradation, and the command that draws the one in the documentation:

``python -m irtool.synth.sheet OUTPUT PICTURE...``
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from ..picture import Picture, read, sheet, write
from .chain import parse

_QUALITY = 75

# From light to heavy, sized for pictures of a few hundred pixels.
ROWS: tuple[tuple[str, ...], ...] = (
    ("blur(7)", "blur(13, shake=0.8)", "blur(21, vary=0.8)", "blur(31, shake=0.2)"),
    ("haze(0.5)", "haze(1)", "haze(1.6, airlight=0.75)", "haze(2.4, airlight=1)"),
    ("jpeg(50)", "jpeg(20)", "jpeg(10)", "jpeg(4)"),
    ("lowlight(2, noise=4)", "lowlight(3.5)", "lowlight(4.5)", "lowlight(6)"),
    ("noise(15)", "noise(50)", "noise(30, kind=poisson)", "noise(15, kind=camera)"),
    ("raindrop(30, size=4)", "raindrop(20, softness=0.2)", "raindrop(25, glow=0.6)", "raindrop(16, softness=0.9)"),
    ("rain(0.05)", "rain(0.15, angle=15)", "rain(0.3, veil=0.3)", "rain(0.4, directions=5)"),
    ("shadow(0.5, tint=0.4)", "shadow(0.7)", "shadow(0.8, coverage=0.6)", "shadow(0.85, softness=0.2)"),
    ("snow(0.15, size=2)", "snow(0.4, size=2)", "snow(0.4, speed=12)", "snow(0.6, size=4)"),
    ("missing(thin)", "missing(thick, fill=black)", "missing(box, fill=noise)", "missing(text, coverage=0.1)"),
    ("real(0.5)", "real(1)", "real(1.5)", "real(2)"),
    ("scratches(1)", "scratches(3, width=1)", "scratches(1.5, light=0.2)", "scratches(1, width=4, torn=1)"),
    ("fade(0.3, yellow=0.2)", "fade(0.6)", "fade(0.9, yellow=0.9)", "fade(0.6, cast=0.8)"),
)


def contact_sheet(pictures: Sequence[np.ndarray], *, cell: tuple[int, int] = (240, 170), seed: int = 0) -> np.ndarray:
    """One row per degradation: a picture as it was, then degraded ever harder, each with its string below.

    Args:
        pictures: (H,W,3) float in [0,1], one or more, taken in turn by the rows, cut and reduced to a cell.
        cell: width and height of a cell in pixels.
        seed: of the draws.

    Returns:
        (H',W',3) uint8.
    """
    rows, captions = [], []
    for index, chains in enumerate(ROWS):
        clean = _reduced(pictures[index % len(pictures)], cell)
        row = [clean]
        for column, text in enumerate(chains):
            generator = torch.Generator().manual_seed(seed + 100 * index + column)
            row.append(parse(text).apply(clean, generator))
        rows.append([image[0].permute(1, 2, 0).numpy() for image in row])
        captions.append(["clean", *chains])
    return sheet(rows, cell=cell, captions=captions)


def _reduced(pixels: np.ndarray, cell: tuple[int, int]) -> torch.Tensor:
    """(1,3,H,W): the middle of a picture in the proportions of a cell, no larger than it."""
    image = torch.from_numpy(np.ascontiguousarray(pixels)).float().permute(2, 0, 1)[None]
    height, width = image.shape[2:]
    scale = max(cell[0] / width, cell[1] / height)
    h, w = min(height, round(cell[1] / scale)), min(width, round(cell[0] / scale))
    top, left = (height - h) // 2, (width - w) // 2
    size = (min(h, cell[1]), min(w, cell[0]))
    cut = image[..., top : top + h, left : left + w]
    return F.interpolate(cut, size=size, mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)


def main(arguments: Sequence[str]) -> None:
    """Draw the sheet from the pictures named after the output file, and write it as JPEG."""
    if len(arguments) < 2:
        raise SystemExit("usage: python -m irtool.synth.sheet OUTPUT PICTURE...")
    output, *pictures = arguments
    drawn = contact_sheet([read(name).pixels for name in pictures])
    write(Picture(pixels=drawn.astype(np.float32) / 255), output, quality=_QUALITY)


if __name__ == "__main__":
    main(sys.argv[1:])
