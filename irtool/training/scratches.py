"""The training of `ScratchNet`: where are the scratches, dust, creases and torn edges of a print?

They are drawn (`irtool.synth.scratches`) over clean photographs, half of which were made to look like old prints.
What looks like them and is no damage is in every other sample: the photographs' own hair, wires, grass and masts,
and rain, snow, letters and film grain that are put on and not marked.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import synth
from ..degradation import IDS
from ..models import loading
from ..repairs.scratches import ScratchNet
from ..synth.missing import hole_mask
from ..synth.ops import gaussian_blur, luminance, normal, seed_from, smooth_noise
from .checks import recipe_problems
from .data import Pools, Sample, draw, training_data
from .recipe import Recipe
from .tasks import Preview, Shard, TrainingData

MARK = "mark"
"""In `Sample.extras`: (N, 1, S, S), 1 where a mark can be seen, 0 where there is none, 0.5 where it can hardly be."""
VISIBLE, HIDDEN = 0.07, 0.02  # largest change of a channel, of a mark that counts, and of one that does not
UNMARKED = 0.35  # share of the samples without any mark
HELD_OUT_EACH = 64


class MarkedPools(Pools):
    """Pools of samples with drawn marks; `clean` is what lies under them."""

    def group(self, kind: str | int, g: torch.Generator, count: int | None = None) -> Sample:
        if isinstance(kind, int):
            raise ValueError("pairs are not marked")
        pictures = [
            self._print(self._region(g, self.recipe.region)[None], g) for _ in range(count or self.recipe.group)
        ]
        marked = []
        for picture in pictures:
            bare = float(torch.rand((), generator=g)) < UNMARKED
            marked.append(picture if bare else synth.random_chain("scratches", g).apply(picture, g))
        clean, degraded = torch.cat(pictures), torch.cat(marked)
        change = (degraded - clean).abs().amax(1, keepdim=True)
        mark = (change > VISIBLE).float() + 0.5 * ((change > HIDDEN) & (change <= VISIBLE)).float()
        degraded = torch.cat([_scanned(one, g) for one in degraded.split(1)])
        labels = torch.zeros(len(clean), len(IDS))
        return Sample((degraded * 255).round() / 255, clean, torch.zeros(len(clean), 0), labels, labels, {MARK: mark})

    def _print(self, picture: Tensor, g: torch.Generator) -> Tensor:
        """A photograph (1, 3, H, W) as it is, or made to look like an old print; with harmless things that look like
        marks put on it now and then."""
        luck = torch.rand(8, generator=g).tolist()
        if luck[0] < 0.5:
            picture = gaussian_blur(picture, 0.3 + 1.2 * luck[1])
        if luck[2] < 0.12:
            picture = synth.random_chain("rain" if luck[3] < 0.7 else "snow", g).apply(picture, g)
        elif luck[2] < 0.24:
            picture = _lettered(picture, g)
        if luck[4] < 0.6:
            gray = luminance(picture)
            gray = gray + 0.12 * luck[5] * smooth_noise(g, gray, 3)
            sepia = luck[1] if luck[5] < 0.6 else 0.0
            tint = torch.tensor([1.0, 1 - 0.12 * sepia, 1 - 0.3 * sepia]).view(1, 3, 1, 1)
            picture = (gray * tint).clamp(0, 1)
        if luck[6] < 0.4:
            picture = synth.random_chain("fade", g).apply(picture, g)
        return picture


def _lettered(picture: Tensor, g: torch.Generator) -> Tensor:
    """Letters of one color over a picture (1, 3, H, W): they belong to it."""
    dice = random.Random(seed_from(g))
    height, width = picture.shape[-2:]
    letters = torch.from_numpy(hole_mask(height, width, "text", dice.uniform(0.01, 0.08), dice)).float()
    letters = gaussian_blur(letters[None, None], dice.uniform(0.3, 0.8))
    level = dice.choice((0.05, 0.9, 1.0, dice.random()))
    return torch.lerp(picture, torch.full_like(picture, level), letters)


def _scanned(picture: Tensor, g: torch.Generator) -> Tensor:
    """What a scanner and a file make of a print (1, 3, H, W): softness, grain that may be coarse, compression."""
    luck = torch.rand(6, generator=g).tolist()
    if luck[0] < 0.4:
        picture = gaussian_blur(picture, 0.3 + 0.5 * luck[1])
    if luck[2] < 0.6:
        grain = normal(g, picture[:, :1].shape if luck[3] < 0.7 else picture.shape, picture)
        if luck[4] < 0.5:
            grain = gaussian_blur(grain, 0.8) * 2.5
        picture = (picture + 0.09 * luck[1] ** 2 * grain).clamp(0, 1)
    if luck[5] < 0.5:
        picture = synth.parse(f"jpeg(q={50 + draw(g, 46)})").apply(picture, g)
    return picture


class ScratchesTask:
    """The `TrainingTask` of the kind "scratches". The figure is the F1 score of the pixels of held-out pictures.

    Settings: found, how many pixels called wrongly one that is missed counts for.
    """

    figure_of_merit = "f1"

    def problems(self, recipe: Recipe) -> list[str]:
        problems = recipe_problems(ScratchNet, recipe, ("found",))
        if recipe.pairs:
            problems.append("pairs: this kind of training draws its own marks; leave them out")
        return problems

    def build(self, recipe: Recipe) -> nn.Module:
        return ScratchNet(**recipe.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def dataset(self, recipe: Recipe, root: Path, shard: Shard) -> TrainingData[Sample]:
        return training_data(recipe, root, shard, MarkedPools, HELD_OUT_EACH)

    def batch(self, pool: Sample, row: int, rows: int, crop: int, generator: torch.Generator) -> Sample:
        return pool.map(lambda t: t[row::rows])

    def loss(
        self, net: nn.Module, batch: Sample, recipe: Recipe, generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        logits = net(batch.degraded.contiguous(memory_format=torch.channels_last)).float()
        mark = batch.extras[MARK]
        known = (mark != 0.5).float()
        missed = torch.tensor(float(recipe.settings.get("found", 1.0)))
        each = F.binary_cross_entropy_with_logits(logits, mark.round(), pos_weight=missed, reduction="none")
        cross = (each * known).sum() / known.sum().clamp(min=1)
        # Marks are a hundredth of the pixels: their overlap counts as much as the mean over all of them.
        hit, there = logits.sigmoid() * known, (mark == 1).float()
        overlap = (2 * (hit * there).sum() + 1) / (hit.sum() + there.sum() + 1)
        return cross + 0.3 * (1 - overlap), {"overlap": overlap.detach()}

    def preview(self, net: nn.Module, held_out: Sample, recipe: Recipe) -> Preview:
        maps = torch.cat([net(row[None]).float().sigmoid() for row in held_out.degraded])
        mark = held_out.extras[MARK]
        there, free, found = mark == 1, mark == 0, maps > 0.5
        hits, wrong, missed = (int(t.sum()) for t in (found & there, found & free, ~found & there))
        bare = ~there.flatten(1).any(1)
        figures = {
            "f1": 2 * hits / max(1, 2 * hits + wrong + missed),
            "precision": hits / max(1, hits + wrong),
            "recall": hits / max(1, hits + missed),
            "unmarked_share": float((found & free)[bare].float().mean()) if bare.any() else 0.0,
        }
        shown = range(min(6, len(maps)))
        columns = [t.permute(0, 2, 3, 1).cpu().numpy() for t in (held_out.degraded, maps, mark)]
        columns = [c.repeat(3, axis=3) if c.shape[3] == 1 else c for c in columns]
        rows = [[column[i] for column in columns] for i in shown]
        return Preview(figures, rows=rows, titles=("input", "found", "drawn"))

    def export(self, net: nn.Module, recipe: Recipe, target: Path, notes: Mapping[str, str]) -> None:
        assert isinstance(net, ScratchNet)
        loading.save(net, target, architecture="scratches", config=dict(recipe.model), notes=notes)
