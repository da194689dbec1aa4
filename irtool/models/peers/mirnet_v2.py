"""MIRNet-v2: three sizes joined from below by selective kernels, with global context (Zamir et al., TPAMI 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ...synth.ops import pad_reflect
from ..base import SinglePassModel
from .dehaze_unet import named
from .mirnet import Fusion, Group, conv, point
from .wrap import info


class Context(nn.Module):
    """A residual block whose features get the weighted mean of all pixels."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(width, width, groups=groups), nn.LeakyReLU(0.2), conv(width, width, groups=groups)
        )
        self.gcnet = named(
            conv_mask=point(width, 1),
            channel_add_conv=nn.Sequential(point(width, width), nn.LeakyReLU(0.2), point(width, width)),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        weights = self.gcnet.conv_mask(y).flatten(2).softmax(dim=2)
        context = (y.flatten(2) @ weights.transpose(1, 2)).unsqueeze(3)
        return F.leaky_relu(y + self.gcnet.channel_add_conv(context), 0.2) + x


class Sized(nn.Module):
    """One change of size, under the published names."""

    def __init__(self, *bot: nn.Module) -> None:
        super().__init__()
        self.body = nn.ModuleList([named(bot=nn.Sequential(*bot))])

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body[0].bot(x)  # type: ignore[operator]
        return y


class MultiScale(nn.Module):
    """Two rounds over three sizes, each joined from the smallest up; the rounds share their blocks."""

    def __init__(self, widths: Sequence[int], groups: int) -> None:
        super().__init__()
        a, b, c = widths
        self.dau_top, self.dau_mid, self.dau_bot = (Context(wide, groups) for wide in widths)
        self.down2 = self._down(a, b)
        self.down4 = nn.Sequential(self._down(a, b), self._down(b, c))
        self.up21_1, self.up21_2 = self._up(b, a), self._up(b, a)
        self.up32_1, self.up32_2 = self._up(c, b), self._up(c, b)
        self.conv_out = point(a, a)
        self.skff_top, self.skff_mid = (Fusion(wide, 2, nn.LeakyReLU(0.2)) for wide in (a, b))

    @staticmethod
    def _down(a: int, b: int) -> Sized:
        return Sized(nn.AvgPool2d(2), point(a, b))

    @staticmethod
    def _up(a: int, b: int) -> Sized:
        return Sized(point(a, b), nn.Upsample(scale_factor=2, mode="bilinear"))

    def forward(self, x: Tensor) -> Tensor:
        top, middle, bottom = x, self.down2(x), self.down4(x)
        for raise_middle, raise_top in ((self.up32_1, self.up21_1), (self.up32_2, self.up21_2)):
            top, middle, bottom = self.dau_top(top), self.dau_mid(middle), self.dau_bot(bottom)
            middle = self.skff_mid([middle, raise_middle(bottom)])
            top = self.skff_top([top, raise_top(middle)])
        y: Tensor = self.conv_out(top) + x
        return y


class MIRNetV2(nn.Module):
    """The network, for restoration at the same size.

    Args:
        widths: channels of the three sizes.
        groups: of the convolutions in each recursive residual group.
        blocks: in each of them.
        defocus: the variant for defocus blur, which adds shallow features instead of the image; tensors do not tell.
    """

    def __init__(
        self,
        widths: Sequence[int] = (80, 120, 180),
        groups: Sequence[int] = (1, 2, 4, 4),
        blocks: int = 2,
        defocus: bool = False,
    ) -> None:
        super().__init__()
        self.defocus, width = defocus, widths[0]
        self.conv_in, self.conv_out = conv(3, width), conv(width, 3)
        self.body = nn.Sequential(
            *(Group([*(MultiScale(widths, g) for _ in range(blocks)), conv(width, width)]) for g in groups)
        )

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], any size -> the same shape, not clipped."""
        height, width = image.shape[-2:]
        x = pad_reflect(image, 0, -width % 4, 0, -height % 4)
        shallow = self.conv_in(x)
        deep = self.body(shallow)
        restored = self.conv_out(deep + shallow) if self.defocus else self.conv_out(deep) + x
        return restored[..., :height, :width]


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Configuration of `MIRNetV2` from its tensors, None where these are not its."""
    count = len({name.split(".")[1] for name in shapes if name.startswith("body.")})
    convs = [shapes[f"body.{i}.body.0.dau_top.body.0.weight"] for i in range(count)]
    first = "body.0.body.0.dau_{}.body.0.weight"
    return {
        "widths": [shapes[first.format(size)][0] for size in ("top", "mid", "bot")],
        "groups": [shape[0] // shape[1] for shape in convs],
        "blocks": sum(name.startswith("body.0.body.") and name.endswith(".dau_top.body.0.weight") for name in shapes),
        "defocus": False,
    }


def restorer(net: Any, header: Mapping[str, str]) -> SinglePassModel:
    """The model of a loaded network; its context is of all it is given."""
    live = 8 * net.conv_in.out_channels
    return SinglePassModel(
        net, info(net, header, "mirnet-v2", "noise", overlap=64, live=live, multiple=4, tiling="blended")
    )
