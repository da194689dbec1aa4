"""Samples to train the detector on: real photographs with labels, and clean ones damaged in two ways each.

Labelled photographs come from a table (tab-separated, columns "file", "label", "mask"; see `labelled`). The file
statistics of such collections differ by class, so each is cropped, resized and encoded anew at random: otherwise the
network learns to tell the collections apart.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from .. import synth
from ..degradation import CLEAN, IDS, INDEX
from ..detection.network import LOCAL, SEVERE, STOPS
from ..errors import FileError, UsageError, reason
from ..fileio import read_text
from ..weights.hub import assets_cache
from .data import MIXED, Sample, draw, join, seed_of, soften_optics
from .pictures import Decoded, PictureSet, decode
from .recipe import Recipe
from .tasks import Shard

CHANGE, MAPPED, WEIGHT, SEVERITY = "change", "mapped", "weight", "severity"
"""Names in `Sample.extras`: (N, len(LOCAL), H, W) mean absolute change of every pixel by each of the local kinds;
(N, len(LOCAL)) 1 where that is known; (N, 10) how much each label counts; (N, 10) severity, not a number where it is
not known."""
# Height and width of the samples of a pool, in units of the recipe's region, and how often they come: what people have
# is seldom square or small.
SHAPES = (
    (1.0, 1.0, 2.0), (1.22, 1.22, 2.0), (1.33, 1.0, 2.0), (1.0, 1.33, 3.0), (1.56, 1.11, 2.0), (1.11, 1.56, 3.0),
    (1.78, 1.33, 1.5), (1.33, 1.78, 2.5), (1.78, 1.78, 1.0), (1.67, 2.5, 0.7), (2.5, 1.67, 0.7),
)  # fmt: skip
# What a photograph labelled with one degradation often shows besides, unlabelled: such labels count little.
OFTEN_WITH = {
    "blur": ("noise", "jpeg", "lowlight"),
    "haze": ("rain", "lowlight", "noise", "snow", "jpeg"),
    "jpeg": ("noise", "blur"),
    "lowlight": ("noise", "jpeg", "shadow", "blur"),
    "noise": ("lowlight",),
    "raindrop": ("rain", "blur", "haze", "lowlight"),
    "rain": ("haze", "lowlight", "raindrop", "blur", "snow"),
    "shadow": (),
    "snow": ("haze", "rain", "blur"),
    "missing": ("jpeg", "noise", "blur"),
}
_LITTLE = 0.15
_FARTHEST = 3.0
BRIGHT = 0.25  # mean from which a picture is not dark by itself


@dataclass(frozen=True)
class Labelled:
    """A photograph with a known label, one of `IDS` or "clean", and the mask of the shadow in it where there is one."""

    picture: Decoded
    label: str
    mask: Decoded | None = None


def labelled(table: Path, skipped: list[str], cache: Path | None = None) -> list[Labelled]:
    """The photographs of a table; files are relative to its folder. What cannot be read is told in `skipped`.

    Raises:
        UsageError: the table is absent, lacks a column, or has a label that is none of `IDS` or "clean".
    """
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(table), newline=""), delimiter="\t"))
    except (FileError, csv.Error) as error:
        raise UsageError(f"{table} cannot be read: {reason(error)}.") from error
    if not rows or not {"file", "label"} <= set(rows[0]):
        raise UsageError(f"{table} needs the columns 'file' and 'label', separated by tabs.")
    if unknown := {row["label"] for row in rows} - {*IDS, CLEAN}:
        raise UsageError(f"{table} has unknown labels: {', '.join(sorted(unknown))}.")
    cache = cache or assets_cache() / "pictures"
    paths = [table.parent / row[column] for row in rows for column in ("file", "mask") if row.get(column)]
    decoded = {one.source: one for one in decode(list(dict.fromkeys(paths)), cache, 2_000_000, skipped)}
    found = []
    for row in rows:
        picture = decoded.get(table.parent / row["file"])
        mask = decoded.get(table.parent / row["mask"]) if row.get("mask") else None
        if picture is not None and min(picture.height, picture.width) >= 96:
            found.append(Labelled(picture, row["label"], mask))
    return found


class DetectorPools(Dataset[Sample]):
    """Pool `i` of a run: `recipe.pool` samples of one size, or the share of them that is this process's.

    The samples of a synthetic group show the same content, each damaged in its own way: what the content is then tells
    nothing.

    Args:
        pictures: where the content of synthetic samples comes from.
        recipe: `pool`, `group`, `region`, `weights`, `settings["real"]` (label -> weight) and `seed` are used; see
            `SHAPES`.
        shard: of this process.
        real: labelled photographs.
        vary: change exposure, white balance and saturation of the clean content a little.
    """

    def __init__(
        self,
        pictures: PictureSet,
        recipe: Recipe,
        shard: Shard | None = None,
        *,
        real: Sequence[Labelled] = (),
        vary: bool = True,
    ) -> None:
        self.pictures, self.recipe, self.vary = pictures, recipe, vary
        self.shard = shard or Shard(0, 1, torch.device("cpu"))
        self.real = {label: [one for one in real if one.label == label] for label in (*IDS, CLEAN)}
        odds = {(kind, False): weight for kind, weight in recipe.weights.items() if weight > 0}
        wanted = recipe.settings.get("real", {})
        odds |= {(label, True): weight for label, weight in wanted.items() if weight > 0 and self.real[label]}
        self.kinds = list(odds)
        self.odds = torch.tensor(list(odds.values()), dtype=torch.float64)
        self.frequency = torch.tensor([frequency for _, _, frequency in SHAPES])

    def __getitem__(self, index: int) -> Sample:
        groups, (rank, world_size) = self.recipe.pool // self.recipe.group, (self.shard.rank, self.shard.world_size)
        g = torch.Generator().manual_seed(seed_of(self.recipe.seed, index))
        shape = SHAPES[int(torch.multinomial(self.frequency, 1, generator=g))]
        h, w = (max(16, round(side * self.recipe.region / 16) * 16) for side in shape[:2])
        samples = []
        for group in range(rank * groups // world_size, (rank + 1) * groups // world_size):
            g = torch.Generator().manual_seed(seed_of(self.recipe.seed, index, group))
            content = None
            for _ in range(self.recipe.group):
                kind, real = self.kinds[int(torch.multinomial(self.odds, 1, generator=g))]
                if real:
                    samples.append(self.photograph(kind, h, w, g))
                else:
                    content = self._region(g, h, w) if content is None else content
                    samples.append(self.sample(kind, content, g))
        return join(samples)

    def photograph(self, label: str, h: int, w: int, g: torch.Generator) -> Sample:
        """A real photograph of a label, cropped, resized to (h, w) and encoded anew at random."""
        one = self.real[label][draw(g, len(self.real[label]))]
        flip = bool(draw(g, 2))
        if label in ("jpeg", "noise"):  # these vanish when resized, and are told by the encoding
            pixels = _native(one.picture.pixels, h, w, g)
        else:
            box = _box(one.picture.pixels.shape, h, w, g)
            pixels = _resized(one.picture.pixels, box, h, w)
        pixels = pixels.flip(-1) if flip else pixels
        if self.vary and label not in ("lowlight", "noise", "jpeg") and draw(g, 2):
            pixels = _varied(pixels, g)
        if label not in ("jpeg", "noise"):
            pixels = _encoded(pixels, g)
        labels, weight = torch.zeros(1, len(IDS)), torch.ones(1, len(IDS))
        change, mapped = torch.zeros(1, len(LOCAL), h, w), torch.full((1, len(LOCAL)), float(label == CLEAN))
        severity = torch.full((1, len(IDS)), float("nan"))
        if label != CLEAN:
            labels[0, INDEX[label]] = 1
            weight[0, [INDEX[other] for other in OFTEN_WITH[label]]] = _LITTLE
        if one.mask is not None:
            mask = _resized(one.mask.pixels, box, h, w).mean(0)
            change[0, LOCAL.index("shadow")] = (mask.flip(-1) if flip else mask) > 0.5
            mapped[0, LOCAL.index("shadow")] = 1
        extras = {CHANGE: change.half(), MAPPED: mapped, WEIGHT: weight, SEVERITY: severity}
        pixels = (pixels.clamp(0, 1) * 255).round()[None] / 255
        return Sample(pixels, pixels, torch.zeros(1, 0), labels, labels.clone(), extras).to(self.shard.device)

    def sample(self, kind: str, content: Tensor, g: torch.Generator) -> Sample:
        """One sample of a kind of `recipe.weights` from content (3, H, W), or from a brighter one for low light."""
        kinds = MIXED[draw(g, len(MIXED))] if kind == "mixed" else () if kind == CLEAN else (kind,)
        for _ in range(6 if "lowlight" in kinds else 0):
            if float(content.mean()) >= BRIGHT:  # how dark is too dark has no answer below
                break
            content = self._region(g, *content.shape[-2:])
        h, w = content.shape[-2:]
        labels, change = torch.zeros(1, len(IDS)), torch.zeros(1, len(LOCAL), h, w)
        severity = torch.full((1, len(IDS)), float("nan"))
        degraded = content[None] if draw(g, 5) > 1 else soften_optics(content[None], g)
        saved_again = kinds == ("jpeg",) and not draw(g, 3)
        if saved_again and draw(g, 2):  # often made smaller on the way: its blocks are not of 8 pixels
            factor = _uniform(g, 0.6, 0.95)
            degraded = _scaled(degraded, round(h / factor), round(w / factor))
        for each in kinds:
            labels[0, INDEX[each]] = 1
            before, degraded = degraded, synth.random_chain(each, g).apply(degraded, g)
            severity[0, INDEX[each]] = _severity(each, before, degraded)
            if each in LOCAL:
                change[:, LOCAL.index(each)] = (degraded - before).abs().mean(1)
        degraded = _scaled(degraded, h, w)
        if saved_again or ("jpeg" not in kinds and draw(g, 4)):
            # Whatever else is wrong with it, a photograph mostly comes as a JPEG of a quality that harms nobody.
            degraded = _encoded(degraded[0], g)[None]
        degraded = (degraded.clamp(0, 1) * 255).round() / 255
        weight, mapped = torch.ones(1, len(IDS)), torch.ones(1, len(LOCAL))
        extras = {CHANGE: change.half(), MAPPED: mapped, WEIGHT: weight, SEVERITY: severity}
        result = Sample(degraded, content[None], torch.zeros(1, 0), labels, labels.clone(), extras)
        return result.to(self.shard.device)

    def _region(self, g: torch.Generator, h: int, w: int) -> Tensor:
        """A clean (3, h, w) region, seen at the picture's own size or smaller, so that it may show all of it."""
        for _ in range(50):
            pixels = self.pictures.clean[draw(g, len(self.pictures.clean))].pixels
            if pixels.shape[0] >= h and pixels.shape[1] >= w:
                break
        else:
            if h > w:  # none is tall enough: one that lies on its side
                return self._region(g, w, h).rot90(1, (1, 2))
        most = max(1.0, min(pixels.shape[0] / h, pixels.shape[1] / w, _FARTHEST))
        factor = 1.0 if draw(g, 2) else _uniform(g, 1, most)
        tall, wide = (min(s, round(side * factor)) for s, side in zip(pixels.shape, (h, w), strict=False))
        box = draw(g, pixels.shape[0] - tall + 1), draw(g, pixels.shape[1] - wide + 1), tall, wide
        region = _resized(pixels, box, h, w)
        if draw(g, 2):
            region = region.flip(-1)
        return _varied(region, g) if self.vary and draw(g, 4) else region


