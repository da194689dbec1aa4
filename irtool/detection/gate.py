"""A check after restoring: a result that is no improvement is not kept.

The detector can be wrong. Before a result is written it is therefore compared with its input: a degradation that was
there is weaker afterwards, what lies in places changed in those places, the content is what it was, and nothing large
was smeared away. The bounds were chosen on pictures whose truth is known (docs/detection.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .detector import Diagnosis
from .network import LOCAL

WEAKER = {"shadow": 1.0, "raindrop": float("inf"), "jpeg": float("inf")}
"""The odds of the degradation afterwards may be at most this share of those before, of others `HALVED`. Of a shadow its
outline stays, of drops the larger ones, and a JPEG file bounds what may change."""
HALVED = 0.5
OUTSIDE = {"shadow": 0.3}
"""Share of the change of a local degradation that may lie where the map says nothing is, of others `MOST_OUTSIDE`. In a
picture without a shadow the network darkens and brightens other places than the map shows; where there is one, both
agree (docs/detection.md)."""
MOST_OUTSIDE = 0.8
SAME_STRUCTURE = {
    "haze": 0.8, "jpeg": 0.9, "lowlight": 0.8, "noise": 0.9, "raindrop": 0.8, "rain": 0.5, "shadow": 0.8, "snow": 0.6,
    "blur": 0.7,
}  # fmt: skip
"""Least correlation of the edges of the reduced pictures, each normalised by its own contrast nearby."""
SAME_CONTENT = {
    "haze": 0.65, "jpeg": 0.8, "lowlight": 0.65, "noise": 0.4, "raindrop": 0.85, "shadow": 0.85, "blur": 0.7,
}  # fmt: skip
"""Least cosine of the backbone's features before and after. Dense rain, snow and holes hide the content, so there is no
bound for these (nor a structure bound for holes)."""
SURE = 0.97
"""A score from which the finding itself is not doubted: ten of 649 clean pictures have it, shadows left out. Where
the network cannot do much, the result then only may not look worse, and maps, which are coarse, are not asked but for
shadows."""
_SIDE = 256


@dataclass(frozen=True)
class Verdict:
    """Whether a result is kept.

    Attributes:
        passed: it is.
        reason: why not, a phrase for people; empty where it is kept.
        measured: what the bounds are compared with: "odds" (after divided by before), "outside", "content",
            "structure".
    """

    passed: bool
    reason: str
    measured: dict[str, float]


def judge(before: Tensor, after: Tensor, found: Diagnosis, then: Diagnosis, restored: Iterable[str]) -> Verdict:
    """Compare a result with its input.

    Args:
        before, after: (3, H, W) in [0, 1].
        found, then: the diagnoses of both.
        restored: ids of the degradations that were removed.
    """
    restored = list(restored)
    measured = {"structure": structure(before, after)}
    first = max(restored, key=lambda i: found.scores[i])
    measured["odds"] = odds(then.scores[first]) / odds(found.scores[first])
    sure = found.scores[first] >= SURE
    reasons = []
    if measured["odds"] > max(WEAKER.get(first, HALVED), 1.0 if sure else 0):
        reasons.append(f"{first} is as visible as before")
    if all(i in LOCAL for i in restored) and found.maps:
        measured["outside"] = outside(before, after, torch.stack([found.maps[i] for i in restored]).amax(0))
        if measured["outside"] > min(OUTSIDE.get(i, 1.0 if sure else MOST_OUTSIDE) for i in restored):
            reasons.append(f"most of what changed lies where no {first} is")
    if found.features is not None and then.features is not None:
        measured["content"] = float(F.cosine_similarity(found.features, then.features, dim=0))
        if measured["content"] < min(SAME_CONTENT.get(i, -1) for i in restored):
            reasons.append("the content would change")
    if "missing" in restored and bordered(before):
        reasons.append("one color runs along its edge, as on a page or in a frame")
    if measured["structure"] < min(SAME_STRUCTURE.get(i, -1) for i in restored):
        reasons.append("details would be lost")
    return Verdict(not reasons, " and ".join(reasons), {k: round(v, 3) for k, v in measured.items()})


def check(
    before: Tensor, after: Tensor, found: Diagnosis, look: Callable[[Tensor], Diagnosis], restored: Iterable[str]
) -> tuple[Tensor, float, Diagnosis, Verdict]:
    """The most of a result that passes: all of it, the half of it, or the input.

    Args:
        before, after, found, restored: as of `judge`.
        look: diagnoses a picture.

    Returns:
        The pixels to go on with, the share of the result in them (1, 0.5 or 0), their diagnosis, and the verdict on the
        whole result.
    """
    then = look(after)
    verdict = judge(before, after, found, then, restored)
    if verdict.passed:
        return after, 1.0, then, verdict
    half = torch.lerp(before, after, 0.5)
    then = look(half)
    if judge(before, half, found, then, restored).passed:
        return half, 0.5, then, verdict
    return before, 0.0, found, verdict


def outside(before: Tensor, after: Tensor, present: Tensor) -> float:
    """Share of the absolute change of a picture (3, H, W) where a map (h, w) of probabilities is low, in [0, 1]."""
    change = F.adaptive_avg_pool2d((after - before).abs().mean(0)[None], (present.shape[-2], present.shape[-1]))[0]
    # Neighbours of what was found belong to it: cells are coarse.
    near = F.max_pool2d(present[None], 3, 1, 1)[0] > 0.2
    return float((change * ~near).sum() / change.sum().clamp(min=1e-6))


def odds(probability: float) -> float:
    """p / (1 - p): where scores are near 1, these still tell stronger from weaker."""
    kept = min(max(probability, 1e-6), 1 - 1e-6)
    return kept / (1 - kept)


def bordered(pixels: Tensor) -> bool:
    """Whether one color runs along most of the edge of a picture (3, H, W): then it is no hole, but paper or a frame.

    Without this, all three collages and comics that the detector takes for holed, of 48 drawn ones, would be filled.
    """
    depth = min(pixels.shape[1:]) // 100  # scans have a black line at the very edge
    inner = pixels[:, depth : pixels.shape[1] - depth, depth : pixels.shape[2] - depth]
    edge = torch.cat([inner[:, 0], inner[:, -1], inner[:, :, 0], inner[:, :, -1]], dim=1)
    # In steps of 8 levels, since files are compressed.
    steps = (edge * 255 / 8).round().int()
    _, counts = ((steps[0] * 256 + steps[1]) * 256 + steps[2]).unique(return_counts=True)
    return int(counts.max()) > 0.5 * edge.shape[1]


def structure(before: Tensor, after: Tensor) -> float:
    """Correlation, from -1 to 1, of what two pictures (3, H, W) show, whatever their brightness and contrast.

    Both are reduced to about 256 pixels and smoothed, so that noise, streaks and flakes count little, and divided by
    their contrast nearby, so that what was dark or hazy counts as much as it does afterwards.
    """
    first, second = (_normalized(x) for x in (before, after))
    return float((first * second).mean() / (first.square().mean() * second.square().mean()).sqrt().clamp(min=1e-6))


def _normalized(pixels: Tensor) -> Tensor:
    h, w = pixels.shape[-2:]
    scale = min(1.0, _SIDE / max(h, w))
    size = [max(1, round(side * scale)) for side in (h, w)]
    gray = pixels.float().mean(0)[None, None]
    gray = F.interpolate(gray, size, mode="area")
    gray = F.avg_pool2d(gray, 3, 1, 1, count_include_pad=False)
    around = F.avg_pool2d(gray, 15, 1, 7, count_include_pad=False)
    contrast = F.avg_pool2d((gray - around).square(), 15, 1, 7, count_include_pad=False).sqrt()
    return ((gray - around) / (contrast + 0.01))[0, 0]
