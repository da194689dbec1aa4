"""The U-Net of guided diffusion ("ADM"), an unconditional diffusion prior.

Dhariwal and Nichol, "Diffusion Models Beat GANs on Image Synthesis", NeurIPS 2021. State-dict names are those of
openai/guided-diffusion, so its published 256x256 unconditional checkpoint loads strictly. The network predicts the
standard noise in a state of the process and, with `learn_sigma`, where the variance lies between its two bounds
(`irtool.diffusion.gaussian`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 32


def timestep_embedding(t: Tensor, size: int) -> Tensor:
    """Sinusoidal features of time steps: (N,) -> (N, size), cosines first."""
    half = size // 2
    rate = torch.exp(-math.log(10000) / half * torch.arange(half, device=t.device, dtype=torch.float32))
    angle = t.float()[:, None] * rate
    return F.pad(torch.cat([angle.cos(), angle.sin()], dim=1), (0, size % 2))


def zeroed(layer: Any) -> Any:
    """A convolution that starts from 0, so that its block begins as the identity."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Norm(nn.GroupNorm):
    """Group normalization in 32 groups, computed in float32."""

    def __init__(self, channels: int) -> None:
        super().__init__(GROUPS, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x.float(), GROUPS, self.weight.float(), self.bias.float(), self.eps).to(x.dtype)


class Upsample(nn.Module):
    """Nearest-neighbor doubling and a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class Downsample(nn.Module):
    """A 3x3 convolution of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class ResBlock(nn.Module):
    """A residual block modulated by the time embedding.

    Args:
        inputs, outputs: channels.
        embedding: width of the time embedding.
        scale_shift: modulate by a scale and a shift after the second normalization; else add before it.
        resize: "up" or "down" changes the resolution by 2 inside the block, "" keeps it.
    """

    def __init__(self, inputs: int, outputs: int, embedding: int, scale_shift: bool, resize: str = "") -> None:
        super().__init__()
        self.scale_shift, self.resize = scale_shift, resize
        self.in_layers = nn.Sequential(Norm(inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * outputs if scale_shift else outputs))
        self.out_layers = nn.Sequential(
            Norm(outputs), nn.SiLU(), nn.Identity(), zeroed(nn.Conv2d(outputs, outputs, 3, padding=1))
        )
        self.skip_connection = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def _resized(self, x: Tensor) -> Tensor:
        if self.resize == "up":
            return F.interpolate(x, scale_factor=2, mode="nearest")
        return F.avg_pool2d(x, 2) if self.resize == "down" else x

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        norm, activation, conv = self.in_layers
        h = conv(self._resized(activation(norm(x))))
        modulation = self.emb_layers(embedding)[:, :, None, None].to(h.dtype)
        if self.scale_shift:
            scale, shift = modulation.chunk(2, dim=1)
            h = self.out_layers[0](h) * (1 + scale) + shift
        else:
            h = self.out_layers[0](h + modulation)
        return self.skip_connection(self._resized(x)) + self.out_layers[1:](h)


class AttentionBlock(nn.Module):
    """Self-attention over the pixels. A head's query, key and value lie side by side in `qkv`."""

    def __init__(self, channels: int, head_channels: int) -> None:
        super().__init__()
        if head_channels < 1 or channels % head_channels:
            raise ValueError(f"{channels} channels cannot be split into heads of {head_channels}")
        self.head_channels = head_channels
        self.norm = Norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2)
        heads = self.qkv(self.norm(tokens)).unflatten(1, (-1, 3 * self.head_channels)).transpose(2, 3)
        h = F.scaled_dot_product_attention(*heads.chunk(3, dim=-1))
        return (tokens + self.proj_out(h.transpose(2, 3).flatten(1, 2))).reshape(x.shape)


