"""DA-CLIP: a CLIP that says what a degraded picture shows and, apart from that, how it is degraded.

Luo et al., "Controlling Vision-Language Models for Multi-Task Image Restoration", ICLR 2024. A trainable copy of the
frozen image tower, the controller, gives the *degradation embedding*; what each of its blocks gives, through a linear
layer that starts at zero, is added to the frozen tower's, whose output becomes the *content embedding*. The towers
are those of the open_clip package itself; only the controller is added.

The published code takes the controller's features from the last to the first: the output of block i of the frozen tower
receives the feature of block L + 1 - i. The published weights depend on it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UnavailableError

Shapes = Mapping[str, tuple[int, ...]]
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of OpenAI's CLIP; the published code takes them for every base model."""


def open_clip() -> Any:
    """The open_clip package.

    Raises:
        UnavailableError: it is not installed, or does not fit the installed torch.
    """
    try:
        import open_clip as package
    except (ImportError, RuntimeError) as error:  # a torchvision built for another torch raises RuntimeError
        message = f"DA-CLIP needs open_clip, which cannot be imported here: {error}."
        raise UnavailableError(message, "Install it with: pip install open_clip_torch") from error
    return package


class ControlTransformer(nn.Module):
    """The controller's transformer with the layers that hand its features over, under their published names."""

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.transformer = transformer
        width, count = transformer.width, len(transformer.resblocks)
        self.zero_modules = nn.ModuleList(nn.Linear(width, width) for _ in range(count))
        for layer in self.zero_modules:
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, *arguments: Any, **named: Any) -> Tensor:
        """Tokens (N, L, width) -> the same shape: the copied transformer, unchanged."""
        out: Tensor = self.transformer(x, *arguments, **named)
        return out


