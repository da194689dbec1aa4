"""The training of IR-SDE without a controller ("ir-sde"): the noise predictor of the mean-reverting SDE.

Luo et al., ICML 2023; with the spatial entropy losses of CVPRW 2024 between the predicted and the optimum reverse
state; and with an entropy regularizer, for which Zhang et al., "Entropy-regularized Diffusion Policy with Q-Ensembles
for Offline Reinforcement Learning", NeurIPS 2024, use the process's exact log-likelihood.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..degradation import IDS
from ..diffusion import irsde
from ..diffusion.likelihood import sample_with_likelihood
from ..diffusion.schedules import SCHEDULES, Process, process, times
from ..models import loading
from ..models.irsde_unet import ConditionalUNet
from .checks import recipe_problems
from .data import Sample, cut, training_data
from .recipe import Recipe
from .restorer import psnr
from .spatial_entropy import KINDS, entropy_loss
from .tasks import Preview, Shard, TrainingData

PROCESS: Mapping[str, Any] = {"max_sigma": 50, "steps": 100, "schedule": "cosine", "eps": 0.005}
LOSSES = ("l1", "l2", *KINDS)


def entropy_penalty(p: Process, net: irsde.Network, mu: Tensor, intervals: int, generator: torch.Generator) -> Tensor:
    """Mean log-likelihood per number of states that the model itself draws: minus their entropy, estimated.

    The states are those of the last time of the route before 0.

    Args:
        p: the process.
        net: ``(x, mu, t) -> noise``.
        mu: low-quality pictures (N, C, H, W).
        intervals: of the probability-flow ODE, from 2.
        generator: on the CPU.

    Returns:
        A scalar that can be differentiated with respect to the network's weights.
    """
    route = times(p.T, intervals)[:-1]
    noise = torch.randn(mu.shape, generator=generator).to(mu)
    probe = (2 * torch.randint(0, 2, mu.shape, generator=generator) - 1).to(mu)
    _, found = sample_with_likelihood(p, net, mu, route, noise, probe)
    return found.mean() / mu[0].numel()


class IRSDETask:
    """The `TrainingTask` of the kind "ir-sde". The figure is PSNR in dB of held-out samples.

    Settings: max_sigma, steps, schedule, eps of the process; loss, one of `LOSSES`; levels, bins of a spatial entropy
    loss; entropy, weight of `entropy_penalty` (0 for none), with entropy_steps intervals; preview_steps of the
    posterior sampler for held-out samples.
    """

    figure_of_merit = "psnr"
    known = (*PROCESS, "loss", "levels", "entropy", "entropy_steps", "preview_steps")

    def problems(self, recipe: Recipe) -> list[str]:
        problems = recipe_problems(ConditionalUNet, recipe, self.known)
        settings = self.settings(recipe)
        if settings["schedule"] not in SCHEDULES:
            problems.append(f"settings: schedule is one of {', '.join(SCHEDULES)}, not '{settings['schedule']}'")
        if recipe.settings.get("loss", "l1") not in LOSSES:
            problems.append(f"settings: loss is one of {', '.join(LOSSES)}, not '{recipe.settings['loss']}'")
        above = {k: settings[k] for k in ("max_sigma", "steps", "eps")}
        above |= {k: recipe.settings[k] for k in ("levels", "entropy_steps", "preview_steps") if k in recipe.settings}
        wrong = [k for k, v in above.items() if not isinstance(v, (int, float)) or v <= 0]
        problems += [f"settings: {key} is a number above 0, not {above[key]!r}" for key in wrong]
        if not isinstance(recipe.settings.get("entropy", 0), (int, float)) or recipe.settings.get("entropy", 0) < 0:
            problems.append("settings: entropy is a number, 0 or more")
        return problems

    def settings(self, recipe: Recipe) -> dict[str, Any]:
        """Of the process."""
        return {key: recipe.settings.get(key, value) for key, value in PROCESS.items()}

    def process(self, recipe: Recipe) -> Process:
        s = self.settings(recipe)
        return process(s["schedule"], s["steps"], s["max_sigma"], s["eps"])

    def build(self, recipe: Recipe) -> ConditionalUNet:
        return ConditionalUNet(**recipe.model)

    def dataset(self, recipe: Recipe, root: Path, shard: Shard) -> TrainingData[Sample]:
        return training_data(recipe, root, shard)

    def batch(self, pool: Sample, row: int, rows: int, crop: int, generator: torch.Generator) -> Sample:
        return cut(pool, row, rows, crop, generator)

    def loss(
        self, net: nn.Module, batch: Sample, recipe: Recipe, generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        p, x0, mu, kind = self.process(recipe), batch.clean, batch.degraded, recipe.settings.get("loss", "l1")
        t = torch.randint(1, p.T + 1, (len(batch),), generator=generator).to(mu.device)
        noise = torch.randn(mu.shape, generator=generator).to(mu.device)
        x = irsde.diffuse(p, x0, mu, t, noise)
        predicted = net(x, mu, t).float()
        if kind in KINDS:
            reached = irsde.reverse_mean(p, x, mu, predicted, t, t - 1)
            optimum = irsde.posterior_mean(p, x, x0, mu, t, t - 1)
            loss = entropy_loss(reached, optimum, kind, generator, recipe.settings.get("levels"))
        else:
            loss = irsde.likelihood_loss(p, predicted, x, x0, mu, t, kind)
        figures = {"noise_error": (predicted.detach() - noise).abs().mean(dim=(1, 2, 3))}
        if weight := recipe.settings.get("entropy", 0):
            intervals = int(recipe.settings.get("entropy_steps", 5))
            penalty = entropy_penalty(p, net, mu, intervals, generator)
            loss, figures["log_likelihood"] = loss + weight * penalty, penalty.detach()
        return loss, figures

    def preview(self, net: nn.Module, held_out: Sample, recipe: Recipe) -> Preview:
        p, mu, clean = self.process(recipe), held_out.degraded, held_out.clean
        g = torch.Generator().manual_seed(0)
        route = times(p.T, min(p.T, int(recipe.settings.get("preview_steps", 10))))
        restored = irsde.sample(
            p, lambda x, mu, t: net(x, mu, t).float(), mu, route, "posterior",
            lambda: torch.randn(mu.shape, generator=g).to(mu.device),
        ).clamp(0, 1)  # fmt: skip
        before, after = psnr(mu, clean), psnr(restored, clean)
        pictures = [picture.permute(0, 2, 3, 1).cpu().numpy() for picture in (mu, restored, clean)]
        count = min(6, len(mu))
        return Preview(
            {"psnr": float(after.mean()), "psnr_gain": float((after - before).mean())},
            rows=[[column[i] for column in pictures] for i in range(count)],
            captions=[[f"{before[i]:.2f} dB", f"{after[i]:.2f} dB", ""] for i in range(count)],
        )

    def export(self, net: nn.Module, recipe: Recipe, target: Path, notes: Mapping[str, str]) -> None:
        tasks = [i for i in IDS if recipe.weights.get(i, 0) > 0] or list(IDS)
        header = {"tasks": json.dumps(tasks), "settings": json.dumps(self.settings(recipe))}
        loading.save(net, target, architecture="irsde-unet", config=recipe.model, notes={**header, **notes})
