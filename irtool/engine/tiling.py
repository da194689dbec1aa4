"""Networks evaluated over images of any size in bounded memory, tile by tile."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..models.base import ModelInfo, Progress
from ..ops import pad_to_multiple

Span = tuple[int, int, int, int]  # from, to, keep from, keep to


class TooLittleMemoryError(ValueError):
    """The memory allowed does not hold even the smallest tile."""


@dataclass(frozen=True)
class Tile:
    """Rows and columns to compute (with overlap) and to keep, in pixels."""

    top: int
    bottom: int
    left: int
    right: int
    keep_top: int
    keep_bottom: int
    keep_left: int
    keep_right: int


def _length(size: int, count: int, multiple: int, overlap: int) -> int:
    """Of the `count` windows that cover `size` and share at least twice the overlap with their neighbours."""
    return min(size, math.ceil((size + 2 * overlap * (count - 1)) / count / multiple) * multiple)


def _spans(size: int, count: int, multiple: int, overlap: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut `size` into at most `count` windows of one length: (from, to, keep from, keep to); `size` and the overlap are
    multiples.

    Of one length, because oneDNN compiles and keeps kernels for every shape, some megabytes each. In the middle of what
    neighbours share one ends to be kept and the next begins.
    """
    length = _length(size, count, multiple, overlap)
    free = (size - length) // multiple
    starts = sorted({free * i // max(1, count - 1) * multiple for i in range(count)})
    cuts = [0, *((a + b + length) // 2 // multiple * multiple for a, b in pairwise(starts)), size]
    for start, cut in zip(starts, pairwise(cuts), strict=True):
        yield start, start + length, *cut


def grid(height: int, width: int, *, multiple: int, overlap: int, pixels: int) -> list[Tile]:
    """Cover a picture with tiles of one size, at most `pixels`, such that the least area is computed.

    Args:
        height, width: multiples of `multiple`.
        multiple, overlap: of the network.
        pixels: the most pixels in a tile, overlap included.

    Raises:
        TooLittleMemoryError: even the smallest tile is larger than that.
    """
    overlap = math.ceil(overlap / multiple) * multiple
    best: tuple[int, int, int] | None = None
    for rows in range(1, height // multiple + 1):
        tall = _length(height, rows, multiple, overlap)
        widest = pixels // tall // multiple * multiple
        if widest < width and widest <= 2 * overlap:
            continue
        columns = 1 if widest >= width else math.ceil((width - 2 * overlap) / (widest - 2 * overlap))
        area = rows * tall * columns * _length(width, columns, multiple, overlap)
        if best is None or area < best[0]:
            best = (area, rows, columns)
    if best is None:
        raise TooLittleMemoryError("not even the smallest tile fits")
    _, rows, columns = best
    return [
        Tile(top, bottom, left, right, kt, kb, kl, kr)
        for top, bottom, kt, kb in _spans(height, rows, multiple, overlap)
        for left, right, kl, kr in _spans(width, columns, multiple, overlap)
    ]


def blend_weights(tiles: list[Tile], height: int, width: int) -> Iterator[Tensor]:
    """How much each tile counts at each of its pixels; at every pixel of the picture they sum to one.

    Across an overlap the weight falls linearly from one tile to the next. Tiles form a grid, so both axes are apart.
    """

    def ramps(spans: set[Span], size: int) -> dict[Span, Tensor]:
        by_span: dict[Span, Tensor] = {}
        for start, end, keep_start, keep_end in spans:
            at = torch.arange(start, min(end, size)) + 0.5
            rise = (at - start) / max(1, 2 * (keep_start - start)) if keep_start > start else torch.ones(len(at))
            fall = (end - at) / max(1, 2 * (end - keep_end)) if end > keep_end else torch.ones(len(at))
            by_span[start, end, keep_start, keep_end] = torch.minimum(rise, fall).clamp(0, 1)
        total = torch.zeros(size)
        for span, ramp in by_span.items():
            total[span[0] : min(span[1], size)] += ramp
        return {span: ramp / total[span[0] : min(span[1], size)] for span, ramp in by_span.items()}

    down = [(t.top, t.bottom, t.keep_top, t.keep_bottom) for t in tiles]
    across = [(t.left, t.right, t.keep_left, t.keep_right) for t in tiles]
    rows, columns = ramps(set(down), height), ramps(set(across), width)
    for row, column in zip(down, across, strict=True):
        yield rows[row][:, None] * columns[column]


def out_of_memory(error: RuntimeError) -> bool:
    """Whether a failed computation failed for memory; on a CPU torch says so in words alone."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def self_ensemble(net: Callable[..., Tensor], *tiles: Tensor) -> Tensor:
    """What a network makes of tiles, averaged over their four mirrored views: (N, C, h, w) -> (N, 3, h, w) in [0, 1].

    The geometric self-ensemble of Lim et al. (EDSR, CVPRW 2017) without the views turned by 90 degrees: rain falls.
    """
    views: list[list[int]] = [[], [-1], [-2], [-2, -1]]
    return torch.stack([net(*(t.flip(s) for t in tiles)).float().clamp(0, 1).flip(s) for s in views]).mean(0)


class Tiler:
    """Evaluates a network over images, cut as its `ModelInfo` says (`irtool.models.base.Tiled`).

    With "exact" tiling the images are padded to the network's multiple; tiles start at multiples of it, and of each
    only what lies `overlap` away from its cut edges is kept, so tiles agree with the whole. With "blended" tiling an
    image that fits is not cut, and otherwise weights fall linearly across the overlap. Where memory runs out, tiles are
    halved.

    Args:
        info: of the network.
        pixels: the most pixels a tile may have, overlap included.
        device: where the network is.
        ensemble: average over four mirrored views of every tile.
        padding: "reflect" or "zeros", for exact tiling.

    Attributes:
        tiles: tiles of the last evaluation.
    """

    def __init__(
        self,
        info: ModelInfo,
        pixels: int,
        device: torch.device | None = None,
        *,
        ensemble: bool = False,
        padding: str = "reflect",
    ) -> None:
        self.info, self.pixels, self.device = info, max(0, pixels), device or torch.device("cpu")
        self.ensemble, self.padding, self.tiles = ensemble, padding, 0

    def __call__(self, net: Callable[..., Tensor], *images: Tensor, on_progress: Progress | None = None) -> Tensor:
        """``net(*images)`` for images (N, C, H, W) of one size -> float32, on the device of the first image.

        The result of a network with a `scale` is larger by it.

        Raises:
            TooLittleMemoryError: not even the smallest tile fits.
        """
        height, width = images[0].shape[-2:]
        exact = self.info.tiling == "exact"
        if exact and (height % self.info.multiple or width % self.info.multiple):
            images = tuple(pad_to_multiple(image, self.info.multiple, self.padding) for image in images)
        while True:
            tiles = self._grid(*images[0].shape[-2:])
            self.tiles = len(tiles)
            try:
                merge = self._cropped if exact else self._blended
                merged = merge(net, images, tiles, on_progress or (lambda done, total: None))
                return merged[..., : height * self.info.scale, : width * self.info.scale]
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                # Another process took the memory that was free when the tiles were planned.
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                self.pixels = max(t.bottom - t.top for t in tiles) * max(t.right - t.left for t in tiles) // 2

    def _grid(self, height: int, width: int) -> list[Tile]:
        multiple, overlap = self.info.multiple, self.info.overlap
        height, width = (-(-side // multiple) * multiple for side in (height, width))
        if self.info.tiling == "blended" and height * width <= self.pixels:
            overlap = 0
        return grid(height, width, multiple=multiple, overlap=overlap, pixels=self.pixels)

    def _evaluate(self, net: Callable[..., Tensor], images: tuple[Tensor, ...], t: Tile) -> Tensor:
        tiles = (image[..., t.top : t.bottom, t.left : t.right].to(self.device) for image in images)
        return self_ensemble(net, *tiles) if self.ensemble else net(*tiles)

    def _cropped(
        self, net: Callable[..., Tensor], images: tuple[Tensor, ...], tiles: list[Tile], on_progress: Progress
    ) -> Tensor:
        result: Tensor | None = None
        scale = self.info.scale
        for done, t in enumerate(tiles):
            on_progress(done, len(tiles))
            part = self._evaluate(net, images, t)
            if result is None:
                size = (*part.shape[:-2], *(scale * side for side in images[0].shape[-2:]))
                with torch.inference_mode(False):  # so that the engine need not copy it
                    # An enlarged picture is large: it is laid out as files are written, so that nothing copies it.
                    layout = torch.contiguous_format if scale == 1 else torch.channels_last
                    result = torch.empty(size, dtype=torch.float32, device=images[0].device, memory_format=layout)
            rows = slice(scale * t.keep_top, scale * t.keep_bottom)
            columns = slice(scale * t.keep_left, scale * t.keep_right)
            result[..., rows, columns] = part[
                ...,
                scale * (t.keep_top - t.top) : scale * (t.keep_bottom - t.top),
                scale * (t.keep_left - t.left) : scale * (t.keep_right - t.left),
            ].to(result)
        on_progress(len(tiles), len(tiles))
        assert result is not None
        return result

    def _blended(
        self, net: Callable[..., Tensor], images: tuple[Tensor, ...], tiles: list[Tile], on_progress: Progress
    ) -> Tensor:
        height, width = images[0].shape[-2:]
        total: Tensor | None = None
        for done, (t, weight) in enumerate(zip(tiles, blend_weights(tiles, height, width), strict=True)):
            on_progress(done, len(tiles))
            part = self._evaluate(net, images, t).float()
            if len(tiles) == 1:
                total = part.to(images[0].device)
                break
            if total is None:
                total = torch.zeros(*part.shape[:-2], height, width, device=images[0].device)
            bottom, right = min(t.bottom, height), min(t.right, width)
            total[..., t.top : bottom, t.left : right] += (part * weight.to(part.device)).to(total)
        on_progress(len(tiles), len(tiles))
        assert total is not None
        return total
