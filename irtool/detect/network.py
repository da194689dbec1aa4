"""The small multi-label network that says what is wrong with a picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..degradation import IDS

FINE = 96  # side of a crop at native resolution: noise and JPEG blocks vanish when a picture is shrunk
GRID = 3  # crops per axis
COARSE = 256 * 256  # pixels of the reduced view of the whole: haze, exposure, drops and shadows are seen there
LOCAL = ("raindrop", "rain", "shadow", "snow", "missing")
"""What lies in places. For these the trunks also say where, which is how drops and shadows are learned at all."""
CELL = 8  # side of the cells of those maps, in pixels of the view


def views(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """What the network looks at: crops on a fixed grid, and the whole picture reduced.

    Args:
        pixels: (N, C, H, W), any size; sides under FINE are continued by repetition.

    Returns:
        fine (N, GRID * GRID, C, FINE, FINE) and coarse (N, C, h, w) of about COARSE pixels, or as many as there are.
    """
    h, w = pixels.shape[-2:]
    scale = min(1.0, (COARSE / (h * w)) ** 0.5)
    size = [max(4 * CELL, round(s * scale)) for s in (h, w)]
    coarse = F.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)
    down, right = (max(0, FINE - s) for s in (h, w))
    if down or right:
        pixels = F.pad(pixels, (0, right, 0, down), mode="replicate")
    tops, lefts = ([round(i * (s - FINE) / (GRID - 1)) for i in range(GRID)] for s in pixels.shape[-2:])
    crops = [pixels[..., top : top + FINE, left : left + FINE] for top in tops for left in lefts]
    return torch.stack(crops, dim=1), coarse


class Block(nn.Module):
    """x + mix(relu(spread(x))), begun as the identity.

    No normalisation: how strong a texture is, is what is asked; and a batch holds too few kinds for its statistics.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(width, width, 3, 1, 1, groups=max(1, width // 16))
        self.mix = nn.Conv2d(width, width, 1)
        _start(self.spread)
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(F.relu(self.spread(x)))


class Trunk(nn.Module):
    """Stages at half, quarter, ... of a view, and a map of what lies where at the last but one of them.

    Args:
        inputs: channels of the view.
        widths: channels of the stages; the maps have cells of CELL pixels where there are four.
        depths: blocks of the stages.
        middle: channels that the maps are read from.
    """

    def __init__(self, inputs: int, widths: Sequence[int], depths: Sequence[int], middle: int = 64) -> None:
        super().__init__()
        stages = []
        for before, width, depth in zip((inputs, *widths), widths, depths, strict=False):
            down = nn.Conv2d(before, width, 3, 2, 1)
            _start(down)
            stages.append(nn.Sequential(down, nn.ReLU(), *(Block(width) for _ in range(depth))))
        self.stages = nn.ModuleList(stages)
        self.side = nn.Conv2d(widths[-2], middle, 1)
        self.up = nn.Conv2d(widths[-1], middle, 1)
        self.everywhere = nn.Linear(widths[-1], middle)
        self.dense = nn.Conv2d(middle, len(LOCAL), 1)
        # A cell is sound more often than not.
        nn.init.constant_(self.dense.bias, -2.0)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (N, C, h, w) -> means and maxima (N, width), and logits per cell (N, len(LOCAL), h/8, w/8)."""
        before = x
        for stage in self.stages:
            before, x = x, stage(x)
        x = F.relu(x)
        mean = x.mean(dim=(2, 3))
        wide = F.interpolate(self.up(x), before.shape[-2:], mode="nearest") + self.everywhere(mean)[..., None, None]
        return mean, x.amax(dim=(2, 3)), self.dense(F.relu(self.side(F.relu(before)) + wide))


class DetectorNet(nn.Module):
    """Logits of the ten degradations, independent of each other; none above zero means clean.

    Args:
        widths, depths: channels and blocks of the stride-2 stages of both trunks.
        hidden: width of the layer that joins crops and whole.
    """

    def __init__(
        self, widths: Sequence[int] = (32, 64, 96, 160), depths: Sequence[int] = (1, 1, 2, 2), hidden: int = 256
    ) -> None:
        super().__init__()
        self.tasks = IDS
        self.fine, self.coarse = Trunk(6, widths, depths), Trunk(6, widths, depths)
        inputs = 6 * widths[-1] + 5 * len(LOCAL)
        self.head = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, len(IDS)))

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels (N, 3, H, W) in [0, 1], any size -> logits (N, 10)."""
        return self.look(pixels)[0]

    def look(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (N, 10), and where `LOCAL` lie: logits per cell of the crops and of the whole.

        The maps are (N, GRID * GRID, len(LOCAL), 12, 12) and (N, len(LOCAL), h, w).
        """
        fine, coarse = views(pixels)
        n, k = fine.shape[:2]
        fine = fine.flatten(0, 1)
        # What noise, blocks and streaks are made of is small beside the picture itself: shown apart, and larger.
        detail = 4 * (fine - F.avg_pool2d(fine, 3, 1, 1, count_include_pad=False))
        *near, near_map = self.fine(torch.cat([fine - 0.5, detail], 1).contiguous(memory_format=torch.channels_last))
        # A shadow takes the same share of the light all along its edge, so it is even in the logarithm.
        shares = (coarse.clamp(0, 1) + 0.02).log() / 2 + 0.5
        *far, far_map = self.coarse(torch.cat([coarse - 0.5, shares], 1).contiguous(memory_format=torch.channels_last))
        crops = torch.cat(near, dim=1).view(n, k, -1)
        places = _summary(near_map).view(n, k, -1)
        # Of the crops the mean and the strongest answer, of the whole the mean and the strongest place.
        joined = [
            crops.mean(1),
            crops.amax(1),
            *far,
            places.amax(1),
            places.mean(1)[:, : len(LOCAL)],
            _summary(far_map),
        ]
        return self.head(torch.cat(joined, dim=1)), near_map.view(n, k, *near_map.shape[1:]), far_map


def _start(layer: nn.Conv2d) -> None:
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


def _summary(cells: Tensor) -> Tensor:
    """(N, L, h, w) logits per cell -> (N, 2 L): the share that is hit, and how sure the surest twentieth is."""
    flat = cells.float().flatten(2)
    surest = flat.topk(max(1, flat.shape[-1] // 20), dim=2).values.mean(2).clamp(-8, 8) / 4
    return torch.cat([flat.sigmoid().mean(2), surest], dim=1)


def where(change: Tensor, near: Tensor, far: Tensor, least: float = 0.03) -> tuple[Tensor, Tensor]:
    """What the maps of `DetectorNet.look` should say, given how much each of `LOCAL` changed every pixel.

    Args:
        change: (N, L, H, W) mean absolute change over the channels, in [0, 1].
        near, far: the maps, for their sizes.
        least: change from which a pixel counts as hit.

    Returns:
        The shapes of `near` and `far`, in [0, 1]: 1 where half of a cell is hit, or more.
    """
    hit = (change > least).float()
    crops = F.adaptive_avg_pool2d(views(hit)[0].flatten(0, 1), (near.shape[-2], near.shape[-1]))
    whole = F.adaptive_avg_pool2d(hit, (far.shape[-2], far.shape[-1]))
    return (2 * crops).clamp(max=1).view(near.shape), (2 * whole).clamp(max=1)
