"""Refusion's latent U-Net: a picture to a small latent and a list of features, and back (Luo et al., CVPRW 2023).

Diffusion then runs between latents of the degraded and the clean picture, with `refusion_nafnet` as noise predictor;
the features of the degraded picture go into decoding. The published code keeps the picture's size as state of the
module between the two halves; here it is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..ops import pad_to_multiple
from .unet_blocks import LinearAttention, PreNorm, ResBlock, Residual, down, up

Shapes = Mapping[str, tuple[int, ...]]


class LatentUNet(nn.Module):
    """Encoder and decoder with hidden skips.

    Args:
        in_ch, out_ch: channels of pictures.
        ch: width before the first level.
        ch_mult: width of each level in units of `ch`; the resolution halves at each but the last.
        embed_dim: channels of the latent.
    """

    def __init__(
        self, in_ch: int = 3, out_ch: int = 3, ch: int = 8, ch_mult: Sequence[int] = (4, 8, 8, 16), embed_dim: int = 8
    ) -> None:
        super().__init__()
        dims = [ch, *(ch * m for m in ch_mult)]
        levels = list(pairwise(dims))
        self.multiple = 2 ** len(levels)
        self.init_conv = nn.Conv2d(in_ch, ch, 3, 1, 1, bias=False)
        self.encoder: Any = nn.ModuleList()
        self.decoder: Any = nn.ModuleList()
        for i, (a, b) in enumerate(levels):
            last = i == len(levels) - 1
            first, second = (Residual(PreNorm(c, LinearAttention(c))) if last else nn.Identity() for c in (a, b))
            self.encoder.append(nn.ModuleList([ResBlock(a, a), ResBlock(a, a), first, down(a, b, last)]))
            self.decoder.insert(0, nn.ModuleList([ResBlock(a + b, b), ResBlock(a + b, b), second, up(b, a, i == 0)]))
        self.latent_conv = nn.Conv2d(dims[-1], embed_dim, 1, bias=False)
        self.post_latent_conv = nn.Conv2d(embed_dim, dims[-1], 1, bias=False)
        self.final_conv = nn.Conv2d(ch, out_ch, 3, 1, 1)

    def encode(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Pictures (N, in_ch, H, W) -> latents (N, embed_dim, h, w) and hidden features, finest first.

        h and w are H and W, continued to a multiple of 2^levels, over 2^(levels - 1).
        """
        x = pad_to_multiple(x, self.multiple).contiguous(memory_format=torch.channels_last)
        x = self.init_conv(x)
        hidden = [x]
        for block1, block2, attention, further in self.encoder:
            x = block1(x)
            hidden.append(x)
            x = attention(block2(x))
            hidden.append(x)
            x = further(x)
        return self.latent_conv(x), hidden

    def decode(self, latent: Tensor, hidden: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Latents and the hidden features of pictures of (height, width) -> (N, out_ch, height, width)."""
        x, first, *rest = self.post_latent_conv(latent), *hidden
        for block1, block2, attention, further in self.decoder:
            x = block1(x, skip=rest.pop())
            x = block2(x, skip=rest.pop())
            x = further(attention(x))
        return self.final_conv(x + first)[..., : size[0], : size[1]]

    def forward(self, x: Tensor) -> Tensor:
        """There and back: (N, in_ch, H, W) -> (N, out_ch, H, W)."""
        return self.decode(*self.encode(x), size=(x.shape[-2], x.shape[-1]))


def recognize(shapes: Shapes) -> dict[str, Any] | None:
    """The configuration of a `LatentUNet` from its tensors."""
    ch, in_ch = shapes["init_conv.weight"][:2]
    levels = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("encoder."))
    widths = [shapes[f"encoder.{i}.3.weight"][0] for i in range(levels)]
    if any(w % ch for w in widths):
        return None
    return {
        "in_ch": in_ch, "out_ch": shapes["final_conv.weight"][0], "ch": ch, "ch_mult": [w // ch for w in widths],
        "embed_dim": shapes["latent_conv.weight"][0],
    }  # fmt: skip
