"""EfficientNet-Lite0 without its classifier: the ImageNet backbone of the detector.

Source: Tan and Le, "EfficientNet", ICML 2019, in the "lite" variant of the TensorFlow TPU models (no squeeze and
excitation, ReLU6). timm has the same network as ``tf_efficientnet_lite0``.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

STAGES = (  # kernel, stride, expansion, output channels, blocks
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
STEM, FEATURES = 32, 1280
STRIDE16_CHANNELS = 112
STRIDE16_BLOCKS = 11  # up to the last one at a sixteenth of the resolution


class ConvBN(nn.Module):
    """Convolution and batch normalisation; a stride of 2 is padded as TensorFlow's "same" does.

    `fuse` folds the normalisation into the convolution, which makes inference faster.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        padding = kernel // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            height, width = (self._missing(side) for side in x.shape[-2:])
            x = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        y: Tensor = self.bn(self.conv(x))
        return y

    def _missing(self, side: int) -> int:
        return max(0, (-(-side // self.stride) - 1) * self.stride + self.kernel - side)

    def fuse(self) -> None:
        if isinstance(self.bn, nn.BatchNorm2d):
            self.conv = nn.utils.fusion.fuse_conv_bn_eval(self.conv, self.bn)
            self.bn = nn.Identity()


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; added to its input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expand = ConvBN(inputs, width, 1) if expansion > 1 else None
        self.depthwise = ConvBN(width, width, kernel, stride, groups=width)
        self.project = ConvBN(width, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """Features of a picture, 3.4 M parameters, 0.39 GMACs at 224 x 224.

    The statistics of the batch normalisations stay those of ImageNet in training too: batches are small and of kinds
    that no photograph album has.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBN(3, STEM, 3, 2)
        blocks, inputs = [], STEM
        for kernel, stride, expansion, outputs, repeats in STAGES:
            for number in range(repeats):
                blocks.append(InvertedResidual(inputs, outputs, kernel, stride if number == 0 else 1, expansion))
                inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        self.top = ConvBN(inputs, FEATURES, 1)

    def lower(self, pixels: Tensor) -> Tensor:
        """pixels (N, 3, H, W) in [0, 1] -> features (N, 112, H/16, W/16)."""
        x = F.relu6(self.stem(pixels * 2 - 1))
        for block in self.blocks[:STRIDE16_BLOCKS]:
            x = block(x)
        return x

    def upper(self, x: Tensor) -> Tensor:
        """What `lower` returned -> features (N, 1280, H/32, W/32)."""
        for block in self.blocks[STRIDE16_BLOCKS:]:
            x = block(x)
        return F.relu6(self.top(x))

    def train(self, mode: bool = True) -> EfficientNetLite0:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def fuse(self) -> None:
        """Fold every batch normalisation into its convolution; for inference only."""
        for module in self.modules():
            if isinstance(module, ConvBN):
                module.fuse()
