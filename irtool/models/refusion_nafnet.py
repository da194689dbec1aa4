"""The noise predictor of Refusion (Luo et al., "Refusion: Enabling Large-Size Realistic Image Restoration with
Latent-Space Diffusion Models", CVPRW 2023): a NAFNet whose blocks are scaled and shifted by the time step.

Two published flavours share their keys: the pixel-space net, and the latent one (dehazing) that adds the features of
its first layer before the last. Told apart by their channels: three are a picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..ops import pad_to_multiple
from .nafnet import LocalPool, add_stages, gate, layout
from .unet_blocks import ChannelNorm, PixelConv, Times, as_times

Shapes = Mapping[str, tuple[int, ...]]


class Gate(nn.Module):
    """The product of the two halves of the last dimension."""

    def forward(self, x: Tensor) -> Tensor:
        return gate(x, -1)


class ConditionalBlock(nn.Module):
    """A NAFNet block told what time it is; `times` is the size of the time embedding."""

    def __init__(self, c: int, times: int, attention: nn.Module | None = None) -> None:
        super().__init__()
        self.mlp = nn.Sequential(Gate(), nn.Linear(times // 2, 4 * c))
        self.conv1 = PixelConv(c, 2 * c)
        self.conv2 = nn.Conv2d(2 * c, 2 * c, 3, 1, 1, groups=2 * c)
        self.conv3 = PixelConv(c, c)
        # Simplified channel attention; `irtool.models.nafnet_daclip` puts another attention in its place.
        if attention is None:
            self.sca = nn.Sequential(LocalPool(), nn.Conv2d(c, c, 1))
        else:
            self.att = attention
        self.conv4, self.conv5 = PixelConv(c, 2 * c), PixelConv(c, c)
        self.norm1, self.norm2 = ChannelNorm(c), ChannelNorm(c)
        self.beta, self.gamma = nn.Parameter(torch.zeros(1, c, 1, 1)), nn.Parameter(torch.zeros(1, c, 1, 1))

    def forward(self, x: Tensor, time: Tensor, content: Tensor | None = None) -> Tensor:
        """x (N, c, H, W), time (1 or N, times), content (N, K) for an attention that looks at it -> as x."""
        shift1, scale1, shift2, scale2 = self.mlp(time)[..., None, None].chunk(4, dim=1)
        y = torch.addcmul(shift1, self.norm1(x), scale1 + 1)
        y = gate(self.conv2(self.conv1(y)))
        y = self.att(y, content) if hasattr(self, "att") else y * self.sca(y)
        x = torch.addcmul(x, self.conv3(y), self.beta)
        y = torch.addcmul(shift2, self.norm2(x), scale2 + 1)
        return torch.addcmul(x, self.conv5(gate(self.conv4(y))), self.gamma)


class ConditionalNAFNet(nn.Module):
    """Refusion's noise predictor.

    Args:
        img_channel: of the state and of the condition: 3 for pictures, more for latents.
        width: channels of the first level; they double per level.
        middle_blk_num, enc_blk_nums, dec_blk_nums: blocks in the middle and at each level.
        skip: the features of the first layer are added before the last (the latent flavour); None for where
            `img_channel` is not 3.
    """

    def __init__(
        self,
        img_channel: int = 3,
        width: int = 64,
        middle_blk_num: int = 1,
        enc_blk_nums: Sequence[int] = (1, 1, 1, 28),
        dec_blk_nums: Sequence[int] = (1, 1, 1, 1),
        skip: bool | None = None,
    ) -> None:
        super().__init__()
        times = 4 * width
        self.skip = img_channel != 3 if skip is None else skip
        self.width, self.multiple = width, 2 ** len(enc_blk_nums)
        self.time_mlp: Any = nn.Sequential(Times(width), nn.Linear(width, 2 * times), Gate(), nn.Linear(times, times))
        self.intro = nn.Conv2d(2 * img_channel, width, 3, 1, 1)
        self.ending = nn.Conv2d(width, img_channel, 3, 1, 1)

        def stage(level: int, count: int) -> nn.Module:
            return nn.ModuleList(ConditionalBlock(width << level, times) for _ in range(count))

        add_stages(self, width, middle_blk_num, enc_blk_nums, dec_blk_nums, stage)

    def forward(self, x: Tensor, mu: Tensor, t: Tensor | float) -> Tensor:
        """States and conditions (N, img_channel, H, W), times from 1, one or one per sample -> noise, as x."""
        height, width = x.shape[-2:]
        time = self.time_mlp[1:](self.time_mlp[0](as_times(t, x)).to(self.time_mlp[1].weight.dtype))
        x = pad_to_multiple(torch.cat([x - mu, mu], dim=1), self.multiple, "zeros")
        x = first = self.intro(x.to(self.intro.weight.dtype, memory_format=torch.channels_last))
        x = descend(self, x, time)
        return self.ending(x + first if self.skip else x)[..., :height, :width]


def descend(net: Any, x: Tensor, time: Tensor, content: Tensor | None = None) -> Tensor:
    """Features through encoders, middle and decoders of a network of this layout."""
    skips = []
    for stage, further in zip(net.encoders, net.downs, strict=True):
        for block in stage:
            x = block(x, time, content)
        skips.append(x)
        x = further(x)
    for block in net.middle_blks:
        x = block(x, time, content)
    for stage, back in zip(net.decoders, net.ups, strict=True):
        x = back(x) + skips.pop()
        for block in stage:
            x = block(x, time, content)
    return x


def recognize_pixel(shapes: Shapes) -> dict[str, Any] | None:
    """The configuration of the pixel-space `ConditionalNAFNet` from its tensors; None where they are another's."""
    found = recognize(shapes)
    return found if found and found["img_channel"] == 3 else None


def recognize_latent(shapes: Shapes) -> dict[str, Any] | None:
    """The same for the latent one; that it adds the features of its first layer before the last, no tensor tells."""
    found = recognize(shapes)
    return found | {"skip": True} if found and found["img_channel"] != 3 else None


def recognize(shapes: Shapes) -> dict[str, Any] | None:
    """The configuration of either `ConditionalNAFNet`."""
    found = layout(shapes)
    # Refusion's stereo and bokeh nets have keys of their own: two views at once, and lens data.
    foreign = any("fusion." in name or "cam_mlp" in name or "prompt" in name or ".att." in name for name in shapes)
    return None if foreign or shapes["intro.weight"][1] != 2 * found["img_channel"] else found
