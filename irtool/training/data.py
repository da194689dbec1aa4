"""Training samples: crops of clean pictures, degraded on the fly, and crops of real pairs.

Samples come in pools. A pool follows from its index and the recipe's seed alone, so a run resumes at any pool with the
same samples; every group of samples in it has its own seed, so several processes together make what one process would
have made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from .. import synth
from ..degradation import CLEAN, IDS, INDEX
from ..models.blind_deblur import deconvolve, shifted
from ..models.global_stats import global_stats
from ..synth.blur import blur_with_kernels
from ..synth.haze import dense_fog
from ..synth.ops import gaussian_blur, normal, smooth_noise, uniform
from .pictures import PictureSet, gather, licenses
from .recipe import Recipe
from .tasks import Shard, TrainingData

HELD_OUT = 0x48  # in place of the pool index: held-out samples have their own seeds
# Combinations that occur in photographs, in the order in which they are applied.
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

GUESS = "guess"  # in `Sample.extras`: the deconvolved picture, or the picture itself where there is none
GRID = 16  # pixels: JPEG's blocks, with chroma at half resolution
REAL = {"real": ("blur", "noise", "jpeg")}  # labels of the second-order chain
FINE = frozenset({"noise", "jpeg", "blur"})  # these change when a picture is halved


@dataclass(frozen=True)
class Sample:
    """A batch or pool of samples (a `tasks.Batch`).

    Attributes:
        degraded, clean: (N, 3, S, S) in [0, 1].
        context: (N, CONTEXT_SIZE) statistics of the degraded region each crop was cut from.
        labels: (N, 10) 1 where that degradation was applied.
        task_weights: (N, 10) the task weights to restore with: `labels`, and for a clean sample a random task, since an
            unnecessary task must do no harm. Drawn with the sample, so that it does not depend on the number of
            processes.
        extras: further tensors (N, ...) of a kind of training; those that end in (S, S) are cropped like the pictures.
    """

    degraded: Tensor
    clean: Tensor
    context: Tensor
    labels: Tensor
    task_weights: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.clean)

    def map(self, change: Callable[[Tensor], Tensor]) -> Sample:
        """The same with every tensor changed."""
        degraded, clean, context, labels, task_weights = map(
            change, (self.degraded, self.clean, self.context, self.labels, self.task_weights)
        )
        return Sample(degraded, clean, context, labels, task_weights, {k: change(v) for k, v in self.extras.items()})

    def to(self, device: torch.device) -> Sample:
        """The same on a device."""
        return self.map(lambda t: t.to(device, non_blocking=True))

    def names(self) -> list[str]:
        """Of each sample, the degradations joined by "+", or "clean"."""
        rows = self.labels.tolist()
        return ["+".join(i for i, on in zip(IDS, row, strict=True) if on) or CLEAN for row in rows]


def join(parts: Sequence[Sample]) -> Sample:
    """One sample after the other."""
    extras = {k: torch.cat([p.extras[k] for p in parts]) for k in parts[0].extras}
    return Sample(
        torch.cat([p.degraded for p in parts]),
        torch.cat([p.clean for p in parts]),
        torch.cat([p.context for p in parts]),
        torch.cat([p.labels for p in parts]),
        torch.cat([p.task_weights for p in parts]),
        extras,
    )


def seed_of(*numbers: int) -> int:
    """A seed that follows from numbers, unrelated to the seeds of other numbers."""
    digest = hashlib.blake2b(" ".join(map(str, numbers)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Pools(Dataset[Sample]):
    """Pool `i` of a run: `recipe.pool` samples of `region` pixels, or the share of them that is this process's.

    Crops and parameters are drawn on the CPU; what the degradations draw per pixel is drawn and computed on the device
    of the share.
    """

    def __init__(self, pictures: PictureSet, recipe: Recipe, shard: Shard | None = None) -> None:
        self.pictures = pictures
        self.recipe = recipe
        self.shard = shard or Shard(0, 1, torch.device("cpu"))
        self.kinds: list[str | int] = [k for k, w in recipe.weights.items() if w > 0]
        weights = [recipe.weights[str(k)] for k in self.kinds]
        for number, entry in enumerate(recipe.pairs):  # a number is a kind too: that of the recipe's pairs
            self.kinds.append(number)
            weights.append(entry.weight)
        self.odds = torch.tensor(weights, dtype=torch.float64)

    def __getitem__(self, index: int) -> Sample:
        groups, (rank, world_size) = self.recipe.pool // self.recipe.group, (self.shard.rank, self.shard.world_size)
        own_groups = range(rank * groups // world_size, (rank + 1) * groups // world_size)
        samples = []
        for group in own_groups:
            g = torch.Generator().manual_seed(seed_of(self.recipe.seed, index, group))
            kind = self.kinds[int(torch.multinomial(self.odds, 1, generator=g))]
            samples.append(self.group(kind, g))
        return join(samples)

    def group(self, kind: str | int, g: torch.Generator, count: int | None = None) -> Sample:
        """`count` samples (by default `recipe.group`) of one kind: they share their parameters.

        Args:
            kind: of `recipe.weights`, or the number of one of `recipe.pairs`.
            g: on the CPU.
            count: how many.
        """
        count = count or self.recipe.group
        kernels: Tensor | None = None
        if isinstance(kind, int):
            both = [self._pair(g, kind) for _ in range(count)]
            degraded, clean = (torch.stack(side) for side in zip(*both, strict=True))
            kinds, pixel = self.recipe.pairs[kind].task, g
        else:
            kinds = self._chain(kind, g)
            clean = self._contents(kinds, count, g)
            pixel = g
            if clean.device.type != "cpu":
                pixel = torch.Generator(clean.device).manual_seed(int(torch.randint(1 << 62, (1,), generator=g)))
            degraded, clean, kernels = _degraded(clean, kinds, g, pixel)
        extras = {}
        if self.recipe.model.get("guess"):
            has_guess = kernels is not None and draw(g, 6)
            extras[GUESS] = (
                deconvolve(degraded, perturbed_kernels(kernels, pixel))
                if has_guess and kernels is not None
                else degraded
            )
        labels = torch.zeros(count, len(IDS))
        labels[:, [INDEX[i] for each in kinds for i in REAL.get(each, (each,))]] = 1
        task_weights = labels.clone()
        if not kinds:
            task_weights[range(count), torch.randint(len(IDS), (count,), generator=g)] = 1
        return Sample(
            degraded, clean, global_stats(degraded), labels.to(clean.device), task_weights.to(clean.device), extras
        )

    def _contents(self, kinds: Sequence[str], count: int, g: torch.Generator) -> Tensor:
        """Clean regions (count, 3, region, region), as the degradations of a group want them."""
        # The reference of a low-light sample must be a well-exposed picture, or "how bright" has no answer.
        brightness = 0.3 if "lowlight" in kinds else 0.0
        clean = torch.stack([self._region(g, self.recipe.region, brightness) for _ in range(count)])
        if "blur" not in kinds and draw(g, 4) == 0:
            clean = soften_optics(clean, g)
        if "haze" in kinds and draw(g, 2) == 0:
            clean = underexpose(clean, g)
        return clean

    def _chain(self, kind: str, g: torch.Generator) -> tuple[str, ...]:
        """The damages of a group, in the order in which they are done; empty means clean."""
        if kind == "mixed":
            return MIXED[int(torch.randint(len(MIXED), (1,), generator=g))]
        return () if kind == CLEAN else (kind,)

    def _region(self, g: torch.Generator, side: int, brightness: float = 0.0) -> Tensor:
        """A clean (3, side, side) region, of at least that mean brightness if one turns up in a few tries."""
        for _ in range(8):
            region = self._any_region(g, side)
            if float(region.mean()) >= brightness:
                break
        return region

    def _any_region(self, g: torch.Generator, side: int) -> Tensor:
        pixels = self.pictures.clean[draw(g, len(self.pictures.clean))].pixels
        # Half of the time a large enough picture is halved: more context per crop, and its own compression artifacts
        # go.
        factor = 2 if draw(g, 2) and min(pixels.shape[:2]) >= 2 * side else 1
        cut = self._cut(pixels, *_corner(g, pixels, factor * side), factor * side)
        if factor == 2:
            cut = F.avg_pool2d(cut, 2)
        if draw(g, 2):
            cut = cut.flip(-1)
        # Rain, snow, sky and shadows have a direction, so rotations are rare.
        return cut.rot90(draw(g, 4), (-2, -1)) if draw(g, 4) == 0 else cut

    def _pair(self, g: torch.Generator, number: int) -> tuple[Tensor, Tensor]:
        """The same region of a real degraded picture and of its reference, each (3, side, side)."""
        entry, listed = self.recipe.pairs[number], self.pictures.pairs[number]
        chosen, side = listed[draw(g, len(listed))], self.recipe.region
        pixels = chosen.clean.pixels
        halved = FINE.isdisjoint(entry.task) and min(pixels.shape[:2]) >= 2 * side and draw(g, 2)
        side *= 2 if halved else 1
        place = _corner(g, pixels, side)
        both = [self._cut(p.pixels, *place, side) for p in (chosen.degraded, chosen.clean)]
        if halved:
            both = [F.avg_pool2d(cut, 2) for cut in both]
        if draw(g, 2):
            both = [cut.flip(-1) for cut in both]
        degraded, clean = both
        if entry.transplant and self.pictures.clean and draw(g, 2):
            other = self._any_region(g, self.recipe.region)
            degraded, clean = (other + degraded - clean).clamp(0, 1), other
        return degraded, clean

    def _cut(self, pixels: np.ndarray, top: int, left: int, side: int) -> Tensor:
        piece = np.array(pixels[top : top + side, left : left + side])  # a copy: the file itself must not change
        return torch.from_numpy(piece).to(self.shard.device).permute(2, 0, 1).float() / 255


def _degraded(
    clean: Tensor, kinds: Sequence[str], g: torch.Generator, pixel: torch.Generator
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Degrade clean regions (N, 3, H, W): what came of them, their references, and the blur kernels if there are any.

    Args:
        clean: in [0, 1].
        kinds: degradations, in the order in which they are applied.
        g: draws parameters, on the CPU.
        pixel: draws per pixel, on the device of `clean`.
    """
    degraded, kernels = clean, None
    # The blocks of JPEG lie on a grid, but not where a picture was cropped afterwards.
    shift = [draw(g, GRID) for _ in range(2)] if "jpeg" in kinds and draw(g, 4) == 0 else [0, 0]
    degraded = degraded.roll(shift, (-2, -1))
    for each in kinds:
        chain = synth.random_chain(each, g)
        if each == "blur":
            degraded, kernels = blur_with_kernels(
                degraded, pixel, **{k: float(v) for k, v in chain.steps[0].parameters.items()}
            )
        else:
            degraded = chain.apply(degraded, pixel)
    degraded = degraded.roll([-by for by in shift], (-2, -1))
    if tuple(kinds) == ("haze",) and draw(g, 4) == 0:
        degraded, clean = dense_fog(clean, pixel)
    if not {"haze", "lowlight", "missing"}.isdisjoint(kinds) and "jpeg" not in kinds and draw(g, 2):
        # Photographs mostly come as JPEG, which harms nothing until a large gain shows it or a hole has a rim.
        degraded = synth.parse(f"jpeg(q={75 + draw(g, 23)})").apply(degraded, pixel)
    return (degraded * 255).round() / 255, clean, kernels


