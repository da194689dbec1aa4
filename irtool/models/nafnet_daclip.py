"""NAFNet steered by DA-CLIP's embeddings: the rows "NAFNet + Degradation" and "NAFNet + DA-CLIP" of the DA-CLIP paper.

One pass, no diffusion. Neither code nor weights were published; the author's remarks say: Refusion's blocks, with the
prompt weighted by the degradation embedding where the time embedding was, and transformers that see the content
embedding in place of the channel attention "at the bottom layers, like the U-Net". **Where they sit is therefore our
own layout**: in the deepest encoder level, the middle and the deepest decoder level. So are block counts and widths,
by default those of NAFNet for SIDD with a shallower deep end, since each block there carries a transformer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UnavailableError
from ..ops import pad_to_multiple
from .base import ModelInfo, SinglePassModel, describe
from .daclip import DaCLIP, embed_whole_image
from .macs import gmacs_per_megapixel
from .nafnet import add_stages, layout
from .refusion_nafnet import ConditionalBlock, Gate, descend
from .unet_blocks import HEAD, PreNorm, Residual, SpatialTransformer

Shapes = Mapping[str, tuple[int, ...]]


class ContextNAFNet(nn.Module):
    """NAFNet + DA-CLIP; without `use_image_context` NAFNet + Degradation.

    Args:
        img_channel: of pictures in and out.
        width: channels of the first level, a multiple of 32 over 2^(levels - 1); they double per level.
        middle_blk_num, enc_blk_nums, dec_blk_nums: blocks in the middle and at each level.
        context_dim: size of the embeddings.
        use_image_context: transformers at the bottom see the content embedding.
    """

    def __init__(
        self,
        img_channel: int = 3,
        width: int = 32,
        middle_blk_num: int = 2,
        enc_blk_nums: Sequence[int] = (2, 2, 4, 2),
        dec_blk_nums: Sequence[int] = (2, 2, 2, 2),
        context_dim: int = 512,
        use_image_context: bool = True,
    ) -> None:
        super().__init__()
        levels, times = len(enc_blk_nums), 4 * width
        self.multiple, self.context_dim, self.use_image_context = 2**levels, context_dim, use_image_context
        self.prompt = nn.Parameter(torch.rand(1, times))
        self.text_mlp = nn.Sequential(nn.Linear(context_dim, times), nn.SiLU(), nn.Linear(times, times))
        self.prompt_mlp = nn.Sequential(nn.Linear(times, 2 * times), Gate(), nn.Linear(times, times))
        self.intro, self.ending = nn.Conv2d(img_channel, width, 3, 1, 1), nn.Conv2d(width, img_channel, 3, 1, 1)

        def stage(level: int, count: int) -> nn.ModuleList:
            c, bottom = width << level, use_image_context and level >= levels - 1
            return nn.ModuleList(
                ConditionalBlock(c, times, Residual(PreNorm(c, SpatialTransformer(c, context_dim))) if bottom else None)
                for _ in range(count)
            )

        add_stages(self, width, middle_blk_num, enc_blk_nums, dec_blk_nums, stage)

    def forward(self, x: Tensor, text_context: Tensor, image_context: Tensor | None = None) -> Tensor:
        """Restore pictures.

        Args:
            x: (N, img_channel, H, W) in [0, 1], any size.
            text_context, image_context: degradation and content embeddings (N, context_dim), not normalised.

        Returns:
            As x, not clamped.
        """
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, self.multiple, "zeros").contiguous(memory_format=torch.channels_last)
        prompt = self.prompt_mlp(self.text_mlp(text_context).softmax(dim=1) * self.prompt)
        y = descend(self, self.intro(x), prompt, image_context)
        return (self.ending(y) + x)[..., :height, :width]


def recognize(shapes: Shapes) -> dict[str, Any] | None:
    """The configuration of a `ContextNAFNet` from its tensors."""
    found = layout(shapes)
    content = any(".att.fn.fn.transformer_blocks" in name for name in shapes)
    if content and (found["width"] << len(found["enc_blk_nums"]) - 1) % HEAD:
        return None
    return {**found, "context_dim": shapes["text_mlp.0.weight"][1], "use_image_context": content}


class SteeredNAFNet(SinglePassModel):
    """A `ContextNAFNet` with its controller. Its transformers see all that they are given."""

    def __init__(self, net: Any, info: ModelInfo, controller: DaCLIP) -> None:
        super().__init__(net, info)
        self.controller = controller.drop_text_tower()

    def prepare(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The image, and its degradation and content embeddings side by side (1, 2 K)."""
        content, degradation = embed_whole_image(self.controller.to(self.placed.device), image[0])
        return image, torch.cat([degradation, content], dim=1)

    def forward(self, tile: Tensor, context: Tensor) -> Tensor:
        restored: Tensor = self.net(tile, *context.to(tile.dtype).chunk(2, dim=1))
        return restored


def restorer(net: Any, header: Mapping[str, str], *companions: nn.Module) -> SteeredNAFNet:
    """The model of a loaded `ContextNAFNet`.

    Raises:
        UnavailableError: the controller is missing.
    """
    if not companions or not isinstance(companions[0], DaCLIP):
        raise UnavailableError("nafnet-daclip needs a DA-CLIP controller.", "Name one with `controller`.")
    info = describe(
        net, header, "nafnet-daclip", overlap=32, bytes_per_pixel=4 * 10 * net.intro.out_channels,
        multiple=net.multiple, gmacs=gmacs_per_megapixel(net), task_agnostic=True, tiling="blended",
    )  # fmt: skip
    return SteeredNAFNet(net, info, companions[0])
