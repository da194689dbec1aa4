"""The universal U-Net and its sampler as published, re-stated plainly: the yardstick of benchmarks/diffusion.py.

Float32, the default memory layout, normalisations written out, linear attention with whole queries, keys and values,
self-attention through the whole token-by-token map, cross-attention computed as if there were many tokens, 100 steps of
Euler-Maruyama. It reads its weights from a state dict by their published names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


class PlainUNet:
    """The universal net (four levels), by the letter.

    Args:
        weights: state dict of `irtool.models.irsde_unet.ContextUNet`.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.w = weights

    def __call__(self, x: Tensor, mu: Tensor, t: float, degradation: Tensor, content: Tensor) -> Tensor:
        w, (h, wide) = self.w, x.shape[-2:]
        x = torch.cat([x - mu, mu], 1)
        x = F.pad(x, (0, -wide % 16, 0, -h % 16), mode="reflect")
        x = first = F.conv2d(x, w["init_conv.weight"], padding=3)
        half = w["time_mlp.1.weight"].shape[1] // 2
        angle = torch.tensor([t]).float()[:, None] * torch.exp(torch.arange(half) * -(math.log(10000) / (half - 1)))
        time = self.linear("time_mlp.3", F.gelu(self.linear("time_mlp.1", torch.cat([angle.sin(), angle.cos()], 1))))
        prompt = self.linear("text_mlp.2", F.silu(self.linear("text_mlp.0", degradation))).softmax(1) * w["prompt"]
        time = time + self.linear("prompt_mlp", prompt)
        skips = []
        for i in range(4):
            x = self.block(f"downs.{i}.0", x, time)
            skips.append(x)
            x = self.attention(f"downs.{i}.2", self.block(f"downs.{i}.1", x, time), content)
            skips.append(x)
            x = self.conv(f"downs.{i}.3", x, stride=2) if i < 3 else self.conv(f"downs.{i}.3", x)
        x = self.block("mid_block1", x, time)
        x = self.block("mid_block2", self.attention("mid_attn", x, content), time)
        for i in range(4):
            x = self.block(f"ups.{i}.0", torch.cat([x, skips.pop()], 1), time)
            x = self.block(f"ups.{i}.1", torch.cat([x, skips.pop()], 1), time)
            x = self.attention(f"ups.{i}.2", x, content)
            x = self.conv(f"ups.{i}.3.1", F.interpolate(x, scale_factor=2)) if i < 3 else self.conv(f"ups.{i}.3", x)
        x = self.block("final_res_block", torch.cat([x, first], 1), time)
        return self.conv("final_conv", x)[..., :h, :wide]

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.w[name + ".weight"], self.w.get(name + ".bias"))

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = self.w[name + ".weight"]
        return F.conv2d(x, weight, self.w.get(name + ".bias"), stride, (weight.shape[-1] - 1) // 2)

    def block(self, name: str, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.linear(name + ".mlp.1", F.silu(time))[..., None, None].chunk(2, 1)
        y = F.silu(self.conv(name + ".block1.proj", x) * (scale + 1) + shift)
        y = F.silu(self.conv(name + ".block2.proj", y))
        return y + (self.conv(name + ".res_conv", x) if name + ".res_conv.weight" in self.w else x)

    def norm(self, name: str, x: Tensor) -> Tensor:
        variance, mean = torch.var(x, dim=1, unbiased=False, keepdim=True), torch.mean(x, dim=1, keepdim=True)
        return (x - mean) * (variance + 1e-5).rsqrt() * self.w[name + ".g"]

    def attention(self, name: str, x: Tensor, content: Tensor) -> Tensor:
        y = self.norm(name + ".fn.norm", x)
        inner = name + ".fn.fn"
        if inner + ".to_qkv.weight" in self.w:
            return x + self.linear_attention(inner, y)
        return x + self.transformer(inner, y, content)

    def linear_attention(self, name: str, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        q, k, v = (y.reshape(b, 4, 32, h * w) for y in self.conv(name + ".to_qkv", x).chunk(3, 1))
        q, k, v = q.softmax(-2) * 32**-0.5, k.softmax(-1), v / (h * w)
        context = torch.einsum("bhdn,bhen->bhde", k, v)
        out = torch.einsum("bhde,bhdn->bhen", context, q).reshape(b, 128, h, w)
        return self.norm(name + ".to_out.1", self.conv(name + ".to_out.0", out))

    def transformer(self, name: str, x: Tensor, content: Tensor) -> Tensor:
        b, c, h, w = x.shape
        y = F.group_norm(x, 32, self.w[name + ".norm.weight"], self.w[name + ".norm.bias"], 1e-6)
        y = self.conv(name + ".proj_in", y).reshape(b, c, h * w).transpose(1, 2)
        inner = name + ".transformer_blocks.0"

        def norm(number: int, z: Tensor) -> Tensor:
            return F.layer_norm(z, (c,), self.w[f"{inner}.norm{number}.weight"], self.w[f"{inner}.norm{number}.bias"])

        z = norm(1, y)
        y = y + self.cross(inner + ".attn1", z, z)
        y = y + self.cross(inner + ".attn2", norm(2, y), content[:, None])
        z, gate = self.linear(inner + ".ff.net.0.proj", norm(3, y)).chunk(2, -1)
        y = y + self.linear(inner + ".ff.net.2", z * F.gelu(gate))
        return self.conv(name + ".proj_out", y.transpose(1, 2).reshape(b, c, h, w)) + x

    def cross(self, name: str, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = (
            y.reshape(y.shape[0], y.shape[1], -1, 32).transpose(1, 2)
            for y in (
                self.linear(name + ".to_q", x),
                self.linear(name + ".to_k", context),
                self.linear(name + ".to_v", context),
            )
        )
        seen = (torch.einsum("bhid,bhjd->bhij", q, k) * 32**-0.5).softmax(-1)
        out = torch.einsum("bhij,bhjd->bhid", seen, v)
        return self.linear(name + ".to_out.0", out.transpose(1, 2).flatten(2))


def reverse_sde(net: object, mu: Tensor, steps: int = 100, max_sigma: float = 50 / 255, eps: float = 0.005) -> Tensor:
    """The published sampler: cosine schedule, Euler-Maruyama."""
    k = torch.arange(steps + 3) / (steps + 2)
    alpha = torch.cos((k + 0.008) / 1.008 * math.pi / 2) ** 2
    theta = (1 - alpha / alpha[0])[1:-1]
    total = theta.cumsum(0) - theta[0]
    dt = -math.log(eps) / total[-1]
    x = mu + max_sigma * torch.randn_like(mu)
    for t in range(steps, 0, -1):
        noise = net(x, mu, t)  # type: ignore[operator]
        score = -noise / (max_sigma * torch.sqrt(1 - torch.exp(-2 * total[t] * dt)))
        variance = 2 * max_sigma**2 * theta[t]
        x = x - (theta[t] * (mu - x) - variance * score) * dt - (variance * dt).sqrt() * torch.randn_like(x)
    return x
