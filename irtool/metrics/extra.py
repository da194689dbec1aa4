"""Metrics beyond PSNR and SSIM: LPIPS, FID, and one that needs no truth. Each through a kept library.

    lpips-alex, lpips-vgg   Zhang et al. 2018, by the package lpips: 0 is alike
    fid                     Heusel et al. 2017 as pytorch-fid defines it, by torch-fidelity: of the set, 0 is alike
    blur                    Crete et al. 2007, by scikit-image: without a truth, 0 is sharp and 1 is blurred

The weights of their networks are records in weights.toml, fetched and compared like any others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from ..errors import UsageError

METRICS = ("lpips-alex", "lpips-vgg", "fid", "blur")
LOWER_IS_BETTER = ("lpips-alex", "lpips-vgg", "fid", "blur")


class Extra(Protocol):
    """One metric.

    Attributes:
        id: its name.
        packages: whose versions belong to its figures.
    """

    @property
    def id(self) -> str: ...

    @property
    def packages(self) -> tuple[str, ...]: ...

    def weights(self) -> dict[str, str]:
        """Id and sha256 of the weights it looks through; empty for none."""
        ...

    def measure(self, truth: np.ndarray, image: np.ndarray) -> float | None:
        """Look at one picture, (H, W, 3) uint8 or float32 in [0, 1]; None where only the whole set has a figure."""
        ...

    def total(self) -> float | None:
        """The figure of the set; None where there is none."""
        ...


def make(id: str, device: str = "cpu") -> Extra:
    """The metric called `id`.

    Raises:
        UsageError: there is none.
        UnavailableError: its library or its weights are not here.
    """
    if id in ("lpips-alex", "lpips-vgg"):
        return LPIPS(id.partition("-")[2], device)
    if id == "fid":
        return FID(device)
    if id == "blur":
        return Blur()
    raise UsageError(f"There is no metric '{id}'.", f"Known: {', '.join(METRICS)}.")


class Blur:
    """How blurred the result is, by itself."""

    id, packages = "blur", ("scikit-image",)

    def weights(self) -> dict[str, str]:
        return {}

    def measure(self, truth: np.ndarray, image: np.ndarray) -> float | None:
        from skimage.measure import blur_effect

        return float(blur_effect(image, channel_axis=2))

    def total(self) -> float | None:
        return None


class LPIPS:
    """Distance in the features of a classifier, weighed as people judge.

    Args:
        net: "alex" or "vgg".
        device: where to compute.
    """

    RECORDS = {"alex": "alexnet.imagenet", "vgg": "vgg16.imagenet"}  # noqa: RUF012

    def __init__(self, net: str, device: str = "cpu") -> None:
        from .networks import needs_extra

        try:
            import lpips
        except (ImportError, RuntimeError) as error:
            raise needs_extra(ImportError(str(error)), "LPIPS") from error
        import warnings

        from ..models import loading
        from ..weights import locate

        self.id, self.packages, self.device = f"lpips-{net}", ("lpips", "torchvision"), device
        self.record = self.RECORDS[net]
        backbone = loading.read(locate(self.record))[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of how it calls torchvision
            self.net = lpips.LPIPS(net=net, pnet_rand=True, verbose=False).to(device)
        fill(self.net, backbone)

    def weights(self) -> dict[str, str]:
        return _weights(self.record)

    def measure(self, truth: np.ndarray, image: np.ndarray) -> float | None:
        import torch

        with torch.inference_mode():
            return float(self.net(self._tensor(image), self._tensor(truth)))

    def _tensor(self, pixels: np.ndarray) -> Any:
        import torch

        scaled = pixels.astype(np.float32) / np.float32(255) if pixels.dtype == np.uint8 else pixels
        return torch.from_numpy(2 * scaled - 1).permute(2, 0, 1)[None].to(self.device)

    def total(self) -> float | None:
        return None


def fill(net: Any, backbone: Any) -> None:
    """Put the weights of a classifier into the slices that LPIPS cuts it into; layers keep their numbers there."""
    import torch

    features = dict(backbone.features.named_parameters())
    with torch.no_grad():
        for name, parameter in net.net.named_parameters():
            parameter.copy_(features[name.partition(".")[2]])


class FID:
    """Distance of two Gaussians fitted to the features of two sets; never comparable between sets of other sizes.

    Args:
        device: where to compute.
    """

    id, packages, record = "fid", ("torch-fidelity",), "inception.fid"

    def __init__(self, device: str = "cpu") -> None:
        from ..models import loading
        from ..weights import locate
        from .networks import inception

        inception()  # says at once what is missing
        self.device = device
        self.net: Any = loading.read(locate(self.record))[0].to(device)
        self.features: tuple[list[Any], list[Any]] = ([], [])

    def weights(self) -> dict[str, str]:
        return _weights(self.record)

    def measure(self, truth: np.ndarray, image: np.ndarray) -> float | None:
        import torch

        from . import to_8bit

        for kept, pixels in zip(self.features, (truth, image), strict=True):
            whole = pixels if pixels.dtype == np.uint8 else to_8bit(pixels)
            with torch.inference_mode():
                batch = torch.from_numpy(np.ascontiguousarray(whole)).permute(2, 0, 1)[None].to(self.device)
                kept.append(self.net(batch)[0].cpu())
        return None

    def total(self) -> float | None:
        return distance(*self.features) if len(self.features[0]) > 1 else None


def distance(first: Sequence[Any], second: Sequence[Any]) -> float:
    """Frechet distance of Gaussians fitted to two lists of at least two feature vectors."""
    import torch
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    sides = [fid_features_to_statistics(torch.stack(list(side)).double()) for side in (first, second)]
    return float(fid_statistics_to_metric(*sides, verbose=False)[KEY_METRIC_FID])


def _weights(record: str) -> dict[str, str]:
    from ..weights import get

    return {"id": record, "published_sha256": get(record).files[0].sha256 or "unknown"}
