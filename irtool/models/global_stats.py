"""Statistics of a whole picture that steer a network whose own view is local.

They are taken once, before tiling, so that a picture restored in tiles equals one restored whole.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

QUANTILES = (0.01, 0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95, 0.99)
THUMBNAIL_SIDE = 32
CONTEXT_SIZE = 3 * len(QUANTILES) + 3 * 3


def global_stats(pixels: Tensor) -> Tensor:
    """Describe light and texture of whole pictures.

    Args:
        pixels: (N, 3, H, W) sRGB in [0, 1], any size.

    Returns:
        (N, CONTEXT_SIZE) float32: per channel the quantiles of a 32x32 area-averaged thumbnail (exposure,
        cast, haze), then per channel the log mean magnitude of the differences along a row at one, two
        and four pixels' distance (noise, blur), roughly centred.
    """
    x = pixels.float()
    n = x.shape[0]
    thumb = F.adaptive_avg_pool2d(x, THUMBNAIL_SIDE).flatten(2)
    q = torch.quantile(thumb, torch.tensor(QUANTILES, device=x.device), dim=2)  # (Q, N, 3)
    light = q.permute(1, 2, 0).reshape(n, -1) - 0.5
    # Rows are close to alike as samples of texture; about 512 of them keep large pictures cheap.
    x = x[:, :, :: max(1, x.shape[2] // 512)]
    texture = []
    for step in (1, 2, 4):
        if x.shape[3] > step:
            d = (x[..., step:] - x[..., :-step]).abs().mean(dim=(2, 3))
        else:
            d = torch.zeros_like(x[:, :, 0, 0])
        texture.append((d + 1e-3).log() * 0.5 + 1.5)
    return torch.cat([light, *texture], dim=1)
