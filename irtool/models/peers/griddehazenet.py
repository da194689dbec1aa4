"""GridDehazeNet: three sizes and six columns of dense blocks, joined by learned weights (Liu et al., ICCV 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..base import SinglePassModel
from .dehaze_unet import named
from .wrap import info


class Dense(nn.Module):
    """A residual dense block."""

    def __init__(self, width: int, layers: int, growth: int) -> None:
        super().__init__()
        self.residual_dense_layers = nn.Sequential(
            *(named(conv=nn.Conv2d(width + i * growth, growth, 3, padding=1)) for i in range(layers))
        )
        self.conv_1x1 = nn.Conv2d(width + layers * growth, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self.residual_dense_layers:
            y = torch.cat([y, torch.relu(layer.conv(y))], dim=1)  # type: ignore[operator]
        return self.conv_1x1(y) + x


class Down(nn.Module):
    """Half the size, twice the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, 2, 1), nn.Conv2d(width, 2 * width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv2(torch.relu(self.conv1(x))))


class Up(nn.Module):
    """The size of `like`, half the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose2d(width, width, 3, stride=2, padding=1)
        self.conv = nn.Conv2d(width, width // 2, 3, padding=1)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        return torch.relu(self.conv(torch.relu(self.deconv(x, output_size=like.shape[-2:]))))


class GridDehazeNet(nn.Module):
    """The network.

    Args:
        width: channels at full size.
        rows: sizes, each half of the one before.
        columns: an even number; the first half of them goes down, the second up.
        layers, growth: of the dense blocks.
    """

    def __init__(self, width: int = 16, rows: int = 3, columns: int = 6, layers: int = 4, growth: int = 16) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns
        widths = [width << i for i in range(rows)]
        self.coefficient = nn.Parameter(torch.ones(rows, columns, 2, widths[-1]))
        self.conv_in, self.conv_out = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)
        self.rdb_in, self.rdb_out = Dense(width, layers, growth), Dense(width, layers, growth)
        self.rdb_module, self.downsample_module, self.upsample_module = (nn.ModuleDict() for _ in range(3))
        for i, wide in enumerate(widths):
            for j in range(columns - 1):
                self.rdb_module[f"{i}_{j}"] = Dense(wide, layers, growth)
            for j in range(columns) if i < rows - 1 else ():
                if j < columns // 2:
                    self.downsample_module[f"{i}_{j}"] = Down(wide)
                else:
                    self.upsample_module[f"{i}_{j}"] = Up(2 * wide)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the same shape, at least 0."""
        column = [self.rdb_in(self.conv_in(image * 2 - 1))]
        for i in range(1, self.rows):
            column.append(self.downsample_module[f"{i - 1}_0"](column[-1]))
        for j in range(1, self.columns):
            row_outputs = [self.rdb_module[f"{i}_{j - 1}"](x) for i, x in enumerate(column)]
            if j < self.columns // 2:
                for i in range(1, self.rows):
                    row_outputs[i] = self._join(
                        i, j, row_outputs[i], self.downsample_module[f"{i - 1}_{j}"](row_outputs[i - 1])
                    )
            else:
                for i in range(self.rows - 2, -1, -1):
                    above = self.upsample_module[f"{i}_{j}"](row_outputs[i + 1], column[i])
                    row_outputs[i] = self._join(i, j, row_outputs[i], above)
            column = row_outputs
        return torch.relu(self.conv_out(self.rdb_out(column[0])))

    def _join(self, i: int, j: int, along: Tensor, across: Tensor) -> Tensor:
        weights = self.coefficient[i, j, :, : along.shape[1], None, None]
        return weights[0] * along + weights[1] * across


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Configuration of `GridDehazeNet` from its tensors, None where these are not its."""
    rows, columns, _, _ = shapes["coefficient"]
    layers = sum(name.startswith("rdb_in.residual_dense_layers.") and name.endswith(".weight") for name in shapes)
    growth = shapes["rdb_in.residual_dense_layers.0.conv.weight"][0]
    width = shapes["conv_in.weight"][0]
    return {"width": width, "rows": rows, "columns": columns, "layers": layers, "growth": growth}


def restorer(net: Any, header: Mapping[str, str]) -> SinglePassModel:
    """The model of a loaded network."""
    live = 12 * net.conv_in.out_channels
    return SinglePassModel(
        net, info(net, header, "griddehazenet", "haze", overlap=128, live=live, multiple=1 << (net.rows - 1))
    )
