"""Operations on images as tensors that several packages share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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
