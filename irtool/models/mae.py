"""The masked autoencoder as LM4LV uses it: pictures to features and back, nothing masked.

He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, by `ViTMAEForPreTraining` of the package
transformers; the published decoder, fine-tuned to restore pixels, is bytetriper/vit-mae-r on the Hugging Face hub.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UnavailableError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def transformers() -> Any:
    """The package, on request.

    Raises:
        UnavailableError: it is not installed.
    """
    try:
        import transformers as package
    except ImportError as error:
        raise UnavailableError("LM4LV needs the package transformers.", "pip install 'irtool[text]'") from error
    return package


class Autoencoder(nn.Module):
    """A ViT-MAE with nothing masked.

    Args:
        config: keyword arguments of `transformers.ViTMAEConfig`.
        net: a `ViTMAEForPreTraining` instead.
    """

    def __init__(self, config: Mapping[str, Any] | None = None, net: Any = None) -> None:
        super().__init__()
        if net is None:
            package = transformers()
            net = package.ViTMAEForPreTraining(package.ViTMAEConfig(**{**(config or {}), "mask_ratio": 0.0}))
        net.config.mask_ratio = net.vit.embeddings.config.mask_ratio = 0.0
        self.net = net

    @property
    def size(self) -> int:
        """Side of the pictures."""
        return int(self.net.config.image_size)

    @property
    def patches(self) -> int:
        return (self.size // int(self.net.config.patch_size)) ** 2

    @property
    def tokens(self) -> int:
        """Features of a picture: one per patch, and the class token before them."""
        return self.patches + 1

    @property
    def dim(self) -> int:
        """Numbers of a feature."""
        return int(self.net.config.hidden_size)

    def _order(self, like: Tensor) -> Tensor:
        return torch.arange(self.patches, device=like.device).expand(len(like), -1)

    def encode(self, pictures: Tensor) -> Tensor:
        """(N, 3, size, size) in [0, 1] -> features (N, tokens, dim)."""
        mean, std = (pictures.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        # The noise decides the order of the patches; a rising one leaves them where they are.
        out = self.net.vit((pictures - mean) / std, noise=self._order(pictures).to(pictures.dtype))
        features: Tensor = out.last_hidden_state
        return features

    def decode(self, features: Tensor) -> Tensor:
        """Features -> pictures about [0, 1], not clamped."""
        logits = self.net.decoder(features, self._order(features)).logits
        pictures: Tensor = self.net.unpatchify(logits)
        mean, std = (pictures.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        return pictures * std + mean


def load(reference: str) -> Autoencoder:
    """An autoencoder in the layout of transformers: a folder, or a repository on the Hugging Face hub.

    Raises:
        UnavailableError: it cannot be had.
    """
    try:
        return Autoencoder(net=transformers().ViTMAEForPreTraining.from_pretrained(reference).eval())
    except (OSError, ValueError) as error:
        raise UnavailableError(f"{reference} cannot be loaded as a ViT-MAE: {str(error).splitlines()[0]}") from error
