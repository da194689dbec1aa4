"""URetinex-Net: low light raised by an unfolded Retinex decomposition (Wu et al., CVPR 2022).

The picture I is split into reflectance R and illumination L by turns of a closed-form step and a network: P and Q are
drawn to both the picture (I = P Q) and to what the networks made of them. The illumination is then raised by a ratio,
and the result is the raised illumination times R. Four published files make one network here, under the prefixes
decom_low, decom_high, R, L and A.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import SinglePassModel
from .wrap import info, settings

RATIO = 5.0
ROUNDS, GAMMA, LAMBDA, STEP = 3, 0.1, 0.5, 0.05
"""Options of the published training run: rounds, and the weights of the two closed-form steps with their growth."""


def conv(channels: int, out: int, side: int = 3) -> nn.Conv2d:
    return nn.Conv2d(channels, out, side, padding=side // 2)


class Decomposition(nn.Module):
    """First guess of reflectance (N, 3, H, W) and illumination (N, 1, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels, out in ((3, 32), (32, 32), (32, 32), (32, 4)):
            layers += [conv(channels, out), nn.LeakyReLU(0.2)]
        self.decom = nn.Sequential(*layers[:-1], nn.ReLU())

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        both = self.decom(image)
        return both[:, :3], both[:, 3:]


class Excitation(nn.Module):
    """Channels weighed by what they are over the whole picture."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        few = channels // reduction
        self.fc = nn.Sequential(
            nn.Linear(channels, few, bias=False), nn.ReLU(), nn.Linear(few, channels, bias=False), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean(dim=(2, 3)))[:, :, None, None]


class Reflectance(nn.Module):
    """Reflectance cleaned, knowing the illumination."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(3, 32), conv(1, 32)
        self.se_layer = Excitation(64)
        for i in range(3, 8):
            setattr(self, f"conv{i}", conv(64, 64))
        self.conv8 = conv(64, 3)

    def forward(self, r: Tensor, light: Tensor) -> Tensor:
        x = self.se_layer(torch.cat([torch.relu(self.conv1(r)), torch.relu(self.conv2(light))], dim=1))
        for i in range(3, 8):
            x = torch.relu(getattr(self, f"conv{i}")(x))
        return r + self.conv8(x)


class Illumination(nn.Module):
    """Illumination cleaned."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv(1, 32, 5)
        self.conv2, self.conv3, self.conv4 = conv(32, 32, 5), conv(32, 32, 5), conv(32, 32, 5)
        self.conv5 = conv(32, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        for i in range(1, 5):
            x = F.leaky_relu(getattr(self, f"conv{i}")(x), 0.2)
        return torch.relu(self.conv5(x))


class Adjustment(nn.Module):
    """Illumination raised by a ratio given per pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3, self.conv4 = (
            conv(2, 32, 5),
            conv(32, 32, 5),
            conv(32, 32, 5),
            conv(32, 1, 5),
        )

    def forward(self, light: Tensor, ratio: Tensor) -> Tensor:
        x = torch.cat([light, ratio], dim=1)
        for i in range(1, 4):
            x = F.leaky_relu(getattr(self, f"conv{i}")(x), 0.2)
        return torch.relu(self.conv4(x))


class URetinexNet(nn.Module):
    """The network.

    Args:
        ratio: how much brighter the result is to be; the authors recommend 3 to 5.
    """

    def __init__(self, ratio: float = RATIO) -> None:
        super().__init__()
        self.ratio = ratio
        self.decom_low, self.decom_high = Decomposition(), Decomposition()
        self.R, self.L, self.A = Reflectance(), Illumination(), Adjustment()

    def unfold(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Reflectance and illumination of (N, 3, H, W) in [0, 1] after the last round."""
        p, q = self.decom_low(image)
        r, light = self.R(p, q), self.L(q)
        for t in range(1, ROUNDS):
            g, w = GAMMA + STEP * t, LAMBDA + STEP * t
            p = (image * q + g * r) / (q * q + g)
            q = ((image * p).sum(dim=1, keepdim=True) + w * light) / ((p * p).sum(dim=1, keepdim=True) + w)
            r, light = self.R(p, q), self.L(q)
        return r, light

    def forward(self, dark: Tensor, reference: Tensor | None = None) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the same shape, not clipped.

        Args:
            dark: the picture.
            reference: what it should become, to take the ratio from (the authors' `evaluate.py`): no blind result.
        """
        r, light = self.unfold(dark)
        if reference is None:
            ratio = torch.full_like(light, self.ratio)
        else:
            bright = self.decom_high(reference)[1]
            ratio = torch.ones_like(light) / ((light / (bright + 1e-4)).mean() + 1e-4)
        return self.A(light, ratio) * r


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """No configuration to read: {} where these are the tensors of `URetinexNet`, else None."""
    fits = shapes["decom_low.decom.0.weight"] == (32, 3, 3, 3) and shapes["A.conv1.weight"] == (32, 2, 5, 5)
    return {} if fits else None


def restorer(net: URetinexNet, header: Mapping[str, str]) -> SinglePassModel:
    """The model of a loaded network, which sees the whole picture; "settings" of the header may name the "ratio"."""
    net.ratio = float(settings(header).get("ratio", net.ratio))
    return SinglePassModel(
        net, info(net, header, "uretinex", "lowlight", overlap=64, tiling="blended", live=5 * 64, multiple=8)
    )
