"""Training samples: crops of clean pictures, degraded as they are asked for.

Samples come in pools. A pool is made from its index and the seed alone, so a run resumes at any pool
with the very samples it would have seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .. import picture, synth
from ..degradation import CLEAN, IDS, INDEX
from ..errors import IrtoolError, UsageError
from ..models.context import describe
from .recipe import Recipe

GROUP = 2  # samples that share one draw of parameters: the degradations are vectorised over them
GROUPS = 16
POOL = GROUP * GROUPS
# Pairs that occur together in photographs, first to last in the order in which the damage is done.
MIXED = (
    ("haze", "rain"),
    ("haze", "snow"),
    ("lowlight", "noise"),
    ("blur", "noise"),
    ("noise", "jpeg"),
    ("blur", "jpeg"),
    ("rain", "jpeg"),
    ("lowlight", "jpeg"),
    ("haze", "noise"),
    ("snow", "noise"),
    ("rain", "noise"),
    ("shadow", "noise"),
    ("raindrop", "jpeg"),
    ("lowlight", "blur", "noise"),
    ("blur", "noise", "jpeg"),
    ("haze", "rain", "noise"),
)

REAL = {"real": ("blur", "noise", "jpeg")}  # what the second-order chain is made of, as labels


@dataclass(frozen=True)
class Sample:
    """A batch or pool of samples.

    Attributes:
        degraded, clean: (N, 3, S, S) in [0, 1].
        context: (N, CONTEXT_SIZE) statistics of the degraded region each crop was cut from.
        labels: (N, 10) 1 where that degradation was applied.
    """

    degraded: Tensor
    clean: Tensor
    context: Tensor
    labels: Tensor


def load_clean(
    root: Path, folders: tuple[str, ...], smallest: int, limit: int = 2_000_000
) -> tuple[list[np.ndarray], list[str]]:
    """Decode every picture below `root`'s folders to uint8 (H, W, 3), larger ones reduced by whole factors.

    Returns the pictures and the messages of those that could not be read.

    Raises:
        UsageError: no usable picture was found.
    """
    pictures, skipped = [], []
    paths = [root / folder for folder in folders]
    for missing in (p for p in paths if not p.is_dir()):
        raise UsageError(f"{missing} is not a folder.", "Give the folder that holds the training data with --data.")
    for found in picture.find(paths, recursive=True):
        try:
            pixels = picture.read(found.path).pixels
        except IrtoolError as error:
            skipped.append(error.message)
            continue
        factor = max(1, round((pixels.shape[0] * pixels.shape[1] / limit) ** 0.5))
        if factor > 1:
            h, w = (s // factor * factor for s in pixels.shape[:2])
            pixels = pixels[:h, :w].reshape(h // factor, factor, w // factor, factor, 3).mean(axis=(1, 3))
        if min(pixels.shape[:2]) < smallest:
            skipped.append(f"{found.path} is smaller than {smallest} pixels.")
            continue
        pictures.append((pixels * 255 + 0.5).astype(np.uint8))
    if not pictures:
        raise UsageError(f"No usable picture in {', '.join(str(p) for p in paths)}.")
    return pictures, skipped


class Pools(Dataset[Sample]):
    """Pool `i` of the run: POOL shuffled samples of `region` pixels (a Dataset, so a loader can make them ahead)."""

    def __init__(self, pictures: list[np.ndarray], recipe: Recipe) -> None:
        self.pictures = pictures
        self.recipe = recipe
        self.kinds = [k for k, w in recipe.weights.items() if w > 0]
        self.odds = torch.tensor([recipe.weights[k] for k in self.kinds], dtype=torch.float64)

    def _region(self, g: torch.Generator, side: int, brightness: float = 0.0) -> Tensor:
        """A clean (3, side, side) region, of at least that mean brightness if one turns up in a few tries."""
        for _ in range(8):
            region = self._any_region(g, side)
            if float(region.mean()) >= brightness:
                break
        return region

    def _any_region(self, g: torch.Generator, side: int) -> Tensor:
        def draw(n: int) -> int:
            return int(torch.randint(n, (1,), generator=g))

        pixels = self.pictures[draw(len(self.pictures))]
        # Half of the time the picture is seen at half size where it is large enough: more context per
        # crop, and the traces of its own compression go.
        factor = 2 if draw(2) and min(pixels.shape[:2]) >= 2 * side else 1
        top, left = (draw(s - factor * side + 1) for s in pixels.shape[:2])
        cut = (
            torch.from_numpy(pixels[top : top + factor * side, left : left + factor * side]).permute(2, 0, 1).float()
            / 255
        )
        if factor == 2:
            cut = torch.nn.functional.avg_pool2d(cut, 2)
        if draw(2):
            cut = cut.flip(-1)
        # Rain, snow, sky and shadows have an up and a down, so quarter turns are rare.
        return cut.rot90(draw(4), (-2, -1)) if draw(4) == 0 else cut

    def kinds_of_group(self, g: torch.Generator) -> tuple[str, ...]:
        """The chain of damages of a group, in the order in which they are done; empty means clean."""
        kind = self.kinds[int(torch.multinomial(self.odds, 1, generator=g))]
        if kind == "mixed":
            return MIXED[int(torch.randint(len(MIXED), (1,), generator=g))]
        return () if kind == CLEAN else (kind,)

    def __getitem__(self, index: int) -> Sample:
        g = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + index)
        parts = []
        for _ in range(GROUPS):
            kinds = self.kinds_of_group(g)
            # The truth behind a low-light sample must be a well-exposed picture, or "how bright" has no answer.
            brightness = 0.3 if "lowlight" in kinds else 0.0
            clean = torch.stack([self._region(g, self.recipe.region, brightness) for _ in range(GROUP)])
            degraded = clean
            for kind in kinds:
                degraded = synth.random_chain(kind, g).apply(degraded, g)
            degraded = (degraded * 255).round() / 255
            labels = torch.zeros(GROUP, len(IDS))
            labels[:, [INDEX[i] for kind in kinds for i in REAL.get(kind, (kind,))]] = 1
            parts.append((degraded, clean, describe(degraded), labels))
        order = torch.randperm(POOL, generator=g)
        return Sample(*(torch.cat(p)[order] for p in zip(*parts, strict=True)))


def cut(sample: Sample, first: int, count: int, crop: int, g: torch.Generator) -> Sample:
    """Take `count` samples from `first` on and cut the same random square of `crop` pixels out of each."""
    side = sample.clean.shape[-1]
    top, left = (int(torch.randint(side - crop + 1, (1,), generator=g)) for _ in range(2))
    rows, window = slice(first, first + count), (..., slice(top, top + crop), slice(left, left + crop))
    return Sample(sample.degraded[rows][window], sample.clean[rows][window], sample.context[rows], sample.labels[rows])
