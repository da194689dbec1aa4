"""The multi-label network that says what is wrong with a picture, how badly, and where.

It looks at a picture in three ways. An ImageNet backbone sees the whole picture reduced (haze, exposure, shadows: what
only somebody who knows the world can judge) and crops of middle size (streaks, flakes and drops vanish when a
photograph of 12 megapixels is reduced to 256 pixels). A small trunk of its own sees crops at native resolution, where
noise, JPEG blocks and blur are. One head joins them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..degradation import IDS
from .efficientnet import FEATURES, STRIDE16_CHANNELS, EfficientNetLite0

CROP_SIDE = 96  # side of a crop at native resolution: noise and JPEG blocks vanish when a picture is shrunk
GRID = 3  # such crops per axis
WHOLE_AREA = 256 * 256  # pixels of the reduced view of the whole picture
CROP_AREA = 512 * 512  # pixels to which a larger picture is reduced before crops of middle size are cut from it
CROP = 192  # side of those crops
CROPS = 2  # per axis
LOCAL = ("raindrop", "rain", "shadow", "snow", "missing")
"""Degradations that lie in places: for these the network also says where."""
CELL = 16  # side of a cell of the maps of `LOCAL`, in pixels of the view they belong to


class Views(NamedTuple):
    """Features of a picture as `DetectorNet.see` returns them.

    Attributes:
        whole: (N, 112, h, w) of the picture reduced to WHOLE_AREA, at a sixteenth of its resolution.
        crops: (N, K, 112, h, w) of crops of middle size.
        fine: (N, F) of the crops at native resolution.
    """

    whole: Tensor
    crops: Tensor
    fine: Tensor


class Findings(NamedTuple):
    """What `DetectorNet.features` returns, all before the sigmoid.

    Attributes:
        kinds: (N, 10) one logit for each of `IDS`, independent of each other.
        clean: (N,) logit of nothing being wrong.
        severity: (N, 10) how strong each kind would be: the RMS change that it made, in units of `SEVERE`; of low light
            the stops that are missing, in units of `STOPS`.
        whole_map: (N, len(LOCAL), h, w) logit per cell of the reduced picture.
        crop_maps: (N, K, len(LOCAL), h, w) likewise per cell of the crops of middle size.
        features: (N, 112) of the whole picture, from layers that are still those of ImageNet: what it shows.
    """

    kinds: Tensor
    clean: Tensor
    severity: Tensor
    whole_map: Tensor
    crop_maps: Tensor
    features: Tensor


SEVERE = 0.25
"""RMS change of a picture in [0, 1] that counts as the full severity of 1."""
STOPS = 4.0
"""Halvings of the mean sRGB value that count as the full severity of low light: its RMS change says more about how
bright the picture was than about how dark it became."""


def fine_crops(pixels: Tensor) -> Tensor:
    """Crops (N, GRID * GRID, C, FINE, FINE) at native resolution, on a fixed grid, of pictures (N, C, H, W).

    Sides under FINE are continued by repetition.
    """
    down, right = (max(0, CROP_SIDE - side) for side in pixels.shape[-2:])
    if down or right:
        pixels = F.pad(pixels, (0, right, 0, down), mode="replicate")
    tops, lefts = ([round(i * (s - CROP_SIDE) / (GRID - 1)) for i in range(GRID)] for s in pixels.shape[-2:])
    crops = [pixels[..., top : top + CROP_SIDE, left : left + CROP_SIDE] for top in tops for left in lefts]
    return torch.stack(crops, dim=1)


def reduced(pixels: Tensor, area: int) -> Tensor:
    """Pictures (N, C, H, W) reduced to about `area` pixels, own shape, sides of at least 32; never enlarged beyond."""
    h, w = pixels.shape[-2:]
    scale = min(1.0, (area / (h * w)) ** 0.5)
    size = [max(2 * CELL, round(side * scale)) for side in (h, w)]
    if size == [h, w]:
        return pixels
    if (factor := int(1 / scale / 2)) > 1 and min(h, w) >= factor:
        # A mean over blocks first: a tenth of the time of one antialiased step, and not to be told from it.
        pixels = F.avg_pool2d(pixels, factor)
    return F.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)


def middle_crops(pixels: Tensor) -> Tensor:
    """Crops (N, CROPS * CROPS, C, h, w), h and w at most CROP, on a fixed grid of the picture (N, C, H, W) reduced."""
    pixels = reduced(pixels, CROP_AREA)
    h, w = (min(side, CROP) for side in pixels.shape[-2:])
    tops, lefts = (
        [round((side - cut) * (i + 0.5 * (CROPS == 1)) / max(1, CROPS - 1)) for i in range(CROPS)]
        for side, cut in zip(pixels.shape[-2:], (h, w), strict=True)
    )
    return torch.stack([pixels[..., top : top + h, left : left + w] for top in tops for left in lefts], dim=1)


class Block(nn.Module):
    """x + mix(relu(spread(x))), begun as the identity.

    No normalisation: how strong a texture is, is what is asked; and a batch holds too few kinds for its statistics.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(width, width, 3, 1, 1, groups=max(1, width // 16))
        self.mix = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(F.relu(self.spread(x)))


class Trunk(nn.Module):
    """Stages at half, quarter, ... of a view, and a map of what lies where at the last but one of them.

    Args:
        inputs: channels of the view.
        widths: channels of the stages; the maps have cells of 8 pixels where there are four.
        depths: blocks of the stages.
        middle: channels that the maps are read from.
    """

    def __init__(self, inputs: int, widths: Sequence[int], depths: Sequence[int], middle: int = 64) -> None:
        super().__init__()
        stages = []
        for before, width, depth in zip((inputs, *widths), widths, depths, strict=False):
            down = nn.Conv2d(before, width, 3, 2, 1)
            stages.append(nn.Sequential(down, nn.ReLU(), *(Block(width) for _ in range(depth))))
        self.stages = nn.ModuleList(stages)
        self.side = nn.Conv2d(widths[-2], middle, 1)
        self.up = nn.Conv2d(widths[-1], middle, 1)
        self.everywhere = nn.Linear(widths[-1], middle)
        self.dense = nn.Conv2d(middle, len(LOCAL), 1)

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
    """Logits of the ten degradations, independent of each other; see `Findings` for what it says besides.

    Args:
        widths, depths: channels and blocks of the stride-2 stages of the trunk at native resolution.
        hidden: width of the layer that joins the views.
        dropout: share of the joined features that training leaves out.
    """

    def __init__(
        self,
        widths: Sequence[int] = (32, 64, 96, 160),
        depths: Sequence[int] = (1, 1, 2, 2),
        hidden: int = 256,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.tasks = IDS
        self.fine = Trunk(6, widths, depths)
        self.backbone = EfficientNetLite0()
        self.maps = nn.Sequential(
            nn.Conv2d(STRIDE16_CHANNELS, 64, 1), nn.ReLU(), nn.Conv2d(64, len(LOCAL), 3, padding=1)
        )
        nn.init.constant_(self.maps[2].bias, -2.0)  # type: ignore[arg-type]  # a cell is sound more often than not
        inputs = 2 * FEATURES + 2 * widths[-1] * 2 + 7 * len(LOCAL)
        self.join = nn.Linear(inputs, hidden)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, 2 * len(IDS) + 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels (N, 3, H, W) in [0, 1], any size -> logits (N, 10)."""
        return self.features(pixels).kinds

    def features(self, pixels: Tensor) -> Findings:
        """pixels (N, 3, H, W) in [0, 1], any size; see `Findings`."""
        return self.judge(self.see(pixels, middle_crops(pixels)))

    def see(self, pixels: Tensor, crops: Tensor) -> Views:
        """What the layers that training leaves as they are make of pictures.

        Args:
            pixels: (N, 3, H, W) in [0, 1], any size.
            crops: (N, K, 3, h, w), of middle size.
        """
        n, k = crops.shape[:2]
        whole, flat = (
            self.backbone.lower(view.contiguous(memory_format=torch.channels_last))
            for view in (reduced(pixels, WHOLE_AREA), crops.flatten(0, 1))
        )
        return Views(whole, flat.view(n, k, *flat.shape[1:]), self._see_fine(pixels))

    def judge(self, views: Views) -> Findings:
        """The findings that follow from what was seen."""
        n, k = views.crops.shape[:2]
        crops = views.crops.flatten(0, 1)
        whole_map, crop_maps = self.maps(views.whole), self.maps(crops)
        places = _summary(crop_maps).view(n, k, -1)
        joined = [
            self.backbone.upper(views.whole).mean(dim=(2, 3)),
            self.backbone.upper(crops).mean(dim=(2, 3)).view(n, k, -1).mean(1),
            views.fine,
            _summary(whole_map),
            places.amax(1),
            places.mean(1)[:, : len(LOCAL)],
        ]
        out = self.head(self.dropout(F.relu(self.join(self.dropout(torch.cat(joined, dim=1))))))
        kinds, severity, clean = out.split([len(IDS), len(IDS), 1], dim=1)
        crop_maps = crop_maps.view(n, k, *crop_maps.shape[1:])
        return Findings(kinds, clean[:, 0], severity, whole_map, crop_maps, views.whole.mean(dim=(2, 3)))

    def _see_fine(self, pixels: Tensor) -> Tensor:
        """Features (N, ...) of the crops at native resolution: their mean and the strongest answer of any."""
        fine = fine_crops(pixels)
        n, k = fine.shape[:2]
        fine = fine.flatten(0, 1)
        # What noise, blocks and streaks are made of is small beside the picture itself: shown apart, and larger.
        detail = 4 * (fine - F.avg_pool2d(fine, 3, 1, 1, count_include_pad=False))
        *near, near_map = self.fine(torch.cat([fine - 0.5, detail], 1).contiguous(memory_format=torch.channels_last))
        crops = torch.cat(near, dim=1).view(n, k, -1)
        return torch.cat([crops.mean(1), crops.amax(1), _summary(near_map).view(n, k, -1).amax(1)], dim=1)

    def fuse(self) -> DetectorNet:
        """Make inference faster where it is known that no training follows."""
        self.backbone.fuse()
        return self


def _summary(cells: Tensor) -> Tensor:
    """(N, L, h, w) logits per cell -> (N, 2 L): the share that is hit, and how sure the surest twentieth is."""
    flat = cells.float().flatten(2)
    surest = flat.topk(max(1, flat.shape[-1] // 20), dim=2).values.mean(2).clamp(-8, 8) / 4
    return torch.cat([flat.sigmoid().mean(2), surest], dim=1)


def cells_hit(change: Tensor, like: Tensor, least: float = 0.03) -> Tensor:
    """What a map of `Findings` should say, given how much each of `LOCAL` changed every pixel of its view.

    Args:
        change: (N, L, H, W) mean absolute change over the channels, in [0, 1].
        like: the map, for its size.
        least: change from which a pixel counts as hit.

    Returns:
        The shape of `like`, in [0, 1]: 1 where half of a cell is hit, or more.
    """
    hit = (change > least).to(like.dtype)
    return (2 * F.adaptive_avg_pool2d(hit, (like.shape[-2], like.shape[-1]))).clamp(max=1)
