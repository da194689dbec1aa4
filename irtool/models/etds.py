"""ETDS: real-time super-resolution on a phone by equivalent transformation and dual stream networks.

Chao et al., "Equivalent Transformation and Dual Stream Network Construction for Mobile Image Super-Resolution",
CVPR 2023. While it is trained, a stream of features and a thin stream that carries the picture itself run side by
side (`DualStreamETDS`); for use both become one plain chain of 3x3 convolutions and ReLUs (`ETDS`), which computes
the same, clipped to [0, 1] by a convolution and two ReLUs that a phone's accelerator runs.

`fused` turns the weights of the first into those of the second; `unfused` goes back, exactly, where the weights came
from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import SinglePassModel, describe

RGB = 3
LAST = ("conv_last.", "conv_residual_last.")
Weights = Mapping[str, Tensor]


def _conv(channels: int, out: int, size: int = 3) -> nn.Conv2d:
    return nn.Conv2d(channels, out, size, padding=size // 2)


def output_channels(scale: int) -> int:
    """Channels of the last convolution: 3 scale^2, at x3 with one more that is dropped, to make a multiple of 4."""
    return RGB * scale**2 + (scale == 3)


class ETDS(nn.Module):
    """The network as it is used.

    Args:
        scale: magnification.
        blocks: 3x3 convolutions between the first and the last (the M of a published name such as M7C48).
        width: feature maps (the C of it).
    """

    def __init__(self, scale: int, blocks: int = 4, width: int = 32) -> None:
        super().__init__()
        self.scale, self.blocks, self.width = scale, blocks, width
        self.conv_first = _conv(RGB, width)
        self.backbone_convs = nn.ModuleList(_conv(width, width) for _ in range(blocks))
        self.conv_last = _conv(width, output_channels(scale))
        self.conv_clip = _conv(output_channels(scale), output_channels(scale), 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N, 3, scale H, scale W) in [0, 1]."""
        x = F.relu(self.conv_first(x))
        for conv in self.backbone_convs:
            x = F.relu(conv(x))
        x = F.relu(self.conv_clip(F.relu(self.conv_last(x))))
        return F.pixel_shuffle(x[:, : RGB * self.scale**2], self.scale)


