"""IAT: exposure corrected by local maps and a global camera transform (Cui et al., BMVC 2022).

A convolutional branch at full resolution gives a map to multiply and one to add per pixel; a small transformer looks at
the whole picture and gives a 3x3 colour matrix and a gamma (eq. 3). What the second gives is taken once per picture, so
that tiles agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import SinglePassModel
from .wrap import info

HEADS, DARKEST = 4, 1e-8


class ColorNorm(nn.Module):
    """In place of a layer norm: channels mixed by a matrix, scaled and shifted; tokens (N, P, C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha, self.beta = nn.Parameter(torch.ones(1, 1, width)), nn.Parameter(torch.zeros(1, 1, width))
        self.color = nn.Parameter(torch.eye(width))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.color.t()) * self.alpha + self.beta


class ConvMLP(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(width, hidden, 1), nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class LocalBlock(nn.Module):
    """A transformer block with a depth-wise convolution for attention."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.gamma_1, self.gamma_2 = (nn.Parameter(torch.ones(1, width, 1, 1)) for _ in range(2))
        self.pos_embed = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm1, self.norm2 = ColorNorm(width), ColorNorm(width)
        self.conv1, self.conv2 = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
        self.attn = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.mlp = ConvMLP(width, ratio * width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.pos_embed(x)
        x = x + self.gamma_1 * self.conv2(self.attn(self.conv1(_over_channels(self.norm1, x))))
        return x + self.gamma_2 * self.mlp(_over_channels(self.norm2, x))


def _over_channels(norm: nn.Module, x: Tensor) -> Tensor:
    return norm(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)


class LocalNet(nn.Module):
    """Maps to multiply and to add (N, 3, H, W) for a picture."""

    def __init__(self, width: int, depth: int, ratio: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.mul_blocks, self.add_blocks = (
            nn.Sequential(*(LocalBlock(width, ratio) for _ in range(depth))) for _ in range(2)
        )
        self.mul_end = nn.Sequential(nn.Conv2d(width, 3, 3, padding=1), nn.ReLU())
        self.add_end = nn.Sequential(nn.Conv2d(width, 3, 3, padding=1), nn.Tanh())

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = F.leaky_relu(self.conv1(image), 0.2)
        return self.mul_end(self.mul_blocks(x) + x), self.add_end(self.add_blocks(x) + x)


class Embedding(nn.Module):
    """Features at a quarter of the resolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.proj = nn.Sequential(
            nn.Conv2d(3, half, 3, stride=2, padding=1),
            nn.BatchNorm2d(half),
            nn.GELU(),
            nn.Conv2d(half, width, 3, stride=2, padding=1),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class QueryAttention(nn.Module):
    """Learned queries, one for the gamma and nine for the colour matrix, look at all tokens."""

    def __init__(self, width: int, queries: int) -> None:
        super().__init__()
        self.q = nn.Parameter(torch.ones(1, queries, width))
        self.k, self.v = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        def heads(t: Tensor) -> Tensor:
            return t.unflatten(2, (HEADS, -1)).transpose(1, 2)

        q = self.q.expand(x.shape[0], -1, -1)
        attended = F.scaled_dot_product_attention(heads(q), heads(self.k(x)), heads(self.v(x)))
        return self.proj(attended.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class QueryBlock(nn.Module):
    def __init__(self, width: int, queries: int, hidden: int) -> None:
        super().__init__()
        self.pos_embed = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = QueryAttention(width, queries), MLP(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = (x + self.pos_embed(x)).flatten(2).transpose(1, 2)
        x = self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class GlobalNet(nn.Module):
    """Gamma (N, 1) and colour matrix (N, 9) of a picture, each a published base plus what is seen."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gamma_base, self.color_base = nn.Parameter(torch.ones(1)), nn.Parameter(torch.eye(3))
        self.conv_large = Embedding(width)
        self.generator = QueryBlock(width, 10, hidden)
        self.gamma_linear, self.color_linear = nn.Linear(width, 1), nn.Linear(width, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.generator(self.conv_large(image))
        gamma = self.gamma_linear(features[:, :1]).flatten(1) + self.gamma_base
        return gamma, self.color_linear(features[:, 1:]).flatten(1) + self.color_base.flatten()


class IAT(nn.Module):
    """The network.

    Args:
        width, depth, ratio: of the local branch: feature maps, blocks, growth in the hidden layer of a block.
        wide, hidden: of the global branch: size of a token, of the hidden layer.
    """

    def __init__(self, width: int = 16, depth: int = 3, ratio: int = 4, wide: int = 64, hidden: int = 256) -> None:
        super().__init__()
        self.local_net, self.global_net = LocalNet(width, depth, ratio), GlobalNet(wide, hidden)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the same shape, at least 0."""
        return self.develop(self.local(image), *self.global_net(image))

    def local(self, image: Tensor) -> Tensor:
        """The local branch alone: same shape."""
        times, plus = self.local_net(image)
        return image * times + plus

    @staticmethod
    def develop(image: Tensor, gamma: Tensor, color: Tensor) -> Tensor:
        """Colour matrix (N, 9), clip, gamma (N, 1)."""
        mixed = torch.einsum("noc,nchw->nohw", color.reshape(-1, 3, 3), image).clamp(DARKEST, 1)
        return mixed ** gamma[:, :, None, None]


class IATModel(SinglePassModel):
    """The local branch in tiles, the global one once."""

    def prepare(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The image, and its gamma and color matrix (1, 10)."""
        with torch.inference_mode():
            placed = image.to(self.placed.device, self.placed.dtype)
            return image, torch.cat(self.net.global_net(placed), dim=1).float()

    def forward(self, tile: Tensor, context: Tensor) -> Tensor:
        return IAT.develop(self.net.local(tile).float(), context[:, :1], context[:, 1:])


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Configuration of `IAT` from its tensors, None where these are not its."""
    width, wide = shapes["local_net.conv1.weight"][0], shapes["global_net.gamma_linear.weight"][1]
    if shapes["global_net.generator.attn.q"] != (1, 10, wide):
        return None
    return {
        "width": width,
        "depth": sum(f"local_net.mul_blocks.{i}.gamma_1" in shapes for i in range(99)),
        "ratio": shapes["local_net.mul_blocks.0.mlp.fc1.weight"][0] // width,
        "wide": wide,
        "hidden": shapes["global_net.generator.mlp.fc1.weight"][0],
    }


def restorer(net: IAT, header: Mapping[str, str]) -> IATModel:
    """The model of a loaded network."""
    width = net.local_net.conv1.out_channels
    return IATModel(net, info(net, header, "iat", "lowlight", overlap=16, live=16 * width))
