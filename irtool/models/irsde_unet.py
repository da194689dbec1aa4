"""The U-Nets of IR-SDE (Luo et al., "Image Restoration with Mean-Reverting Stochastic Differential Equations",
ICML 2023) and of DA-CLIP (Luo et al., ICLR 2024; wild variant: CVPRW 2024).

They predict the noise in a state ``x_t`` of the process in `irtool.diffusion.irsde`. One network serves four
published ones:

========================  =====================================================================================
IR-SDE                    `ConditionalUNet`: widths double per level, linear attention throughout
denoising SDE             the same without a condition, full attention in the middle
universal (DA-CLIP)       `ContextUNet`: transformers at the lowest levels see the content embedding; a prompt weighted
                          by the degradation embedding is added to the time embedding
wild (DA-CLIP)            the same at half resolution inside, content embedding only
========================  =====================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..ops import pad_to_multiple
from .unet_blocks import (
    HEAD,
    FullAttention,
    LinearAttention,
    PreNorm,
    ResBlock,
    Residual,
    SpatialTransformer,
    Times,
    Up,
    as_times,
    down,
    up,
)

Shapes = Mapping[str, tuple[int, ...]]


def _attention(channels: int, kind: str, source: int = 0) -> nn.Module:
    fn: nn.Module
    if kind == "linear":
        fn = LinearAttention(channels)
    elif kind == "full":
        fn = FullAttention(channels)
    else:
        fn = SpatialTransformer(channels, source)
    return Residual(PreNorm(channels, fn))


class _UNet(nn.Module):
    """What the four have in common.

    Args:
        inputs, outputs: channels of what goes in and comes out.
        nf: width of the first level.
        dims: width before each level and after the last.
        kinds: attention of each level and, last, of the middle: "linear", "full" or "transformer".
        source: size of the content embedding that the transformers see.
        core: 0.5 to work at half resolution inside.
    """

    def __init__(
        self, inputs: int, outputs: int, nf: int, dims: Sequence[int], kinds: Sequence[str], source: int, core: float
    ) -> None:
        super().__init__()
        times, levels = 4 * nf, list(pairwise(dims))
        self.width, self.multiple = nf, 2 ** len(levels)
        self.init_conv = nn.Conv2d(inputs, nf, 7, 1, 3, bias=False)
        if core != 1:
            self.downsample = nn.Conv2d(nf, nf, 4, 2, 1)
            self.upsample = Up(nf, nf)
        self.core = core
        self.time_mlp: Any = nn.Sequential(Times(nf), nn.Linear(nf, times), nn.GELU(), nn.Linear(times, times))
        self.downs: Any = nn.ModuleList()
        self.ups: Any = nn.ModuleList()
        for i, ((a, b), kind) in enumerate(zip(levels, kinds[:-1], strict=True)):
            blocks: list[nn.Module] = [ResBlock(a, a, times), ResBlock(a, a, times), _attention(a, kind, source)]
            self.downs.append(nn.ModuleList([*blocks, down(a, b, last=i == len(levels) - 1)]))
            blocks = [ResBlock(a + b, b, times), ResBlock(a + b, b, times), _attention(b, kind, source)]
            self.ups.insert(0, nn.ModuleList([*blocks, up(b, a, last=i == 0)]))
        self.mid_block1 = ResBlock(dims[-1], dims[-1], times)
        self.mid_attn = _attention(dims[-1], kinds[-1], source)
        self.mid_block2 = ResBlock(dims[-1], dims[-1], times)
        self.final_res_block = ResBlock(2 * nf, nf, times)
        self.final_conv = nn.Conv2d(nf, outputs, 3, 1, 1)

    def predict(self, x: Tensor, time: Tensor, content: Tensor | None = None) -> Tensor:
        """x (N, inputs, H, W) any size, time embedding (1 or N, 4 nf), content (N, source) -> (N, outputs, H, W)."""
        height, width = x.shape[-2:]
        # Whoever calls subtracts in float32, where the state and its mean are all but equal, and only then is rounded.
        x = pad_to_multiple(x, self.multiple).to(self.init_conv.weight.dtype, memory_format=torch.channels_last)
        x = first = self.init_conv(x)
        if self.core != 1:
            x = self.downsample(x)
        skips = []
        for block1, block2, attention, further in self.downs:
            x = block1(x, time)
            skips.append(x)
            x = attention(block2(x, time), content)
            skips.append(x)
            x = further(x)
        x = self.mid_block2(self.mid_attn(self.mid_block1(x, time), content), time)
        for block1, block2, attention, further in self.ups:
            x = block1(x, time, skips.pop())
            x = block2(x, time, skips.pop())
            x = further(attention(x, content))
        if self.core != 1:
            x = self.upsample(x)
        x = self.final_res_block(x, time, first)
        return self.final_conv(x)[..., :height, :width]

    def embed(self, t: Tensor | float, x: Tensor) -> Tensor:
        """Time steps, one or one per sample -> (1 or N, 4 nf)."""
        features = self.time_mlp[0](as_times(t, x)).to(self.time_mlp[1].weight.dtype)
        return self.time_mlp[1:](features)


class ConditionalUNet(_UNet):
    """The U-Net of IR-SDE; without a condition that of the denoising SDE.

    Args:
        in_nc, out_nc: channels of the picture and of the prediction.
        nf: width of the first level.
        depth: levels; the width doubles at each.
        conditional: it is given ``x_t - mu`` and ``mu``; otherwise ``x_t`` alone, with full attention in the middle.
    """

    def __init__(self, in_nc: int = 3, out_nc: int = 3, nf: int = 64, depth: int = 4, conditional: bool = True) -> None:
        kinds = ["linear"] * depth + ["linear" if conditional else "full"]
        inputs = 2 * in_nc if conditional else in_nc
        super().__init__(inputs, out_nc, nf, [nf << i for i in range(depth + 1)], kinds, 0, 1)
        self.conditional = conditional

    def forward(self, x: Tensor, mu: Tensor | None, t: Tensor | float) -> Tensor:
        """States x and conditions mu (N, in_nc, H, W) in about [0, 1], times t from 1 -> noise (N, out_nc, H, W)."""
        if self.conditional:
            assert mu is not None
            x = torch.cat([x - mu, mu], dim=1)
        return self.predict(x, self.embed(t, x))


class ContextUNet(_UNet):
    """The U-Net that the embeddings of a DA-CLIP controller steer: universal, or wild with ``scale=0.5``.

    Args:
        in_nc, out_nc, nf: as in `ConditionalUNet`.
        ch_mult: width of each level in units of nf.
        context_dim: size of the embeddings; 512 for ViT-B/32, 768 for ViT-L/14.
        use_degra_context: a learned prompt, weighted by the degradation embedding, is added to the time embedding.
        use_image_context: the content embedding goes to transformers at the lowest levels; otherwise there are none.
        scale: 0.5 for a core at half resolution.
        first_transformer: the first level with a transformer; None for the fourth at full resolution, as in the
            universal net, and for the last one at half, as in the wild net.
    """

    def __init__(
        self,
        in_nc: int = 3,
        out_nc: int = 3,
        nf: int = 64,
        ch_mult: Sequence[int] = (1, 2, 4, 8),
        context_dim: int = 512,
        use_degra_context: bool = True,
        use_image_context: bool = True,
        scale: float = 1.0,
        first_transformer: int | None = None,
    ) -> None:
        depth = len(ch_mult)
        first = first_transformer
        if first is None:
            first = 3 if scale == 1 else depth - 1
        kinds = ["transformer" if use_image_context and i >= first else "linear" for i in range(depth)]
        kinds.append("transformer" if use_image_context else "linear")
        super().__init__(2 * in_nc, out_nc, nf, [nf, *(nf * m for m in ch_mult)], kinds, context_dim, scale)
        self.context_dim = context_dim
        self.use_degra_context, self.use_image_context = use_degra_context, use_image_context
        if use_degra_context:
            times = 4 * nf
            self.prompt = nn.Parameter(torch.rand(1, times))
            self.text_mlp = nn.Sequential(nn.Linear(context_dim, times), nn.SiLU(), nn.Linear(times, times))
            self.prompt_mlp = nn.Linear(times, times)

    def forward(
        self,
        x: Tensor,
        mu: Tensor,
        t: Tensor | float,
        text_context: Tensor | None = None,
        image_context: Tensor | None = None,
    ) -> Tensor:
        """Predict the noise in states.

        Args:
            x, mu: states and low-quality pictures, (N, in_nc, H, W), about [0, 1].
            t: time steps from 1, one or one per sample; fractions are allowed.
            text_context: degradation embeddings (N, context_dim), not normalised. The published name is kept: they live
                in the space of the words, though they come from the picture.
            image_context: content embeddings (N, context_dim), not normalised.

        Returns:
            (N, out_nc, H, W).
        """
        time = self.embed(t, x)
        if self.use_degra_context:
            assert text_context is not None
            time = time + self.prompt_mlp(self.text_mlp(text_context).softmax(dim=1) * self.prompt)
        assert image_context is not None or not self.use_image_context
        return self.predict(torch.cat([x - mu, mu], dim=1), time, image_context)


def recognize(shapes: Shapes) -> dict[str, Any] | None:
    """The configuration of IR-SDE's `ConditionalUNet` from its tensors; None where they are another's."""
    return _of(shapes, conditional=True)


def recognize_denoising(shapes: Shapes) -> dict[str, Any] | None:
    """The same for the unconditional net of the denoising SDE."""
    return _of(shapes, conditional=False)


def recognize_universal(shapes: Shapes) -> dict[str, Any] | None:
    """The configuration of the universal `ContextUNet` from its tensors; None where they are another's."""
    return None if _is_wild(shapes) else recognize_context(shapes)