def _severity(kind: str, before: Tensor, after: Tensor) -> Tensor:
    """How strong a degradation of (1, 3, H, W) was, in [0, 1]; see `irtool.detection.network.Findings`."""
    if kind == "lowlight":
        return ((before.mean() / after.mean().clamp(min=1e-3)).log2() / STOPS).clamp(0, 1)
    return ((after - before).square().mean().sqrt() / SEVERE).clamp(max=1)


def _box(shape: Sequence[int], h: int, w: int, g: torch.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random part of a picture, about as wide to high as (h, w), most of it."""
    largest = min(shape[0] / h, shape[1] / w)
    shard, stretch = _uniform(g, 0.65, 1.0), math.exp(_uniform(g, -0.15, 0.15))
    tall = min(shape[0], max(16, round(h * largest * shard * stretch)))
    wide = min(shape[1], max(16, round(w * largest * shard / stretch)))
    return draw(g, shape[0] - tall + 1), draw(g, shape[1] - wide + 1), tall, wide


def _resized(pixels: np.ndarray, box: tuple[int, int, int, int], h: int, w: int) -> Tensor:
    """A part (top, left, height, width) of (H, W, 3) uint8 as (3, h, w) in [0, 1]."""
    top, left, tall, wide = box
    piece = np.array(pixels[top : top + tall, left : left + wide])  # a copy: the file itself must not change
    part = torch.from_numpy(piece).permute(2, 0, 1)[None].float() / 255
    return _scaled(part, h, w)[0]


def _scaled(pixels: Tensor, h: int, w: int) -> Tensor:
    """(N, 3, H, W) at another size, or as it is."""
    if pixels.shape[-2:] == (h, w):
        return pixels
    return F.interpolate(pixels, (h, w), mode="bilinear", antialias=True, align_corners=False)


def _native(pixels: np.ndarray, h: int, w: int, g: torch.Generator) -> Tensor:
    """A (3, h, w) part of a picture at its own resolution, continued by reflection where it is smaller."""
    tall, wide = min(h, pixels.shape[0]), min(w, pixels.shape[1])
    # On the grid of JPEG's blocks or anywhere, since people crop.
    grid = 16 if draw(g, 2) else 1
    top, left = (
        grid * draw(g, (side - cut) // grid + 1) for side, cut in zip(pixels.shape, (tall, wide), strict=False)
    )
    part = _resized(pixels, (top, left, tall, wide), tall, wide)
    while part.shape[-2] < h or part.shape[-1] < w:
        down, right = (min(side - have, have - 1) for side, have in zip((h, w), part.shape[-2:], strict=True))
        part = F.pad(part[None], (0, right, 0, down), mode="reflect")[0]
    return part


def _encoded(pixels: Tensor, g: torch.Generator) -> Tensor:
    """(3, H, W) as it comes back from a JPEG or WebP file of a quality that harms nobody, or as it is."""
    choice = draw(g, 10)
    if choice < 2:
        return pixels
    name = "JPEG" if choice < 8 else "WEBP"
    file = io.BytesIO()
    image = Image.fromarray((pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())
    image.save(file, name, quality=70 + draw(g, 28), **({"subsampling": draw(g, 3)} if name == "JPEG" else {}))
    return torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1).float() / 255


def _varied(region: Tensor, g: torch.Generator) -> Tensor:
    """Another exposure, white balance and saturation, as another camera or hour might have given."""
    gain = 1 + 0.08 * (2 * torch.rand(3, 1, 1, generator=g) - 1)
    # Darker more often than brighter: a picture exposed for its lights is not one with too little light.
    region = region.clamp(min=1e-4) ** math.exp(_uniform(g, -0.2, 0.45)) * gain
    gray = region.mean(0, keepdim=True)
    return (gray + (region - gray) * _uniform(g, 0.6, 1.25)).clamp(0, 1)


def _uniform(g: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=g))
