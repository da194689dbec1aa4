"""Weight changes per task of full rank, or on chosen kernels, and which kernels to choose; for the study in lora.py.

Sparse changes: ADMS (CVPR 2023), whole kernels of a few per cent of the weights, found by integrated gradients (FAIG).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from irtool.models.lora import AdaptedLayer, TaskWeights


class FullRankLayer(AdaptedLayer):
    """One weight change of full rank per task."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, task_weights: TaskWeights, tasks: int) -> None:
        super().__init__(layer, task_weights)
        self.delta = nn.Parameter(torch.zeros(tasks, *layer.weight.shape))

    def delta_weight(self, task_weights: Tensor) -> Tensor:
        """sum_t w_t delta_t."""
        return torch.einsum("nt,t...->n...", task_weights, self.delta)


class SparseLayer(FullRankLayer):
    """Changes of chosen kernels only (ADMS): `mask` (tasks, out, in / groups) is 1 where a task has its own kernel.

    For a linear layer a kernel is a single weight.
    """

    mask: Tensor

    def __init__(self, layer: nn.Linear | nn.Conv2d, task_weights: TaskWeights, mask: Tensor) -> None:
        super().__init__(layer, task_weights, len(mask))
        self.register_buffer("mask", mask.float())

    def delta_weight(self, task_weights: Tensor) -> Tensor:
        """sum_t w_t mask_t delta_t."""
        mask = self.mask.view(*self.mask.shape, *[1] * (self.delta.ndim - 3))
        return torch.einsum("nt,t...->n...", task_weights, self.delta * mask)


@torch.no_grad()
def rank_energy(delta: Tensor) -> Tensor:
    """How much of a weight change its leading ranks hold: E(r) = sum_{k<=r} s_k^2 / sum_k s_k^2.

    Args:
        delta: (tasks, out, ...).

    Returns:
        (tasks, ranks), rising to 1.
    """
    s = torch.linalg.svdvals(delta.flatten(2)).square()
    return s.cumsum(1) / s.sum(1, keepdim=True).clamp_min(1e-20)


def faig(
    baseline: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    gradient: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    steps: int = 100,
) -> dict[str, Tensor]:
    """Filter attribution by integrated gradients (Xie et al., NeurIPS 2021): what a kernel's change did to the error.

    Along the path theta(a) = a baseline + (1 - a) target: |(baseline - target) mean_n dF/dtheta(a_n)|, summed over each
    kernel.

    Args:
        baseline, target: weights by name before and after learning one degradation.
        gradient: the gradient of the error F at given weights.
        steps: points on the path.

    Returns:
        By name of each weight of two or more dimensions: (out, in), one score per kernel.
    """
    total = {k: torch.zeros_like(v) for k, v in target.items()}
    for i in range(steps):
        a = (i + 0.5) / steps
        at = {k: a * baseline[k] + (1 - a) * target[k] for k in target}
        for name, g in gradient(at).items():
            total[name] += g / steps
    scores = {k: ((baseline[k] - target[k]) * total[k]).abs() for k in target if target[k].ndim >= 2}
    return {k: v.flatten(2).sum(2) if v.ndim > 2 else v for k, v in scores.items()}


def top_kernels(scores: Mapping[str, Sequence[Tensor]], share: float = 0.03) -> dict[str, Tensor]:
    """Masks of the kernels that matter to one degradation more than to the others (FAIG-SD).

    Args:
        scores: by layer, one (out, in) per degradation, from `faig`.
        share: of all kernels, per degradation.

    Returns:
        By layer (degradations, out, in), 1 where chosen.
    """
    stacked = {k: torch.stack(list(v)) for k, v in scores.items()}
    count = len(next(iter(stacked.values())))
    if count > 1:  # against the mean of the others
        stacked = {k: v - (v.sum(0, keepdim=True) - v) / (count - 1) for k, v in stacked.items()}
    cuts = []
    for d in range(count):
        flat = torch.cat([v[d].flatten() for v in stacked.values()])
        cuts.append(flat.topk(max(1, round(share * flat.numel()))).values[-1])
    limits = torch.stack(cuts).view(-1, 1, 1)
    return {k: (v >= limits).float() for k, v in stacked.items()}
