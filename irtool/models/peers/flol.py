"""FLOL: low light lifted in the amplitude of the Fourier transform, then mended in space (Benito et al., 2025).

The light-mended image is divided, by how noisy it looks, among a branch in frequency and one in space.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...synth.ops import luminance, pad_reflect
from ..base import SinglePassModel
from .dehaze_unet import named
from .wrap import info

MULTIPLE = 8
FREQUENCY_BLOCKS, SPACE_BLOCKS = 4, 6


def gate(x: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=1)
    return a * b


class Norm(nn.Module):
    """Normed over channels at every pixel of (N, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, 1e-6)
        return y.permute(0, 3, 1, 2)


class Frequency(nn.Module):
    """Amplitude and phase of all maps, each through 1x1 convolutions; half precision is computed in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fpre = nn.Conv2d(width, width, 1)
        self.process1, self.process2 = (
            nn.Sequential(nn.Conv2d(width, width, 1), nn.LeakyReLU(0.1), nn.Conv2d(width, width, 1)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(self.fpre(x).float())
        amplitude = self.process1(spectrum.abs().to(x.dtype)).float()
        phase = self.process2(spectrum.angle().to(x.dtype)).float()
        changed = torch.complex(amplitude * phase.cos(), amplitude * phase.sin())
        return torch.fft.irfft2(changed, s=x.shape[-2:]).to(x.dtype) + x


class LightBlock(nn.Module):
    """A gated block in space and frequency."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv3 = nn.Conv2d(width, 2 * width, 1), nn.Conv2d(width, width, 1)
        self.conv2 = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        self.fatt = Frequency(width)
        self.sge = named(dwc=nn.Conv2d(width, width, 3, padding=1, groups=width))
        self.conv4, self.conv5 = nn.Conv2d(width, 2 * width, 1), nn.Conv2d(width, width, 1)
        self.norm1, self.norm2 = Norm(width), Norm(width)
        self.beta, self.gamma = (nn.Parameter(torch.zeros(1, width, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.conv2(self.conv1(self.norm1(x))).chunk(2, dim=1)
        y = self.conv3(self.fatt(self.sge.dwc(a) * b))
        y = y + y * self.beta
        return y + self.conv5(gate(self.conv4(self.norm2(y)))) * self.gamma


class Amplitude(nn.Module):
    """The factor of the amplitudes, estimated at half the size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_init, self.conv_out = nn.Conv2d(3, width, 1), nn.Conv2d(width, 3, 1)
        self.conv1, self.conv2, self.conv3 = (LightBlock(width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_init(F.interpolate(x, scale_factor=0.5, mode="bilinear"))
        y = self.conv_out(self.conv3(self.conv2(self.conv1(y))))
        return F.interpolate(y, scale_factor=2, mode="bilinear")


class Residual(nn.Module):
    """Two convolutions, added to what they get."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(torch.relu(self.conv1(x)))


class FrequencyBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.frequency_process, self.cat = Frequency(width), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.cat(self.frequency_process(x))


class FLOL(nn.Module):
    """The network.

    Args:
        width: channels of the second stage.
        light: channels of the first.
    """

    def __init__(self, width: int = 16, light: int = 8) -> None:
        super().__init__()
        self.AmpNet = nn.Sequential(Amplitude(light), nn.Sigmoid())
        self.conv_first_1 = nn.Conv2d(6, width, 3, 1, 1)
        self.conv_first_2, self.conv_first_3 = (nn.Conv2d(width, width, 3, 2, 1) for _ in range(2))
        self.feature_extraction, self.recon_trunk = (nn.Sequential(Residual(width)) for _ in range(2))
        self.recon_trunk_light = nn.Sequential(*(Residual(width) for _ in range(SPACE_BLOCKS)))
        self.upconv1, self.upconv2 = (nn.Conv2d(2 * width, 4 * width, 3, 1, 1) for _ in range(2))
        self.HRconv, self.conv_last = nn.Conv2d(2 * width, width, 3, 1, 1), nn.Conv2d(width, 3, 3, 1, 1)
        self.transformer = named(block=nn.Sequential(*(FrequencyBlock(width) for _ in range(FREQUENCY_BLOCKS))))

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], any size -> the same shape, not clipped. Sides are mirrored up to multiples of 8."""
        height, width = image.shape[-2:]
        x = pad_reflect(image, 0, -width % MULTIPLE, 0, -height % MULTIPLE)
        lit = torch.fft.ifft2(torch.fft.fft2(x.float()) / (self.AmpNet(x).float() + 1e-8)).real.to(x.dtype)
        first = F.leaky_relu(self.conv_first_1(torch.cat([lit, x], dim=1)), 0.1)
        second = F.leaky_relu(self.conv_first_2(first), 0.1)
        third = F.leaky_relu(self.conv_first_3(second), 0.1)
        features = self.feature_extraction(third)
        clear = F.interpolate(signal_to_noise(lit), size=features.shape[-2:], mode="nearest")
        y = (features + self.transformer.block(features)) * (1 - clear) + self.recon_trunk_light(features) * clear
        y = self._double(self.upconv1, self.recon_trunk(y), third)
        y = self._double(self.upconv2, y, second)
        y = F.leaky_relu(self.HRconv(torch.cat([y, first], dim=1)), 0.1)
        return (self.conv_last(y) + x)[..., :height, :width]

    def _double(self, layer: nn.Module, x: Tensor, skip: Tensor) -> Tensor:
        return F.leaky_relu(F.pixel_shuffle(layer(torch.cat([x, skip], dim=1)), 2), 0.1)


def signal_to_noise(image: Tensor) -> Tensor:
    """Blurred luma over its distance from luma, by the largest value in the image: (N, 3, H, W) -> (N, 1, H, W)."""
    at = torch.arange(-2, 3, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-(at**2) / (2 * 1.5**2))
    kernel = kernel / kernel.sum()
    luma = luminance(image)
    blurred = F.conv2d(pad_reflect(luma, 2, 2, 2, 2), kernel.view(1, 1, 1, 5))
    blurred = F.conv2d(blurred, kernel.view(1, 1, 5, 1))
    ratio = blurred / ((luma - blurred).abs() + 1e-4)
    return (ratio / (ratio.amax(dim=(1, 2, 3), keepdim=True) + 1e-4)).clamp(0, 1)


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Configuration of `FLOL` from its tensors, None where these are not its."""
    return {"width": shapes["conv_first_1.weight"][0], "light": shapes["AmpNet.0.conv_init.weight"][0]}


def restorer(net: Any, header: Mapping[str, str]) -> SinglePassModel:
    """The model of a loaded network; its Fourier transforms span all it is given."""
    live = 6 * net.conv_first_1.out_channels
    return SinglePassModel(
        net, info(net, header, "flol", "lowlight", overlap=64, live=live, multiple=MULTIPLE, tiling="blended")
    )
