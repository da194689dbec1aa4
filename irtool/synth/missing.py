"""Missing regions: strokes, boxes or text cut out and filled.

`thin` strokes follow the "thin" masks of RePaint (Lugmayr et al., CVPR 2022) and LaMa: short broken lines about
eleven pixels wide on a 256-pixel picture. The published inpainting inputs fill with white.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .ops import normal, seed_from, uniform

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789    .,!?"
_ROUNDS = 200


def _stroke(draw: ImageDraw.ImageDraw, size: tuple[int, int], dice: random.Random, width: float) -> None:
    """One broken line with round ends and joints."""
    w, h = size
    x, y = dice.uniform(0, w), dice.uniform(0, h)
    thick = max(1, round(width * dice.uniform(0.85, 1.15)))
    angle = dice.uniform(0, 2 * math.pi)
    points = [(x, y)]
    for _ in range(dice.randint(1, 5)):
        angle += dice.choice((-1, 1)) * dice.uniform(0.2, 1.8)
        length = width * dice.uniform(1, 6)
        x, y = x + length * math.cos(angle), y + length * math.sin(angle)
        points.append((x, y))
    draw.line(points, fill=255, width=thick)
    r = thick / 2
    for px, py in points:
        draw.ellipse((px - r, py - r, px + r, py + r), fill=255)


def _box(draw: ImageDraw.ImageDraw, size: tuple[int, int], dice: random.Random, width: float) -> None:
    """One rectangle, `width` the middle of its sides."""
    w, h = size
    bw, bh = (max(1.0, width * dice.uniform(0.5, 1.5)) for _ in range(2))
    x, y = dice.uniform(-bw / 2, w - bw / 2), dice.uniform(-bh / 2, h - bh / 2)
    draw.rectangle((x, y, x + bw, y + bh), fill=255)


@cache
def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _text(draw: ImageDraw.ImageDraw, size: tuple[int, int], dice: random.Random, width: float) -> None:
    """One line of letters of height `width`, most often on one of the rows of a page, else anywhere."""
    w, h = size
    tall = max(6.0, round(width))
    words = "".join(dice.choices(_LETTERS, k=dice.randint(4, max(8, int(2 * w / tall)))))
    place = (dice.uniform(-0.2 * w, 0.7 * w), dice.uniform(-0.5 * tall, h - 0.5 * tall))
    if dice.random() < 0.8:
        place = (place[0], round(place[1] / (1.3 * tall)) * 1.3 * tall)
    draw.text(place, words, fill=255, font=_font(tall), stroke_width=dice.choice((0, 0, 1)))


_Shape = Callable[[ImageDraw.ImageDraw, tuple[int, int], random.Random, float], None]
# Per kind: the shape, and its default width in pixels given the shorter side.
_KINDS: dict[str, tuple[_Shape, Callable[[int], float]]] = {
    "thin": (_stroke, lambda side: 10.0),
    "thick": (_stroke, lambda side: 28.0),
    "box": (_box, lambda side: max(4.0, 0.3 * side)),
    "text": (_text, lambda side: 22.0),
}


def hole_mask(height: int, width: int, kind: str, coverage: float, dice: random.Random) -> np.ndarray:
    """Draw a hole mask, (H,W) bool, True where missing, that covers about `coverage` of the picture or a little
    more."""
    picture = Image.new("L", (width, height))
    draw = ImageDraw.Draw(picture)
    draw.fontmode = "1"  # letters without grey edges: a pixel is missing or it is not
    shape, default = _KINDS[kind]
    wide = default(min(height, width)) * dice.uniform(0.7, 1.5)
    target = coverage * height * width
    drawn, batch = 0, 1
    for _ in range(_ROUNDS if target else 0):
        for _ in range(batch):
            shape(draw, picture.size, dice, wide)
        drawn += batch
        covered = picture.histogram()[255]
        if covered >= 0.97 * target:
            break
        # Large pictures need thousands of shapes: draw half of the estimated number, then count again.
        still_to_cover = drawn * (target / max(covered, 1) - 1)
        batch = max(1, min(drawn, int(still_to_cover / 2)))
    return np.asarray(picture) > 127


def missing(images: Tensor, generator: torch.Generator, *, kind: str, fill: str, coverage: float) -> Tensor:
    """Cut holes into each picture and fill them: ``m J + (1 - m) fill``."""
    n, _, h, w = images.shape
    dice = random.Random(seed_from(generator))
    masks = np.stack([hole_mask(h, w, kind, coverage, dice) for _ in range(n)])
    holes = torch.from_numpy(masks).to(images.device)[:, None]
    if fill == "noise":
        level = uniform(generator, (n, 3, 1, 1), 0.2, 0.8, images)
        filling = (level + 0.3 * normal(generator, images.shape, images)).clamp(0, 1)
    else:
        filling = torch.full_like(images, 1.0 if fill == "white" else 0.0)
    return torch.where(holes, filling, images)