def perturbed_kernels(kernels: Tensor, g: torch.Generator) -> Tensor:
    """Kernels (N, k, k) with the errors of blind estimation: shifted, smoothed, unevenly weighted, truncated, some with
    ghosts (`irtool.models.blind_deblur`)."""
    n, reach = len(kernels), 10
    kernels = F.pad(kernels, (reach, reach, reach, reach))[:, None]
    if torch.rand((), generator=g, device=g.device) < 0.3:
        by = (8 * normal(g, (2,), kernels)).round().clamp(-reach, reach).int().tolist()
        kernels = kernels + uniform(g, (n, 1, 1, 1), 0.03, 0.3, kernels) * kernels.roll(by, (-2, -1))
    kernels = gaussian_blur(kernels, 0.3 + 0.9 * float(uniform(g, (), 0, 1, kernels)))
    modulation = smooth_noise(g, kernels, 5) * uniform(g, (n, 1, 1, 1), 0, 1.2, kernels)
    kernels = kernels * modulation.exp()
    peak = kernels.amax((2, 3), keepdim=True)
    kernels = torch.where(kernels < uniform(g, (n, 1, 1, 1), 0.05, 0.15, kernels) * peak, 0, kernels)
    return shifted(kernels[:, 0], -0.4 * normal(g, (n, 2), kernels))


