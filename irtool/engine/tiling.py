"""Running a network over a picture of any size in bounded memory.

Tiles start at multiples of the network's stride and carry a margin of real surroundings, and everything
that needs the whole picture was put into the context beforehand; so tiled and whole results agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import PictureError, UsageError
from ..models.base import Expert, WholeExpert
from .device import available_bytes, peak_bytes, pick_dtype, resident_bytes

DEFAULT_WORK = 768 << 20  # bytes for activations on a CPU when nothing else is said: 12 megapixels stay under 2 GiB
# The same for networks that see their picture best whole: one megapixel of the published U-Nets is.
WHOLE_WORK = 4 << 30


@dataclass(frozen=True)
class Outcome:
    """A restored picture and what it took.

    Attributes:
        pixels: (3, H, W) float32 in [0, 1], on the CPU.
        tiles: number of tiles.
        peak_bytes: peak memory (process on a CPU, torch on CUDA), None where the system does not say.
    """

    pixels: Tensor
    tiles: int
    peak_bytes: int | None


@dataclass(frozen=True)
class Tile:
    """Rows and columns to compute (with margin) and to keep, in pixels."""

    top: int
    bottom: int
    left: int
    right: int
    keep_top: int
    keep_bottom: int
    keep_left: int
    keep_right: int


def _spans(size: int, count: int, multiple: int, margin: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut `size` (a multiple) into `count` spans: (from, to, keep from, keep to)."""
    step = math.ceil(size / count / multiple) * multiple
    margin = math.ceil(margin / multiple) * multiple
    for start in range(0, size, step):
        end = min(start + step, size)
        yield max(0, start - margin), min(size, end + margin), start, end


