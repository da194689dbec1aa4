"""The training of `FadeNet`: black, white and middle of faded pictures (`irtool.synth.fade`), from their tones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .. import synth
from ..degradation import IDS
from ..models import loading
from ..repairs.fade import FadeNet, apply
from ..synth.ops import luminance
from .checks import recipe_problems
from .data import Pools, Sample, draw, training_data
from .recipe import Recipe
from .tasks import Preview, Shard, TrainingData

SOUND, GRAY = 0.25, 0.2  # shares of the groups that are not faded, and that are gray
HELD_OUT_EACH = 96
_FLOOR = 1e-4  # of the squared error: what is nearer than 40 dB is good enough


class TonePools(Pools):
    """Pools of samples that each show pixels from all over a picture: its tones, not its content."""

    def group(self, kind: str | int, g: torch.Generator, count: int | None = None) -> Sample:
        if isinstance(kind, int):
            raise ValueError("pairs are not faded")
        count = count or self.recipe.group
        clean = torch.stack([self._region(g, self.recipe.region) for _ in range(count)])
        sound, gray = (torch.rand(2, generator=g) < torch.tensor([SOUND, GRAY])).tolist()
        if gray:
            clean = luminance(clean).expand(-1, 3, -1, -1)
        faded = clean
        if not sound:
            amount = float(torch.rand((), generator=g))
            chain = synth.parse(f"fade({amount:.3f}, yellow=0, cast=0)") if gray else synth.random_chain("fade", g)
            faded = chain.apply(clean, g)
        labels = torch.zeros(count, len(IDS))
        return Sample((faded * 255).round() / 255, clean, torch.zeros(count, 0), labels, labels)

    def _any_region(self, g: torch.Generator, side: int) -> Tensor:
        """(3, side, side) pixels on an uneven grid over most of a picture."""
        pixels = self.pictures.clean[draw(g, len(self.pictures.clean))].pixels
        places = []
        for length in pixels.shape[:2]:
            part = length * (0.6 + 0.4 * float(torch.rand((), generator=g)))
            begin = (length - part) * float(torch.rand((), generator=g))
            inside = (np.arange(side) + torch.rand(side, generator=g).numpy()) / side
            places.append(np.minimum((begin + part * inside).astype(int), length - 1))
        taken = np.array(pixels[places[0]][:, places[1]])
        return torch.from_numpy(taken).permute(2, 0, 1).float() / 255


class FadeTask:
    """The `TrainingTask` of the kind "fade". The figure is the PSNR in dB of held-out pictures. No settings."""

    figure_of_merit = "psnr"

    def problems(self, recipe: Recipe) -> list[str]:
        problems = recipe_problems(FadeNet, recipe)
        if recipe.pairs:
            problems.append("pairs: this kind of training fades clean pictures; leave them out")
        return problems

    def build(self, recipe: Recipe) -> nn.Module:
        return FadeNet(**recipe.model)

    def dataset(self, recipe: Recipe, root: Path, shard: Shard) -> TrainingData[Sample]:
        return training_data(recipe, root, shard, TonePools, HELD_OUT_EACH)

    def batch(self, pool: Sample, row: int, rows: int, crop: int, generator: torch.Generator) -> Sample:
        return pool.map(lambda t: t[row::rows])

    def loss(
        self, net: nn.Module, batch: Sample, recipe: Recipe, generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        error = (apply(batch.degraded, net(batch.degraded).float()) - batch.clean).square().mean(dim=(1, 2, 3))
        # Decibels count a sound picture that is spoilt as much as a faded one that is mended.
        return (error + _FLOOR).log().mean() + 10 * error.mean(), {"psnr": _decibels(error)}

    def preview(self, net: nn.Module, held_out: Sample, recipe: Recipe) -> Preview:
        better = apply(held_out.degraded, net(held_out.degraded).float())
        after, before = (
            _decibels((x - held_out.clean).square().mean(dim=(1, 2, 3))) for x in (better, held_out.degraded)
        )
        faded = before < 45
        figures = {
            "psnr": float(after.mean()),
            "faded": float(after[faded].mean()),
            "faded_before": float(before[faded].mean()),
            "sound": float(after[~faded].mean()),
        }
        columns = [t.permute(0, 2, 3, 1).cpu().numpy() for t in (held_out.degraded, better, held_out.clean)]
        return Preview(figures, rows=[[column[i] for column in columns] for i in range(min(6, len(after)))])

    def export(self, net: nn.Module, recipe: Recipe, target: Path, notes: Mapping[str, str]) -> None:
        loading.save(net, target, architecture="fade", config=dict(recipe.model), notes=notes)


def _decibels(error: Tensor) -> Tensor:
    return -10 * error.clamp(min=1e-6).log10()
