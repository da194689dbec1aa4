"""Restorers that sample a diffusion process: IR-SDE, DA-CLIP's universal and wild nets, Refusion, the denoising SDE.

The network predicts noise; `irtool.diffusion` says what to do with it. The state is always the whole picture, in
float32.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..diffusion import denoising, guided, irsde
from ..diffusion.conditional import Prior
from ..diffusion.observation import observe, parse
from ..diffusion.sampling import Sampling
from ..diffusion.schedules import process, times
from ..errors import UnavailableError, UsageError
from . import lora
from .base import Callback, Condition, Placed, Progress, Tiled, check, describe, not_finite, settings
from .cuda_graphs import CudaGraphCache
from .daclip import DaCLIP, embed_whole_image
from .macs import gmacs_per_megapixel

OVERLAP = 32
# Feature maps of the finest level alive at once in a float32 pass, at most (measured: benchmarks/diffusion.md).
LIVE_CHANNELS = {"ContextUNet": 11, "ConditionalUNet": 14, "ConditionalNAFNet": 9}
SETTINGS: Mapping[str, Any] = {"max_sigma": 50, "steps": 100, "schedule": "cosine", "eps": 0.005}
"""Of the process, where neither the record nor the file says otherwise; those of the universal net."""


class DiffusionModel:
    """A noise predictor with its process and, where it needs one, its controller (the `Model` protocol).

    Args:
        net: `ContextUNet`, `ConditionalUNet` or `ConditionalNAFNet`.
        header: its "settings" (JSON) give the process; "tasks" (JSON) what it removes.
        companion: the `DaCLIP` of a `ContextUNet`; the `LatentUNet` of a latent `ConditionalNAFNet`.
    """

    def __init__(self, net: Any, header: Mapping[str, str], companion: nn.Module | None = None) -> None:
        process_settings = {**SETTINGS, **settings(header)}
        self.placed, self.companion = Placed(net), companion
        self.denoises = not getattr(net, "conditional", True)
        if self.denoises:
            self.process = denoising.process_of(
                process_settings["schedule"], process_settings["steps"], process_settings["max_sigma"]
            )
        else:
            self.process = process(
                process_settings["schedule"],
                process_settings["steps"],
                process_settings["max_sigma"],
                process_settings["eps"],
            )
        kind = type(net).__name__
        self.info = describe(
            net, header, header.get("architecture", kind), multiple=net.multiple, overlap=OVERLAP,
            bytes_per_pixel=4 * LIVE_CHANNELS[kind] * net.width, gmacs=gmacs_per_megapixel(net),
            task_agnostic=kind == "ContextUNet", tiling="blended", iterative=True,
        )  # fmt: skip

    @property
    def latent(self) -> Any:
        """The U-Net between pictures and latents; None where the process runs on pictures."""
        return None if isinstance(self.companion, DaCLIP) else self.companion

    def bind(self, condition: Condition) -> DiffusionBound:
        """Sampled in the published way but for the steps, unless the condition says otherwise.

        Raises:
            UsageError: more steps than the process has.
        """
        check(condition, self.info)
        sampling = condition.sampling or Sampling()
        if sampling.steps > self.process.T:
            raise UsageError(f"This model takes at most {self.process.T} steps, not {sampling.steps}.")
        if sampling.guidance == "gdp" or (sampling.guidance and (self.denoises or self.latent is not None)):
            raise UsageError(
                f"A {self.info.name} model cannot be sampled with the guidance {sampling.guidance}.",
                "gdp takes a prior such as adm-256; the others take that, or an IR-SDE on pictures.",
            )
        if sampling.operator:
            parse(sampling.operator)
            if not sampling.guidance:
                raise UsageError("An operator goes with `guidance`.", "Known: " + ", ".join(guided.SAMPLERS) + ".")
        bound = DiffusionBound(self, sampling, condition.callback)
        if condition.adapter is not None:
            bound.placed = Placed(lora.apply(copy.deepcopy(self.placed.source).cpu(), condition.adapter))
        return bound


class DiffusionBound:
    """The `Bound` of a `DiffusionModel`, with the settings of its sampler."""

    def __init__(self, model: DiffusionModel, sampling: Sampling, callback: Callback | None = None) -> None:
        self.model, self.sampling, self.callback = model, sampling, callback
        self.info, self.placed = model.info, model.placed

    def to(self, device: torch.device, dtype: torch.dtype) -> DiffusionBound:
        # The weights in float32 stay behind: a reduced type that overflows is answered by computing again in full.
        self.placed.to(device, dtype)
        if self.model.companion is not None:
            self.model.companion.to(device)
        return self

    def prepare(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The image; degradation and content embeddings side by side (1, 2 K), or (1, 0) without a controller."""
        if not isinstance(self.model.companion, DaCLIP):
            return image, torch.zeros(1, 0)
        content, degradation = embed_whole_image(self.model.companion, image[0])
        return image, torch.cat([degradation, content], dim=1)

    def run(self, image: Tensor, context: Tensor, tiled: Tiled, on_progress: Progress) -> Tensor:
        """Sample; the state is the whole image, so that all tiles share one noise field and agree at every step."""
        generator = torch.Generator().manual_seed(self.sampling.seed)
        pixels = image.to(self.placed.device)
        p, sampler = self.model.process, self.sampling.sampler
        latent = self.model.latent
        hidden: list[Tensor] = []

        def decoded(x: Tensor) -> Tensor:
            return x if latent is None else latent.decode(x, hidden, pixels.shape[-2:])

        def seen(t: int, x: Tensor) -> None:
            if self.callback is not None:
                self.callback(t, decoded(x)[0].float().cpu())

        with torch.inference_mode():
            if self.model.denoises:
                # A noisy picture is a state already: of the time whose noise is as strong.
                first = max(1, denoising.optimum_time(p, min(noise_level(pixels), 0.99 * p.lam)))
                timesteps = times(first, min(first, self.sampling.count))
                network = self._network(torch.zeros(1, 0), tiled, on_progress, len(timesteps) - 1)
                return denoising.sample(p, network, pixels, timesteps, sampler, partial(_draw, pixels, generator), seen)
            mu, hidden = (pixels, []) if latent is None else latent.encode(pixels)
            timesteps = times(p.T, min(p.T, self.sampling.count))
            if self.sampling.guidance:
                return self._guided(mu, timesteps, context, tiled, on_progress, generator)
            network = self._network(context, tiled, on_progress, len(timesteps) - 1)
            return decoded(irsde.sample(p, network, mu, timesteps, sampler, partial(_draw, mu, generator), seen))

    def _guided(
        self, mu: Tensor, steps: Sequence[int], context: Tensor, tiled: Tiled, on_progress: Progress,
        generator: torch.Generator,
    ) -> Tensor:  # fmt: skip
        """A conditional sampler with this model as the prior, of which the low-quality picture is the mean."""
        guidance, p = self.sampling.guidance, self.model.process
        timesteps = guided.route(guidance, steps)
        network = self._network(context, tiled, on_progress, sum(b < a for a, b in pairwise(timesteps)))
        with torch.inference_mode(False), torch.no_grad():
            mu = mu.clone()
            prior = Prior.of_mean_reverting(p, network, mu)
            observation = observe(parse(self.sampling.operator or "noise(0)"), mu)

            def seen(t: int, x: Tensor) -> None:
                if self.callback is not None:
                    self.callback(t, x[0].float().cpu())

            return guided.sample(
                guidance, prior, observation, mu, p.lam, timesteps, generator, self.sampling.strength, callback=seen
            )

    def _network(
        self, context: Tensor, tiled: Tiled, on_progress: Progress, steps: int
    ) -> Callable[[Tensor, Tensor, float], Tensor]:
        """``(x, mu, t) -> noise`` over the whole picture, in float32."""
        done = 0
        tile = self._tile_of(steps)

        def predict(x: Tensor, mu: Tensor, t: float) -> Tensor:
            nonlocal done, tile
            on_progress(done, steps)
            noise = tiled(lambda a, b: tile(a, b, t, context), x, mu)
            if self.placed.dtype != torch.float32 and not bool(noise.isfinite().all()):
                self.placed.to(self.placed.device, torch.float32)
                tile = self._tile_of(steps)
                noise = tiled(lambda a, b: tile(a, b, t, context), x, mu)
            if not bool(noise.isfinite().all()):
                raise not_finite(self.info.name)
            done += 1
            on_progress(done, steps)
            return noise

        return predict

    def _tile_of(self, steps: int) -> Callable[[Tensor, Tensor, float, Tensor], Tensor]:
        """``(x, mu, t, context) -> noise`` in float32 for a tile, called at least `steps` times."""
        # To record an evaluation takes three.
        net = CudaGraphCache(self.placed.net) if self.placed.device.type == "cuda" and steps > 4 else self.placed.net

        def tile(x: Tensor, mu: Tensor, t: float, context: Tensor) -> Tensor:
            embeddings = context.to(x.device, self.placed.dtype).chunk(2, dim=1) if context.shape[1] else ()
            out: Tensor = net(x, mu, torch.full((1,), t, device=x.device), *embeddings)
            return out.float()

        return tile


