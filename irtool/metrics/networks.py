"""Networks that metrics look through, with the tensor names of their published weights; built by kept libraries.

They come with the extra "metrics" and are imported when a metric is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ..errors import UnavailableError

Shapes = Mapping[str, tuple[int, ...]]


def needs_extra(error: ImportError, metric: str) -> UnavailableError:
    """What to say where a library is not here, or its torchvision does not fit this torch."""
    return UnavailableError(
        f"{metric} needs packages that do not load here ({error}).", "pip install 'irtool[metrics]'"
    )


def alexnet() -> nn.Module:
    """AlexNet as torchvision has it, without weights.

    Raises:
        UnavailableError: torchvision is not installed or does not fit this torch.
    """
    return _torchvision("alexnet")


def vgg16() -> nn.Module:
    """VGG-16 as torchvision has it, without weights.

    Raises:
        UnavailableError: torchvision is not installed or does not fit this torch.
    """
    return _torchvision("vgg16")


def _torchvision(name: str) -> nn.Module:
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:
        raise needs_extra(ImportError(str(error)), f"The network {name}") from error
    net: nn.Module = getattr(models, name)(weights=None)
    return net


def inception() -> nn.Module:
    """The Inception of FID without weights: (N, 3, H, W) uint8 -> (N, 2048) float32.

    torch-fidelity's layers under pytorch-fid's preparation: bilinear to 299x299 by torch, then 2 x - 1 of [0, 1].

    Raises:
        UnavailableError: torch-fidelity is not installed, or torchvision does not fit this torch.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except (ImportError, RuntimeError) as error:
        raise needs_extra(ImportError(str(error)), "FID") from error
    from io import BytesIO

    import torch
    import torch.nn.functional as F
    from torch import Tensor

    class Inception(FeatureExtractorInceptionV3):
        LAYERS = (
            "Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1", "Conv2d_4a_3x3",
            "MaxPool_2", "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d",
            "Mixed_6e", "Mixed_7a", "Mixed_7b", "Mixed_7c", "AvgPool",
        )  # fmt: skip

        def load_state_dict(self, state: Any, *arguments: Any, **options: Any) -> Any:
            # The constructor wants to load weights at once; it is given none.
            return super().load_state_dict(state, *arguments, **options) if state else None

        def forward(self, images: Tensor) -> Tensor:
            x = F.interpolate(images.float() / 255, size=(299, 299), mode="bilinear", align_corners=False)
            x = 2 * x - 1
            for name in self.LAYERS:
                x = getattr(self, name)(x)
            return x.flatten(1)

    nothing = BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    return Inception("fid", ["2048"], feature_extractor_weights_path=nothing)


def recognize_alexnet(shapes: Shapes) -> dict[str, Any] | None:
    """{} for the tensors of `alexnet`, else None."""
    return {} if shapes["features.0.weight"] == (64, 3, 11, 11) else None


def recognize_vgg16(shapes: Shapes) -> dict[str, Any] | None:
    """{} for the tensors of `vgg16`, else None."""
    return {} if shapes["features.28.weight"] == (512, 512, 3, 3) else None


def recognize_inception(shapes: Shapes) -> dict[str, Any] | None:
    """{} for the tensors of `inception`, else None."""
    return {} if shapes["fc.weight"] == (1008, 2048) else None
