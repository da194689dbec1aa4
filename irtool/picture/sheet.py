"""Labelled contact sheets and before/after pairs, drawn with Pillow's own scalable font."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from .encode import quantize

if TYPE_CHECKING:
    from PIL import ImageFont

_PAPER, _INK = (255, 255, 255), (32, 32, 32)


def sheet(
    rows: Sequence[Sequence[np.ndarray | None]],
    titles: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    cell: tuple[int, int] | None = None,
    captions: Sequence[Sequence[str]] | None = None,
) -> np.ndarray:
    """A contact sheet.

    Args:
        rows: pictures by row, each (H, W, 3) or (H, W), float in [0, 1] or uint8; None leaves a cell empty, and rows
            may differ in length. A picture larger than the cell is reduced to fit, never enlarged.
        titles: one heading per column.
        labels: one label per row, set to its left.
        cell: the most width and height a picture takes, in pixels; by default the largest among the pictures. Columns
            are as wide as that, rows as high as their highest picture.
        captions: a text under each picture, as `rows`.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: there is no picture.
    """
    images = [[None if picture is None else _to_image(picture) for picture in row] for row in rows]
    present = [image for row in images for image in row if image is not None]
    if not present:
        raise ValueError("a sheet needs at least one picture")
    width, height = cell or (max(i.width for i in present), max(i.height for i in present))
    columns = max(len(row) for row in images)
    # Text is a tenth of the cell, within what is legible and what does not shout.
    size = min(max(round(min(width, height) / 10), 12), 40)
    font = _font(size)
    gap, line = max(size // 2, 4), round(size * 1.5)
    left = gap + (max(_width(font, text) for text in labels) + gap if labels else 0)
    top = gap + (line if titles else 0)
    for picture in present:
        picture.thumbnail((width, height), Image.Resampling.LANCZOS)
    heights = [max((i.height for i in row if i is not None), default=line) for row in images]
    below = gap + (line if captions else 0)
    page = Image.new("RGB", (left + columns * (width + gap), top + sum(heights) + below * len(images)), _PAPER)
    draw = ImageDraw.Draw(page)

    def text(center: float, y: float, words: str) -> None:
        draw.text((center, y), _fitted(font, words, width), _INK, font=font, anchor="mm")

    for c, title in enumerate((titles or [])[:columns]):
        text(left + c * (width + gap) + width / 2, gap + line / 2 - gap / 4, title)
    y = top
    for r, (row, height) in enumerate(zip(images, heights, strict=True)):
        if labels and r < len(labels):
            draw.text((gap, y + height / 2), labels[r], _INK, font=font, anchor="lm")
        for c, image in enumerate(row):
            x = left + c * (width + gap)
            if image is not None:
                page.paste(image, (x + (width - image.width) // 2, y + (height - image.height) // 2))
            if captions and r < len(captions) and c < len(captions[r]):
                text(x + width / 2, y + height + line / 2, captions[r][c])
        y += height + below
    return np.asarray(page)


def side_by_side(before: np.ndarray, after: np.ndarray, labels: tuple[str, str] = ("before", "after")) -> np.ndarray:
    """Two pictures next to each other at full size with a thin gap, each named in a strip above it.

    Args:
        before: (H, W, 3) or (H, W), float in [0, 1] or uint8.
        after: likewise; where sizes differ both stand at the top.
        labels: what to call them.

    Returns:
        (H', W', 3) uint8.
    """
    pair = [_to_image(before), _to_image(after)]
    size = min(max(round(min(pair[0].size) / 24), 12), 64)
    font = _font(size)
    strip, gap = round(size * 1.6), max(2, size // 6)
    page = Image.new("RGB", (pair[0].width + gap + pair[1].width, strip + max(i.height for i in pair)), _PAPER)
    draw = ImageDraw.Draw(page)
    x = 0
    for image, label in zip(pair, labels, strict=True):
        page.paste(image, (x, strip))
        draw.text((x + image.width / 2, strip / 2), _fitted(font, label, image.width), _INK, font=font, anchor="mm")
        x += image.width + gap
    return np.asarray(page)


def _to_image(picture: np.ndarray) -> Image.Image:
    array = np.asarray(picture)
    if array.dtype != np.uint8:
        array = quantize(np.atleast_3d(array), deep=False)
    if array.ndim == 2 or array.shape[2] == 1:
        array = np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    return Image.fromarray(np.ascontiguousarray(array))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _width(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, words: str) -> int:
    return int(np.ceil(font.getlength(words)))


def _fitted(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, words: str, width: int) -> str:
    """The words, shortened with dots to fit a width in pixels."""
    if _width(font, words) <= width:
        return words
    while words and _width(font, words + "...") > width:
        words = words[:-1]
    return words + "..." if words else ""