def recognize_wild(shapes: Shapes) -> dict[str, Any] | None:
    """The same for the wild one, whose core works at half resolution as published, or at full."""
    return recognize_context(shapes) if _is_wild(shapes) else None


def _is_wild(shapes: Shapes) -> bool:
    # It sees the content embedding only; the universal net always has the prompt of the degradations.
    return "downsample.weight" in shapes or "prompt" not in shapes


def _of(shapes: Shapes, conditional: bool) -> dict[str, Any] | None:
    if "mid_attn.fn.fn.to_qkv.weight" not in shapes or "prompt" in shapes or "downsample.weight" in shapes:
        return None
    nf, inputs = shapes["init_conv.weight"][:2]
    depth = _levels(shapes)
    # Doubling at every level is what tells it from a context-free net of the DA-CLIP family.
    if any(shapes[f"downs.{i}.3.weight"][:2] != (nf << i + 1, nf << i) for i in range(depth)):
        return None
    if conditional != ("mid_attn.fn.fn.to_out.0.weight" in shapes):
        return None
    outputs = shapes["final_conv.weight"][0]
    return {
        "in_nc": inputs // 2 if conditional else inputs, "out_nc": outputs, "nf": nf, "depth": depth,
        "conditional": conditional,
    }  # fmt: skip


