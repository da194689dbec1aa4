"""Operations on images as tensors that several packages share."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

WORKERS = 8
"""Threads that take strips: with more, Python between the operations sets the pace. What torch has beyond them is
shared out among them."""

# Features (rows x columns x channels) that a thread of a CPU works on at a time. With all of a picture at once, memory
# and not arithmetic sets the pace: 1.9 times slower at one megapixel. A GPU takes more, to bound its memory.
STRIP = 1 << 19
LEAST_ROWS = 16


def pad_to_multiple(x: Tensor, multiple: int, mode: str = "reflect") -> Tensor:
    """Pad the bottom and the right of (..., C, H, W) until both sides are multiples.

    Args:
        x: (N, C, H, W) or (C, H, W).
        multiple: the sides of the result are multiples of it.
        mode: "reflect", mirrored about the last row and column, which are repeated instead where the image is smaller
            than the padding; or "zeros".
    """
    down, right = (-side % multiple for side in x.shape[-2:])
    if not down and not right:
        return x
    if mode == "zeros":
        return F.pad(x, (0, right, 0, down))
    fits = down < x.shape[-2] and right < x.shape[-1]
    padded = F.pad(x if x.ndim == 4 else x[None], (0, right, 0, down), mode="reflect" if fits else "replicate")
    return padded if x.ndim == 4 else padded[0]


def downscale(x: Tensor, scale: int) -> Tensor:
    """Reduce (N, C, H, W) by a whole factor as MATLAB's imresize does: bicubic (a = -0.5), the kernel widened.

    Beyond its edges the image is continued as in a mirror, edge pixels twice. This is the reduction that
    super-resolution is published with.

    Args:
        x: in [0, 1]; H and W are multiples of `scale`.
        scale: the factor.

    Returns:
        (N, C, H / scale, W / scale), not clipped.
    """
    height, width = x.shape[-2:]
    if height % scale or width % scale:
        raise ValueError(f"{width}x{height} is no multiple of {scale}")
    border = 2  # of the result: as far as the kernel reaches
    rows, columns = (_mirrored(side, border * scale).to(x.device) for side in (height, width))
    small = F.interpolate(
        x[..., rows, :][..., columns],
        (height // scale + 2 * border, width // scale + 2 * border),
        mode="bicubic",
        antialias=True,
        align_corners=False,
    )
    return small[..., border:-border, border:-border]


def _mirrored(size: int, border: int) -> Tensor:
    """Indices into `size` elements, continued as in a mirror by `border` on both sides."""
    at = torch.arange(-border, size + border) % (2 * size)
    return torch.where(at < size, at, 2 * size - 1 - at)


def patch_size(x: Tensor) -> tuple[int, int]:
    """Rows and columns of (N, H, W, C) to work on at a time, so that they stay in a processor's cache.

    A patch is at least `LEAST_ROWS` rows high where the image is: a 3x3 convolution computes a row more above and below
    it, which is much of a lower one.
    """
    n, height, width, channels = x.shape
    features = STRIP if x.device.type == "cpu" else 64 * STRIP
    threads = torch.get_num_threads()
    if x.device.type == "cpu" and x.numel() < STRIP * min(threads, WORKERS):
        features *= threads  # too few strips for one each: all threads work on the same one
    pixels = max(1, features // (n * channels))
    columns = math.ceil(width / max(1, math.ceil(width * min(height, LEAST_ROWS) / pixels)))
    return max(4, pixels // columns), max(16, columns)


def in_strips(height: int, rows: int, work: Callable[[int, int], None], device: torch.device) -> None:
    """``work(top, end)`` for strips of at most `rows` rows that cover `height`; without gradients.

    On a CPU every strip is computed whole by one thread, and the next free thread takes the next strip: a thread whose
    core is taken by another program does fewer strips, and nobody waits for it but at the end of a layer. torch's own
    threads meet after each operation, some five hundred times a picture; beside one busy program each of those meetings
    waits for it. Elsewhere the strips come one after the other.

    Raises:
        Exception: what one of the calls raised.
    """
    strips = [(top, min(height, top + rows)) for top in range(0, height, rows)]
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or len(strips) < min(threads, WORKERS):
        for strip in strips:
            work(*strip)
        return
    inference = torch.is_inference_mode_enabled()

    def run(strip: tuple[int, int]) -> None:
        with torch.inference_mode(inference), torch.no_grad():  # modes belong to a thread
            work(*strip)

    futures = [_pool(threads).submit(run, strip) for strip in strips]
    try:
        for future in futures:
            future.result()
    finally:
        for future in futures:
            future.cancel()


@lru_cache(1)
def _pool(threads: int) -> ThreadPoolExecutor:
    workers = min(threads, WORKERS)
    pool, started = ThreadPoolExecutor(workers, "irtool-strip"), threading.Barrier(workers)

    def start(_: int) -> None:
        torch.get_num_threads()  # torch sets a thread up when it first asks, and would undo what was set before
        torch.set_num_threads(threads // workers)
        started.wait()

    list(pool.map(start, range(workers)))
    torch.set_num_threads(threads)  # what is set in one thread is what others begin with
    return pool


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads are not inherited
