"""The parts that the noise-prediction U-Nets of IR-SDE, DA-CLIP and Refusion share.

State-dict names are the published ones (Algolzw/image-restoration-sde and Algolzw/daclip-uir). What they compute is
published too; how is our own, and exact up to rounding:

* everything runs on channels-last memory, where a normalisation over channels is one fused kernel and a 1x1
  convolution one matrix product (`PixelConv`);
* doubling the resolution before a 3x3 convolution is done by a 2x2 convolution that gives all four phases;
* linear attention is a single sweep over the tokens for its 32x32 contexts, which are then folded into the output
  projection, and a second one that adds the result to the features: no map of the whole picture in between;
* self-attention never holds the token-by-token map;
* cross-attention to one token is what it amounts to, a vector added to every position.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD = 32  # channels of an attention head, in every published network of the family
TOKENS = 1 << 12  # looked at together where no gradient is wanted: what a CPU's cache holds


class Times(nn.Module):
    """Sinusoidal features of time steps: (N,) -> (N, size), sines first (Vaswani et al., 2017)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, t: Tensor) -> Tensor:
        half = self.size // 2
        rate = torch.exp(torch.arange(half, device=t.device) * -(math.log(10000) / (half - 1)))
        angle = t.float()[:, None] * rate
        return torch.cat([angle.sin(), angle.cos()], dim=1)


def as_times(t: Tensor | float, x: Tensor) -> Tensor:
    """A time, or one per sample, as a vector of length 1 or N on the device of `x`."""
    return torch.as_tensor(t, device=x.device, dtype=torch.float32).reshape(-1)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` over tokens (N, L, inputs) with weight (outputs, inputs), by the quicker of the CPU's two libraries.

    In float32 torch multiplies by MKL, which keeps its widest instructions from processors of other makers and is half
    as fast as oneDNN there; torch calls oneDNN for convolutions alone. Both round to float32 alike.
    """
    quick = x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    if not quick or x.ndim != 3 or torch.is_grad_enabled():
        return F.linear(x, weight, bias)
    image = x.transpose(1, 2)[:, :, None]  # (N, inputs, 1, L), channels last
    y = torch.mkldnn_convolution(image, weight[:, :, None, None], bias, (0, 0), (1, 1), (1, 1), 1)
    return y[:, :, 0].transpose(1, 2)


def per_pixel(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.conv2d` with a 1x1 weight, as a matrix product over the pixels."""
    y = linear(_tokens(x), weight.flatten(1), bias)
    return y.unflatten(1, x.shape[-2:]).permute(0, 3, 1, 2)


class PixelConv(nn.Conv2d):
    """A 1x1 convolution by `per_pixel`."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W), channels last in memory -> (N, outputs, H, W), likewise."""
        return per_pixel(x, self.weight, self.bias)


class Linear(nn.Linear):
    """`torch.nn.Linear` through `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class ChannelNorm(nn.Module):
    """Normalisation over the channels of each pixel, with a gain and no shift.

    The published code takes eps 1e-5 in float32 and 1e-3 otherwise. Sums are kept in float32 here whatever the type,
    so the float32 value serves all.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        return self.tokens(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def tokens(self, x: Tensor) -> Tensor:
        """The same of features (..., C)."""
        return F.layer_norm(x, x.shape[-1:], self.g.flatten(), None, 1e-5)


class PreNorm(nn.Module):
    """``fn`` of the normalised features (N, C, H, W), under the published names."""

    def __init__(self, channels: int, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn
        self.norm = ChannelNorm(channels)

    def forward(self, x: Tensor, *context: Tensor | None) -> Tensor:
        return self.fn(self.norm(x), *context)


class Residual(nn.Module):
    """Features (N, C, H, W) and what ``fn`` makes of them, added."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor, *context: Tensor | None) -> Tensor:
        inside = getattr(self.fn, "fn", None)
        if isinstance(inside, LinearAttention):
            return inside.added(x, self.fn.norm)  # type: ignore[arg-type]
        return x + self.fn(x, *context)


class _Convolution(nn.Module):
    """A 3x3 convolution under the name that the published blocks give it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)


class ResBlock(nn.Module):
    """Two 3x3 convolutions with SiLU and a shortcut; time scales and shifts the features between them.

    Args:
        inputs, outputs: channels.
        times: size of the time embedding, None for a block that has none.
    """

    def __init__(self, inputs: int, outputs: int, times: int | None = None) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(times, 2 * outputs)) if times is not None else None
        self.block1, self.block2 = _Convolution(inputs, outputs), _Convolution(outputs, outputs)
        self.res_conv = PixelConv(inputs, outputs, bias=False) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor | None = None, skip: Tensor | None = None) -> Tensor:
        """x (N, inputs, H, W), or its first channels and the others as `skip`; time (1 or N, times).

        Returns:
            (N, outputs, H, W).
        """
        inner, weight, shift = not torch.is_grad_enabled(), self.block1.proj.weight, None
        # What is done to the weights instead of the features costs less at the levels with many pixels.
        large = inner and weight.numel() < x.numel()
        if skip is not None and not large:
            x, skip = torch.cat([x, skip], dim=1), None
        time_shift = None if self.mlp is None or time is None else self.mlp(time).chunk(2, dim=1)
        if time_shift is not None and large and len(time_shift[0]) == 1:
            weight, shift, time_shift = weight * (1 + time_shift[0]).view(-1, 1, 1, 1), time_shift[1][0], None
        (x, first), *rest = _by_input(x, skip, weight)
        y = F.conv2d(x, first, shift, padding=1)
        for source, matrix in rest:
            y.add_(F.conv2d(source, matrix, padding=1))
        if time_shift is not None:
            y = torch.addcmul(time_shift[1][..., None, None], y, 1 + time_shift[0][..., None, None])
        y = F.silu(self.block2.proj(F.silu(y, inplace=inner)), inplace=inner)
        if not isinstance(self.res_conv, PixelConv):
            return y.add_(x) if inner else y + x
        if not inner:
            return y + self.res_conv(x)
        tokens = _tokens(y)
        for source, matrix in _by_input(x, skip, self.res_conv.weight.flatten(1)):
            for part, out in zip(_parts(_tokens(source)), _parts(tokens), strict=True):
                out.add_(linear(part, matrix))
        return tokens.unflatten(1, y.shape[-2:]).permute(0, 3, 1, 2)


