"""The small multi-label network that says what is wrong with a picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..degradation import IDS

FINE = 96  # side of a crop at native resolution: noise and JPEG blocks vanish when a picture is shrunk
GRID = 3  # crops per axis
COARSE = 96  # side of the reduced view of the whole: haze, exposure and shadows are seen there


def views(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """What the network looks at: crops on a fixed grid, and the whole picture reduced.

    Args:
        pixels: (N, 3, H, W) in [0, 1], any size; sides under FINE are continued by repetition.

    Returns:
        fine (N, GRID * GRID, 3, FINE, FINE) and coarse (N, 3, COARSE, COARSE).
    """
    coarse = F.interpolate(pixels, (COARSE, COARSE), mode="bilinear", antialias=True, align_corners=False)
    down, right = (max(0, FINE - s) for s in pixels.shape[-2:])
    if down or right:
        pixels = F.pad(pixels, (0, right, 0, down), mode="replicate")
    h, w = pixels.shape[-2:]
    tops, lefts = ([round(i * (s - FINE) / (GRID - 1)) for i in range(GRID)] for s in (h, w))
    fine = torch.stack([pixels[..., t : t + FINE, x : x + FINE] for t in tops for x in lefts], dim=1)
    return fine, coarse


def _trunk(before: int, widths: Sequence[int]) -> nn.Sequential:
    # No normalisation: how strong a texture is, is what is asked; and a batch holds too few kinds for its statistics.
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Conv2d(before, width, 3, 2, 1), nn.ReLU(inplace=True)]
        layers += [nn.Conv2d(width, width, 3, 1, 1, groups=width // 16), nn.ReLU(inplace=True)]
        before = width
    for layer in layers:
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


class DetectorNet(nn.Module):
    """Logits of the ten degradations, independent of each other; none above zero means clean.

    Args:
        widths: channels of the stride-2 stages of both trunks.
        hidden: width of the layer that joins crops and whole.
    """

    def __init__(self, widths: Sequence[int] = (32, 64, 96, 160), hidden: int = 192) -> None:
        super().__init__()
        self.tasks = IDS
        self.fine, self.coarse = _trunk(6, widths), _trunk(3, widths)
        self.head = nn.Sequential(nn.Linear(6 * widths[-1], hidden), nn.ReLU(inplace=True), nn.Linear(hidden, len(IDS)))

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels (N, 3, H, W) in [0, 1], any size -> logits (N, 10)."""
        fine, coarse = views(pixels)
        n, k = fine.shape[:2]
        fine = fine.flatten(0, 1)
        # What noise, blocks and streaks are made of is small beside the picture itself: shown apart, and larger.
        detail = 4 * (fine - F.avg_pool2d(fine, 3, 1, 1, count_include_pad=False))
        near = self.fine(torch.cat([fine - 0.5, detail], 1).contiguous(memory_format=torch.channels_last))
        near = torch.cat([near.mean(dim=(2, 3)), near.amax(dim=(2, 3))], dim=1).view(n, k, -1)
        far = self.coarse(coarse.contiguous(memory_format=torch.channels_last) - 0.5)
        # Of the crops the mean and the strongest answer, of the whole the mean and the strongest place.
        return self.head(torch.cat([near.mean(1), near.amax(1), far.mean(dim=(2, 3)), far.amax(dim=(2, 3))], dim=1))
