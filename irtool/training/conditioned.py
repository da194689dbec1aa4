"""The training of networks conditioned on a frozen DA-CLIP controller: "universal-ir" and "nafnet-daclip".

Luo et al., ICLR 2024, and `irtool.diffusion.irsde` for the objective. The controller is not part of the trained and
saved network: every run loads it again by its reference in the settings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import weights
from ..degradation import IDS
from ..diffusion import irsde
from ..diffusion.schedules import SCHEDULES, Process, process, times
from ..errors import UsageError
from ..models import loading
from ..models.daclip import DaCLIP, preprocess
from ..models.irsde_unet import ContextUNet
from ..models.nafnet_daclip import ContextNAFNet
from .checks import recipe_problems
from .data import Sample, cut, training_data
from .recipe import Recipe
from .restorer import psnr
from .tasks import Preview, Shard, TrainingData

PROCESS: Mapping[str, Any] = {"max_sigma": 50, "steps": 100, "schedule": "cosine", "eps": 0.005}
"""The published process of the universal net."""


class ConditionedTask:
    """The common part of both kinds. The metric is PSNR in dB of held-out samples."""

    figure_of_merit = "psnr"
    network: type[nn.Module]
    architecture: str
    known_settings: tuple[str, ...] = ("controller", "loss")

    def __init__(self) -> None:
        self.controller: DaCLIP | None = None

    def problems(self, recipe: Recipe) -> list[str]:
        problems = recipe_problems(self.network, recipe, self.known_settings)
        if not recipe.settings.get("controller"):
            problems.append("settings: 'controller' must name a DA-CLIP, such as daclip-vit-b-32.universal")
        if recipe.settings.get("loss", "l1") not in ("l1", "l2"):
            problems.append(f"settings: loss is 'l1' or 'l2', not '{recipe.settings['loss']}'")
        return problems

    def build(self, recipe: Recipe) -> nn.Module:
        """The network to train; loads the controller too.

        Raises:
            UnavailableError: the controller cannot be had.
            UsageError: it is none, or one of another size.
        """
        reference = str(recipe.settings["controller"])
        controller, header = loading.read(weights.locate(reference))
        if not isinstance(controller, DaCLIP):
            raise UsageError(f"{reference} holds a {header['architecture']}, not a DA-CLIP.")
        self.controller = controller.drop_text_tower()
        net = self.network(**recipe.model)
        width, expected = controller.clip.visual.output_dim, net.context_dim
        if width != expected:
            raise UsageError(
                f"{reference} makes embeddings of {width} numbers, the network takes {expected}.",
                f"Set model.context_dim={width}.",
            )
        for name, parameter in net.named_parameters():
            # In the published files, and without any part in the result (see models/unet_blocks.py).
            if "attn2.to_q" in name or "attn2.to_k" in name or ("transformer_blocks" in name and ".norm2." in name):
                parameter.requires_grad_(False)
        return net

    def dataset(self, recipe: Recipe, root: Path, shard: Shard) -> TrainingData[Sample]:
        return training_data(recipe, root, shard)

    def batch(self, pool: Sample, row: int, rows: int, crop: int, generator: torch.Generator) -> Sample:
        return cut(pool, row, rows, crop, generator)

    @torch.no_grad()
    def embeddings(self, degraded: Tensor) -> tuple[Tensor, Tensor]:
        """Degradation and content embeddings (N, K) of pictures (N, 3, H, W), of which the controller sees all."""
        assert self.controller is not None
        controller = self.controller.to(degraded.device)
        images = torch.stack([preprocess(picture, controller.size) for picture in degraded]).to(degraded.device)
        content, degradation = controller.embed(images)
        return degradation.float(), content.float()

    def restore(self, net: Any, degraded: Tensor, recipe: Recipe) -> Tensor:
        """(N, 3, H, W) -> the same shape."""
        raise NotImplementedError

    def preview(self, net: nn.Module, held_out: Sample, recipe: Recipe) -> Preview:
        degraded, clean = held_out.degraded, held_out.clean
        restored = torch.cat([self.restore(net, d[None], recipe).float().clamp(0, 1) for d in degraded])
        before, after = psnr(degraded, clean), psnr(restored, clean)
        names = held_out.names()
        figures = {"psnr": float(after.mean()), "psnr_gain": float((after - before).mean())}
        for name in dict.fromkeys(names):
            figures[f"psnr/{name}"] = float(after[[i for i, n in enumerate(names) if n == name]].mean())
        shown = [i for i, name in enumerate(names) if name not in names[:i]]
        pictures = [t.permute(0, 2, 3, 1).cpu().numpy() for t in (degraded, restored, clean)]
        return Preview(
            figures,
            rows=[[p[i] for p in pictures] for i in shown],
            captions=[[names[i], f"{after[i]:.2f} dB", f"input {before[i]:.2f} dB"] for i in shown],
        )

    def export(self, net: nn.Module, recipe: Recipe, target: Path, notes: Mapping[str, str]) -> None:
        tasks = [i for i in IDS if recipe.weights.get(i, 0) > 0] or list(IDS)
        header = {
            "tasks": json.dumps(tasks),
            "needs": json.dumps([recipe.settings["controller"]]),
            "settings": json.dumps(self.settings(recipe)),
        }
        loading.save(net, target, architecture=self.architecture, config=recipe.model, notes={**header, **notes})

    def settings(self, recipe: Recipe) -> Mapping[str, Any]:
        """Settings of the restorer beside the weights, for the header."""
        return {}


class UniversalTask(ConditionedTask):
    """The `TrainingTask` of the kind "universal-ir": the noise predictor of `ContextUNet`, wild ones too.

    Settings: controller; max_sigma, steps, schedule, eps of the process; loss "l1" or "l2"; preview_steps of the
    posterior sampler for held-out samples.
    """

    network, architecture = ContextUNet, "universal-unet"
    known_settings = (*ConditionedTask.known_settings, *PROCESS, "preview_steps")

    def problems(self, recipe: Recipe) -> list[str]:
        problems = super().problems(recipe)
        settings = self.settings(recipe)
        if settings["schedule"] not in SCHEDULES:
            problems.append(f"settings: schedule is one of {', '.join(SCHEDULES)}, not '{settings['schedule']}'")
        wrong = [
            k for k in ("max_sigma", "steps", "eps") if not isinstance(settings[k], (int, float)) or settings[k] <= 0
        ]
        problems += [f"settings: {key} is a number above 0, not {settings[key]!r}" for key in wrong]
        return problems

    def settings(self, recipe: Recipe) -> Mapping[str, Any]:
        return {key: recipe.settings.get(key, value) for key, value in PROCESS.items()}

    def process(self, recipe: Recipe) -> Process:
        s = self.settings(recipe)
        return process(s["schedule"], s["steps"], s["max_sigma"], s["eps"])

    def loss(
        self, net: nn.Module, batch: Sample, recipe: Recipe, generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        p, x0, mu = self.process(recipe), batch.clean, batch.degraded
        t = torch.randint(1, p.T + 1, (len(batch),), generator=generator).to(mu.device)
        noise = torch.randn(mu.shape, generator=generator).to(mu.device)
        x = irsde.diffuse(p, x0, mu, t, noise)
        predicted = net(x, mu, t, *self.embeddings(mu)).float()
        loss = irsde.likelihood_loss(p, predicted, x, x0, mu, t, recipe.settings.get("loss", "l1"))
        return loss, {"noise_error": (predicted.detach() - noise).abs().mean(dim=(1, 2, 3))}

    def restore(self, net: Any, degraded: Tensor, recipe: Recipe) -> Tensor:
        p, embeddings = self.process(recipe), self.embeddings(degraded)
        generator = torch.Generator().manual_seed(0)
        timesteps = times(p.T, min(p.T, int(recipe.settings.get("preview_steps", 10))))
        return irsde.sample(
            p, lambda x, mu, t: net(x, mu, t, *embeddings).float(), degraded, timesteps, "posterior",
            lambda: torch.randn(degraded.shape, generator=generator).to(degraded.device),
        )  # fmt: skip

    def export(self, net: nn.Module, recipe: Recipe, target: Path, notes: Mapping[str, str]) -> None:
        self.architecture = "wild-unet" if recipe.model.get("scale", 1.0) != 1 else "universal-unet"
        super().export(net, recipe, target, notes)


class ConditionedNAFNetTask(ConditionedTask):
    """The `TrainingTask` of the kind "nafnet-daclip": one pass of `ContextNAFNet`, compared with the reference.

    Settings: controller; loss "l1" or "l2".
    """

    network, architecture = ContextNAFNet, "nafnet-daclip"

    def loss(
        self, net: nn.Module, batch: Sample, recipe: Recipe, generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        error = self.restore(net, batch.degraded, recipe).float() - batch.clean
        loss = error.abs().mean() if recipe.settings.get("loss", "l1") == "l1" else error.square().mean()
        return loss, {"psnr": psnr(batch.clean + error, batch.clean)}

    def restore(self, net: Any, degraded: Tensor, recipe: Recipe) -> Tensor:
        out: Tensor = net(degraded, *self.embeddings(degraded))
        return out
