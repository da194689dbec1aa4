"""Metrics beyond PSNR and SSIM: LPIPS, FID, and a no-reference blur metric, each by a maintained library.

LPIPS by the package lpips, FID by torch-fidelity, blur by scikit-image.

The weights of their networks are records in weights.toml, fetched and compared like any others.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from ..errors import UsageError

DESCRIPTIONS = {
    "lpips-alex": "Zhang et al. 2018 over AlexNet: 0 is alike",
    "lpips-vgg": "Zhang et al. 2018 over VGG-16: 0 is alike",
    "fid": "Heusel et al. 2017 as pytorch-fid defines it: of the whole set, 0 is alike",
    "blur": "Crete et al. 2007, without a truth: 0 is sharp, 1 is blurred",
}
METRICS = tuple(DESCRIPTIONS)
LOWER_IS_BETTER = METRICS


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
        """Id and sha256 of the weights it uses; empty for none."""
        ...

    def measure(self, reference: np.ndarray, image: np.ndarray) -> float | None:
        """Measure one picture, (H, W, 3) uint8 or float32 in [0, 1]; None for metrics of a whole set."""
        ...

    def total(self) -> float | None:
        """The value for the whole set; None for metrics per picture."""
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
    """No-reference blur metric of the result."""

    id, packages = "blur", ("scikit-image",)

    def weights(self) -> dict[str, str]:
        return {}

    def measure(self, reference: np.ndarray, image: np.ndarray) -> float | None:
        from skimage.measure import blur_effect

        return float(blur_effect(image, channel_axis=2))

    def total(self) -> float | None:
        return None


class LPIPS:
    """Learned perceptual distance (LPIPS, Zhang et al., CVPR 2018): weighted distance of classifier features.

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

    def measure(self, reference: np.ndarray, image: np.ndarray) -> float | None:
        import torch

        with torch.inference_mode():
            return float(self.net(self._tensor(image), self._tensor(reference)))

    def _tensor(self, pixels: np.ndarray) -> Any:
        import torch

        scaled = pixels.astype(np.float32) / np.float32(255) if pixels.dtype == np.uint8 else pixels
        return torch.from_numpy(2 * scaled - 1).permute(2, 0, 1)[None].to(self.device)

    def total(self) -> float | None:
        return None


def fill(net: Any, backbone: Any) -> None:
    """Load the weights of a classifier into the slices that LPIPS cuts it into; layers keep their indices."""
    import torch

    features = dict(backbone.features.named_parameters())
    with torch.no_grad():
        for name, parameter in net.net.named_parameters():
            parameter.copy_(features[name.partition(".")[2]])


class FID:
    """Frechet inception distance: between Gaussians fitted to the features of two sets; not comparable between set
    sizes.

    Args:
        device: where to compute.
    """

    id, packages, record = "fid", ("torch-fidelity",), "inception.fid"

    def __init__(self, device: str = "cpu") -> None:
        from ..models import loading
        from ..weights import locate
        from .networks import inception

        inception()  # fails early if the package is missing
        self.device = device
        self.net: Any = loading.read(locate(self.record))[0].to(device)
        self.moments = Moments(), Moments()

    def weights(self) -> dict[str, str]:
        return _weights(self.record)

    def measure(self, reference: np.ndarray, image: np.ndarray) -> float | None:
        import torch

        from . import to_8bit

        for moments, pixels in zip(self.moments, (reference, image), strict=True):
            whole = pixels if pixels.dtype == np.uint8 else to_8bit(pixels)
            with torch.inference_mode():
                batch = torch.from_numpy(np.ascontiguousarray(whole)).permute(2, 0, 1)[None].to(self.device)
                moments.add(self.net(batch)[0].cpu().numpy())
        return None

    def total(self) -> float | None:
        return distance(*self.moments) if self.moments[0].count > 1 else None


class Moments:
    """Streaming mean and covariance of vectors, in constant memory.

    Attributes:
        count: vectors added.
    """

    AT_ONCE = 64

    def __init__(self) -> None:
        self.count = 0
        self._waiting: list[np.ndarray] = []
        self._mean = self._squares = np.zeros(0)

    def add(self, vector: np.ndarray) -> None:
        """Add a vector (K,)."""
        self._waiting.append(vector)
        self.count += 1
        if len(self._waiting) == self.AT_ONCE:
            self._merge()

    def _merge(self) -> None:
        """Merge the buffered vectors into means and sums of squared deviations (Chan et al., 1983)."""
        group = np.asarray(self._waiting, dtype=np.float64)
        mean, before = group.mean(axis=0), self.count - len(group)
        deviations = group - mean
        if before == 0:
            self._mean, self._squares = np.zeros(len(mean)), np.zeros((len(mean), len(mean)))
        shift = mean - self._mean
        self._squares += deviations.T @ deviations + np.outer(shift, shift) * (before * len(group) / self.count)
        self._mean = self._mean + shift * (len(group) / self.count)
        self._waiting = []

    def statistics(self) -> dict[str, np.ndarray]:
        """Mean (K,) and covariance (K, K), as torch-fidelity names them; of at least two vectors."""
        if self._waiting:
            self._merge()
        return {"mu": self._mean, "sigma": self._squares / (self.count - 1)}


def distance(first: Moments, second: Moments) -> float:
    """Frechet distance of Gaussians with the moments of two sets of at least two feature vectors."""
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    return float(fid_statistics_to_metric(first.statistics(), second.statistics(), verbose=False)[KEY_METRIC_FID])


def _weights(record: str) -> dict[str, str]:
    from ..weights import get

    return {"id": record, "published_sha256": get(record).files[0].sha256 or "unknown"}
