"""ETDS in 8-bit integers: calibration, cross-layer equalization, and the fake quantization to train it with.

Weights are symmetric with a scale per output channel, activations unsigned with one scale per layer. ETDS carries the
picture through its layers beside its features, and both share that scale: unless every channel has about the same range
the picture is left with few levels. ReLU networks can be rescaled channel by channel without changing what they compute
(Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019), so that range is
made 1 where the next layer weighs a channel most, and the picture keeps its 255 levels; a channel that the next layer
weighs less gets a smaller range, and so larger weights with more levels. Biases then make up for the mean error (the
same paper). Gradients pass the rounding as if it were not there (Jacob et al., "Quantization and Training of Neural
Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018).

The stream that carries the picture would be rounded by every layer, and near 45 dB that is most of what integers cost.
Training therefore begins with layers that hand the picture on as it is (`with_picture_kept`), which integers do without
error: a weight of 1 is its kernel's 127th step. Such channels stay so.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import SinglePassModel
from .etds import ETDS, RGB, fused, model_of, output_channels, recognize, unfused

LEAST_RANGE = 0.05  # a channel that hardly ever fires is not blown up
GMACS = 1e-3  # per parameter and megapixel: every weight is used once at every pixel


class QuantizedETDS(ETDS):
    """ETDS whose weights and activations are rounded as an 8-bit integer implementation rounds them.

    Attributes:
        ranges: (blocks + 2,) largest value of the activations of each layer, input left out; the last is 1.
        calibration: small pictures (N, 3, H, W) that `adopt` takes the ranges from; not part of the state.
    """

    ranges: Tensor

    def __init__(self, scale: int, blocks: int = 4, width: int = 32) -> None:
        super().__init__(scale, blocks, width)
        self.register_buffer("ranges", torch.ones(blocks + 2))
        self.calibration: Tensor | None = None
        for layer in self.layers():
            for weight in layer.parameters():
                weight.register_hook(lambda gradient, layer=layer: _but_kept(gradient, layer))

    def adopt(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights to begin with: those of an `ETDS` are made to keep the picture and equalized on `calibration`.

        Raises:
            RuntimeError: there is nothing to calibrate with, or the weights are those of another network.
        """
        if "ranges" in weights:
            return dict(weights)
        config = recognize({key: tuple(value.shape) for key, value in weights.items()})
        if config is None:
            raise RuntimeError("these are the weights of no ETDS")
        if self.calibration is None:
            raise RuntimeError("there are no pictures to calibrate with")
        net = ETDS(**config)
        net.load_state_dict(dict(weights))
        return dict(calibrated(with_picture_kept(net), self.calibration).state_dict())

    def layers(self) -> list[nn.Conv2d]:
        """The 3x3 convolutions in order."""
        blocks: list[Any] = list(self.backbone_convs)
        return [self.conv_first, *blocks, self.conv_last]

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N, 3, scale H, scale W) in [0, 1], on the levels of 8 bits."""
        x = rounded(x, x.new_ones(()))
        for layer, most in zip(self.layers(), self.ranges, strict=True):
            x = F.conv2d(x, rounded_weight(layer.weight), layer.bias, padding=1)
            x = rounded(x, most)  # and clipped, so that it is the ReLU too
        # What the 1x1 convolution and its ReLU do: the rounding above has clipped to [0, 1] already.
        return F.pixel_shuffle(1 - x[:, : RGB * self.scale**2], self.scale)


def rounded(x: Tensor, most: Tensor) -> Tensor:
    """Activations on 255 steps from 0 to `most`; the gradient is that of clipping."""
    zero = torch.zeros((), dtype=torch.int32, device=x.device)
    return torch.fake_quantize_per_tensor_affine(x, most / 255, zero, 0, 255)


def weight_scale(weight: Tensor) -> Tensor:
    """(O,) steps of a weight (O, I, 3, 3), one per output channel."""
    return weight.detach().abs().amax((1, 2, 3)).clamp_min(1e-8) / 127


def rounded_weight(weight: Tensor) -> Tensor:
    """A weight on 127 steps to either side of 0."""
    zeros = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)
    return torch.fake_quantize_per_channel_affine(weight, weight_scale(weight), zeros, 0, -127, 127)


def sum_preserving(weight: Tensor) -> Tensor:
    """A weight on its steps, rounded so that the nine taps of a kernel keep their sum to half a step.

    Rounded each by itself they shift what is flat, and so the colors of the whole picture. Of each kernel the taps that
    were rounded furthest the wrong way are rounded the other way.
    """
    step = weight_scale(weight)[:, None, None, None]
    codes = weight / step
    nearest = codes.round()
    error = (codes - nearest).masked_fill(nearest.abs() == 127, 0).flatten(2)  # the largest one makes the scale
    missing = error.sum(2, keepdim=True).round()
    place = error.argsort(2).argsort(2)
    change = (place >= 9 - missing).float() - (place < -missing).float()
    return (nearest + change.view_as(nearest)) * step


def share(weight: Tensor) -> Tensor:
    """(I,) by input of a weight (O, I, 3, 3), its largest part of the largest weight of an output, in (0, 1]."""
    largest = weight.abs().amax((2, 3)).clamp_min(1e-8)
    return (largest / largest.amax(1, keepdim=True)).amax(0)


def kept(weight: Tensor) -> Tensor:
    """(O,) which channels of a weight (O, I, 3, 3) are one of the last inputs as it is: the picture, handed on."""
    identity = torch.zeros_like(weight)
    for back in range(1, RGB + 1):
        identity[-back, -back, 1, 1] = 1
    same = (weight == identity).flatten(1).all(1)
    same[:-RGB] = False
    return same


def _but_kept(gradient: Tensor, layer: nn.Conv2d) -> Tensor:
    return gradient.masked_fill(kept(layer.weight.detach()).view(-1, *[1] * (gradient.dim() - 1)), 0)


@torch.no_grad()
def with_picture_kept(net: ETDS) -> ETDS:
    """A copy of a network whose second stream hands the picture on, where it had filtered it: what to train from."""
    streams = unfused(net)
    for conv in (streams.conv_residual_first, *streams.residual_convs):
        nn.init.dirac_(conv.weight)
        nn.init.zeros_(conv.bias)
    return fused(streams)


@torch.no_grad()
def calibrated(net: ETDS, images: Tensor) -> QuantizedETDS:
    """The quantized form of a network: equalized, its weights rounded, its biases corrected for what that shifts.

    Args:
        net: in float.
        images: (N, 3, H, W) in [0, 1], such as it will see.
    """
    turned = -torch.eye(output_channels(net.scale))[..., None, None]
    if not torch.equal(net.conv_clip.weight, turned) or not bool((net.conv_clip.bias == 1).all()):  # type: ignore[union-attr]
        raise ValueError("its last two convolutions do not clip to [0, 1]")
    quantized = QuantizedETDS(net.scale, net.blocks, net.width)
    quantized.load_state_dict(net.state_dict() | {"ranges": quantized.ranges})
    quantized.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    layers, images = quantized.layers(), images.contiguous(memory_format=torch.channels_last)
    x = images
    for layer, following in itertools.pairwise(layers):
        x = F.relu(layer(x))
        ranges = x.amax((0, 2, 3)).clamp_min(LEAST_RANGE)
        ranges /= share(following.weight * ranges[:, None, None]).sqrt()
        ranges[kept(layer.weight)] = 1
        layer.weight /= ranges[:, None, None, None]
        assert layer.bias is not None
        layer.bias /= ranges
        following.weight *= ranges[:, None, None]
        x = x / ranges[:, None, None]
    exact, x = images, rounded(images, torch.ones(()))
    for layer in layers:
        exact = layer(exact)
        layer.weight.copy_(sum_preserving(layer.weight))
        x = F.conv2d(x, layer.weight, layer.bias, padding=1)
        shift = (exact - x).mean((0, 2, 3))
        layer.bias += shift
        exact, x = F.relu(exact), rounded(x + shift[:, None, None], torch.ones(()))
    return quantized


def recognize_quantized(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int] | None:
    """Hyperparameters of `QuantizedETDS` from its tensors, None where these are not its."""
    return recognize({key: shape for key, shape in shapes.items() if key != "ranges"})


def restorer(net: QuantizedETDS, header: Mapping[str, str]) -> SinglePassModel:
    """The model of a loaded network: what integers would give, in floating point."""
    remark = "its float32 evaluation simulates integers and is slower than the network before; export it for speed"
    return model_of(
        net, header, "etds-int8", bytes_per_pixel=4 * 4 * max(net.width, output_channels(net.scale)),
        gmacs=GMACS * sum(p.numel() for p in net.parameters()), remarks=(remark,),
    )  # fmt: skip
