"""The detector: a network, its thresholds, and the diagnosis it gives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..degradation import CLEAN, IDS
from ..errors import UnavailableError
from ..models import loading
from .network import LOCAL, DetectorNet

if TYPE_CHECKING:
    from .daclip import DaclipDetector

UNCERTAIN = 0.5
"""Score from which a degradation that does not reach its threshold is still named, as uncertain."""

FLAT = 2 / 255
"""Range of each channel up to which a picture shows nothing that could be degraded: a blank page, a lens cap."""


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a picture.

    Attributes:
        scores: probability of each degradation, independent of the others.
        present: ids whose score reaches its threshold, strongest first; empty means clean. The thresholds are those at
            which undoing what is found does more good than harm among pictures most of which are clean
            (`irtool.training.calibrate`, docs/detection.md).
        uncertain: ids that are more likely there than not, but not sure enough to be present; strongest first.
        exclusive: the scores sum to one, of a detector that takes every picture for degraded in one way.
        severity: how strong each degradation is where it is present, from 0 to 1; empty where the detector does not
            tell.
        maps: of the local degradations, (h, w) probability that a cell of the reduced picture is hit; likewise.
        features: (112,) of the whole picture, by which its content is compared with that of another; likewise.
        scratched: share of the picture that is scratched, dusty or creased; None where that was not looked for.
    """

    scores: dict[str, float]
    present: tuple[str, ...]
    uncertain: tuple[str, ...] = ()
    exclusive: bool = False
    severity: Mapping[str, float] = field(default_factory=dict)
    maps: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)
    features: Tensor | None = field(default=None, repr=False, compare=False)
    scratched: float | None = None

    @property
    def is_clean(self) -> bool:
        """True where no degradation was found."""
        return not self.present

    @property
    def clean(self) -> float:
        """Probability that none is present, were they independent; 0 where the detector knows no clean picture."""
        if self.exclusive:
            return 0.0
        product = 1.0
        for score in self.scores.values():
            product *= 1 - score
        return product

    def to_dict(self) -> dict[str, object]:
        """For JSON: {"present": [...] or ["clean"], "perhaps": [...], "scores": {..., "clean": ...}, "severity": {}}.

        The severities are those of what is present or perhaps there.
        """
        scores = {k: round(v, 4) for k, v in {**self.scores, CLEAN: self.clean}.items()}
        severity = {k: round(self.severity[k], 3) for k in (*self.present, *self.uncertain) if k in self.severity}
        record: dict[str, object] = {
            "present": list(self.present) or [CLEAN],
            "perhaps": list(self.uncertain),
            "scores": scores,
            "severity": severity,
        }
        return record if self.scratched is None else record | {"scratched": round(self.scratched, 5)}


class Detector:
    """A loaded detector; stateless, runs on any picture size.

    Args:
        net: in evaluation mode; its normalisations are folded into its convolutions.
        thresholds: score from which a degradation is present; 1 switches a kind off.
        device: where to compute.
        checks: its diagnoses carry the features by which results are checked (`irtool.detection.gate`, whose bounds
        were
            measured with calibrated detectors).
    """

    def __init__(
        self, net: DetectorNet, thresholds: Mapping[str, float], device: torch.device, *, checks: bool = True
    ) -> None:
        self.net = net.fuse().to(device)
        self.thresholds = {i: thresholds.get(i, 0.5) for i in IDS}
        self.device, self.checks = device, checks

    def diagnose(self, pixels: Tensor) -> Diagnosis:
        """Diagnose a picture: (3, H, W) sRGB in [0, 1], any size. One of a single color is clean."""
        low, high = pixels.flatten(1).aminmax(dim=1)
        if bool((high - low <= FLAT).all()):
            return Diagnosis(dict.fromkeys(IDS, 0.0), ())
        with torch.inference_mode():
            found = self.net.features(pixels[None].float().to(self.device))
        scores = dict(zip(IDS, found.kinds[0].float().sigmoid().tolist(), strict=True))
        severity = dict(zip(IDS, found.severity[0].float().sigmoid().tolist(), strict=True))
        whole = found.whole_map[0].float().sigmoid().cpu()
        # By how far each passes its own threshold, since thresholds differ.
        over = {i: s - self.thresholds[i] for i, s in scores.items() if s >= self.thresholds[i]}
        # A threshold of 1 says that the scores of a kind mean nothing.
        likely = [i for i, s in scores.items() if s >= UNCERTAIN and i not in over and self.thresholds[i] < 1]
        return Diagnosis(
            scores,
            tuple(sorted(over, key=lambda i: -over[i])),
            tuple(sorted(likely, key=lambda i: -scores[i])),
            severity=severity,
            maps={i: whole[LOCAL.index(i)] for i in LOCAL},
            features=found.features[0].float().cpu() if self.checks else None,
        )


def load(path: Path, device: torch.device) -> Detector | DaclipDetector:
    """Load a detector, ours or a DA-CLIP controller; the header of ours carries the calibrated thresholds.

    Raises:
        UnavailableError: the file is absent, damaged, or holds something else.
    """
    net, header = loading.read(path)
    if header["architecture"] == "daclip":
        from .daclip import DaclipDetector

        return DaclipDetector(net, device)
    if not isinstance(net, DetectorNet):
        raise UnavailableError(f"{path} holds a {header['architecture']}, not a detector.")
    return Detector(net, json.loads(header.get("thresholds", "{}")), device, checks="calibrated" in header)
