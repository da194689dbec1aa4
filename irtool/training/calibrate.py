"""Probabilities and thresholds of the detector, from fresh samples.

Probabilities: the logit of each kind is stretched and shifted (Platt 1999) so that its cross-entropy on fresh samples
is least, and that is folded into the last layer. In training the kinds are not as frequent as elsewhere, and a network
is surer than it should be.

Thresholds: for each kind the lowest (in steps of 0.01) at which it is found in no more than 1.5 % of the clean samples
and in no more than 4 % of those that have something else, but never under 0.5, or `LEAST`: more for what pictures
have by themselves more often than the samples show (shadows, round things, dusk, sparkle, sheets of white paper), less
for what is worth undoing on suspicion, since undoing it in vain hardly changes a picture (noise, JPEG). A kind
that is then found in less than a tenth of the samples that have it is switched off (threshold 1): its findings would
mostly be wrong.

Whether a picture that is dark by itself has too little light is not known: it counts neither way.

    python -m irtool.training.calibrate CHECKPOINT TARGET.safetensors --data DATA --folders train_clean/pop_os ...
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..degradation import CLEAN, IDS, INDEX
from ..detect.detector import both_ways
from ..detect.network import DetectorNet
from ..errors import UsageError
from .detector_data import BRIGHT, DetectorPools
from .export import restored
from .jobs import job
from .pictures import gather as find
from .recipe import Recipe

# The last two were not learned from, but are wallpapers (planets, night skies, shapes), alone no measure of photos.
FOLDERS = ["train_clean/clic2025", "train_clean/gb82", "train_clean/pop_os", "train_clean/elementary"]
LOWEST, CLEAN_RATE, OTHER_RATE, USEFUL = 0.5, 0.015, 0.04, 0.1
LEAST = {"noise": 0.3, "jpeg": 0.3, "shadow": 0.88, "raindrop": 0.8, "lowlight": 0.7, "snow": 0.7, "missing": 0.8}


def gather(net: DetectorNet, recipe: Recipe, data: Path, folders: Sequence[str], pools: int) -> tuple[Tensor, Tensor]:
    """Logits and labels, each (samples, 10), of fresh samples made from `folders`; half of them are clean.

    A label is not a number where it is not known.
    """
    singles = dict.fromkeys(IDS, 1.0)
    weights = {**singles, "mixed": 2.0, CLEAN: len(IDS) + 2.0}
    fresh = replace(recipe, data=tuple(folders), pairs=(), hold=0, seed=recipe.seed + 1, weights=weights)
    samples = DetectorPools(find(fresh, data), fresh, vary=False)
    logits, labels = [], []
    for index in range(pools):
        pool = samples[index]
        with torch.inference_mode():
            logits.append(both_ways(net, pool.degraded).float())
        dark = (pool.clean.mean(dim=(1, 2, 3)) < BRIGHT) & (pool.labels[:, INDEX["lowlight"]] == 0)
        pool.labels[dark, INDEX["lowlight"]] = float("nan")
        labels.append(pool.labels)
    return torch.cat(logits), torch.cat(labels)


def platt(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Stretch and shift (10,) each of the logits (N, 10) with the least cross-entropy."""
    stretch, shift, known = torch.ones(logits.shape[1]), torch.zeros(logits.shape[1]), ~labels.isnan()
    stretch.requires_grad_(), shift.requires_grad_()
    search = torch.optim.LBFGS([stretch, shift], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        # The last term keeps a kind that is always told apart from being stretched without end.
        cross = F.binary_cross_entropy_with_logits(logits * stretch + shift, labels.nan_to_num(), reduction="none")
        value = (cross * known).mean(0).sum() + 1e-3 * ((stretch - 1).square() + shift.square()).sum()
        value.backward()
        return value

    search.step(loss)
    return stretch.detach().clamp(min=0.05), shift.detach()


def fold(net: DetectorNet, stretch: Tensor, shift: Tensor) -> None:
    """Make the network's own logits the stretched and shifted ones."""
    last = net.head[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.weight.mul_(stretch[:, None])
        last.bias.mul_(stretch).add_(shift)


def thresholds(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Apply the rule to scores and labels, each (samples, 10)."""
    chosen = {}
    clean = np.nansum(labels, axis=1) == 0
    for i, name in enumerate(IDS):
        score, there = scores[:, i], labels[:, i] == 1
        for threshold in np.arange(LEAST.get(name, LOWEST), 0.991, 0.01):
            hit = score >= threshold
            absent = labels[:, i] == 0
            if _share(hit[clean & absent]) <= CLEAN_RATE and _share(hit[~clean & absent]) <= OTHER_RATE:
                break
        chosen[name] = round(float(threshold), 2) if _share(score[there] >= threshold) >= USEFUL else 1.0
    return chosen


def _share(hit: np.ndarray) -> float:
    return float(hit.mean()) if len(hit) else 0.0


def reliability(scores: np.ndarray, labels: np.ndarray, bins: int = 5) -> list[tuple[float, float, float, int]]:
    """(from, mean score, share that is right, count) of equal bins over all scores."""
    s, y = scores.ravel()[~np.isnan(labels.ravel())], labels.ravel()[~np.isnan(labels.ravel())]
    rows = []
    for i in range(bins):
        inside = (s >= i / bins) & (s < (i + 1) / bins if i < bins - 1 else s <= 1)
        if inside.any():
            rows.append((i / bins, float(s[inside].mean()), float(y[inside].mean()), int(inside.sum())))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folders", nargs="+", default=FOLDERS)
    parser.add_argument("--pools", type=int, default=100)
    given = parser.parse_args()
    net, recipe, steps = restored(given.checkpoint)
    if not isinstance(net, DetectorNet):
        raise UsageError(f"{given.checkpoint} holds no detector.")
    logits, labels = gather(net, recipe, given.data, given.folders, given.pools)
    # One half of the samples for the probabilities, the other for the table that shows whether they hold.
    half = len(logits) // 2
    stretch, shift = platt(logits[:half], labels[:half])
    fold(net, stretch, shift)
    scores, truth = (logits * stretch + shift).sigmoid().numpy(), labels.numpy()
    chosen = thresholds(scores, truth)
    notes = {"steps": str(steps), "recipe_sha256": recipe.sha256, "thresholds": json.dumps(chosen)}
    job(recipe.kind).export(net, recipe, given.target, notes)
    print("| id | threshold | found where present | found where it is not |\n|---|---|---|---|")
    for i, name in enumerate(IDS):
        hit = scores[:, i] >= chosen[name]
        found, wrong = _share(hit[truth[:, i] == 1]), _share(hit[truth[:, i] == 0])
        print(f"| {name} | {chosen[name]:.2f} | {found:.1%} | {wrong:.1%} |")
    print("\n| scores from | mean score | share present | scores |\n|---|---|---|---|")
    for low, mean, share, count in reliability(scores[half:], truth[half:]):
        print(f"| {low:.1f} | {mean:.2f} | {share:.2f} | {count} |")


if __name__ == "__main__":
    main()
