"""Probabilities and thresholds of the detector, from pictures it has not learned from.

Probabilities: the logit of each kind is stretched and shifted (Platt 1999) so that its cross-entropy on fresh samples
is least, and that is folded into the last layer. In training the kinds are not as frequent as elsewhere, and a network
is surer than it should be.

Thresholds: for each kind the one at which the expected harm is least,

    CLEAN_SHARE * (share of clean pictures in which it is found) * HARM
        - (1 - CLEAN_SHARE) / 10 * (share of those that have it in which it is found) * BENEFIT

where HARM is how many decibels below 45 dB (a change that nobody sees) a clean picture that looks as if it had the
kind falls when that is removed in vain, after the check (`irtool.detection.gate`; `python benchmarks/harm.py`). Of
people's pictures 85 % are taken to be clean. A kind that is then found in less than a tenth of the pictures that have
it is switched off (threshold 1).

    python -m irtool.training.calibrate CHECKPOINT TARGET.safetensors --data DATA

DATA holds what the recipe names; the photographs in its table "held" are used, and damage synthesised on the
clean ones.
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
from ..detection.network import DetectorNet
from ..errors import UsageError
from .detector_data import DetectorPools, Labelled, labelled
from .export import load_checkpoint
from .pictures import PictureSet
from .recipe import Recipe
from .tasks import training_task

CLEAN_SHARE = 0.85
HARM = {
    "blur": 8.0, "haze": 25.4, "jpeg": 8.0, "lowlight": 23.9, "noise": 8.0, "raindrop": 8.0, "rain": 8.0,
    "shadow": 8.0, "snow": 9.6, "missing": 8.0,
}  # fmt: skip
"""In dB, from benchmarks/harm.md, and at least 8: any change of a good picture costs trust."""
BENEFIT = 45.0
"""What a degradation removed is worth, in dB. The same for all, since PSNR says little of what lies in a part of the
picture, such as a shadow; so large that some 96 of 100 clean pictures are left alone before the check."""
MIN_RECALL = 0.1
MIN_THRESHOLD = 0.3
SURE = {"shadow": 0.55}
"""Least thresholds of their own. Most good pictures of people and buildings have shadows, which belong there; below
this, more clean pictures are taken for shadowed than photographs of shadows are found."""
BANDWIDTH = 0.25  # of the logits of clean pictures, when their distribution is smoothed


def fresh_logits(
    net: DetectorNet, recipe: Recipe, held_out: Sequence[Labelled], pools: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits and labels, each (samples, 10), of the held photographs and of damage synthesised on the clean ones.

    A label is not a number where it is not known. The last tensor (samples,) is 1 for what is a real photograph.
    """
    logits, labels, real = [], [], []
    for one in held_out:
        pixels = torch.from_numpy(np.array(one.picture.pixels)).permute(2, 0, 1)[None].float() / 255
        row = torch.zeros(1, len(IDS))
        if one.label != CLEAN:
            row[0] = float("nan")  # a rainy picture may be hazy too
            row[0, INDEX[one.label]] = 1
        logits.append(_logits(net, pixels))
        labels.append(row)
        real.append(1.0)
    content = [
        one.picture for one in held_out if one.label == CLEAN and min(one.picture.height, one.picture.width) >= 272
    ]
    weights = {**dict.fromkeys(IDS, 1.0), CLEAN: 1.0}
    fresh = replace(recipe, seed=recipe.seed + 1, weights=weights, settings={}, pool=4, group=1)
    samples = DetectorPools(PictureSet(content, (), (), ()), fresh, vary=False)
    for index in range(pools):
        pool = samples[index]
        logits.append(_logits(net, pool.degraded))
        labels.append(pool.labels)
        real += [0.0] * len(pool)
    return torch.cat(logits), torch.cat(labels), torch.tensor(real)


def _logits(net: DetectorNet, pixels: Tensor) -> Tensor:
    with torch.inference_mode():
        return net(pixels).float()


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
    """Make the network's own logits of the kinds the stretched and shifted ones."""
    rows = slice(0, len(IDS))
    with torch.no_grad():
        net.head.weight[rows].mul_(stretch[:, None])
        net.head.bias[rows].mul_(stretch).add_(shift)


