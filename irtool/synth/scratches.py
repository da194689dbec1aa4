"""Scratches, hairs, dust, creases and torn edges, as old prints and negatives have them.

Marks are drawn as opacity over the picture: where the emulsion is gone the paper shows (light marks, never quite white
and never quite alike), and what lay on the negative or the scanner's glass is dark. After the catalogue of damage in
Wan et al., "Bringing Old Photos Back to Life", CVPR 2020; drawn by rules of our own, without textures from scans.
"""

from __future__ import annotations

import math
import random

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .ops import gaussian_blur, seed_from, smooth_noise

_AREA = 256 * 256
# Of each mark, how many lie on `_AREA` pixels at an amount of 1.
_SCRATCHES, _HAIRS, _DUST, _CREASES = 1.6, 0.9, 9.0, 0.8


def scratches(
    images: Tensor, generator: torch.Generator, *, amount: float, width: float, light: float, torn: float
) -> Tensor:
    """Draw marks over each picture of a batch."""
    dice = random.Random(seed_from(generator))
    marked = []
    for image in images.split(1):
        opacity, dark = (t.to(image.device) for t in _marks(image.shape[-2:], dice, amount, width, light, torn))
        # Paper and dirt are no even surface: their tone drifts over the picture and grains a little.
        drift = 0.05 * smooth_noise(generator, image, 6) + 0.03 * smooth_noise(generator, image, 60)
        paper = torch.tensor([dice.uniform(0.72, 1.0)] * 3) * torch.tensor([1, dice.uniform(0.93, 1), 1.0])
        paper[2] = paper[1] * dice.uniform(0.82, 1)
        paper, dirt = ((tone.view(1, 3, 1, 1).to(image) + drift) for tone in (paper, torch.full((3,), 0.08)))
        marked.append(torch.lerp(torch.lerp(image, paper, opacity), dirt, dark))
    return torch.cat(marked)


def _marks(
    size: tuple[int, int], dice: random.Random, amount: float, width: float, light: float, torn: float
) -> tuple[Tensor, Tensor]:
    """Opacity of light and of dark marks, each (1, 1, H, W) in [0, 1]."""
    h, w = size
    layers = [Image.new("L", (w, h)) for _ in range(2)]
    pens = [ImageDraw.Draw(layer) for layer in layers]
    share = amount * h * w / _AREA
    for count, shape in ((_CREASES, _crease), (_SCRATCHES, _scratch), (_HAIRS, _hair), (_DUST, _speck)):
        for _ in range(_poisson(count * share, dice)):
            pen = pens[0] if dice.random() < light else pens[1]
            shape(pen, (w, h), dice, width)
    if dice.random() < torn:
        _tear(pens[0], (w, h), dice)
    soft = dice.uniform(0.3, 0.7)
    opacities = [torch.from_numpy(np.array(layer, dtype=np.float32) / 255)[None, None] for layer in layers]
    return gaussian_blur(opacities[0], soft), gaussian_blur(opacities[1], soft)


def _poisson(mean: float, dice: random.Random) -> int:
    """A Poisson number; of large means by its normal limit."""
    if mean > 50:
        return max(0, round(dice.gauss(mean, math.sqrt(mean))))
    count, product, limit = 0, dice.random(), math.exp(-mean)
    while product > limit:
        count, product = count + 1, product * dice.random()
    return count


def _path(pen: ImageDraw.ImageDraw, path: list[tuple[float, float]], widths: list[float], tones: list[float]) -> None:
    """A line whose pieces have widths, in pixels, and opacities; what is thinner than a pixel is fainter instead."""
    for (ax, ay), (bx, by), wide, tone in zip(path, path[1:], widths, tones, strict=False):
        opacity = round(255 * max(0.0, min(1.0, tone)) * min(1.0, wide))
        if opacity > 8:
            pen.line((ax, ay, bx, by), fill=opacity, width=max(1, round(wide)))
            if wide > 2.5:  # a round joint
                r = wide / 2 - 0.5
                pen.ellipse((bx - r, by - r, bx + r, by + r), fill=opacity)


def _scratch(pen: ImageDraw.ImageDraw, size: tuple[int, int], dice: random.Random, width: float) -> None:
    """A long line, straight or gently bent, that the point which made it left and touched again."""
    x, y, angle = dice.uniform(0, size[0]), dice.uniform(0, size[1]), dice.uniform(0, math.tau)
    step = dice.uniform(3, 7)
    count = int(dice.uniform(20, 320) * (1 if dice.random() < 0.7 else 3) / step)
    bend, wide, tone = dice.gauss(0, 0.012), width * dice.uniform(0.4, 1.4), dice.uniform(0.35, 1.0)
    shake, uneven, gaps = dice.choice((0.01, 0.03, 0.08)), dice.uniform(0.05, 0.4), dice.uniform(0, 0.12)
    path, widths, tones, on = [(x, y)], [], [], 1.0
    for i in range(max(2, count)):
        angle += bend + dice.gauss(0, shake)
        x, y = x + step * math.cos(angle), y + step * math.sin(angle)
        path.append((x, y))
        end = min(i + 1, count - i) * step / 12  # pointed at both ends
        widths.append(wide * min(1.0, 0.4 + end) * max(0.2, 1 + dice.gauss(0, uneven)))
        if dice.random() < gaps:
            on = dice.choice((0.0, 0.3, 1.0))
        tones.append(on * tone * max(0.2, 1 + dice.gauss(0, uneven)))
    _path(pen, path, widths, tones)


