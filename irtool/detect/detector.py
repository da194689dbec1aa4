"""The detector: a network, its thresholds, and the diagnosis it gives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..degradation import CLEAN, IDS
from ..errors import UnavailableError
from ..models import loading, motion
from .network import DetectorNet

if TYPE_CHECKING:
    from .daclip import DaclipDetector


LIT = 0.25
"""A picture of which half has a colour channel above this is not too dark, whatever the network takes it for."""
SUSPECTED, CLEARLY = 0.02, 2.5
"""A score for haze or blur from which on, where nothing else is found, the picture itself is asked: whether it is
`veiled`, and for the path of the camera; and how far in pixels such a path spreads light that blurred the picture.
Paths found in sharp photographs spread it by 2.3 pixels at most, those in really blurred ones by 2.7 to 8.3
(docs/experiments.md)."""


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a picture.

    Attributes:
        scores: probability of each degradation, independent of the others; that of haze or blur is at least its
            threshold where the picture itself confirms a suspicion (`veiled`, `irtool.models.motion`).
        present: ids whose score reaches its threshold, strongest first; empty means clean. A threshold lies above 0.5
            where what looks like damage often belongs to the picture (`irtool.training.calibrate`).
        perhaps: ids that are more likely there than not, but not sure enough to be present; strongest first.
        exclusive: the scores sum to one, of a detector that takes every picture for degraded in one way.
    """

    scores: dict[str, float]
    present: tuple[str, ...]
    perhaps: tuple[str, ...] = ()
    exclusive: bool = False

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
        """For JSON: {"present": [...] or ["clean"], "perhaps": [...], "scores": {..., "clean": ...}}."""
        scores = {k: round(v, 4) for k, v in {**self.scores, CLEAN: self.clean}.items()}
        return {"present": list(self.present) or [CLEAN], "perhaps": list(self.perhaps), "scores": scores}


def framed(pixels: Tensor) -> bool:
    """Whether one colour runs along most of the edge of a picture (3, H, W), as on a page: that is no hole."""
    depth = min(pixels.shape[1:]) // 100  # scans have a black line at the very edge
    inner = pixels[:, depth : pixels.shape[1] - depth, depth : pixels.shape[2] - depth]
    edges = (inner[:, 0], inner[:, -1], inner[:, :, 0], inner[:, :, -1])
    edge = (torch.cat(edges, dim=1) * 255).round().int()
    _, counts = ((edge[0] * 256 + edge[1]) * 256 + edge[2]).unique(return_counts=True)
    return int(counts.max()) > 0.5 * edge.shape[1]


def veiled(pixels: Tensor) -> bool:
    """Whether a picture (3, H, W) has what haze makes of a landscape.

    Haze adds its own light to all colours alike: nothing is dark, hardly anything is coloured, and even the darkest
    channel of a patch is bright (the dark channel prior, He et al., CVPR 2009); the more so the further away, which in
    landscapes is further up. White walls and concrete have some of that, so it only settles a suspicion. The bounds
    leave out all but one of 682 pictures without haze, and that one is hazy (docs/experiments.md).
    """
    shrink = 480 / max(pixels.shape[1:])
    if shrink < 1:
        size = [max(1, round(side * shrink)) for side in pixels.shape[1:]]
        pixels = F.interpolate(pixels[None], size=size, mode="area")[0]
    least, most = pixels.amin(0), pixels.amax(0)
    dark = -F.max_pool2d(-least[None, None], 11, 1, 5)[0, 0]
    third = -(-len(dark) // 3)
    darkest = float(pixels.mean(0).quantile(0.01))
    return (
        0.15 <= darkest <= 0.5
        and float(dark.median()) >= 0.35
        and float(((most - least) / (most + 1e-3)).mean()) <= 0.2
        and float(dark[:third].mean() - dark[-third:].mean()) >= 0.1
    )


def both_ways(net: DetectorNet, pixels: Tensor) -> Tensor:
    """Logits (N, 10) of pictures (N, 3, H, W), the mean of those of the picture and of its mirror image.

    One view alone takes a round flower for a drop, or the shade under a roof for a cast shadow, more often than both.
    """
    return (net(pixels) + net(pixels.flip(-1))) / 2


class Detector:
    """A loaded detector; stateless, runs on any picture size."""

    def __init__(self, net: DetectorNet, thresholds: Mapping[str, float], device: torch.device) -> None:
        self.net = net.to(device)
        self.thresholds = {i: thresholds.get(i, 0.5) for i in IDS}
        self.device = device

    def diagnose(self, pixels: Tensor) -> Diagnosis:
        """Diagnose a picture: (3, H, W) sRGB in [0, 1], any size."""
        with torch.inference_mode():
            scores = both_ways(self.net, pixels[None].float().to(self.device))[0].float().sigmoid().cpu()
        named = dict(zip(IDS, scores.tolist(), strict=True))
        if float(pixels[:, ::4, ::4].amax(0).median()) > LIT:
            named["lowlight"] = 0.0
        if framed(pixels):
            named["missing"] = 0.0
        if all(s < self.thresholds[i] for i, s in named.items()):
            # Nothing is found; what is suspected is looked for in the picture itself.
            if named["haze"] >= SUSPECTED and self.thresholds["haze"] < 1 and veiled(pixels.float().cpu()):
                named["haze"] = self.thresholds["haze"]
            elif self._smeared(named["blur"], pixels):
                named["blur"] = self.thresholds["blur"]
        # By how far each passes its own threshold, since thresholds differ.
        over = {i: s - self.thresholds[i] for i, s in named.items() if s >= self.thresholds[i]}
        # A threshold of 1 says that the scores of a kind mean nothing.
        likely = [i for i, s in named.items() if s >= 0.5 and i not in over and self.thresholds[i] < 1]
        present, perhaps = sorted(over, key=lambda i: -over[i]), sorted(likely, key=lambda i: -named[i])
        return Diagnosis(named, tuple(present), tuple(perhaps))

    def _smeared(self, score: float, pixels: Tensor) -> bool:
        """Whether a picture of which the network has a faint suspicion shows a path of the camera.

        The network sees few really blurred pictures for what they are. Estimating the path takes seconds, so only where
        there is a suspicion; noise, rain and the like would mislead it, so only where there is nothing else.
        """
        if score < SUSPECTED or self.thresholds["blur"] >= 1:
            return False
        with torch.inference_mode():
            kernel = motion.estimate(pixels.float())
        return kernel is not None and motion.spread(kernel) >= CLEARLY


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
    return Detector(net, json.loads(header.get("thresholds", "{}")), device)
