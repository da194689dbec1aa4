"""Samples to train the detector on: many sizes, each content damaged in two ways, with maps of what changed."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from .. import synth
from ..degradation import CLEAN, IDS, INDEX
from ..detect.network import LOCAL
from .data import MIXED, Sample, join, seed_of, soften
from .jobs import Share
from .pictures import Pictures
from .recipe import Recipe

CHANGE = "change"
"""Name in `Sample.extras`: (N, len(LOCAL), H, W) mean absolute change of every pixel by each of the local kinds."""
# Height and width of the samples of a pool, in units of the recipe's region, and how often they come: what people have
# is seldom square or small.
SHAPES = (
    (1.0, 1.0, 2.0), (1.22, 1.22, 2.0), (1.33, 1.0, 2.0), (1.0, 1.33, 2.0), (1.56, 1.11, 2.0), (1.11, 1.56, 2.0),
    (1.78, 1.33, 1.5), (1.33, 1.78, 1.5), (1.78, 1.78, 1.0), (1.67, 2.5, 0.7), (2.5, 1.67, 0.7),
)  # fmt: skip
_FARTHEST = 3.0
BRIGHT = 0.25  # mean from which a picture is not dark by itself


class DetectorPools(Dataset[Sample]):
    """Pool `i` of a run: `recipe.pool` samples of one size, or the share of them that is this process's.

    The samples of a group show the same content, each damaged in its own way: what the content is then tells nothing.

    Args:
        pictures: where the content comes from.
        recipe: `pool`, `group`, `region`, `weights` and `seed` are used; see `SHAPES`.
        share: of this process.
        vary: change exposure, white balance and saturation of the clean content a little.
    """

    def __init__(self, pictures: Pictures, recipe: Recipe, share: Share | None = None, *, vary: bool = True) -> None:
        self.pictures, self.recipe, self.vary = pictures, recipe, vary
        self.share = share or Share(0, 1, torch.device("cpu"))
        self.kinds = [k for k, w in recipe.weights.items() if w > 0]
        self.odds = torch.tensor([recipe.weights[k] for k in self.kinds], dtype=torch.float64)
        self.frequency = torch.tensor([often for _, _, often in SHAPES])

    def __getitem__(self, index: int) -> Sample:
        groups, (rank, ranks) = self.recipe.pool // self.recipe.group, (self.share.rank, self.share.ranks)
        g = torch.Generator().manual_seed(seed_of(self.recipe.seed, index))
        shape = SHAPES[int(torch.multinomial(self.frequency, 1, generator=g))]
        h, w = (max(16, round(side * self.recipe.region / 16) * 16) for side in shape[:2])
        made = []
        for group in range(rank * groups // ranks, (rank + 1) * groups // ranks):
            g = torch.Generator().manual_seed(seed_of(self.recipe.seed, index, group))
            content = self._region(g, h, w)
            for _ in range(self.recipe.group):
                kind = self.kinds[int(torch.multinomial(self.odds, 1, generator=g))]
                made.append(self.sample(kind, content, g))
        return join(made)

    def group(self, kind: str, g: torch.Generator, count: int) -> Sample:
        """`count` samples of one kind, each a square of `region` pixels with a content of its own."""
        side = self.recipe.region
        return join([self.sample(kind, self._region(g, side, side), g) for _ in range(count)])

    def sample(self, kind: str, content: Tensor, g: torch.Generator) -> Sample:
        """One sample of a kind of `recipe.weights` from content (3, H, W), or from a brighter one for low light."""
        kinds = MIXED[_draw(g, len(MIXED))] if kind == "mixed" else () if kind == CLEAN else (kind,)
        for _ in range(6 if "lowlight" in kinds else 0):
            if float(content.mean()) >= BRIGHT:  # how dark is too dark has no answer below
                break
            content = self._region(g, *content.shape[-2:])
        h, w = content.shape[-2:]
        labels, change = torch.zeros(1, len(IDS)), torch.zeros(1, len(LOCAL), h, w)
        degraded = content[None] if _draw(g, 5) > 1 else soften(content[None], g)
        for each in kinds:
            labels[0, INDEX[each]] = 1
            before, degraded = degraded, synth.random_chain(each, g).apply(degraded, g)
            if each in LOCAL:
                change[:, LOCAL.index(each)] = (degraded - before).abs().mean(1)
        if "jpeg" not in kinds and _draw(g, 2):
            # Whatever else is wrong with it, a photograph mostly comes as a JPEG of a quality that harms nobody.
            degraded = synth.parse(f"jpeg(q={80 + _draw(g, 18)})").apply(degraded, g)
        degraded = (degraded * 255).round() / 255
        made = Sample(degraded, content[None], torch.zeros(1, 0), labels, labels.clone(), {CHANGE: change.half()})
        return made.to(self.share.device)

    def _region(self, g: torch.Generator, h: int, w: int) -> Tensor:
        """A clean (3, h, w) region, seen at the picture's own size or smaller, so that it may show all of it."""
        for _ in range(50):
            pixels = self.pictures.clean[_draw(g, len(self.pictures.clean))].pixels
            if pixels.shape[0] >= h and pixels.shape[1] >= w:
                break
        else:
            if h > w:  # none is tall enough: one that lies on its side
                return self._region(g, w, h).rot90(1, (1, 2))
        most = max(1.0, min(pixels.shape[0] / h, pixels.shape[1] / w, _FARTHEST))
        factor = 1.0 if _draw(g, 2) else _uniform(g, 1, most)
        tall, wide = (min(s, round(side * factor)) for s, side in zip(pixels.shape, (h, w), strict=False))
        top, left = _draw(g, pixels.shape[0] - tall + 1), _draw(g, pixels.shape[1] - wide + 1)
        piece = np.array(pixels[top : top + tall, left : left + wide])
        region = torch.from_numpy(piece).permute(2, 0, 1)[None].float() / 255
        if (tall, wide) != (h, w):
            region = F.interpolate(region, (h, w), mode="bilinear", antialias=True, align_corners=False)
        if _draw(g, 2):
            region = region.flip(-1)
        return _varied(region[0], g) if self.vary and _draw(g, 4) else region[0]


def _varied(region: Tensor, g: torch.Generator) -> Tensor:
    """Another exposure, white balance and saturation, as another camera or hour might have given."""
    gain = 1 + 0.08 * (2 * torch.rand(3, 1, 1, generator=g) - 1)
    # Darker more often than brighter: a picture exposed for its lights is not one with too little light.
    region = region.clamp(min=1e-4) ** math.exp(_uniform(g, -0.2, 0.55)) * gain
    grey = region.mean(0, keepdim=True)
    return (grey + (region - grey) * _uniform(g, 0.6, 1.25)).clamp(0, 1)


def _draw(g: torch.Generator, n: int) -> int:
    return int(torch.randint(n, (1,), generator=g))


def _uniform(g: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=g))
