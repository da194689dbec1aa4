"""PReNet: rain removed progressively by one recurrent residual network (Ren et al., CVPR 2019).

The same small network passes over the picture several times, each time seeing the rainy picture beside what the pass
before made of it. Four published variants share one class: with or without a convolutional LSTM that carries features
from pass to pass (PReNet, PRN), and with five residual blocks or one used five times (names ending in _r).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..base import SinglePassModel
from .wrap import info

BLOCKS = 5


def conv(channels: int, out: int, *after: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1), *after)


class PReNet(nn.Module):
    """The network.

    Args:
        width: feature maps.
        passes: times it goes over the picture; not told by the weights, 6 in all that are published.
        lstm: features are carried from pass to pass.
        blocks: residual blocks, five or one used five times.
    """

    def __init__(self, width: int = 32, passes: int = 6, lstm: bool = True, blocks: int = BLOCKS) -> None:
        super().__init__()
        self.width, self.passes, self.lstm = width, passes, lstm
        self.conv0 = conv(6, width, nn.ReLU())
        for i in range(1, blocks + 1):
            block = nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()
            )
            setattr(self, f"res_conv{i}", block)
        self.names = [f"res_conv{min(i, blocks)}" for i in range(1, BLOCKS + 1)]
        if lstm:
            self.conv_i, self.conv_f, self.conv_o = (conv(2 * width, width, nn.Sigmoid()) for _ in range(3))
            self.conv_g = conv(2 * width, width, nn.Tanh())
        self.conv = conv(width, 3)

    def stages(self, rainy: Tensor) -> list[Tensor]:
        """(N, 3, H, W) in [0, 1] -> what each pass made of it, the last one best; same shape, not clipped."""
        output, stages = rainy, []
        h = c = rainy.new_zeros(rainy.shape[0], self.width, *rainy.shape[2:])
        for _ in range(self.passes):
            x = self.conv0(torch.cat([rainy, output], dim=1))
            if self.lstm:
                both = torch.cat([x, h], dim=1)
                c = self.conv_f(both) * c + self.conv_i(both) * self.conv_g(both)
                x = h = self.conv_o(both) * torch.tanh(c)
            for name in self.names:
                x = torch.relu(getattr(self, name)(x) + x)
            output = self.conv(x) + rainy
            stages.append(output)
        return stages

    def forward(self, rainy: Tensor) -> Tensor:
        return self.stages(rainy)[-1]


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Configuration of `PReNet` from its tensors, None where these are not its."""
    width, channels, *kernel = shapes["conv0.0.weight"]
    if channels != 6 or kernel != [3, 3] or shapes["conv.0.weight"] != (3, width, 3, 3):
        return None
    blocks = sum(f"res_conv{i}.0.weight" in shapes for i in range(1, BLOCKS + 1))
    return {"width": width, "lstm": "conv_i.0.weight" in shapes, "blocks": blocks}


def restorer(net: PReNet, header: Mapping[str, str]) -> SinglePassModel:
    """The model of a loaded network."""
    # Thirteen 3x3 convolutions per pass.
    return SinglePassModel(net, info(net, header, "prenet", "rain", overlap=13 * net.passes, live=8 * net.width))
