"""Restorers that sample a diffusion process: IR-SDE, DA-CLIP's universal and wild nets, Refusion, the denoising SDE.

The network predicts noise; `irtool.diffusion` says what to do with it. The state is always the whole picture, in
float32.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..degradation import IDS
from ..diffusion import denoising, irsde
from ..diffusion.sampling import Sampling
from ..diffusion.schedules import process, times
from ..errors import UnavailableError, UsageError
from .base import Capability, Sweep, require_known
from .daclip import DaCLIP, look
from .graphs import Recorded
from .macs import gmacs_per_megapixel

MARGIN = 32
# Feature maps of the finest level alive at once in a float32 pass, at most (measured: benchmarks/diffusion.md).
LIVE = {"ContextUNet": 11, "ConditionalUNet": 14, "ConditionalNAFNet": 9}
States = Callable[[int, Tensor], None]
SETTINGS: Mapping[str, Any] = {"max_sigma": 50, "steps": 100, "schedule": "cosine", "eps": 0.005}
"""Of the process, where neither the record nor the file says otherwise; those of the universal net."""


class DiffusionRestorer:
    """A noise predictor with its process and, where it needs one, its controller (the `Restorer` protocol).

    Args:
        net: `ContextUNet`, `ConditionalUNet` or `ConditionalNAFNet`.
        header: its "settings" (JSON) give the process; "tasks" (JSON) what it undoes.
        companion: the `DaCLIP` of a `ContextUNet`; the `LatentUNet` of a latent `ConditionalNAFNet`.
    """

    def __init__(self, net: Any, header: Mapping[str, str], companion: nn.Module | None = None) -> None:
        settings = {**SETTINGS, **json.loads(header.get("settings", "{}"))}
        self.net, self.companion = net, companion
        self.denoises = not getattr(net, "conditional", True)
        if self.denoises:
            self.process = denoising.process_of(settings["schedule"], settings["steps"], settings["max_sigma"])
        else:
            self.process = process(settings["schedule"], settings["steps"], settings["max_sigma"], settings["eps"])
        kind = type(net).__name__
        first = net.init_conv if hasattr(net, "init_conv") else net.intro
        self.capability = Capability(
            name=header.get("architecture", kind),
            tasks=_tasks(header),
            multiple=net.multiple,
            margin=MARGIN,
            parameters=sum(p.numel() for p in net.parameters()),
            gmacs_per_megapixel=gmacs_per_megapixel(net),
            bytes_per_pixel=4 * LIVE[kind] * first.out_channels,
            blind=kind == "ContextUNet",
        )

    def specialise(self, mixture: Mapping[str, float]) -> DiffusionExpert:
        """Sampled in the published way but for the steps; see `DiffusionExpert.sampled`."""
        if not self.capability.blind:
            require_known(mixture, self.capability.tasks)
        return DiffusionExpert(self, Sampling())


class DiffusionExpert:
    """The `WholeExpert` of a `DiffusionRestorer`, with the settings of its sampler."""

    def __init__(self, restorer: DiffusionRestorer, sampling: Sampling) -> None:
        self.restorer, self.sampling = restorer, sampling
        self.capability = restorer.capability
        self.net = restorer.net
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.on_state: States | None = None

    def watched(self, on_state: States) -> DiffusionExpert:
        """The same, showing every time it reaches, from T down to 0, and the picture (3, H, W) there."""
        watched = copy.copy(self)
        watched.on_state = on_state
        return watched

    def sampled(self, sampling: Sampling) -> DiffusionExpert:
        """The same with other settings.

        Raises:
            UsageError: more steps than the process has.
        """
        if sampling.steps > self.restorer.process.T:
            raise UsageError(f"This model takes at most {self.restorer.process.T} steps, not {sampling.steps}.")
        return DiffusionExpert(self.restorer, sampling)

    def to(self, device: torch.device, dtype: torch.dtype) -> DiffusionExpert:
        if (device, dtype) != (self.device, self.dtype):
            self.device, self.dtype = device, dtype
            self._place(dtype)
            if self.restorer.companion is not None:
                self.restorer.companion.to(device)
        return self

    def _place(self, dtype: torch.dtype) -> None:
        # The weights in float32 stay behind: a reduced type that overflows is answered by computing again in full.
        net = self.restorer.net if dtype == torch.float32 else copy.deepcopy(self.restorer.net)
        self.net = net.to(self.device, dtype, memory_format=torch.channels_last)

    def context(self, pixels: Tensor) -> Tensor:
        """Degradation and content embeddings side by side (1, 2 K); nothing (1, 0) where there is no controller."""
        if not isinstance(self.restorer.companion, DaCLIP):
            return torch.zeros(1, 0)
        content, degradation = look(self.restorer.companion, pixels)
        return torch.cat([degradation, content], dim=1)

    def restore(self, pixels: Tensor, context: Tensor, sweep: Sweep, on_progress: Callable[[int, int], None]) -> Tensor:
        generator = torch.Generator().manual_seed(self.sampling.seed)
        p, sampler = self.restorer.process, self.sampling.sampler
        latent: Any = self.restorer.companion if not isinstance(self.restorer.companion, DaCLIP) else None
        hidden: list[Tensor] = []

        def picture(x: Tensor) -> Tensor:
            return x if latent is None else latent.decode(x, hidden, pixels.shape[-2:])

        def seen(t: int, x: Tensor) -> None:
            if self.on_state is not None:
                self.on_state(t, picture(x)[0].float().cpu())

        with torch.inference_mode():
            if self.restorer.denoises:
                # A noisy picture is a state already: of the time whose noise is as strong.
                first = max(1, denoising.optimum_time(p, min(noise_level(pixels), 0.99 * p.lam)))
                route = times(first, min(first, self.sampling.count))
                network = self._network(torch.zeros(1, 0), sweep, on_progress, len(route) - 1)
                return denoising.sample(p, network, pixels, route, sampler, partial(_draw, pixels, generator), seen)
            mu, hidden = (pixels, []) if latent is None else latent.encode(pixels)
            route = times(p.T, min(p.T, self.sampling.count))
            network = self._network(context, sweep, on_progress, len(route) - 1)
            return picture(irsde.sample(p, network, mu, route, sampler, partial(_draw, mu, generator), seen))

    def _network(
        self, context: Tensor, sweep: Sweep, on_progress: Callable[[int, int], None], steps: int
    ) -> Callable[[Tensor, Tensor, float], Tensor]:
        """``(x, mu, t) -> noise`` over the whole picture, in float32."""
        done = 0
        tile = self._tile_of(steps)

        def predict(x: Tensor, mu: Tensor, t: float) -> Tensor:
            nonlocal done, tile
            on_progress(done, steps)
            noise = sweep(lambda a, b: tile(a, b, t, context), x, mu)
            if self.dtype != torch.float32 and not bool(noise.isfinite().all()):
                self.dtype = torch.float32
                self._place(self.dtype)
                tile = self._tile_of(steps)
                noise = sweep(lambda a, b: tile(a, b, t, context), x, mu)
            if not bool(noise.isfinite().all()):
                raise UnavailableError(f"The network {self.capability.name} gave no numbers; its weights are damaged.")
            done += 1
            on_progress(done, steps)
            return noise

        return predict

    def _tile_of(self, steps: int) -> Callable[[Tensor, Tensor, float, Tensor], Tensor]:
        """``(x, mu, t, context) -> noise`` in float32 for a tile, called at least `steps` times."""
        # To record an evaluation takes three.
        net = Recorded(self.net) if self.device.type == "cuda" and steps > 4 else self.net

        def tile(x: Tensor, mu: Tensor, t: float, context: Tensor) -> Tensor:
            embeddings = context.to(x.device, self.dtype).chunk(2, dim=1) if context.shape[1] else ()
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
    seen = F.conv2d(pixels.float().flatten(0, 1)[:, None], mask[None, None])
    return float(seen.abs().mean() * (torch.pi / 2) ** 0.5 / 6)


def _tasks(header: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(json.loads(header.get("tasks", "[]"))) or IDS


def restorer(net: nn.Module, header: Mapping[str, str], *companions: nn.Module) -> DiffusionRestorer:
    """The restorer of a loaded network.

    Raises:
        UnavailableError: the companion it needs is missing or of another size.
    """
    name = header.get("architecture", type(net).__name__)
    companion = companions[0] if companions else None
    if hasattr(net, "context_dim"):
        if not isinstance(companion, DaCLIP):
            raise UnavailableError(f"{name} needs a DA-CLIP controller.", "Name one with --controller.")
        width = companion.clip.visual.output_dim
        if width != net.context_dim:
            told = f"{name} takes embeddings of {net.context_dim} numbers; the controller given makes {width}."
            raise UnavailableError(told, "Name another with --controller.")
        companion.blind()
    elif getattr(net, "skip", False) and not hasattr(companion, "encode"):
        raise UnavailableError(f"{name} works on latents and needs the U-Net that makes them.")
    return DiffusionRestorer(net, header, companion)