def false_rate(clean: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Share of clean pictures whose logit reaches each value of `at`, given the logits of some hundred of them.

    Smoothed with a logistic kernel: a threshold just above the highest of them is not free of mistakes.
    """
    return np.asarray((1 / (1 + np.exp((at[None] - clean[:, None]) / BANDWIDTH))).mean(axis=0))


def thresholds(scores: np.ndarray, labels: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """Apply the rule to scores and labels, each (samples, 10); `real` (samples,) says which are photographs.

    Where there are ten photographs of a kind or more, they count as much as its synthetic samples do.
    """
    chosen = {}
    clean = (np.nansum(labels, axis=1) == 0) & ((real == 1) | (real.max() == 0))
    for i, name in enumerate(IDS):
        candidates = np.arange(SURE.get(name, MIN_THRESHOLD), 0.9951, 0.005)
        score, present = scores[:, i], labels[:, i] == 1
        groups = [present & (real == 0), present & (real == 1)]
        groups = [group for group in groups if group.sum() >= 10] or [present] * bool(present.any())
        false = false_rate(_logit(score[clean]), _logit(candidates))
        found = np.mean([[(score[group] >= t).mean() for t in candidates] for group in groups or [~clean]], axis=0)
        harm = CLEAN_SHARE * false * HARM[name] - (1 - CLEAN_SHARE) / len(IDS) * found * BENEFIT
        best = int(np.argmin(harm))
        useful = groups and harm[best] < 0 and found[best] >= MIN_RECALL
        chosen[name] = round(float(candidates[best]), 3) if useful else 1.0
    return chosen


def _logit(probability: np.ndarray) -> np.ndarray:
    kept = np.clip(probability.astype(np.float64), 1e-7, 1 - 1e-7)
    return np.log(kept / (1 - kept))


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
    parser.add_argument("--pools", type=int, default=120, help="of four synthetic samples each")
    args = parser.parse_args()
    net, recipe, steps = load_checkpoint(args.checkpoint)
    if not isinstance(net, DetectorNet):
        raise UsageError(f"{args.checkpoint} holds no detector.")
    held_out = labelled(args.data / str(recipe.settings["held"]), [])
    logits, labels, real = fresh_logits(net, recipe, held_out, args.pools)
    stretch, shift = platt(logits, labels)
    fold(net, stretch, shift)
    scores, targets = (logits * stretch + shift).sigmoid().numpy(), labels.numpy()
    chosen = thresholds(scores, targets, real.numpy())
    notes = {"steps": str(steps), "recipe_sha256": recipe.sha256, "thresholds": json.dumps(chosen), "calibrated": "yes"}
    training_task(recipe.kind).export(net, recipe, args.target, notes)
    clean = np.nansum(targets, axis=1) == 0
    print("| id | threshold | synthetic found | real found | clean called so |\n|---|---|---|---|---|")
    for i, name in enumerate(IDS):
        hit, there = scores[:, i] >= chosen[name], targets[:, i] == 1
        shares = [
            hit[there & (real.numpy() == kind)].mean() if (there & (real.numpy() == kind)).any() else np.nan
            for kind in (0, 1)
        ]
        print(f"| {name} | {chosen[name]:.3f} | {shares[0]:.1%} | {shares[1]:.1%} | {hit[clean].mean():.2%} |")
    bounds = np.array([chosen[i] for i in IDS])
    left = np.asarray((scores < bounds).all(axis=1))
    print(f"\nClean pictures left alone: {left[clean].mean():.1%} of {clean.sum()}")
    print("\n| scores from | mean score | share present | scores |\n|---|---|---|---|")
    for low, mean, fraction, count in reliability(scores, targets):
        print(f"| {low:.1f} | {mean:.2f} | {fraction:.2f} | {count} |")


if __name__ == "__main__":
    main()
