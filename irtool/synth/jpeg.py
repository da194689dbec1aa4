"""JPEG compression by the real codec."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import UsageError

_LIMIT = 65500  # the format's own limit on a side, in libjpeg


def jpeg(images: Tensor, generator: torch.Generator, *, q: int, subsampling: str) -> Tensor:
    """Encode and decode each picture with libjpeg at quality `q` (Pillow's scale, 1..100), rounding to 8 bit first."""
    if max(images.shape[-2:]) > _LIMIT:
        raise UsageError(f"JPEG holds no side above {_LIMIT} pixels.")
    levels = (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    decoded = np.empty_like(levels)
    for index, pixels in enumerate(levels):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=q, subsampling=_factors(subsampling))
        with Image.open(buffer) as picture:
            decoded[index] = np.asarray(picture)
    return torch.from_numpy(decoded).to(images.device).permute(0, 3, 1, 2).float() / 255


def _factors(name: str) -> str:
    """``420`` as Pillow writes it, ``4:2:0``."""
    return ":".join(name)
