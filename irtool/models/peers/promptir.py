"""PromptIR: a Restormer whose decoder is led by learned prompts (Potlapalli et al., NeurIPS 2023; Zamir et al. 2022).

Attention runs across channels, so that it costs as much per pixel whatever the size, and sees the whole picture. At
three levels of the decoder a prompt is mixed from learned ones, by what the features are on average, and joins them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import SinglePassModel
from .wrap import info


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel."""

    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.body = nn.ParameterDict({"weight": torch.ones(width)} | ({"bias": torch.zeros(width)} if bias else {}))

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=1, keepdim=True, correction=0)
        scale = self.body["weight"][:, None, None] / torch.sqrt(variance + 1e-5)
        return (x - mean) * scale + self.body["bias"][:, None, None] if "bias" in self.body else x * scale


class Attention(nn.Module):
    """Transposed attention: channels attend to channels, over all pixels."""

    def __init__(self, width: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(width, 3 * width, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(3 * width, 3 * width, 3, padding=1, groups=3 * width, bias=bias)
        self.project_out = nn.Conv2d(width, width, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.temperature.shape[0]
        q, k, v = (part.flatten(2).unflatten(1, (heads, -1)) for part in self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1))
        mixing = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature).softmax(dim=-1)
        return self.project_out((mixing @ v).flatten(1, 2).unflatten(2, x.shape[-2:]))


class FeedForward(nn.Module):
    """Gated: one half, through GELU, lets the other pass."""

    def __init__(self, width: int, expansion: float, bias: bool) -> None:
        super().__init__()
        hidden = int(width * expansion)
        self.project_in = nn.Conv2d(width, 2 * hidden, 1, bias=bias)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden, width, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, passed = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        return self.project_out(F.gelu(gate) * passed)


class Block(nn.Module):
    def __init__(self, width: int, heads: int, expansion: float, bias: bool, norm_bias: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(width, norm_bias), ChannelNorm(width, norm_bias)
        self.attn, self.ffn = Attention(width, heads, bias), FeedForward(width, expansion, bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class Prompt(nn.Module):
    """(N, C, H, W) -> a prompt (N, P, H, W), mixed from learned ones."""

    def __init__(self, width: int, size: int, length: int, features: int) -> None:
        super().__init__()
        self.prompt_param = nn.Parameter(torch.rand(1, length, width, size, size))
        self.linear_layer = nn.Linear(features, length)
        self.conv3x3 = nn.Conv2d(width, width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        shares = self.linear_layer(x.mean(dim=(2, 3))).softmax(dim=1)
        prompt = torch.einsum("nl,lchw->nchw", shares, self.prompt_param[0])
        return self.conv3x3(F.interpolate(prompt, x.shape[-2:], mode="bilinear"))


class Down(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(width, width // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Up(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(width, 2 * width, 3, padding=1, bias=False), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Embedding(nn.Module):
    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class PromptIR(nn.Module):
    """The network.

    Args:
        dim: feature maps at full resolution.
        blocks: in each of the four levels.
        refinement: blocks behind them.
        heads: of the attention at each level.
        expansion: of the hidden layer in a feed-forward.
        bias, norm_bias: whether convolutions and norms have one.
        prompts: width of the prompts, from fine to coarse.
        sizes: their sides.
        length: learned prompts at each level.
        reduced: channels of a layer that is in the published files and unused.
    """

    def __init__(
        self,
        dim: int = 48,
        blocks: Sequence[int] = (4, 6, 6, 8),
        refinement: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        expansion: float = 2.66,
        bias: bool = False,
        norm_bias: bool = True,
        prompts: Sequence[int] = (64, 128, 320),
        sizes: Sequence[int] = (64, 32, 16),
        length: int = 5,
        reduced: int = 256,
    ) -> None:
        super().__init__()
        self.dim = dim

        def block(width: int, head: int) -> Block:
            return Block(width, head, expansion, bias, norm_bias)

        def level(width: int, head: int, count: int) -> nn.Sequential:
            return nn.Sequential(*(block(width, head) for _ in range(count)))

        def squeeze(channels: int, out: int) -> nn.Conv2d:
            return nn.Conv2d(channels, out, 1, bias=bias)

        p1, p2, p3 = prompts
        self.patch_embed = Embedding(dim, False)
        self.prompt1, self.prompt2, self.prompt3 = (
            Prompt(width, size, length, features)
            for width, size, features in zip(prompts, sizes, (2 * dim, 4 * dim, 8 * dim), strict=True)
        )
        # In the published files, and used nowhere.
        self.chnl_reduce1, self.chnl_reduce2, self.chnl_reduce3 = squeeze(p1, p1), squeeze(p2, p2), squeeze(p3, reduced)
        self.reduce_noise_channel_1 = squeeze(dim + p1, dim)
        self.reduce_noise_channel_2 = squeeze(2 * dim + p2, 2 * dim)
        self.reduce_noise_channel_3 = squeeze(4 * dim + reduced, 4 * dim)
        self.encoder_level1, self.down1_2 = level(dim, heads[0], blocks[0]), Down(dim)
        self.encoder_level2, self.down2_3 = level(2 * dim, heads[1], blocks[1]), Down(2 * dim)
        self.encoder_level3, self.down3_4 = level(4 * dim, heads[2], blocks[2]), Down(4 * dim)
        self.latent = level(8 * dim, heads[3], blocks[3])
        self.noise_level3, self.reduce_noise_level3 = block(8 * dim + p3, heads[2]), squeeze(8 * dim + p3, 4 * dim)
        self.up4_3, self.reduce_chan_level3 = Up(4 * dim), squeeze(6 * dim, 4 * dim)
        self.decoder_level3 = level(4 * dim, heads[2], blocks[2])
        self.noise_level2, self.reduce_noise_level2 = block(4 * dim + p2, heads[2]), squeeze(4 * dim + p2, 4 * dim)
        self.up3_2, self.reduce_chan_level2 = Up(4 * dim), squeeze(4 * dim, 2 * dim)
        self.decoder_level2 = level(2 * dim, heads[1], blocks[1])
        self.noise_level1, self.reduce_noise_level1 = block(2 * dim + p1, heads[2]), squeeze(2 * dim + p1, 2 * dim)
        self.up2_1 = Up(2 * dim)
        self.decoder_level1 = level(2 * dim, heads[0], blocks[0])
        self.refinement = level(2 * dim, heads[0], refinement)
        self.output = nn.Conv2d(2 * dim, 3, 3, padding=1, bias=bias)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the same shape, not clipped; sides that are no multiples of 8 are padded."""
        height, width = image.shape[-2:]
        padded = F.pad(image, (0, -width % 8, 0, -height % 8), mode="replicate")
        one = self.encoder_level1(self.patch_embed(padded))
        two = self.encoder_level2(self.down1_2(one))
        three = self.encoder_level3(self.down2_3(two))
        x = self.latent(self.down3_4(three))
        x = self.reduce_noise_level3(self.noise_level3(torch.cat([x, self.prompt3(x)], dim=1)))
        x = self.decoder_level3(self.reduce_chan_level3(torch.cat([self.up4_3(x), three], dim=1)))
        x = self.reduce_noise_level2(self.noise_level2(torch.cat([x, self.prompt2(x)], dim=1)))
        x = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2(x), two], dim=1)))
        x = self.reduce_noise_level1(self.noise_level1(torch.cat([x, self.prompt1(x)], dim=1)))
        x = self.refinement(self.decoder_level1(torch.cat([self.up2_1(x), one], dim=1)))
        return (self.output(x) + padded)[..., :height, :width]


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Configuration of `PromptIR` from its tensors, None where these are not its."""
    dim = shapes["patch_embed.proj.weight"][0]
    if shapes["reduce_noise_level3.weight"][0] != 4 * dim or shapes["prompt1.prompt_param"][0] != 1:
        return None

    def count(prefix: str) -> int:
        return sum(f"{prefix}.{i}.attn.temperature" in shapes for i in range(99))

    levels = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
    params = [shapes[f"prompt{i}.prompt_param"] for i in (1, 2, 3)]
    hidden = shapes["latent.0.ffn.project_out.weight"][1]
    expansion = next(e for e in (2.66, hidden / (8 * dim), (hidden + 0.5) / (8 * dim)) if int(8 * dim * e) == hidden)
    return {
        "dim": dim,
        "blocks": [count(level) for level in levels],
        "refinement": count("refinement"),
        "heads": [shapes[f"{level}.0.attn.temperature"][0] for level in levels],
        "expansion": expansion,
        "bias": "latent.0.attn.qkv.bias" in shapes,
        "norm_bias": "latent.0.norm1.body.bias" in shapes,
        "prompts": [param[2] for param in params],
        "sizes": [param[3] for param in params],
        "length": params[0][1],
        "reduced": shapes["chnl_reduce3.weight"][0],
    }


def restorer(net: PromptIR, header: Mapping[str, str]) -> SinglePassModel:
    """The model of a loaded network; the three tasks of its joint weights unless its record names others."""
    return SinglePassModel(
        net,
        info(
            net,
            header,
            "promptir",
            "noise",
            "rain",
            "haze",
            overlap=64,
            tiling="blended",
            live=16 * net.dim,
            multiple=8,
        ),
    )