class TimestepSequential(nn.Sequential):
    """Layers in order; residual blocks are given the time embedding too."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:  # type: ignore[override]
        for layer in self:
            x = layer(x, embedding) if isinstance(layer, ResBlock) else layer(x)
        return x


class ADMUNet(nn.Module):
    """The U-Net of guided diffusion without classes. Argument names are the published ones.

    Args:
        image_size: side the network was trained at; only `attention_resolutions` refers to it.
        num_channels: channels of the finest level.
        num_res_blocks: residual blocks per level.
        channel_mult: channels of each level, in units of `num_channels`; numbers, or text such as "1,2,2".
        attention_resolutions: sides of the feature maps with self-attention, at `image_size`; numbers or text.
        num_head_channels: channels of an attention head.
        resblock_updown: change the resolution inside residual blocks, not by plain convolutions.
        use_scale_shift_norm: see `ResBlock`.
        learn_sigma: predict the variance too: six channels, not three.

    Raises:
        ValueError: the channels of a level are no multiple of 32 or of `num_head_channels` where it has attention.
    """

    def __init__(
        self,
        image_size: int = 256,
        num_channels: int = 256,
        num_res_blocks: int = 2,
        channel_mult: Sequence[int] | str = (1, 1, 2, 2, 4, 4),
        attention_resolutions: Sequence[int] | str = (32, 16, 8),
        num_head_channels: int = 64,
        resblock_updown: bool = True,
        use_scale_shift_norm: bool = True,
        learn_sigma: bool = True,
    ) -> None:
        super().__init__()
        mult, sides = _numbers(channel_mult), _numbers(attention_resolutions)
        factors = {image_size // side for side in sides}
        self.num_channels, self.learn_sigma = num_channels, learn_sigma
        self.image_size = image_size
        self.multiple = 2 ** (len(mult) - 1)
        embedding = 4 * num_channels
        self.time_embed = nn.Sequential(nn.Linear(num_channels, embedding), nn.SiLU(), nn.Linear(embedding, embedding))

        def res(inputs: int, outputs: int, resize: str = "") -> ResBlock:
            return ResBlock(inputs, outputs, embedding, use_scale_shift_norm, resize)

        channels = mult[0] * num_channels
        self.input_blocks = nn.ModuleList([TimestepSequential(nn.Conv2d(3, channels, 3, padding=1))])
        skips, factor = [channels], 1
        for level, m in enumerate(mult):
            for _ in range(num_res_blocks):
                layers: list[nn.Module] = [res(channels, m * num_channels)]
                channels = m * num_channels
                if factor in factors:
                    layers.append(AttentionBlock(channels, num_head_channels))
                self.input_blocks.append(TimestepSequential(*layers))
                skips.append(channels)
            if level < len(mult) - 1:
                down = res(channels, channels, "down") if resblock_updown else Downsample(channels)
                self.input_blocks.append(TimestepSequential(down))
                skips.append(channels)
                factor *= 2
        self.middle_block = TimestepSequential(
            res(channels, channels), AttentionBlock(channels, num_head_channels), res(channels, channels)
        )
        self.output_blocks = nn.ModuleList()
        for level, m in reversed(list(enumerate(mult))):
            for i in range(num_res_blocks + 1):
                layers = [res(channels + skips.pop(), m * num_channels)]
                channels = m * num_channels
                if factor in factors:
                    layers.append(AttentionBlock(channels, num_head_channels))
                if level and i == num_res_blocks:
                    layers.append(res(channels, channels, "up") if resblock_updown else Upsample(channels))
                    factor //= 2
                self.output_blocks.append(TimestepSequential(*layers))
        last = zeroed(nn.Conv2d(channels, 6 if learn_sigma else 3, 3, padding=1))
        self.out = nn.Sequential(Norm(channels), nn.SiLU(), last)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """States (N, 3, H, W), pictures in [-1, 1], sides multiples of `multiple`; times (N,) or (1,), 0 to 999.

        Returns:
            Noise (N, 3, H, W); with `learn_sigma` (N, 6, H, W), the variance's place between its bounds behind it.
        """
        dtype = next(self.parameters()).dtype
        embedding = self.time_embed(timestep_embedding(t, self.num_channels).to(dtype))
        h, hidden = x.to(dtype), []
        for block in self.input_blocks:
            h = block(h, embedding)
            hidden.append(h)
        h = self.middle_block(h, embedding)
        for block in self.output_blocks:
            h = block(torch.cat([h, hidden.pop()], dim=1), embedding)
        out: Tensor = self.out(h)
        return out.to(x.dtype)


def _numbers(given: Sequence[int] | str) -> tuple[int, ...]:
    return tuple(map(int, given.split(",") if isinstance(given, str) else given))


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """The configuration of an unconditional guided-diffusion file, from its shapes; None where it is another.

    The channels of an attention head leave no trace in the shapes. They are taken for 64, as published, or for half
    the narrowest attention layer's channels where that is narrower than 128.
    """
    if "label_emb.weight" in shapes:
        return None
    channels = shapes["time_embed.0.weight"][1]
    blocks = 1 + max(int(key.split(".")[1]) for key in shapes if key.startswith("input_blocks."))
    widths, attention, level_blocks, factor, factors = [], [], 0, 1, set()
    counts: list[int] = []
    # A block that changes the resolution ends a level. Among residual blocks it is the one that follows as many blocks
    # as the level has; how many that are, the number of output blocks tells.
    outputs = 1 + max(int(key.split(".")[1]) for key in shapes if key.startswith("output_blocks."))
    # input: levels * n + levels, output: levels * (n + 1): the same number, so `levels` comes from the up blocks.
    plain = any(key.endswith(".0.op.weight") for key in shapes)
    ups = {key.split(".")[1] for key in shapes if key.startswith("output_blocks.") and _is_up(key)}
    levels = len(ups) + 1
    if blocks != outputs or blocks % levels:
        return None
    res_blocks = blocks // levels - 1
    for index in range(1, blocks):
        if index % (res_blocks + 1) == 0:
            counts.append(level_blocks)
            factor, level_blocks = 2 * factor, 0
            continue
        level_blocks += 1
        weight = shapes.get(f"input_blocks.{index}.0.out_layers.3.weight")
        if weight is None:
            return None
        if level_blocks == 1:
            widths.append(weight[0])
        if f"input_blocks.{index}.1.qkv.weight" in shapes:
            factors.add(factor)
            attention.append(weight[0])
    attention.append(shapes["middle_block.1.norm.weight"][0])
    narrowest = min(attention)
    size = 256 if len(widths) >= 6 else 64
    emb, first = shapes["middle_block.0.emb_layers.1.weight"][0], shapes["middle_block.0.out_layers.3.weight"][0]
    return {
        "image_size": size,
        "num_channels": channels,
        "num_res_blocks": res_blocks,
        "channel_mult": [width // channels for width in widths],
        "attention_resolutions": sorted((size // f for f in factors), reverse=True),
        "num_head_channels": 64 if narrowest % 64 == 0 and narrowest >= 128 else narrowest // 2,
        "resblock_updown": not plain,
        "use_scale_shift_norm": emb == 2 * first,
        "learn_sigma": shapes["out.2.weight"][0] == 6,
    }


def _is_up(key: str) -> bool:
    """Whether a tensor belongs to a layer that doubles the resolution: a residual block or convolution that is not the
    first layer of its output block."""
    parts = key.split(".")
    return parts[2] != "0" and (parts[3] == "conv" or (parts[3] == "in_layers" and parts[4] == "0"))