class DualStreamETDS(nn.Module):
    """The network as it is trained.

    Args:
        scale: magnification.
        blocks: layers between the first and the last.
        width: feature maps of both streams together, as of the `ETDS` it becomes.
        residual: feature maps of the stream that carries the picture, from 3.
    """

    def __init__(self, scale: int, blocks: int = 4, width: int = 32, residual: int = RGB) -> None:
        super().__init__()
        if not width > residual >= RGB:
            raise ValueError(f"residual lies from {RGB} to below width, {width}, not {residual}")
        self.scale, self.blocks, self.width, self.residual = scale, blocks, width, residual
        backbone, out = width - residual, RGB * scale**2
        self.conv_first, self.conv_residual_first = _conv(RGB, backbone), _conv(RGB, residual)
        self.backbone_convs = nn.ModuleList(_conv(backbone, backbone) for _ in range(blocks))
        self.residual_convs = nn.ModuleList(_conv(residual, residual) for _ in range(blocks))
        self.add_residual_convs = nn.ModuleList(_conv(residual, backbone) for _ in range(blocks))
        self.conv_last, self.conv_residual_last = _conv(backbone, out), _conv(residual, out)
        # The second stream begins as nearest-neighbor enlargement, without a say in the first.
        for conv in (self.conv_residual_first, *self.residual_convs):
            nn.init.dirac_(conv.weight)
        for conv in self.add_residual_convs:
            nn.init.zeros_(conv.weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.conv_residual_last.weight)
        with torch.no_grad():
            for channel in range(out):
                self.conv_residual_last.weight[channel, channel // scale**2, 1, 1] = 1
        for conv in (self.conv_residual_first, *self.residual_convs, *self.add_residual_convs, self.conv_residual_last):
            nn.init.zeros_(conv.bias)

    def adopt(self, weights: Weights) -> dict[str, Tensor]:
        """Weights to begin training with: of `ETDS` they are taken apart, and of a network of another scale the body
        is taken, while the last convolutions begin as they do in training from nothing.

        Raises:
            RuntimeError: they are of neither.
        """
        state = dict(weights)
        if "conv_clip.weight" in state:
            shapes = {key: tuple(value.shape) for key, value in state.items()}
            config = recognize(shapes)
            if config is None:
                raise RuntimeError("these are the weights of no ETDS")
            whole = ETDS(**config)
            whole.load_state_dict(state)
            try:
                state = dict(unfused(whole, self.residual).state_dict())
            except ValueError as error:
                raise RuntimeError(str(error)) from error
        own = self.state_dict()
        return {
            key: own[key] if key.startswith(LAST) and value.shape != own[key].shape else value
            for key, value in state.items()
        }

    def streams(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) in [0, 1] -> the result and what the second stream alone gives, both (N, 3, scale H, scale W).

        Neither is clipped. The published training adds a loss on the second.
        """
        # Under autocast the stream that carries the picture stays in float32: bfloat16 has no 256 levels near 1.
        exact = torch.autocast(x.device.type, enabled=False)
        with exact:
            r = F.relu(self.conv_residual_first(x.float()))
        x = F.relu(self.conv_first(x))
        for conv, residual, add in zip(self.backbone_convs, self.residual_convs, self.add_residual_convs, strict=True):
            x = F.relu(conv(x) + add(r))
            with exact:
                r = F.relu(residual(r))
        with exact:
            alone = F.pixel_shuffle(self.conv_residual_last(r), self.scale)
        return F.pixel_shuffle(self.conv_last(x).float(), self.scale) + alone, alone

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N, 3, scale H, scale W), about [0, 1]."""
        return self.streams(x)[0]


def fused(net: DualStreamETDS) -> ETDS:
    """The one-stream network that gives what `net` gives, clipped to [0, 1].

    Both streams are ReLU convolutions, so that one convolution with a block of zeros (what the second stream takes of
    the first) does for both. The last one computes 1 - y, the ReLU after it clips y at 1; the 1x1 convolution turns
    that back, its ReLU clips at 0.
    """
    w: dict[str, Tensor] = {k: v.detach() for k, v in net.state_dict().items()}
    whole = ETDS(net.scale, net.blocks, net.width)
    first = {
        kind: torch.cat([w[f"conv_first.{kind}"], w[f"conv_residual_first.{kind}"]]) for kind in ("weight", "bias")
    }
    state = {f"conv_first.{kind}": value for kind, value in first.items()}
    for i in range(net.blocks):
        own, add, residual = (f"{name}.{i}" for name in ("backbone_convs", "add_residual_convs", "residual_convs"))
        upper = torch.cat([w[f"{own}.weight"], w[f"{add}.weight"]], dim=1)
        lower = torch.cat(
            [torch.zeros(net.residual, net.width - net.residual, 3, 3), w[f"{residual}.weight"].cpu()], dim=1
        ).to(upper)
        state[f"{own}.weight"] = torch.cat([upper, lower])
        state[f"{own}.bias"] = torch.cat([w[f"{own}.bias"] + w[f"{add}.bias"], w[f"{residual}.bias"]])
    weight = torch.cat([w["conv_last.weight"], w["conv_residual_last.weight"]], dim=1)
    bias = w["conv_last.bias"] + w["conv_residual_last.bias"]
    missing = output_channels(net.scale) - len(bias)
    state["conv_last.weight"] = F.pad(-weight, (0, 0, 0, 0, 0, 0, 0, missing))
    state["conv_last.bias"] = F.pad(1 - bias, (0, missing), value=1.0)
    state["conv_clip.weight"] = -torch.eye(output_channels(net.scale)).to(weight)[..., None, None]
    state["conv_clip.bias"] = torch.ones(output_channels(net.scale)).to(weight)
    whole.load_state_dict(state)
    return whole


def unfused(net: ETDS, residual: int = RGB) -> DualStreamETDS:
    """The two-stream network that `net` was made of, to train it further.

    Args:
        net: with the zeros that `fused` and the published weights have.
        residual: feature maps of the second stream.

    Raises:
        ValueError: its weights are not such, so that no two streams compute the same.
    """
    w: dict[str, Tensor] = {k: v.detach().clone() for k, v in net.state_dict().items()}
    backbone, out = net.width - residual, RGB * net.scale**2
    turned = -torch.eye(output_channels(net.scale))[..., None, None]
    crossing = [w[f"backbone_convs.{i}.weight"][backbone:, :backbone] for i in range(net.blocks)]
    if any(bool(block.any()) for block in crossing):
        raise ValueError("its second stream takes something of the first")
    if not torch.equal(w["conv_clip.weight"], turned) or not bool((w["conv_clip.bias"] == 1).all()):
        raise ValueError("its last two convolutions do not clip to [0, 1]")
    state = {}
    for kind in ("weight", "bias"):
        state[f"conv_first.{kind}"] = w[f"conv_first.{kind}"][:backbone]
        state[f"conv_residual_first.{kind}"] = w[f"conv_first.{kind}"][backbone:]
    for i in range(net.blocks):
        weight, bias = (w[f"backbone_convs.{i}.{kind}"] for kind in ("weight", "bias"))
        state[f"backbone_convs.{i}.weight"], state[f"backbone_convs.{i}.bias"] = (
            weight[:backbone, :backbone],
            bias[:backbone],
        )
        state[f"add_residual_convs.{i}.weight"] = weight[:backbone, backbone:]
        state[f"add_residual_convs.{i}.bias"] = torch.zeros(backbone)
        state[f"residual_convs.{i}.weight"], state[f"residual_convs.{i}.bias"] = (
            weight[backbone:, backbone:],
            bias[backbone:],
        )
    state["conv_last.weight"], state["conv_residual_last.weight"] = (-w["conv_last.weight"][:out]).split(
        [backbone, residual], dim=1
    )
    state["conv_last.bias"], state["conv_residual_last.bias"] = 1 - w["conv_last.bias"][:out], torch.zeros(out)
    streams = DualStreamETDS(net.scale, net.blocks, net.width, residual)
    streams.load_state_dict(state)
    return streams


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int] | None:
    """Hyperparameters of `ETDS` from its tensors, None where these are not its."""
    width, blocks = shapes["conv_first.weight"][0], sum(k.startswith("backbone_convs.") for k in shapes) // 2
    out = shapes["conv_last.weight"][0]
    scale = next((s for s in (2, 3, 4) if output_channels(s) == out), 0)
    fits = shapes["conv_clip.weight"] == (out, out, 1, 1) and len(shapes) == 2 * blocks + 6
    return {"scale": scale, "blocks": blocks, "width": width} if scale and fits else None


