"""Unconditional diffusion priors as restorers: pictures drawn given how they were degraded.

The prior knows pictures of one size. Larger ones are its states as a whole, and it sees them in overlapping patches
whose predictions are blended at every step, so patches agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..degradation import IDS
from ..diffusion import guidance as gdp
from ..diffusion import guided
from ..diffusion.conditional import Prior
from ..diffusion.gaussian import gaussian_diffusion
from ..diffusion.observation import LEARNED, Observation, Part, extension, observe, parse
from ..diffusion.sampling import Sampling
from ..diffusion.schedules import times
from ..errors import UsageError
from .adm_unet import ADMUNet
from .base import Callback, Condition, Placed, Progress, Tiled, check, describe, not_finite, settings

STEPS = {"gdp": 100, "dps": 100, "twisted": 100, "joint": 100, "repaint": 25}
"""Steps where none are asked for; 20 for the others."""
LIVE = 24
"""Feature maps of the finest level alive at once, about."""
PIXELS = 1 << 16
"""Of patches evaluated together."""


class PriorModel:
    """An `ADMUNet` with its process (the `Model` protocol).

    Args:
        net: predicts noise, and the variance where it has learned to.
        header: its "settings" (JSON) give schedule and steps of the process.
    """

    def __init__(self, net: Any, header: Mapping[str, str]) -> None:
        process_settings = {"schedule": "linear", "steps": 1000, **settings(header)}
        self.placed, self.schedule, self.T = Placed(net), process_settings["schedule"], int(process_settings["steps"])
        size = net.image_size
        gmacs = _gmacs(net, size)
        self.info = describe(
            net, header, header.get("architecture", "adm-unet"), tasks=IDS, multiple=net.multiple, overlap=size // 4,
            bytes_per_pixel=4 * LIVE * net.num_channels, gmacs=gmacs, task_agnostic=True, tiling="blended",
            iterative=True, takes_mask=True,
        )  # fmt: skip

    def bind(self, condition: Condition) -> PriorBound:
        """Fix the operator and the sampler.

        Raises:
            UsageError: nothing says how the picture was degraded, or the sampler cannot be had.
        """
        check(condition, self.info)
        sampling = condition.sampling or Sampling()
        text = sampling.operator or ("mask" if condition.mask is not None else "")
        if not text:
            raise UsageError(
                "A diffusion prior must be told how the picture was degraded.",
                "Give `operator`, such as 'blur(sigma=2)|noise(5)', or `mask`.",
            )
        parts = parse(text)
        if condition.mask is not None and "mask" not in [part.name for part in parts]:
            parts = (Part("mask", {}), *parts)
        learned = parts[0].name in LEARNED
        guidance = sampling.guidance or ("gdp" if learned else "ddrm")
        if learned and guidance != "gdp":
            raise UsageError(f"{guidance} learns no operator.", "Use gdp, or say what the operator is.")
        steps = sampling.steps or STEPS.get(guidance, 20)
        if steps > self.T:
            raise UsageError(f"This model takes at most {self.T} steps, not {steps}.")
        return PriorBound(self, sampling, guidance, parts, steps, condition.mask, condition.callback)


def fuse(
    model: PriorModel, exposures: Sequence[Tensor], steps: int = 100, seed: int = 0,
    on_progress: Progress = lambda done, of: None,
) -> Tensor:  # fmt: skip
    """One picture of several exposures of a scene, by GDP: every exposure has a factor and a map of its own to learn.

    Args:
        model: the prior.
        exposures: (1, 3, H, W) each, in [0, 1], aligned; sides at least the prior's.
        steps: of the respaced process.
        seed: of the noise.
        on_progress: called with the patches done and those in all.

    Returns:
        (1, 3, H, W) in [0, 1].

    Raises:
        UsageError: they differ in size or are smaller than the prior.
    """
    shape, size = exposures[0].shape, model.placed.source.image_size
    if any(e.shape != shape for e in exposures) or min(shape[-2:]) < size:
        raise UsageError(f"Exposures must be of one size, at least {size} pixels on each side.")
    p, g, device = gaussian_diffusion(model.schedule, model.T, str(steps)), torch.Generator(), model.placed.device
    g.manual_seed(seed)
    scale = gdp.steady_scale(gdp.SCALES["light"], exposures[0].numel(), steps) / len(exposures)

    calls = p.steps * len(gdp.corners(shape[-2], shape[-1], size, size // 2, gdp.STEADY.twice))
    done = 0

    def draw(i: int) -> Tensor:
        return torch.randn(shape, generator=g).to(device)

    def net(x: Tensor, t: int) -> Tensor:
        nonlocal done
        out: Tensor = model.placed.net(x.to(model.placed.dtype), torch.full((1,), float(t), device=device))
        done += 1
        on_progress(min(done, calls), calls)
        return out.float()

    operators = [gdp.light(shape[-2], shape[-1], g) for _ in exposures]
    operators = [gdp.Light(*(value.to(device) for value in o.parameters())) for o in operators]
    observed = [2 * e.to(device) - 1 for e in exposures]
    with torch.no_grad():
        x, _ = gdp.gdp_unknown(p, net, draw(0), observed, operators, scale, draw, size, size // 2, gdp.STEADY)
    return ((x + 1) / 2).clamp(0, 1).cpu()


def _gmacs(net: ADMUNet, size: int) -> float:
    from .macs import counted

    class AtOneTime(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x, torch.zeros(1, device=x.device))

    return counted(AtOneTime(), torch.empty(1, 3, size, size, device="meta"))


class PriorBound:
    """A prior bound to an observation."""

    def __init__(
        self, model: PriorModel, sampling: Sampling, guidance: str, parts: tuple[Part, ...], steps: int,
        mask: Tensor | None, callback: Callback | None,
    ) -> None:  # fmt: skip
        self.model, self.sampling, self.guidance, self.parts, self.steps = model, sampling, guidance, parts, steps
        self.mask, self.callback = mask, callback
        self.info, self.placed = model.info, model.placed
        self.size = model.placed.source.image_size

    def to(self, device: torch.device, dtype: torch.dtype) -> PriorBound:
        self.placed.to(device, dtype)
        return self

    def prepare(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The picture continued to a size that the prior and the operator can take."""
        multiple, overlap = self.info.multiple, 0
        for part in self.parts:
            if part.name == "downsample":
                multiple = math.lcm(multiple, int(part.parameters["factor"]))
            if part.name in ("blur", "motion"):
                overlap = 2 * int(6 * float(part.parameters.get("sigma", 0)) + float(part.parameters.get("length", 0)))
        height, width = (
            -(-max(self.size, side + overlap) // multiple) * multiple for side in (image.shape[-2], image.shape[-1])
        )
        return extension(image, height, width), torch.zeros(1, 0)

    def run(self, image: Tensor, context: Tensor, tiled: Tiled, on_progress: Progress) -> Tensor:
        """Sample. Patches of the prior's own size are cut here, not by `tiled`: memory does not ask for larger ones."""
        device = self.placed.device
        image = image.to(device)
        missing = None
        if self.mask is not None:
            missing = extension(self.mask[None].to(device), *image.shape[-2:])[0].round()
        observation = observe(self.parts, image, missing)
        generator = torch.Generator().manual_seed(self.sampling.seed)
        with torch.no_grad():
            if self.guidance == "gdp":
                return self._gdp(image, observation, generator, on_progress)
            p = gaussian_diffusion(self.model.schedule, self.model.T)
            route = guided.route(self.guidance, times(p.steps, self.steps))
            calls = sum(b < a for a, b in pairwise(route))
            prior = Prior.of_gaussian(p, self._network(calls, on_progress))
            return guided.sample(
                self.guidance, prior, observation, torch.full_like(image, 0.5), 0.5, route, generator,
                self.sampling.strength, callback=self._shown,
            )  # fmt: skip

    def _gdp(
        self, image: Tensor, observation: Observation, generator: torch.Generator, on_progress: Progress
    ) -> Tensor:
        p = gaussian_diffusion(self.model.schedule, self.model.T, str(self.steps))
        published, name = self.sampling.published, self.parts[0].name
        base = gdp.SCALES[{"motion": "blur", "affine-blur": "light"}.get(name, name if name in gdp.SCALES else "blur")]
        scale = self.sampling.strength or (base if published else gdp.steady_scale(base, image.numel(), p.steps))

        def draw(i: int) -> Tensor:
            return torch.randn(image.shape, generator=generator).to(image.device)

        def seen(i: int, x: Tensor, x0: Tensor, *_: Any) -> None:
            self._shown(i, (x + 1) / 2)

        x = torch.randn(image.shape, generator=generator).to(image.device)
        if observation.operator is not None:
            constancy = 500.0 if name == "gray" else 0.0
            net = self._network(p.steps, on_progress)
            y = 2 * observation.y - 1
            return (
                gdp.gdp(p, net, x, y, observation.operator, scale, draw, constancy=constancy, callback=seen) + 1
            ) / 2
        learned: gdp.Unknown = gdp.light(image.shape[-2], image.shape[-1], generator)
        if name == "affine-blur":
            k = int(self.parts[0].parameters["size"]) | 1
            kernel = torch.zeros(k, k)
            kernel[k // 2, k // 2] = 1
            learned = gdp.AffineBlur(learned.factor, learned.offset, kernel)
        learned = learned.updated([value.to(image.device) for value in learned.parameters()])
        how = gdp.PUBLISHED if published else gdp.STEADY
        grid = gdp.corners(image.shape[-2], image.shape[-1], self.size, self.size // 2, how.twice)
        net = self._network(p.steps * len(grid), on_progress)
        y = 2 * image - 1
        x, _ = gdp.gdp_unknown(p, net, x, [y], [learned], scale, draw, self.size, self.size // 2, how, seen)
        return (x + 1) / 2

    def _shown(self, t: int, picture: Tensor) -> None:
        if self.callback is not None:
            self.callback(t, picture[0].float().cpu())

    def _network(self, calls: int, on_progress: Progress) -> Callable[[Tensor, int], Tensor]:
        """``(states, original time) -> prediction`` over whole pictures, in float32."""
        done = 0

        def tile(x: Tensor, t: int) -> Tensor:
            out: Tensor = self.placed.net(x.to(self.placed.dtype), torch.full((1,), float(t), device=x.device))
            return out.float()

        def predict(x: Tensor, t: int) -> Tensor:
            nonlocal done
            on_progress(done, calls)
            out = patched(lambda patch: tile(patch, t), x, self.size, max(1, PIXELS // self.size**2))
            if not bool(out.isfinite().all()):
                raise not_finite(self.info.name)
            done += 1
            on_progress(min(done, calls), calls)
            return out

        return predict


def patched(net: Callable[[Tensor], Tensor], x: Tensor, size: int, batch: int) -> Tensor:
    """What a network makes of pictures (N, C, H, W), from patches of its own size that overlap by a quarter.

    Where they overlap they are blended, weights falling linearly to the edges. Sides are at least `size`.
    """
    height, width = x.shape[-2:]
    if (height, width) == (size, size):
        return net(x)
    stride = 3 * size // 4
    spots = gdp.corners(height, width, size, stride, False)
    ramp = (torch.arange(size, device=x.device) + 0.5).minimum(size - 0.5 - torch.arange(size, device=x.device))
    ramp = (ramp / (size - stride)).clamp(max=1)
    weight = ramp[:, None] * ramp
    pieces = torch.cat([x[..., r : r + size, c : c + size] for r, c in spots])
    outs = torch.cat([net(some) for some in pieces.split(batch)])
    total = x.new_zeros(len(x), outs.shape[1], height, width)
    weights = x.new_zeros(height, width)
    for (r, c), out in zip(spots, outs.split(len(x)), strict=True):
        total[..., r : r + size, c : c + size] += out * weight
        weights[r : r + size, c : c + size] += weight
    return total / weights


def restorer(net: nn.Module, header: Mapping[str, str], *companions: nn.Module) -> PriorModel:
    """The model of a loaded prior."""
    return PriorModel(net, header)
