"""Thresholds of the detector, from pictures it has not learned from.

Rule: for each degradation the lowest threshold (in steps of 0.01, never under 0.2) at which it is found in no more
than 2 % of the clean samples and in no more than 4 % of the samples that have something else. Half of the samples are
clean. A kind that is then found in less than a tenth of the samples that have it is switched off (threshold 1): its
findings would mostly be wrong.

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
from torch import nn

from ..degradation import CLEAN, IDS
from .data import Pools
from .export import export, restored
from .pictures import gather as find
from .recipe import Recipe

LOWEST, CLEAN_RATE, OTHER_RATE, USEFUL = 0.2, 0.02, 0.04, 0.1


def gather(
    net: nn.Module, recipe: Recipe, data: Path, folders: Sequence[str], pools: int, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels, each (samples, 10), of fresh samples of `side` pixels made from `folders`."""
    others = {kind: weight for kind, weight in recipe.weights.items() if kind != CLEAN}
    weights = {**others, CLEAN: sum(others.values())}
    held_out = replace(
        recipe, data=tuple(folders), pairs=(), hold=0, region=side, seed=recipe.seed + 1, weights=weights
    )
    samples = Pools(find(held_out, data), held_out)
    scores, labels = [], []
    for index in range(pools):
        pool = samples[index]
        with torch.inference_mode():
            scores.append(net(pool.degraded).sigmoid().numpy())
        labels.append(pool.labels.numpy())
    return np.concatenate(scores), np.concatenate(labels)


def thresholds(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Apply the rule to scores and labels, each (samples, 10)."""
    chosen = {}
    clean = labels.sum(axis=1) == 0
    for i, name in enumerate(IDS):
        other = (labels[:, i] == 0) & ~clean
        for threshold in np.arange(LOWEST, 0.991, 0.01):
            if (scores[clean, i] >= threshold).mean() <= CLEAN_RATE and (
                scores[other, i] >= threshold
            ).mean() <= OTHER_RATE:
                break
        useful = (scores[labels[:, i] == 1, i] >= threshold).mean() >= USEFUL
        chosen[name] = round(float(threshold), 2) if useful else 1.0
    return chosen


def reliability(scores: np.ndarray, labels: np.ndarray, bins: int = 5) -> list[tuple[float, float, float, int]]:
    """(from, mean score, share that is right, count) of equal bins over all scores."""
    s, y = scores.ravel(), labels.ravel()
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
    parser.add_argument("--folders", nargs="+", default=["train_clean/pop_os", "train_clean/elementary"])
    parser.add_argument("--pools", type=int, default=40)
    parser.add_argument("--side", type=int, default=384)
    given = parser.parse_args()
    net, recipe, _ = restored(given.checkpoint)
    scores, labels = gather(net, recipe, given.data, given.folders, given.pools, given.side)
    chosen = thresholds(scores, labels)
    export(given.checkpoint, given.target, {"thresholds": json.dumps(chosen)})
    print("| id | threshold | found where present | found where it is not |\n|---|---|---|---|")
    for i, name in enumerate(IDS):
        there = labels[:, i] == 1
        hit = scores[:, i] >= chosen[name]
        print(f"| {name} | {chosen[name]:.2f} | {hit[there].mean():.1%} | {hit[~there].mean():.1%} |")
    print("\n| scores from | mean score | share present | scores |\n|---|---|---|---|")
    for low, mean, share, count in reliability(scores, labels):
        print(f"| {low:.1f} | {mean:.2f} | {share:.2f} | {count} |")


if __name__ == "__main__":
    main()