class DaCLIP(nn.Module):
    """A CLIP with a controller.

    Args:
        embed_dim, vision_cfg, text_cfg: of `open_clip.CLIP`.

    The state dict has the published names, among them the frozen tower twice: as ``clip.visual`` and as ``visual``.
    """

    def __init__(self, embed_dim: int, vision_cfg: Mapping[str, Any], text_cfg: Mapping[str, Any]) -> None:
        super().__init__()
        package = open_clip()
        self.clip: Any = package.CLIP(embed_dim, package.CLIPVisionCfg(**vision_cfg), package.CLIPTextCfg(**text_cfg))
        self.clip.requires_grad_(False)
        self.visual = self.clip.visual
        self.visual_control: Any = copy.deepcopy(self.clip.visual).requires_grad_(True)
        self.visual_control.transformer = ControlTransformer(self.visual_control.transformer)
        self.logit_scale = nn.Parameter(self.clip.logit_scale.detach().clone())
        self.register_load_state_dict_post_hook(_restore_mask)

    @property
    def size(self) -> int:
        """Side of the pictures the towers take, in pixels."""
        side = self.clip.visual.image_size
        return int(side[0] if isinstance(side, tuple) else side)

    def init_controller(self) -> None:
        """Make the controller a copy of the frozen tower, as training starts.

        The published code goes out of step while copying and leaves its last normalisation, and the first of the layers
        that hand over, with the values of others; this copies each to its own place.
        """
        weights = {
            k.replace("transformer.", "transformer.transformer.", 1) if k.startswith("transformer.") else k: v
            for k, v in self.clip.visual.state_dict().items()
        }
        self.visual_control.load_state_dict(weights, strict=False)
        for layer in self.visual_control.transformer.zero_modules:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.logit_scale.data.copy_(self.clip.logit_scale)

    def embed(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Content and degradation embeddings (N, embed_dim), not normalised, as the restorers take them.

        Args:
            image: (N, 3, size, size) from `preprocess`.
        """
        hidden: list[Tensor] = []
        zero = self.visual_control.transformer.zero_modules
        with _after(self.visual_control.transformer.transformer, lambda i, y: hidden.append(zero[i](y))):
            degradation = self.visual_control(image)
        with _after(self.clip.visual.transformer, lambda i, y: y + hidden[-1 - i]):
            content = self.clip.visual(image)
        return content, degradation

    def encode_image(
        self, image: Tensor, control: bool = False, normalize: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """As published: (content, degradation) with `control`, otherwise what the plain CLIP gives."""
        if not control:
            plain: Tensor = self.clip.encode_image(image, normalize=normalize)
            return plain
        content, degradation = self.embed(image)
        if normalize:
            return F.normalize(content, dim=-1), F.normalize(degradation, dim=-1)
        return content, degradation

    def encode_text(self, tokens: Tensor, normalize: bool = False) -> Tensor:
        """Tokens (N, context length) -> (N, embed_dim)."""
        out: Tensor = self.clip.encode_text(tokens, normalize=normalize)
        return out

    def forward(self, image: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        """What the contrastive losses compare.

        Args:
            image: (N, 3, size, size).
            tokens: (N, 2 * context length): of the captions, then of the words for the degradations.

        Returns:
            image_features, text_features, image_degra_features, text_degra_features, each (N, embed_dim) of length 1;
            logit_scale, exponentiated.
        """
        captions, words = tokens.chunk(2, dim=-1)
        content, degradation = self.embed(image)
        return {
            "image_features": F.normalize(content, dim=-1),
            "text_features": self.encode_text(captions, normalize=True),
            "image_degra_features": F.normalize(degradation, dim=-1),
            "text_degra_features": self.encode_text(words, normalize=True),
            "logit_scale": self.logit_scale.exp(),
        }

    def drop_text_tower(self) -> DaCLIP:
        """Drop the text tower, which restoration does not use; returns itself."""
        for name in ("transformer", "token_embedding", "ln_final"):
            setattr(self.clip, name, nn.Identity())
        self.clip.positional_embedding = self.clip.text_projection = None
        return self


@contextmanager
def _after(transformer: Any, act: Callable[[int, Tensor], Tensor | None]) -> Iterator[None]:
    """While open, `act(i, output)` is called after block i, and replaces its output where it returns one."""
    handles = [
        block.register_forward_hook(lambda module, given, output, i=i: act(i, output))
        for i, block in enumerate(transformer.resblocks)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _restore_mask(net: nn.Module, _: Any) -> None:
    """The causal mask of the text tower is in no file, and a network built on the meta device has lost its values."""
    clip: Any = net.clip
    if clip.attn_mask is not None and clip.attn_mask.is_meta:
        side = clip.context_length
        clip.attn_mask = torch.full((side, side), -math.inf).triu_(1)


def preprocess(pixels: Tensor, size: int = 224) -> Tensor:
    """What the towers see of a picture, as published: shortest side to `size`, bicubic with antialias, centre square.

    Args:
        pixels: (3, H, W) sRGB in [0, 1], any size.

    Returns:
        (3, size, size), normalised by MEAN and STD.
    """
    from PIL import Image

    # Pillow's own filter on 8 bits: others differ from it by more than the controller is indifferent to.
    levels = (pixels.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    image = Image.fromarray(np.ascontiguousarray(levels))
    short = min(image.size)
    wide, high = (size if s == short else size * s // short for s in image.size)
    image = image.resize((wide, high), Image.Resampling.BICUBIC)
    left, top = round((wide - size) / 2), round((high - size) / 2)
    image = image.crop((left, top, left + size, top + size))
    cut = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    return (cut - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


@torch.inference_mode()
def embed_whole_image(net: DaCLIP, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Content and degradation embeddings (1, embed_dim) float32 of a picture (3, H, W) in [0, 1].

    On CUDA in float16, as published; elsewhere in the network's own type.
    """
    weight = net.clip.visual.conv1.weight
    image = preprocess(pixels, net.size)[None].to(weight.device, weight.dtype)
    with torch.autocast(weight.device.type, torch.float16, enabled=weight.device.type == "cuda"):
        content, degradation = net.embed(image)
    return content.float(), degradation.float()


def tokens(texts: Sequence[str], length: int = 77) -> Tensor:
    """Token ids (N, length) of CLIP's own tokenizer."""
    ids: Tensor = open_clip().SimpleTokenizer(context_length=length)(list(texts))
    return ids


def recognize(shapes: Shapes) -> dict[str, Any] | None:
    """The configuration of a `DaCLIP` from its tensors; heads are 64 channels wide, as in every ViT of CLIP."""
    width, _, patch, _ = shapes["clip.visual.conv1.weight"]
    grid = math.isqrt(shapes["clip.visual.positional_embedding"][0] - 1)
    length, text_width = shapes["clip.positional_embedding"]
    if width % 64 or text_width % 64:
        return None

    def layers(prefix: str) -> int:
        found = {n.removeprefix(prefix).split(".")[0] for n in shapes if n.startswith(prefix)}
        return len(found)

    return {
        "embed_dim": shapes["clip.text_projection"][1],
        "vision_cfg": {
            "image_size": grid * patch, "layers": layers("clip.visual.transformer.resblocks."), "width": width,
            "patch_size": patch,
        },
        "text_cfg": {
            "context_length": length, "vocab_size": shapes["clip.token_embedding.weight"][0], "width": text_width,
            "heads": text_width // 64, "layers": layers("clip.transformer.resblocks."),
        },
    }  # fmt: skip