def _tokens(x: Tensor) -> Tensor:
    """Features (N, C, H, W), channels last in memory, as tokens (N, H W, C)."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _parts(tokens: Tensor) -> tuple[Tensor, ...]:
    """Views of the tokens (N, L, C) that are looked at together where no gradient is wanted."""
    most = TOKENS if tokens.device.type == "cpu" else 64 * TOKENS
    return tokens.split(max(1, most // len(tokens)), dim=1)


def _by_input(x: Tensor, skip: Tensor | None, weight: Tensor) -> list[tuple[Tensor, Tensor]]:
    """x and skip, each with its own inputs' part of a weight (outputs, inputs, ...) for both side by side."""
    if skip is None:
        return [(x, weight)]
    first, second = weight.split([x.shape[1], skip.shape[1]], dim=1)
    return [(x, first), (skip, second)]


class LinearAttention(nn.Module):
    """Attention whose cost is linear in the pixels (Shen et al., 2021), as the published U-Nets have it.

    With softmax over the channels of a head for the queries q and over space for the keys k:
    ``y = norm(W_o (context^T q / sqrt(d)) + b)``, ``context = k v^T / (H W)``.
    """

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Conv2d(channels, 3 * heads * HEAD, 1, bias=False)
        self.to_out: Any = nn.Sequential(nn.Conv2d(heads * HEAD, channels, 1), ChannelNorm(channels))

    def added(self, x: Tensor, norm: ChannelNorm) -> Tensor:
        """x and the attention of norm(x), added: part by part, so that no map between the two is ever whole.

        x (N, C, H, W) -> the same shape; where no gradient is wanted it is x itself that is added to.
        """
        n, _c, h, w = x.shape
        hidden, count, inner = self.heads * HEAD, h * w, not torch.is_grad_enabled()
        tokens = _tokens(x)
        w_qkv, w_out = self.to_qkv.weight.flatten(1), self.to_out[0].weight.flatten(1)
        parts = _parts(tokens) if inner else (tokens,)

        # The softmax over space in one sweep: sums so far, brought to the largest key so far.
        top = sums = context = torch.empty(0)
        for i, part in enumerate(parts):
            k, v = (y.unflatten(2, (self.heads, HEAD)) for y in linear(norm.tokens(part), w_qkv[hidden:]).chunk(2, 2))
            k = k.float()
            high = torch.maximum(top, k.amax(1)) if i else k.amax(1)  # (N, heads, d)
            k = (k - high[:, None]).exp()
            keys_values = torch.einsum("nlhd,nlhe->nhde", k, v.float())
            if i:
                fade = (top - high).exp()
                sums, context = sums * fade + k.sum(1), context * fade[..., None] + keys_values
            else:
                sums, context = k.sum(1), keys_values
            top = high
        context = context * (HEAD**-0.5 / count) / sums[..., None]
        # Context and output projection make one matrix (N, C, hidden).
        folded = torch.einsum("nhde,che->nchd", context, w_out.unflatten(1, (self.heads, HEAD)).float())
        folded = folded.flatten(2).to(x.dtype)

        for part in parts:
            q = linear(norm.tokens(part), w_qkv[:hidden]).unflatten(2, (self.heads, HEAD)).softmax(-1).flatten(2)
            out = [linear(each[None], matrix, self.to_out[0].bias) for each, matrix in zip(q, folded, strict=True)]
            y = self.to_out[1].tokens(out[0] if n == 1 else torch.cat(out))
            if inner:
                part.add_(y)
            else:
                tokens = part + y
        return tokens.unflatten(1, (h, w)).permute(0, 3, 1, 2)


