"""Networks that pass over a picture many times: tiles are blended inside every pass, so that no seam can build up."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..models.base import Capability
from .tiling import Tile, grid, out_of_memory

Span = tuple[int, int, int, int]  # from, to, keep from, keep to


class Sweeper:
    """`irtool.models.base.Sweep`, under a memory limit that halves where it does not hold.

    Args:
        capability: of the network.
        pixels: the most pixels a tile may have.

    Attributes:
        tiles: tiles of the last pass.
    """

    def __init__(self, capability: Capability, pixels: int) -> None:
        self.capability, self.pixels, self.tiles = capability, pixels, 0

    def __call__(self, net: Callable[..., Tensor], *images: Tensor) -> Tensor:
        """What the network gives for images (N, C, H, W) of one size.

        Raises:
            ValueError: the memory allowed does not hold even the smallest tile.
        """
        height, width = images[0].shape[-2:]
        while True:
            tiles = self._grid(height, width)
            try:
                return self._pass(net, images, tiles)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if images[0].device.type == "cuda":
                    torch.cuda.empty_cache()
                self.pixels = max((t.bottom - t.top) * (t.right - t.left) for t in tiles) // 2

    def _grid(self, height: int, width: int) -> list[Tile]:
        multiple = self.capability.multiple
        padded = [-(-side // multiple) * multiple for side in (height, width)]
        # A picture that fits is never cut: the attention inside such networks spans all that they see.
        allowed = max(self.pixels, 0)
        margin = 0 if padded[0] * padded[1] <= allowed else self.capability.margin
        return grid(*padded, multiple=multiple, margin=margin, pixels=allowed)

    def _pass(self, net: Callable[..., Tensor], images: tuple[Tensor, ...], tiles: list[Tile]) -> Tensor:
        self.tiles = len(tiles)
        if len(tiles) == 1:
            return net(*images)
        height, width = images[0].shape[-2:]
        total: Tensor | None = None
        for tile, weight in zip(tiles, weights(tiles, height, width), strict=True):
            rows, columns = slice(tile.top, min(tile.bottom, height)), slice(tile.left, min(tile.right, width))
            part = net(*(image[..., rows, columns] for image in images)).float()
            if total is None:
                total = part.new_zeros(*part.shape[:-2], height, width)
            total[..., rows, columns] += part * weight.to(part.device)
        assert total is not None
        return total


def weights(tiles: list[Tile], height: int, width: int) -> Iterator[Tensor]:
    """How much each tile counts at each of its pixels; at every pixel of the picture they sum to one.

    Across an overlap the weight falls linearly from one tile to the next. Tiles form a grid, so both axes are apart.
    """

    def ramps(spans: set[Span], size: int) -> dict[Span, Tensor]:
        made = {}
        for start, end, keep_start, keep_end in spans:
            at = torch.arange(start, min(end, size)) + 0.5
            rise = (at - start) / max(1, 2 * (keep_start - start)) if keep_start > start else torch.ones(len(at))
            fall = (end - at) / max(1, 2 * (end - keep_end)) if end > keep_end else torch.ones(len(at))
            made[start, end, keep_start, keep_end] = torch.minimum(rise, fall).clamp(0, 1)
        total = torch.zeros(size)
        for span, ramp in made.items():
            total[span[0] : min(span[1], size)] += ramp
        return {span: ramp / total[span[0] : min(span[1], size)] for span, ramp in made.items()}

    down = [(t.top, t.bottom, t.keep_top, t.keep_bottom) for t in tiles]
    across = [(t.left, t.right, t.keep_left, t.keep_right) for t in tiles]
    rows, columns = ramps(set(down), height), ramps(set(across), width)
    for row, column in zip(down, across, strict=True):
        yield rows[row][:, None] * columns[column]