def soften_optics(clean: Tensor, g: torch.Generator) -> Tensor:
    """Blur pictures (N, 3, H, W) as a lens and a color filter array do.

    Training pictures have mostly been downscaled, and are sharper than a camera's own pixels.
    """
    return gaussian_blur(clean, 0.4 + 1.2 * float(torch.rand((), generator=g)))


def underexpose(clean: Tensor, g: torch.Generator) -> Tensor:
    """Darken pictures (N, 3, H, W) by a random gamma, as pictures exposed for their highlights are: white walls turn
    gray.

    Published photographs show pale surfaces as white; trained on these alone, the network takes dull walls for haze.
    """
    return clean ** (1 + float(torch.rand((), generator=g)))


def draw(g: torch.Generator, n: int) -> int:
    """A whole number from 0 to n - 1."""
    return int(torch.randint(n, (1,), generator=g))


def _corner(g: torch.Generator, pixels: np.ndarray, side: int) -> tuple[int, int]:
    return draw(g, pixels.shape[0] - side + 1), draw(g, pixels.shape[1] - side + 1)


def cut(sample: Sample, row: int, rows: int, crop: int, g: torch.Generator) -> Sample:
    """Batch `row` of the `rows` in a pool, with the same random crop of `crop` x `crop` pixels for each sample.

    Crops begin on the grid of JPEG blocks, as tiles do, so that the network can learn where the blocks are.

    A batch takes every `rows`-th sample, so that it holds as many different groups as possible, and so that the batches
    of several processes together are the batch of a single one.
    """
    side = sample.clean.shape[-1]
    top, left = (GRID * draw(g, (side - crop) // GRID + 1) for _ in range(2))

    def take(t: Tensor) -> Tensor:
        t = t[row::rows]
        if t.ndim >= 4 and t.shape[-2:] == (side, side):
            return t[..., top : top + crop, left : left + crop]
        return t

    return sample.map(take)


def held_out(pools: Any, each: int = 2) -> Sample:
    """Fixed samples of held-out pictures: `each` of every kind in the recipe, the same in every run.

    Real pairs are not among them: there are too few to hold some out, and a test set serves better.
    """
    pictures, recipe = pools.pictures, pools.recipe
    if pictures.held_out:
        pools = type(pools)(PictureSet(pictures.held_out, (), pictures.pairs, ()), recipe, pools.shard)
    samples = []
    for number, kind in enumerate(k for k in pools.kinds if isinstance(k, str)):
        for which in range(each):
            g = torch.Generator().manual_seed(seed_of(HELD_OUT, number, which))
            samples.append(pools.group(kind, g, 1))
    return join(samples)


def training_data(
    recipe: Recipe, root: Path, shard: Shard, kind: Callable[..., Any] = Pools, held_out_each: int = 2
) -> TrainingData[Sample]:
    """The data of a job that learns from pictures, with `held_out_each` held-out samples of every kind in the recipe.

    An epoch has as many samples as regions fit into the pictures.

    Raises:
        UsageError: see `pictures.gather`.
    """
    pictures = gather(recipe, root)
    pools = kind(pictures, recipe, shard)
    area = sum(p.height * p.width for p in pictures.clean)
    area += sum(t.clean.height * t.clean.width for pairs in pictures.pairs for t in pairs)
    description = {
        "data": [str(root / name) for name in recipe.data],
        "pictures": len(pictures.clean),
        "megapixels": round(area / 1e6, 1),
        "held_out": len(pictures.held_out),
        "pairs": {p.manifest or p.degraded: len(t) for p, t in zip(recipe.pairs, pictures.pairs, strict=True)},
        "licences": licenses(pictures, root),
        "digest": pictures.digest(),
    }
    kinds = any(isinstance(kind, str) for kind in pools.kinds)
    return TrainingData(
        pools,
        held_out(pools, held_out_each) if kinds else None,
        area // recipe.region**2,
        description,
        pictures.skipped,
    )
