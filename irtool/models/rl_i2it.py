"""RL-I2IT: pictures changed step by step by an agent that first makes a plan.

Wang et al., "Image-to-Image Translation with Deep Reinforcement Learning", arXiv 2309.13672. A planner draws a latent
plan from a Gaussian that depends on the state, an actor makes the next picture of plan and state, and twin critics say
how much a plan will have been worth. `StyleAgent` has the layout and the names of the published style-transfer weights;
`StepwiseNet` is the same idea for restoration, fully convolutional.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ..diffusion.sampling import Sampling
from ..errors import UsageError
from ..ops import pad_to_multiple
from .adm_unet import zeroed
from .base import Callback, Condition, Placed, Progress, Tiled, check, describe, settings

REWARD_UNIT = 10.0
"""dB of PSNR that are a reward of 1."""
LOG_VARIANCE = (-10.0, 2.0)
"""Bounds of the plan's log variance, reached through tanh."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, what the style networks see


def bounded(raw: Tensor) -> Tensor:
    """A log variance within `LOG_VARIANCE`."""
    low, high = LOG_VARIANCE
    return low + 0.5 * (high - low) * (raw.tanh() + 1)


class ReflectConv(nn.Module):
    """A convolution behind reflection padding, optionally behind nearest-neighbor doubling."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, upsample: bool = False) -> None:
        super().__init__()
        self.padding, self.upsample = size // 2, upsample
        self.conv2d = nn.Conv2d(inputs, outputs, size, stride)

    def forward(self, x: Tensor) -> Tensor:
        if self.upsample:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        return self.conv2d(F.pad(x, (self.padding,) * 4, mode="reflect"))


class StyleResidual(nn.Module):
    """Two convolutions with instance normalization about a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.in1 = ReflectConv(channels, channels, 3), nn.InstanceNorm2d(channels, affine=True)
        self.conv2, self.in2 = ReflectConv(channels, channels, 3), nn.InstanceNorm2d(channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        return (self.in2(self.conv2(self.in1(self.conv1(x)).relu())) + x).relu()


class StylePlanner(nn.Module):
    """State (N, 3, H, W) -> mean and standard deviation of the plan (N, 1, H / 4, W / 4), and the features."""

    def __init__(self) -> None:
        super().__init__()
        for i, (inputs, outputs, size, stride) in enumerate([(3, 16, 9, 1), (16, 32, 3, 2), (32, 64, 3, 2)], 1):
            self.add_module(f"conv{i}", ReflectConv(inputs, outputs, size, stride))
            self.add_module(f"in{i}_e", nn.InstanceNorm2d(outputs, affine=True))
        self.res1 = StyleResidual(64)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        features = []
        for i in (1, 2, 3):
            x = self.get_submodule(f"in{i}_e")(self.get_submodule(f"conv{i}")(x)).relu()
            features.append(x)
        mean, raw = self.res1(x).chunk(2, dim=1)
        # As published: the mean over one half of the channels, the spread of the variances over the other.
        return mean.mean(1, keepdim=True), bounded(raw).exp().std(1, keepdim=True) + 1e-6, features


class StyleActor(nn.Module):
    """Plan and features -> the next state."""

    def __init__(self) -> None:
        super().__init__()
        self.deconv3, self.in3_d = ReflectConv(65, 64, 3, upsample=True), nn.InstanceNorm2d(64, affine=True)
        self.deconv2, self.in2_d = ReflectConv(96, 32, 3, upsample=True), nn.InstanceNorm2d(32, affine=True)
        self.deconv1, self.in1_d = ReflectConv(48, 3, 9), nn.InstanceNorm2d(3, affine=True)  # in1_d is never used

    def forward(self, plan: Tensor, features: list[Tensor]) -> Tensor:
        first, second, third = features
        x = self.in3_d(self.deconv3(torch.cat([plan, third], dim=1))).relu()
        x = self.in2_d(self.deconv2(torch.cat([x, second], dim=1))).relu()
        return self.deconv1(torch.cat([x, first], dim=1))


class StyleAgent(nn.Module):
    """The published style transfer: a planner ("actor." in its files' names) and an actor ("decoder.")."""

    multiple, max_steps = 4, 10

    def __init__(self) -> None:
        super().__init__()
        self.actor = StylePlanner()
        self.decoder = StyleActor()

    def step(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """The next picture of pictures (N, 3, H, W) in [0, 1], sides multiples of 4; not clamped.

        Args:
            x: pictures.
            z: standard noise (N, 1, H / 4, W / 4) of the plan; None for its mean.
        """
        center, scale = (x.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        mean, std, features = self.actor((x - center) / scale)
        plan = mean if z is None else mean + std * z
        return self.decoder(plan, features) * scale + center

    def forward(self, x: Tensor) -> Tensor:
        """`step` with the plan's mean."""
        return self.step(x)


def _down(inputs: int, outputs: int, normalize: bool = True) -> nn.Sequential:
    norm: nn.Module = nn.GroupNorm(8, outputs) if normalize else nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 4, 2, 1), norm, nn.LeakyReLU(0.2))


class Planner(nn.Module):
    """State -> mean and log variance of the plan (N, plan, H / 2^levels, W / 2^levels), and the features."""

    def __init__(self, inputs: int, width: int, levels: int, plan: int) -> None:
        super().__init__()
        widths = [inputs, *(width * min(8, 2 ** max(0, i - 1)) for i in range(levels))]
        self.down = nn.ModuleList(_down(widths[i], widths[i + 1], i > 0) for i in range(levels))
        self.out = nn.Conv2d(widths[-1], 2 * plan, 3, padding=1)
        self.widths = widths

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        features = []
        for down in self.down:
            x = down(x)
            features.append(x)
        mean, raw = self.out(x).chunk(2, dim=1)
        return mean, bounded(raw), features


class Actor(nn.Module):
    """Plan and features -> a change of the picture."""

    def __init__(self, widths: list[int], plan: int) -> None:
        super().__init__()
        self.up = nn.ModuleList()
        channels = plan
        for width in reversed(widths[1:]):
            self.up.append(
                nn.Sequential(
                    nn.Conv2d(channels + width, width, 3, padding=1), nn.GroupNorm(8, width), nn.LeakyReLU(0.2)
                )
            )
            channels = width
        self.out = zeroed(nn.Conv2d(channels + widths[0], 3, 3, padding=1))

    def forward(self, plan: Tensor, features: list[Tensor], state: Tensor) -> Tensor:
        x = plan
        for up, feature in zip(self.up, reversed(features), strict=True):
            x = F.interpolate(up(torch.cat([x, feature], dim=1)), scale_factor=2, mode="nearest")
        return self.out(torch.cat([x, state], dim=1))


class Critic(nn.Module):
    """State and plan -> the return expected of them (N,)."""

    def __init__(self, inputs: int, width: int, levels: int, plan: int) -> None:
        super().__init__()
        self.arguments = (inputs, width, levels, plan)
        widths = [inputs, *(width * min(8, 2 ** max(0, i - 1)) for i in range(levels))]
        self.down = nn.Sequential(*(_down(widths[i], widths[i + 1], i > 0) for i in range(levels)))
        self.head = nn.Sequential(
            nn.Conv2d(widths[-1] + plan, widths[-1], 3, padding=1), nn.LeakyReLU(0.2), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(widths[-1], 1),
        )  # fmt: skip

    def forward(self, state: Tensor, plan: Tensor) -> Tensor:
        out: Tensor = self.head(torch.cat([self.down(state), plan], dim=1))
        return out[:, 0]


class StepwiseNet(nn.Module):
    """Restoration in steps: planner, actor and twin critics.

    A state is the current picture beside the degraded one. A step adds what the actor makes of it.

    Args:
        width: channels of the finest level, a multiple of 8.
        levels: halvings of the resolution.
        plan: numbers of the plan at each position of the coarsest level. At 128 pixels, 5 levels and 32 are the 512 of
            the published face inpainting.
        max_steps: steps of an episode.
    """

    def __init__(self, width: int = 32, levels: int = 3, plan: int = 8, max_steps: int = 10) -> None:
        super().__init__()
        self.multiple, self.max_steps, self.levels = 2**levels, max_steps, levels
        self.planner = Planner(6, width, levels, plan)
        self.actor = Actor(self.planner.widths, plan)
        self.critics = nn.ModuleList(Critic(6, width, levels, plan) for _ in range(2))

    def state(self, x: Tensor, degraded: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) in [0, 1], sides multiples of `multiple`, as the networks see them (N, 6, H, W)."""
        return 2 * torch.cat([x, degraded], dim=1) - 1

    def act(self, state: Tensor, sample: bool) -> tuple[Tensor, Tensor, Tensor]:
        """A step.

        Returns:
            The next picture (N, 3, H, W) in [0, 1], the plan, and the plan's log density per sample (N,).
        """
        mean, log_variance, features = self.planner(state)
        plan = mean + (0.5 * log_variance).exp() * torch.randn_like(mean) if sample else mean
        squared = (plan - mean).square() / log_variance.exp()
        log_density = -0.5 * (squared + log_variance + math.log(2 * math.pi)).flatten(1).sum(1)
        moved = (state[:, :3] + self.actor(plan, features, state)).clamp(-1, 1)
        return (moved + 1) / 2, plan, log_density

    def value(self, state: Tensor, plan: Tensor, frozen: bool = False) -> tuple[Tensor, Tensor]:
        """The returns that both critics expect (N,); with `frozen` no gradient reaches their weights."""

        def of(critic: nn.Module) -> Tensor:
            if not frozen:
                return critic(state, plan)
            return functional_call(critic, {k: v.detach() for k, v in critic.named_parameters()}, (state, plan))

        first, second = map(of, self.critics)
        return first, second

    def step(self, x: Tensor, degraded: Tensor, least_gain: float | None = None) -> tuple[Tensor, Tensor]:
        """The next pictures by the plan's mean.

        Args:
            x, degraded: (N, 3, H, W) in [0, 1], sides multiples of `multiple`.
            least_gain: a picture is left as it is once both critics expect less than this (in dB) of the rest; None
                never stops.

        Returns:
            (N, 3, H, W), and (N,) bool: which of them moved.
        """
        state = self.state(x, degraded)
        following, plan, _ = self.act(state, sample=False)
        going = torch.ones(len(x), dtype=torch.bool, device=x.device)
        if least_gain is not None:
            going = torch.minimum(*self.value(state, plan)) * REWARD_UNIT >= least_gain
        return torch.where(going.view(-1, 1, 1, 1), following, x), going

    def forward(self, degraded: Tensor, steps: int = 0, least_gain: float | None = None) -> Tensor:
        """`step` repeated, at most `steps` times; 0 for `max_steps`."""
        x = degraded
        for _ in range(steps or self.max_steps):
            x, going = self.step(x, degraded, least_gain)
            if least_gain is not None and not bool(going.any()):
                break
        return x


class AgentModel:
    """Either agent as a restorer (the `Model` protocol); "steps" of the sampling settings are those of the agent."""

    def __init__(self, net: Any, header: Mapping[str, str]) -> None:
        self.placed = Placed(net)
        self.least_gain = settings(header).get("least_gain")
        width = 48 if isinstance(net, StyleAgent) else net.planner.widths[1]
        self.info = describe(
            net, header, header.get("architecture", "rl-i2it"), multiple=net.multiple, overlap=32,
            bytes_per_pixel=4 * 6 * width, task_agnostic=True, tiling="blended", iterative=True,
        )  # fmt: skip

    def bind(self, condition: Condition) -> AgentBound:
        check(condition, self.info)
        sampling = condition.sampling or Sampling()
        if sampling.guidance or sampling.operator:
            raise UsageError(f"A {self.info.name} model takes no guidance.", "Use a diffusion prior.")
        return AgentBound(self, sampling.steps or self.placed.source.max_steps, condition.callback)


class AgentBound:
    """An agent that takes a number of steps over the whole picture."""

    def __init__(self, model: AgentModel, steps: int, callback: Callback | None) -> None:
        self.model, self.steps, self.callback = model, steps, callback
        self.info, self.placed = model.info, model.placed

    def to(self, device: torch.device, dtype: torch.dtype) -> AgentBound:
        self.placed.to(device, dtype)
        return self

    def prepare(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return pad_to_multiple(image, max(self.info.multiple, 16)), torch.zeros(1, 0)

    def run(self, image: Tensor, context: Tensor, tiled: Tiled, on_progress: Progress) -> Tensor:
        dtype, net, x = self.placed.dtype, self.placed.net, image
        moved = False

        def tile(x: Tensor, degraded: Tensor) -> Tensor:
            nonlocal moved
            if isinstance(net, StyleAgent):
                moved = True
                return net.step(x.to(dtype)).float()
            following, going = net.step(x.to(dtype), degraded.to(dtype), self.model.least_gain)
            moved = moved or bool(going.any())
            return following.float()

        with torch.inference_mode():
            for k in range(self.steps):
                on_progress(k, self.steps)
                moved = False
                x = tiled(tile, x, image)
                if self.callback is not None:
                    self.callback(self.steps - 1 - k, x[0].float().cpu())
                if not moved:
                    break
        on_progress(self.steps, self.steps)
        return x


def restorer(net: nn.Module, header: Mapping[str, str], *companions: nn.Module) -> AgentModel:
    """The model of a loaded agent."""
    return AgentModel(net, header)


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """The (empty) configuration of the published style networks; None where these are not their shapes."""
    expected = {"actor.conv1.conv2d.weight": (16, 3, 9, 9), "decoder.deconv3.conv2d.weight": (64, 65, 3, 3)}
    return {} if all(shapes.get(key) == shape for key, shape in expected.items()) else None