def recognize_streams(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int] | None:
    """Hyperparameters of `DualStreamETDS` from its tensors, None where these are not its."""
    residual, blocks = (
        shapes["conv_residual_first.weight"][0],
        sum(k.startswith("backbone_convs.") for k in shapes) // 2,
    )
    scale = next((s for s in (2, 3, 4) if RGB * s**2 == shapes["conv_last.weight"][0]), 0)
    width = shapes["conv_first.weight"][0] + residual
    fits = scale and len(shapes) == 6 * blocks + 8
    return {"scale": scale, "blocks": blocks, "width": width, "residual": residual} if fits else None


def restorer(net: ETDS | DualStreamETDS, header: Mapping[str, str]) -> SinglePassModel:
    """The model of a loaded network; one in two streams is fused first."""
    plain = net if isinstance(net, ETDS) else fused(net).eval().requires_grad_(False)
    plain = plain.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # half as fast again on a CPU
    # Measured: input and result of a layer and its working copy, then the pixels of the result.
    pixel = 4 * (3 * max(plain.width, output_channels(plain.scale)) + 2 * output_channels(plain.scale))
    return model_of(plain, header, "etds", bytes_per_pixel=pixel)


def model_of(net: ETDS, header: Mapping[str, str], name: str, **info: Any) -> SinglePassModel:
    """The model of a network that enlarges; `info` are further attributes of its `ModelInfo`."""
    described = describe(
        net, dict(header), name, tasks=(), overlap=net.blocks + 2, padding="zeros", scale=net.scale, **info
    )
    return SinglePassModel(net, described)
