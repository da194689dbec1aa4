"""PairLIE: low light raised by Retinex decomposition learned from pairs of dark pictures (Fu et al., CVPR 2023).

A network cleans the picture, two more split it into illumination L and reflectance R; the result is L^a R with an
exponent that the authors set by hand: 0.14 on LOL, 0.2 elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..base import SinglePassModel
from .wrap import info, settings

EXPONENT = 0.2


class Stack(nn.Module):
    """Five 3x3 convolutions over mirrored borders, ReLU between them and a sigmoid behind.

    Args:
        name: of the attribute the published code keeps them in.
        width: feature maps.
        out: channels of the result.
    """

    def __init__(self, name: str, width: int, out: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(5):
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(width if i else 3, width if i < 4 else out, 3), nn.ReLU()]
        self.name = name
        setattr(self, name, nn.Sequential(*layers[:-1]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(getattr(self, self.name)(x))


class PairLIE(nn.Module):
    """The network.

    Args:
        width: feature maps.
        exponent: of the illumination; not told by the weights.
    """

    def __init__(self, width: int = 64, exponent: float = EXPONENT) -> None:
        super().__init__()
        self.exponent = exponent
        self.L_net, self.R_net, self.N_net = (
            Stack(f"{part}_net", width, out) for part, out in (("L", 1), ("R", 3), ("N", 3))
        )

    def forward(self, dark: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the same; sides of at least 2 pixels."""
        clean = self.N_net(dark)
        return self.L_net(clean) ** self.exponent * self.R_net(clean)


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Configuration of `PairLIE` from its tensors, None where these are not its."""
    width = shapes["L_net.L_net.1.weight"][0]
    if shapes["L_net.L_net.13.weight"] != (1, width, 3, 3) or shapes["N_net.N_net.13.weight"] != (3, width, 3, 3):
        return None
    return {"width": width}


def restorer(net: PairLIE, header: Mapping[str, str]) -> SinglePassModel:
    """The model of a loaded network; "settings" of the header may name the "exponent"."""
    net.exponent = float(settings(header).get("exponent", net.exponent))
    width = net.N_net.N_net[1].out_channels  # type: ignore[index, union-attr]
    return SinglePassModel(net, info(net, header, "pairlie", "lowlight", overlap=12, live=4 * int(width)))