def grid(height: int, width: int, *, multiple: int, margin: int, pixels: int) -> list[Tile]:
    """Cover a picture with the least computed area such that no tile exceeds `pixels`.

    Args:
        height, width: multiples of `multiple`.
        multiple, margin: of the network.
        pixels: the most pixels in a tile, margin included.

    Raises:
        ValueError: even the smallest tile is larger than that.
    """
    best: tuple[int, int, int] | None = None
    for rows in range(1, height // multiple + 1):
        tall = max(b - a for a, b, _, _ in _spans(height, rows, multiple, margin))
        # The fewest columns that fit; more would only add margins.
        for columns in range(max(1, math.ceil(width * tall / max(1, pixels) / 2)), width // multiple + 1):
            wide = max(b - a for a, b, _, _ in _spans(width, columns, multiple, margin))
            if tall * wide <= pixels:
                area = sum(b - a for a, b, _, _ in _spans(height, rows, multiple, margin))
                area *= sum(b - a for a, b, _, _ in _spans(width, columns, multiple, margin))
                if best is None or area < best[0]:
                    best = (area, rows, columns)
                break
    if best is None:
        raise ValueError("not even the smallest tile fits")
    _, rows, columns = best
    return [
        Tile(top, bottom, left, right, kt, kb, kl, kr)
        for top, bottom, kt, kb in _spans(height, rows, multiple, margin)
        for left, right, kl, kr in _spans(width, columns, multiple, margin)
    ]


def pad(pixels: Tensor, multiple: int) -> Tensor:
    """Continue (3, H, W) at the bottom and right to multiples, mirrored where the picture is large enough."""
    down, right = (-s % multiple for s in pixels.shape[-2:])
    if not down and not right:
        return pixels
    mode = "reflect" if down < pixels.shape[-2] and right < pixels.shape[-1] else "replicate"
    return F.pad(pixels[None], (0, right, 0, down), mode=mode)[0]


def _budget(
    expert: Expert | WholeExpert,
    pixels: Tensor,
    device: torch.device,
    dtype: torch.dtype,
    tile: str,
    max_memory: int | None,
) -> int:
    """The most pixels a tile may have."""
    per_pixel = expert.capability.bytes_per_pixel * dtype.itemsize // 4
    if tile == "off":
        return pixels.shape[-2] * pixels.shape[-1]
    if tile != "auto":
        if not tile.isdigit() or int(tile) < expert.capability.multiple:
            raise UsageError(
                f"--tile {tile} is no tile size.", f"Give auto, off, or at least {expert.capability.multiple} pixels."
            )
        side = int(tile) + 2 * expert.capability.margin
        return side * side
    if device.type == "cuda":
        work = min(int(0.7 * available_bytes(device)), max_memory or 1 << 62)
    elif max_memory is not None:
        # Beside the tile: the result, and the copy of it that the encoder takes.
        work = max_memory - resident_bytes() - 2 * 3 * pixels.shape[-2] * pixels.shape[-1] * 4
    else:
        work = min(WHOLE_WORK if hasattr(expert, "restore") else DEFAULT_WORK, available_bytes(device) // 2)
    return max(0, work) // per_pixel


def out_of_memory(error: RuntimeError) -> bool:
    """Whether a failed computation failed for memory; on a CPU torch says so in words alone."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def run(
    expert: Expert | WholeExpert,
    pixels: Tensor,
    *,
    device: torch.device,
    dtype: str = "auto",
    tile: str = "auto",
    max_memory: int | None = None,
    ensemble: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Restore a whole picture.

    Args:
        expert: a network fixed to its task.
        pixels: (3, H, W) sRGB in [0, 1] on the CPU, any size from 1x1.
        device: where to compute.
        dtype: "auto", "fp32", "bf16" or "fp16".
        tile: "auto" (as the memory allows), "off" (the whole picture at once), or the side of the kept
            square in pixels.
        max_memory: bytes the process (on a CPU) or torch (on CUDA) may hold at most; None bounds the
            activations to 768 MiB or half of the free memory.
        ensemble: average over the four mirrored views of every tile.
        on_progress: called with (tiles done, tiles in all).

    Raises:
        UsageError: `tile` or `dtype` is no such setting, or the expert passes over a picture many times and `ensemble`
            is asked for.
        PictureError: the memory allowed does not hold even the smallest tile.
    """
    kind = pick_dtype(dtype, device)
    expert.to(device, kind)
    capability = expert.capability
    height, width = pixels.shape[-2:]
    context = expert.context(pixels).to(device)
    padded = pad(pixels, capability.multiple)
    if callable(expert):
        padded = expert.prepare(padded)
    result = torch.empty(3, height, width)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    allowed = _budget(expert, padded, device, kind, tile, max_memory)
    if not callable(expert):
        if ensemble:
            raise UsageError("A diffusion model takes no self-ensemble.", "Leave --ensemble out.")
        return _passes(expert, pixels, context, device, allowed, on_progress)
    while True:
        try:
            tiles = grid(*padded.shape[-2:], multiple=capability.multiple, margin=capability.margin, pixels=allowed)
        except ValueError:
            raise _too_small(width, height) from None
        try:
            for done, t in enumerate(tiles):
                if on_progress:
                    on_progress(done, len(tiles))
                part = padded[None, :, t.top : t.bottom, t.left : t.right].to(device)
                restored = (mirrored(expert, part, context) if ensemble else expert(part, context).clamp(0, 1))[0]
                bottom, right = min(t.keep_bottom, height), min(t.keep_right, width)
                kept = restored[:, t.keep_top - t.top : bottom - t.top, t.keep_left - t.left : right - t.left]
                result[:, t.keep_top : bottom, t.keep_left : right] = kept.float().cpu()
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            # Another process took the memory that was free when the tiles were planned.
            if device.type == "cuda":
                torch.cuda.empty_cache()
            allowed = max(t.bottom - t.top for t in tiles) * max(t.right - t.left for t in tiles) // 2
            continue
        if on_progress:
            on_progress(len(tiles), len(tiles))
        return Outcome(result, len(tiles), peak_bytes(device))


def mirrored(expert: Expert, tile: Tensor, context: Tensor) -> Tensor:
    """What an expert makes of a tile, averaged over its four mirrored views: (N, C, h, w) -> (N, 3, h, w) in [0, 1].

    The geometric self-ensemble of Lim et al. (EDSR, CVPRW 2017) without the views turned by 90 degrees: rain falls.
    """
    views: list[list[int]] = [[], [-1], [-2], [-2, -1]]
    return torch.stack([expert(tile.flip(s), context).float().clamp(0, 1).flip(s) for s in views]).mean(0)


def _passes(
    expert: WholeExpert,
    pixels: Tensor,
    context: Tensor,
    device: torch.device,
    allowed: int,
    on_progress: Callable[[int, int], None] | None,
) -> Outcome:
    """`run` for a network that passes over the picture many times."""
    from .sweep import Sweeper

    sweep = Sweeper(expert.capability, allowed)
    try:
        restored = expert.restore(pixels[None].to(device), context, sweep, on_progress or (lambda done, total: None))
    except ValueError:
        raise _too_small(pixels.shape[-1], pixels.shape[-2]) from None
    return Outcome(restored[0].float().clamp(0, 1).cpu(), sweep.tiles, peak_bytes(device))


def _too_small(width: int, height: int) -> PictureError:
    return PictureError(
        f"The memory allowed is too small for a picture of {width}x{height} pixels.",
        "Raise --max-memory, or close other programs.",
    )