def _hair(pen: ImageDraw.ImageDraw, size: tuple[int, int], dice: random.Random, width: float) -> None:
    """A short fibre that curls."""
    x, y, angle = dice.uniform(0, size[0]), dice.uniform(0, size[1]), dice.uniform(0, math.tau)
    step, count = dice.uniform(1.5, 3), dice.randint(6, 22)
    turn, wide, tone = dice.gauss(0, 0.16), 0.75 * width * dice.uniform(0.6, 1.3), dice.uniform(0.5, 1.0)
    path = [(x, y)]
    for _ in range(count):
        turn += dice.gauss(0, 0.06)
        angle += max(-0.5, min(0.5, turn))
        x, y = x + step * math.cos(angle), y + step * math.sin(angle)
        path.append((x, y))
    _path(pen, path, [wide] * count, [tone] * count)


def _blob(
    pen: ImageDraw.ImageDraw, x: float, y: float, radius: float, dice: random.Random, opacity: float, aspect: float
) -> None:
    """An uneven patch, as much longer than wide as `aspect` says."""
    turn, corners = dice.uniform(0, math.tau), dice.randint(5, 9)
    outline = []
    for i in range(corners):
        r = radius * dice.uniform(0.6, 1.25)
        u, v = r * math.cos(math.tau * i / corners) * aspect, r * math.sin(math.tau * i / corners) / aspect
        outline.append((x + u * math.cos(turn) - v * math.sin(turn), y + u * math.sin(turn) + v * math.cos(turn)))
    pen.polygon(outline, fill=round(255 * opacity))


def _speck(pen: ImageDraw.ImageDraw, size: tuple[int, int], dice: random.Random, width: float) -> None:
    """Dust: mostly small, rarely a patch where the emulsion came off; some of it in clusters."""
    radius = width * (0.35 + dice.expovariate(1.6)) * (4 if dice.random() < 0.03 else 1)
    x, y = dice.uniform(0, size[0]), dice.uniform(0, size[1])
    for _ in range(1 if dice.random() < 0.85 else dice.randint(3, 9)):
        _blob(pen, x, y, radius * dice.uniform(0.7, 1.3), dice, dice.uniform(0.5, 1.0), dice.uniform(1, 1.7))
        x, y = x + dice.gauss(0, 6 * width), y + dice.gauss(0, 6 * width)


def _crease(pen: ImageDraw.ImageDraw, size: tuple[int, int], dice: random.Random, width: float) -> None:
    """A fold or crack: a jagged line that branches, wider and narrower, with flakes gone beside it."""
    w, h = size
    x, y, angle = dice.uniform(0, w), dice.uniform(0, h), dice.uniform(0, math.tau)
    if dice.random() < 0.5:  # many begin at a border
        x, y = dice.choice(((0.0, y), (float(w), y), (x, 0.0), (x, float(h))))
        angle = math.atan2(h / 2 - y, w / 2 - x) + dice.gauss(0, 0.5)
    _crack(pen, (x, y), angle, dice.uniform(40, 260), dice, width * dice.uniform(0.7, 2.2), 2)


def _crack(
    pen: ImageDraw.ImageDraw,
    start: tuple[float, float],
    angle: float,
    length: float,
    dice: random.Random,
    width: float,
    branches: int,
) -> None:
    (x, y), step, tone = start, dice.uniform(2, 6), dice.uniform(0.5, 1.0)
    path, widths, tones, wide, drift = [start], [], [], width, angle
    for _ in range(max(2, int(length / step))):
        drift += dice.gauss(0, 0.08)
        angle = drift + dice.gauss(0, 0.45)
        x, y = x + step * math.cos(angle), y + step * math.sin(angle)
        wide = max(0.3 * width, min(2.2 * width, wide * math.exp(dice.gauss(0, 0.25))))
        path.append((x, y))
        widths.append(wide)
        tones.append(tone * dice.uniform(0.75, 1.1))
        if dice.random() < 0.04:
            _blob(pen, x, y, width * dice.uniform(0.8, 2.5), dice, tone, dice.uniform(1, 2))
        if branches and dice.random() < 0.03:
            side = drift + dice.choice((-1, 1)) * dice.uniform(0.4, 1.3)
            _crack(pen, (x, y), side, length * dice.uniform(0.2, 0.5), dice, 0.7 * width, branches - 1)
    _path(pen, path, widths, tones)


def _tear(pen: ImageDraw.ImageDraw, size: tuple[int, int], dice: random.Random) -> None:
    """A corner that is gone, or a border that is torn along its length."""
    w, h = size
    side = min(w, h)
    if dice.random() < 0.5:
        a, b = dice.uniform(0.05, 0.25) * side, dice.uniform(0.05, 0.25) * side
        count = max(3, int((a + b) / 8))
        points = [(a * (1 - i / count), b * i / count) for i in range(count + 1)]
        corner: list[tuple[float, float]] = [(-9, -9)]
    else:
        deep, count = dice.uniform(0.01, 0.06) * side, max(4, w // 9)
        points = [(w * i / count, deep * (1 + 0.6 * math.sin(i * 0.7))) for i in range(count + 1)]
        corner = [(w + 9.0, -9.0), (-9.0, -9.0)]
    rough = 0.01 * side + 1
    points = [(px + dice.gauss(0, rough), py + dice.gauss(0, rough)) for px, py in points]
    flip_x, flip_y = dice.random() < 0.5, dice.random() < 0.5
    outline = [(w - px if flip_x else px, h - py if flip_y else py) for px, py in (*points, *corner)]
    pen.polygon(outline, fill=255)