def _draw(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard noise for a whole picture, the same on every device."""
    return torch.randn(like.shape, generator=generator).to(like.device)


def noise_level(pixels: Tensor) -> float:
    """Standard deviation of white Gaussian noise in a picture (N, 3, H, W), in its units.

    Immerkaer, "Fast Noise Variance Estimation", 1996: a mask that edges and ramps pass by.
    """
    if min(pixels.shape[-2:]) < 3:
        return 0.0
    mask = torch.tensor([[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]], device=pixels.device)
    response = F.conv2d(pixels.float().flatten(0, 1)[:, None], mask[None, None])
    return float(response.abs().mean() * (torch.pi / 2) ** 0.5 / 6)


def restorer(net: nn.Module, header: Mapping[str, str], *companions: nn.Module) -> DiffusionModel:
    """The model of a loaded network.

    Raises:
        UnavailableError: the companion it needs is missing or of another size.
    """
    name = header.get("architecture", type(net).__name__)
    companion = companions[0] if companions else None
    if hasattr(net, "context_dim"):
        if not isinstance(companion, DaCLIP):
            raise UnavailableError(f"{name} needs a DA-CLIP controller.", "Name one with `controller`.")
        width = companion.clip.visual.output_dim
        if width != net.context_dim:
            message = f"{name} takes embeddings of {net.context_dim} numbers; the controller given makes {width}."
            raise UnavailableError(message, "Name another with `controller`.")
        companion.drop_text_tower()
    elif getattr(net, "skip", False) and not hasattr(companion, "encode"):
        raise UnavailableError(f"{name} works on latents and needs the U-Net that makes them.")
    return DiffusionModel(net, header, companion)