def recognize_context(shapes: Shapes) -> dict[str, Any] | None:
    """The configuration of either `ContextUNet`."""
    transformer = "mid_attn.fn.fn.transformer_blocks.0.attn2.to_k.weight"
    if transformer not in shapes and "prompt" not in shapes:
        return None
    nf, inputs = shapes["init_conv.weight"][:2]
    widths = [shapes[f"downs.{i}.3.weight"][0] for i in range(_levels(shapes))]
    source = shapes[transformer] if transformer in shapes else shapes["text_mlp.0.weight"]
    if any(w % nf for w in widths) or (transformer in shapes and widths[-1] % HEAD):
        return None
    scale = 0.5 if "downsample.weight" in shapes else 1.0
    found = {
        "in_nc": inputs // 2, "out_nc": shapes["final_conv.weight"][0], "nf": nf,
        "ch_mult": [w // nf for w in widths], "context_dim": source[1],
        "use_degra_context": "prompt" in shapes, "use_image_context": transformer in shapes,
        "scale": scale,
    }  # fmt: skip
    levels = range(len(widths))
    first = next((i for i in levels if f"downs.{i}.2.fn.fn.transformer_blocks.0.attn2.to_k.weight" in shapes), None)
    usual = 3 if scale == 1 else len(widths) - 1
    if first is not None and first != usual:
        found["first_transformer"] = first
    return found


def _levels(shapes: Shapes) -> int:
    return 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("downs."))
