"""Operations on images as tensors that several packages share."""

from __future__ import annotations

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
