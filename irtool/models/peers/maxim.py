"""MAXIM: a stack of U-Nets whose blocks mix pixels along two axes by gated MLPs (Tu et al., CVPR 2022).

Tensors have the names and layouts of the official flax parameters; feature maps are (N, H, W, C) inside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...synth.ops import pad_reflect
from ..base import SinglePassModel
from .flax import use_flax_names
from .maxim_blocks import CrossGating, Level, Size, conv, double, merge, named, pointwise, spatial
from .wrap import info

SCALES, FINE = 3, 2  # sizes of the picture; the first so many have the large windows
Features = tuple[list[Tensor], list[Tensor], list[Tensor]]
"""What a stage leaves for the next, of every size: encoder, decoder, supervised attention."""


class MAXIM(nn.Module):
    """The network.

    Args:
        features: channels at full size.
        stages: U-Nets one after the other.
        groups: blocks at each size.
        bottlenecks: of the smallest size.
        block, grid: windows at full and half size, in pixels and in number; `block_low` for both below.
        reduction: of the channel attention.
        all_heads: the last stage has its heads for the two small sizes, which change nothing at full size.
    """

    def __init__(
        self, features: int = 32, stages: int = 2, groups: int = 2, bottlenecks: int = 2, block: Size = (16, 16),
        grid: Size = (16, 16), block_low: Size = (8, 8), reduction: int = 4, all_heads: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.features, self.stages, self.bottlenecks, self.all_heads = features, stages, bottlenecks, all_heads
        widths = [features << i for i in range(SCALES)]
        windows = [(block, grid) if i < FINE else (block_low, block_low) for i in range(SCALES + 1)]
        self.multiple = math.lcm(*(side << i for i, pair in enumerate(windows) for size in pair for side in size))
        add, shape = self.add_module, (groups, reduction)
        for k in range(stages):
            for i, (width, pair) in enumerate(zip(widths, windows, strict=False)):
                add(f"stage_{k}_input_conv_{i}", conv(3, width, 3))
                before = width + (widths[i - 1] if i else width)
                encoder = Level(before, width, *pair, *shape, gated=k > 0, down=True)
                above = widths[min(i + 1, SCALES - 1)]
                decoder = named(
                    ConvTranspose_0=nn.ConvTranspose2d(above, width, 2, 2),
                    UNetEncoderBlock_0=Level(4 * width, width, *pair, *shape),
                )
                add(f"stage_{k}_encoder_block_{i}", encoder)
                add(f"stage_{k}_decoder_block_{i}", decoder)
                add(f"stage_{k}_cross_gating_block_{i}", CrossGating(width, 3 * width, *pair, above))
                if k > 0:
                    add(f"stage_{k}_input_fuse_sam_{i}", CrossGating(width, width, *pair))
                if k < stages - 1:
                    sam = named(Conv_0=conv(width, width, 3), Conv_1=conv(width, 3, 3), Conv_2=conv(3, width, 3))
                    add(f"stage_{k}_supervised_attention_module_{i}", sam)
                elif all_heads or i == 0:
                    add(f"stage_{k}_output_conv_{i}", conv(width, 3, 3))
            for j in range(bottlenecks):
                bottom = Level(widths[-1], widths[-1], block_low, block_low, *shape, bottom=True)
                add(f"stage_{k}_global_block_{j}", bottom)
            for m, (target, place) in enumerate([(t, s) for t in (2, 1, 0) for s in (0, 1, 2)] * 2):
                source = place if m < 9 else SCALES - 1 - place
                ratio = named(Conv_0=conv(widths[source], widths[target]))
                add(f"UpSampleRatio_{18 * k + m}", ratio)
        use_flax_names(self)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], any size -> the same shape, not clipped.

        Odd sides get one line more, then both ends are mirrored up to the next multiple, as in the official code.
        """
        height, width = image.shape[-2:]
        even = [side + side % 2 for side in (height, width)]
        top, left = (-side % self.multiple // 2 for side in even)
        x = pad_reflect(image, 0, even[1] - width, 0, even[0] - height)
        x = pad_reflect(x, left, left, top, top)
        return self.outputs(x)[-1][-1][..., top : top + height, left : left + width]

    def outputs(self, image: Tensor) -> list[list[Tensor]]:
        """Every picture that is made, [stage][size] from the smallest size to the largest (N, 3, h, w).

        Sides of the image are multiples of `multiple`. The last stage has only the largest without `all_heads`.
        """
        images = [image, image[..., 1::2, 1::2], image[..., 2::4, 2::4]]
        images = [x.permute(0, 2, 3, 1).contiguous() for x in images]
        found: list[list[Tensor]] = []
        features: Features = ([], [], [])
        for k in range(self.stages):
            pictures, features = self._stage(k, images, *features)
            found.append([x.permute(0, 3, 1, 2) for x in reversed(pictures)])
        return found

    def _stage(
        self, k: int, images: list[Tensor], encoded: list[Tensor], decoded: list[Tensor], attended: list[Tensor]
    ) -> tuple[list[Tensor], Features]:
        last = k == self.stages - 1

        def part(name: str, i: int) -> Any:
            return getattr(self, f"stage_{k}_{name}_{i}")

        def ratios(first: int) -> list[nn.Module]:
            return [getattr(self, f"UpSampleRatio_{18 * k + first + j}") for j in range(SCALES)]

        skips = [spatial(part("input_conv", i), image) for i, image in enumerate(images)]
        if attended:
            fuse = [part("input_fuse_sam", i) for i in range(SCALES)]
            skips = [f(pointwise(f.Conv_0, skip), x)[0] for f, skip, x in zip(fuse, skips, attended, strict=True)]
        x, features = skips[0], []
        for i, skip in enumerate(skips):
            block = part("encoder_block", i)
            x = block(pointwise(block.Conv_0, torch.cat([x, skip], -1)), encoded[i] + decoded[i] if encoded else None)
            features.append(x)
            x = spatial(block.Conv_1, x)
        for j in range(self.bottlenecks):
            block = part("global_block", j)
            x = block(pointwise(block.input_proj, x))
        gate, skips = x, []
        for at, i in enumerate(reversed(range(SCALES))):
            block = part("cross_gating_block", i)
            signal = list(zip(ratios(3 * at), features, strict=True))
            skip, gate = block(merge(signal, block.Conv_0, images[i].shape[1:3], None), gate)
            skips.append(skip)
        pictures: list[Tensor] = [images[0]] * SCALES
        decoded, attended = [x] * SCALES, [x] * SCALES
        for at, i in enumerate(reversed(range(SCALES))):
            block = part("decoder_block", i)
            x, level = double(block.ConvTranspose_0, x), block.UNetEncoderBlock_0
            signal = list(zip(ratios(9 + 3 * at), skips, strict=True))
            decoded[i] = x = level(merge(signal, level.Conv_0, images[i].shape[1:3], x))
            if not last:
                sam = part("supervised_attention_module", i)
                pictures[i] = spatial(sam.Conv_1, x) + images[i]
                attended[i] = spatial(sam.Conv_0, x) * torch.sigmoid(spatial(sam.Conv_2, pictures[i])) + x
            elif i == 0 or self.all_heads:
                pictures[i] = spatial(part("output_conv", i), x) + images[i]
        return (pictures if self.all_heads or not last else pictures[:1]), (features, decoded, attended)


def recognize(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """Configuration of `MAXIM` from its tensors, None where these are not its.

    Of windows only the number of pixels is told: they are taken to be square, or as nearly so as that number allows.
    """
    first = "stage_0_encoder_block_0/SplitHeadMultiAxisGmlpLayer_0"
    features = shapes["stage_0_input_conv_0/kernel"][-1]
    try:
        low = shapes["stage_0_global_block_0/SplitHeadMultiAxisGmlpLayer_0/BlockGmlpLayer/BlockGatingUnit/Dense_0/bias"]
        sizes = [shapes[f"{first}/{kind}GmlpLayer/{kind}GatingUnit/Dense_0/bias"][0] for kind in ("Block", "Grid")]
        reduced = shapes["stage_0_encoder_block_0/channel_attention_block_10/channel_attention/Conv_0/bias"][0]
    except KeyError:
        return None

    def count(pattern: str) -> int:
        return next(i for i in range(len(shapes)) if pattern.format(i) not in shapes)

    stages = count("stage_{}_input_conv_0/kernel")
    block, grid, block_low = (_nearly_square(size) for size in (*sizes, low[0]))
    return {
        "features": features,
        "stages": stages,
        "groups": count("stage_0_encoder_block_0/SplitHeadMultiAxisGmlpLayer_{}/in_project/kernel"),
        "bottlenecks": count("stage_0_global_block_{}/input_proj/kernel"),
        "block": block,
        "grid": grid,
        "block_low": block_low,
        "reduction": features // reduced,
        "all_heads": f"stage_{stages - 1}_output_conv_1/kernel" in shapes,
    }


def _nearly_square(size: int) -> list[int]:
    side = next(i for i in range(math.isqrt(size), 0, -1) if size % i == 0)
    return [side, size // side]


def restorer(net: MAXIM, header: Mapping[str, str]) -> SinglePassModel:
    """The model of a loaded network. Its grids and its attention span all it is given: it is cut only for memory."""
    live = 28 * net.features
    return SinglePassModel(
        net, info(net, header, "maxim", "rain", overlap=64, live=live, multiple=net.multiple, tiling="blended")
    )