class FullAttention(nn.Module):
    """Softmax attention over all pixels, as the middle of the denoising-SDE U-Net has it."""

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Conv2d(channels, 3 * heads * HEAD, 1, bias=False)
        self.to_out = nn.Conv2d(heads * HEAD, channels, 1)

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        n, _c, h, w = x.shape
        tokens = linear(_tokens(x), self.to_qkv.weight.flatten(1))
        q, k, v = tokens.unflatten(2, (3, self.heads, HEAD)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, h * w, -1)
        y = linear(y, self.to_out.weight.flatten(1), self.to_out.bias)
        return y.view(n, h, w, -1).permute(0, 3, 1, 2)


class _Attention(nn.Module):
    def __init__(self, channels: int, source: int) -> None:
        super().__init__()
        self.to_q = Linear(channels, channels, bias=False)
        self.to_k = Linear(source, channels, bias=False)
        self.to_v = Linear(source, channels, bias=False)
        self.to_out = nn.Sequential(Linear(channels, channels), nn.Identity())


class _Gated(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.proj = Linear(channels, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        (w, w_gate), (b, b_gate) = self.proj.weight.chunk(2), self.proj.bias.chunk(2)
        return linear(x, w, b) * F.gelu(linear(x, w_gate, b_gate))


class _FeedForward(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(_Gated(channels, 4 * channels), nn.Identity(), Linear(4 * channels, channels))


class _TransformerBlock(nn.Module):
    """Self-attention, cross-attention to one token, gated feed-forward; each normed before and added."""

    def __init__(self, channels: int, source: int) -> None:
        super().__init__()
        self.heads = channels // HEAD
        self.attn1, self.attn2 = _Attention(channels, channels), _Attention(channels, source)
        self.ff = _FeedForward(channels)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x (N, L, C), context (N, K) -> (N, L, C)."""
        y, a = self.norm1(x), self.attn1
        q, k, v = (f(y).unflatten(2, (self.heads, HEAD)).transpose(1, 2) for f in (a.to_q, a.to_k, a.to_v))
        x = x + a.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        # Softmax over a single key is 1, whatever the query: to_q, to_k and norm2 are in the files and do nothing.
        x = x + self.attn2.to_out(self.attn2.to_v(context))[:, None]
        return x + self.ff.net(self.norm3(x))


class SpatialTransformer(nn.Module):
    """A transformer over pixels that is told what the picture shows (Rombach et al., CVPR 2022).

    Args:
        channels: a multiple of 32.
        source: size of the embedding it is told.
    """

    def __init__(self, channels: int, source: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, channels, eps=1e-6)
        self.proj_in = PixelConv(channels, channels)
        self.transformer_blocks = nn.ModuleList([_TransformerBlock(channels, source)])
        self.proj_out = PixelConv(channels, channels)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x (N, C, H, W), context (N, source) -> (N, C, H, W)."""
        n, c, h, w = x.shape
        tokens = _tokens(self.proj_in(self.norm(x)))
        tokens = self.transformer_blocks[0](tokens, context)
        return self.proj_out(tokens.view(n, h, w, c).permute(0, 3, 1, 2)) + x


def down(inputs: int, outputs: int, last: bool) -> nn.Module:
    """To half the resolution; the last level keeps it."""
    return nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False) if last else nn.Conv2d(inputs, outputs, 4, 2, 1)


class Up(nn.Sequential):
    """Twice the resolution by repetition, then a 3x3 convolution.

    Of a repeated pixel's three rows under the kernel two are the same, so each of the four phases of the result is a
    2x2 convolution of the picture as it was, its weights sums of the given ones: 4 products for 9.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(inputs, outputs, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, 2 H, 2 W)."""
        conv: Any = self[1]
        if torch.is_grad_enabled():
            return conv(self[0](x))
        n, _, h, w = x.shape
        weight = torch.cat([both for rows in _phases(conv.weight, 2) for both in _phases(rows, 3)])
        phases = F.conv2d(x, weight, conv.bias.repeat(4), padding=1).chunk(4, dim=1)
        y = x.new_empty(n, 2 * h, 2 * w, conv.out_channels).permute(0, 3, 1, 2)
        for i, phase in enumerate(phases):
            a, b = divmod(i, 2)
            y[..., a::2, b::2] = phase[..., a : a + h, b : b + w]
        return y


def _phases(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """For even and odd pixels of the result: three weights along `dim` as the two that they amount to."""
    first, middle, last = weight.split(1, dim)
    return torch.cat([first, middle + last], dim), torch.cat([first + middle, last], dim)


def up(inputs: int, outputs: int, last: bool) -> nn.Module:
    """To twice the resolution; the last level keeps it."""
    if last:
        return nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)
    return Up(inputs, outputs)
