"""The training of `CompactNet`: restoration conditioned on task weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from operator import itemgetter
from pathlib import Path

import torch
from torch import Tensor, nn

from ..degradation import IDS, INDEX
from ..models import loading
from ..models.compact import CompactNet
from ..models.inpaint import fill_detected_holes
from .checks import recipe_problems
from .data import GUESS, Sample, cut, training_data
from .recipe import Recipe
from .tasks import Preview, Shard, TrainingData

# Floor of the error inside the logarithm, about five 8-bit levels. Without it nearly clean samples, whose gradients are
# mostly noise, dominate (docs/lab/experiments.md).
_FLOOR = 0.02
# The squared error is smaller, and so is its floor; the same one would leave only strong samples with a gradient.
_SQUARE_FLOOR = 0.01**2


LOSSES = ("l1", "psnr", "both")


def restoration_loss(restored: Tensor, clean: Tensor, kind: str = "l1") -> Tensor:
    """Mean over the samples of the logarithm of the error, with the mean error per channel weighted by a quarter.

    The logarithm weights samples by relative error, as PSNR does. How bright a dark or hazy picture should be is
    ambiguous; the error of a wrong brightness is the same at every pixel, and such gradients would dominate those of
    texture, which cancel. The tone layer depends on this error alone, and Adam normalizes its steps whatever the
    weight.

    Args:
        restored, clean: (N, 3, H, W), about [0, 1].
        kind: the error of a sample: "l1", mean absolute, or "psnr", root of the mean square (Chen et al., "Simple
            Baselines for Image Restoration", ECCV 2022), or "both", their geometric mean.
    """
    error = restored - clean
    error = error - 0.75 * error.mean(dim=(2, 3), keepdim=True)
    logs = []
    if kind != "psnr":
        logs.append(error.abs().mean(dim=(1, 2, 3)).add(_FLOOR).log().mean())
    if kind != "l1":
        logs.append(error.square().mean(dim=(1, 2, 3)).add(_SQUARE_FLOOR).log().mean() / 2)
    return torch.stack(logs).mean()


def psnr(restored: Tensor, clean: Tensor) -> Tensor:
    """PSNR in dB of each of (N, 3, H, W) in [0, 1], at most 60 -> (N,)."""
    mse = (restored.detach().clamp(0, 1) - clean).square().mean(dim=(1, 2, 3))
    return -10 * mse.clamp_min(1e-6).log10()


class RestorerTask:
    """The `TrainingTask` of the kind "restorer". Its figure is PSNR in dB, each kind of sample counting alike.

    Settings: `loss`, one of `LOSSES`; `only`, tasks whose own weights alone learn (`CompactNet.train_only`).
    """

    figure_of_merit = "psnr"

    def problems(self, recipe: Recipe) -> list[str]:
        problems = recipe_problems(CompactNet, recipe, ("loss", "only"))
        if recipe.settings.get("loss", LOSSES[0]) not in LOSSES:
            problems.append(f"settings: loss is one of {', '.join(LOSSES)}, not '{recipe.settings['loss']}'")
        only = recipe.settings.get("only", ())
        if not isinstance(only, list | tuple) or any(task not in IDS for task in only):
            problems.append(f"settings: only is a list of degradation ids, not {only!r}")
        if only and recipe.decay:
            problems.append("settings: with only, decay must be 0, or frozen weights would decay")
        return problems

    def build(self, recipe: Recipe) -> CompactNet:
        net = CompactNet(**recipe.model)
        if only := recipe.settings.get("only"):
            net.train_only(only)
        return net

    def dataset(self, recipe: Recipe, root: Path, shard: Shard) -> TrainingData[Sample]:
        return training_data(recipe, root, shard)

    def batch(self, pool: Sample, row: int, rows: int, crop: int, generator: torch.Generator) -> Sample:
        return cut(pool, row, rows, crop, generator)

    def loss(
        self, net: nn.Module, batch: Sample, recipe: Recipe, generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        restored = self.restore(net, batch)
        loss = restoration_loss(restored, batch.clean, recipe.settings.get("loss", LOSSES[0]))
        return loss, {"psnr": psnr(restored, batch.clean)}

    def restore(self, net: nn.Module, sample: Sample) -> Tensor:
        """The pictures of a sample restored: (N, 3, S, S)."""
        filled_pixels = fill_detected_holes(sample.degraded, sample.task_weights[:, INDEX["missing"]] > 0)
        if GUESS in sample.extras:
            filled_pixels = torch.cat([filled_pixels, sample.extras[GUESS] - sample.degraded], dim=1)
        restored: Tensor = net(filled_pixels, sample.context, sample.task_weights)
        return restored

    def preview(self, net: nn.Module, held_out: Sample, recipe: Recipe) -> Preview:
        # The middle of the region, of a size the network takes.
        multiple = 2 ** (len(recipe.model.get("encoder", (1, 1, 1))) + 1)
        side = held_out.clean.shape[-1] // multiple * multiple
        start = (held_out.clean.shape[-1] - side) // 2
        window = (..., slice(start, start + side), slice(start, start + side))
        cropped = replace(held_out, degraded=held_out.degraded[window], clean=held_out.clean[window])
        # One sample at a time, so that the preview needs no more memory than a training step.
        rows = [cropped.map(itemgetter(slice(i, i + 1))) for i in range(len(cropped))]
        restored = torch.cat([self.restore(net, row).float().clamp(0, 1) for row in rows])
        degraded, clean = cropped.degraded, cropped.clean
        before, after = psnr(degraded, clean), psnr(restored, clean)
        names = held_out.names()
        figures = {"psnr": float(after.mean()), "psnr_gain": float((after - before).mean())}
        for name in dict.fromkeys(names):
            chosen = [i for i, n in enumerate(names) if n == name]
            figures[f"psnr/{name}"] = float(after[chosen].mean())
        shown = [i for i, name in enumerate(names) if name not in names[:i]]
        pictures = [t.permute(0, 2, 3, 1).cpu().numpy() for t in (degraded, restored, clean)]
        return Preview(
            figures,
            rows=[[p[i] for p in pictures] for i in shown],
            captions=[[f"{names[i]}, {before[i]:.2f} dB", f"{after[i]:.2f} dB", ""] for i in shown],
        )

    def export(self, net: nn.Module, recipe: Recipe, target: Path, notes: Mapping[str, str]) -> None:
        loading.save(net, target, architecture="compact", config=recipe.model, notes=notes)
