"""The training of `DetectorNet`: which degradations does a picture have?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..degradation import CLEAN, IDS
from ..detect.network import DetectorNet
from ..models import loading
from .checks import misfits
from .data import Sample, cut, source
from .jobs import Preview, Share, Source
from .recipe import Recipe


class DetectorJob:
    """The `Job` of the kind "detector". Its figure is the share of samples all of whose labels are right at a threshold
    of a half."""

    figure = "right"

    def problems(self, recipe: Recipe) -> list[str]:
        return misfits(DetectorNet, recipe)

    def build(self, recipe: Recipe) -> DetectorNet:
        return DetectorNet(**recipe.model)

    def dataset(self, recipe: Recipe, root: Path, share: Share) -> Source[Sample]:
        return source(recipe, root, share)

    def batch(self, pool: Sample, row: int, rows: int, crop: int, generator: torch.Generator) -> Sample:
        return cut(pool, row, rows, crop, generator)

    def loss(
        self, net: nn.Module, batch: Sample, recipe: Recipe, generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        logits = net(batch.degraded)
        right = ((logits > 0) == (batch.labels > 0.5)).all(dim=1)
        return F.binary_cross_entropy_with_logits(logits, batch.labels), {"right": right.float()}

    def preview(self, net: nn.Module, held: Sample, recipe: Recipe) -> Preview:
        logits = torch.cat([net(held.degraded[i : i + 1]).float() for i in range(len(held))])
        said, is_there = logits > 0, held.labels > 0.5
        figures = {
            "right": float((said == is_there).all(dim=1).float().mean()),
            "label_right": float((said == is_there).float().mean()),
            "entropy": float(F.binary_cross_entropy_with_logits(logits, held.labels)),
        }
        names = held.names()
        shown = [i for i, name in enumerate(names) if name not in names[:i]]
        found = ["+".join(i for i, on in zip(IDS, row, strict=True) if on) or CLEAN for row in said.tolist()]
        pictures = [t.permute(0, 2, 3, 1).cpu().numpy() for t in (held.degraded, held.clean)]
        return Preview(
            figures,
            rows=[[p[i] for p in pictures] for i in shown],
            titles=("input", "clean"),
            captions=[[f"found {found[i]}", f"is {names[i]}"] for i in shown],
        )

    def export(self, net: nn.Module, recipe: Recipe, target: Path, notes: Mapping[str, str]) -> None:
        loading.save(net, target, architecture="detector", config=recipe.model, notes=notes)
