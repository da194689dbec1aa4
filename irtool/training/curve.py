"""Curves over the steps of a run, drawn with Pillow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_PAPER, _INK, _GRID = (255, 255, 255), (32, 32, 32), (225, 225, 225)
_COLORS = ((31, 119, 180), (214, 39, 40), (44, 160, 44), (255, 127, 14), (148, 103, 189), (140, 86, 75))
Curve = Sequence[tuple[float, float]]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers within [low, high], about so many of them."""
    step = 10 ** math.floor(math.log10((high - low) / count))
    step *= min((1, 2, 5, 10), key=lambda m: abs((high - low) / (m * step) - count))
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def chart(panels: Mapping[str, Mapping[str, Curve]], size: tuple[int, int] = (900, 320)) -> np.ndarray:
    """Panels one below the other, each with its own scale.

    Args:
        panels: title -> name -> points (x, y), x rising; values that are no numbers are left out.
        size: width and height of a panel in pixels.

    Returns:
        (H, W, 3) uint8; panels without two points are left out, and without any the page is blank.
    """
    usable = {}
    for title, curves in panels.items():
        clean = {n: [(x, y) for x, y in c if math.isfinite(x) and math.isfinite(y)] for n, c in curves.items()}
        if any(len({x for x, _ in c}) > 1 for c in clean.values()):
            usable[title] = {n: c for n, c in clean.items() if c}
    page = Image.new("RGB", (size[0], size[1] * max(1, len(usable))), _PAPER)
    draw = ImageDraw.Draw(page)
    for number, (title, curves) in enumerate(usable.items()):
        _panel(draw, title, curves, number * size[1], size)
    return np.asarray(page)


def _panel(draw: ImageDraw.ImageDraw, title: str, curves: Mapping[str, Curve], y0: int, size: tuple[int, int]) -> None:
    font = ImageFont.load_default(13)
    left, right, top, bottom = 70, size[0] - 150, y0 + 28, y0 + size[1] - 30
    xs = [x for c in curves.values() for x, _ in c]
    ys = [y for c in curves.values() for _, y in c]
    x_low, x_high = min(xs), max(xs)
    y_low, y_high = min(ys), max(ys)
    margin = 0.05 * (y_high - y_low) or 0.5
    y_low, y_high = y_low - margin, y_high + margin

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = (x - x_low) / (x_high - x_low), (y - y_low) / (y_high - y_low)
        return left + across * (right - left), bottom - up * (bottom - top)

    draw.text((left, y0 + 14), title, _INK, font=font, anchor="lm")
    for x in ticks(x_low, x_high, 6):
        at = place(x, y_low)
        draw.line((*at, at[0], top), _GRID)
        draw.text((at[0], bottom + 12), f"{x:g}", _INK, font=font, anchor="mm")
    for y in ticks(y_low, y_high):
        at = place(x_low, y)
        draw.line((*at, right, at[1]), _GRID)
        draw.text((left - 8, at[1]), f"{y:g}", _INK, font=font, anchor="rm")
    draw.rectangle((left, top, right, bottom), outline=_INK)
    for number, (name, curve) in enumerate(curves.items()):
        color = _COLORS[number % len(_COLORS)]
        points = [place(x, y) for x, y in curve]
        if len(points) > 1:
            draw.line(points, color, width=2, joint="curve")
        else:
            x, y = points[0]
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=color)
        line = top + 10 + 18 * number
        draw.line((right + 10, line, right + 30, line), color, width=2)
        draw.text((right + 36, line), name, _INK, font=font, anchor="lm")
