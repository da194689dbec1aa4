"""Splatting of many small shapes: patches and streaks added into one canvas."""

from __future__ import annotations

import torch
from torch import Tensor

_POINTS = 4_000_000  # how many pixels are painted at a time; bounds the memory


def stamp(canvas: Tensor, sample: Tensor, row: Tensor, column: Tensor, patches: Tensor) -> None:
    """Add patches into a canvas, in place; what falls outside is dropped.

    Args:
        canvas: (N,C,H,W).
        sample, row, column: (M,) long: which picture, and where the patch's first pixel lies (may be negative).
        patches: (M,C,p,q).
    """
    _, channels, h, w = canvas.shape
    p, q = patches.shape[-2:]
    rows = row.view(-1, 1, 1) + torch.arange(p, device=canvas.device).view(1, -1, 1)
    columns = column.view(-1, 1, 1) + torch.arange(q, device=canvas.device).view(1, 1, -1)
    inside = (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)
    flat = canvas.view(-1)
    index = (sample.view(-1, 1, 1) * (channels * h * w) + rows * w + columns)[inside]
    for channel in range(channels):
        flat.index_add_(0, index + channel * h * w, patches[:, channel][inside])


def chunks(count: int, points_each: int) -> list[slice]:
    """Cut `count` shapes of `points_each` pixels into runs of bounded memory."""
    step = max(1, _POINTS // max(1, points_each))
    return [slice(start, start + step) for start in range(0, count, step)]


def streaks(
    canvas: Tensor, sample: Tensor, top: Tensor, left: Tensor, length: Tensor, slope: Tensor, light: Tensor
) -> None:
    """Add near-vertical streaks, one pixel wide and fading at both ends, in place.

    Args:
        canvas: (N,1,H,W).
        sample: (M,) long, which picture.
        top, left: (M,) where the streak starts, in pixels, may lie outside.
        length: (M,) rows it spans.
        slope: (M,) columns it moves per row, within [-1, 1] so that it stays unbroken.
        light: (M,) brightness at its middle.
    """
    _, _, h, w = canvas.shape
    flat = canvas.view(-1)
    reach = int(length.max().ceil()) + 1 if length.numel() else 0
    step = torch.arange(reach, device=canvas.device).view(1, -1)
    for part in chunks(sample.numel(), reach):
        along = step / length[part, None]
        rows = top[part, None].floor().long() + step
        x = left[part, None] + slope[part, None] * step
        column = x.floor().long()
        share = x - column
        value = light[part, None] * (along * (1 - along) * 4).clamp(min=0) ** 0.4
        base = sample[part, None] * (h * w) + rows * w
        visible = (rows >= 0) & (rows < h) & (along < 1)
        for offset, weight in ((0, 1 - share), (1, share)):
            inside = visible & (column + offset >= 0) & (column + offset < w)
            flat.index_add_(0, (base + column + offset)[inside], (value * weight)[inside])
