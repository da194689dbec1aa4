"""The training of an unconditional diffusion prior ("diffusion-prior"): `ADMUNet` on clean pictures alone.

Ho et al., "Denoising Diffusion Probabilistic Models", NeurIPS 2020: the network predicts the noise of a state at a
random time, in the mean squared sense.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..diffusion.gaussian import SCHEDULES, GaussianDiffusion, gaussian_diffusion
from ..models import loading
from ..models.adm_unet import ADMUNet
from .checks import recipe_problems
from .data import Sample, cut, training_data
from .recipe import Recipe
from .restorer import psnr
from .tasks import Preview, Shard, TrainingData

PROCESS: Mapping[str, Any] = {"schedule": "linear", "steps": 1000}
LOOKED_AT = (0.1, 0.25, 0.5)
"""Shares of the time axis at which held-out pictures are denoised; the figure is the mean PSNR over them."""


class PriorTask:
    """The `TrainingTask` of the kind "diffusion-prior". The recipe's samples should all be clean (weights = {clean =
    1}).

    Settings: schedule ("linear" or "cosine") and steps of the process; downscale, a whole number by which a crop is
    reduced before the network sees it, so that it holds more of the scene.
    """

    figure_of_merit = "psnr"

    def problems(self, recipe: Recipe) -> list[str]:
        problems = recipe_problems(ADMUNet, recipe, (*PROCESS, "downscale"))
        if recipe.model.get("learn_sigma", True):
            problems.append("model: learn_sigma must be false; the variance is not trained")
        if recipe.settings.get("schedule", "linear") not in SCHEDULES:
            problems.append(f"settings: schedule is one of {', '.join(SCHEDULES)}")
        for key, least in (("steps", 10), ("downscale", 1)):
            value = recipe.settings.get(key, least)
            if not isinstance(value, int) or value < least:
                problems.append(f"settings: {key} is a whole number from {least}, not {value!r}")
        if set(kind for kind, weight in recipe.weights.items() if weight) - {"clean"} or recipe.pairs:
            problems.append("weights: a prior learns from clean pictures alone; only 'clean' may be above 0")
        return problems

    def build(self, recipe: Recipe) -> ADMUNet:
        return ADMUNet(**recipe.model)

    def dataset(self, recipe: Recipe, root: Path, shard: Shard) -> TrainingData[Sample]:
        return training_data(recipe, root, shard)

    def batch(self, pool: Sample, row: int, rows: int, crop: int, generator: torch.Generator) -> Sample:
        return cut(pool, row, rows, crop, generator)

    def process(self, recipe: Recipe) -> GaussianDiffusion:
        """The process, all its steps."""
        return gaussian_diffusion(recipe.settings.get("schedule", "linear"), recipe.settings.get("steps", 1000))

    def pictures(self, sample: Sample, recipe: Recipe) -> Tensor:
        """The clean pictures at the network's scale, in [-1, 1]."""
        clean = F.avg_pool2d(sample.clean, recipe.settings.get("downscale", 1))
        return 2 * clean - 1

    def loss(
        self, net: nn.Module, batch: Sample, recipe: Recipe, generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        p, x0 = self.process(recipe), self.pictures(batch, recipe)
        i = torch.randint(p.steps, (len(x0),), generator=generator)
        noise = torch.randn(x0.shape, generator=generator).to(x0.device)
        predicted = net(p.diffuse(x0, i, noise), i.to(x0.device)).float()
        error = (predicted - noise).square().mean(dim=(1, 2, 3))
        return error.mean(), {"noise_error": error.detach()}

    def preview(self, net: nn.Module, held_out: Sample, recipe: Recipe) -> Preview:
        p, x0 = self.process(recipe), self.pictures(held_out, recipe)
        multiple = 2 ** (len(recipe.model.get("channel_mult", (1, 1, 2, 2, 4, 4))) - 1)
        side = x0.shape[-1] // multiple * multiple
        x0 = x0[..., :side, :side]
        noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)).to(x0.device)
        figures, columns = {}, []
        for shard in LOOKED_AT:
            i = round(shard * (p.steps - 1))
            x = p.diffuse(x0, i, noise)
            predicted = torch.cat([net(row[None], torch.tensor([i], device=x.device)).float() for row in x])
            clean = p.clean_of(x, predicted, i).clamp(-1, 1)
            figures[f"psnr/{shard:g}"] = float(psnr((clean + 1) / 2, (x0 + 1) / 2).mean())
            columns += [x.clamp(-1, 1), clean]
        pictures = [((c + 1) / 2).permute(0, 2, 3, 1).cpu().numpy() for c in (*columns[2:4], x0)]
        return Preview(
            {"psnr": sum(figures.values()) / len(figures), **figures},
            rows=[[column[i] for column in pictures] for i in range(min(6, len(x0)))],
            titles=(f"state at {LOOKED_AT[1]:g}", "denoised", "clean"),
            captions=[["", "", ""]] * min(6, len(x0)),
        )

    def export(self, net: nn.Module, recipe: Recipe, target: Path, notes: Mapping[str, str]) -> None:
        settings = {key: recipe.settings.get(key, value) for key, value in PROCESS.items()}
        header = {"settings": json.dumps(settings), **notes}
        loading.save(net, target, architecture="adm-unet", config=recipe.model, notes=header)
