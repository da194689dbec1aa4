"""The training of `DetectorNet`: which degradations does a picture have, and where?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..degradation import CLEAN, IDS
from ..detect.network import LOCAL, DetectorNet, where
from ..models import loading
from .checks import misfits
from .data import Sample, source
from .detector_data import CHANGE, DetectorPools
from .jobs import Preview, Share, Source
from .recipe import Recipe

# A cell with a drop or a shadow is rare and hard to tell: one missed counts for as many called wrongly.
_MISSED = {"raindrop": 6.0, "shadow": 3.0}


class DetectorJob:
    """The `Job` of the kind "detector". Its figure is the share of samples all of whose labels are right at a threshold
    of a half. The sizes of the samples are those of `detector_data`; the crops of the recipe's phases are not cut.
    """

    figure = "right"

    def problems(self, recipe: Recipe) -> list[str]:
        return misfits(DetectorNet, recipe)

    def build(self, recipe: Recipe) -> DetectorNet:
        return DetectorNet(**recipe.model)

    def dataset(self, recipe: Recipe, root: Path, share: Share) -> Source[Sample]:
        return source(recipe, root, share, DetectorPools)

    def batch(self, pool: Sample, row: int, rows: int, crop: int, generator: torch.Generator) -> Sample:
        return pool.map(lambda t: t[row::rows])

    def loss(
        self, net: nn.Module, batch: Sample, recipe: Recipe, generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        assert isinstance(net, DetectorNet)
        logits, near, far = net.look(batch.degraded)
        near_target, far_target = where(batch.extras[CHANGE].float(), near, far)
        weight = torch.tensor([_MISSED.get(i, 1.5) for i in LOCAL], device=logits.device)[:, None, None]
        kinds = F.binary_cross_entropy_with_logits(logits.float(), batch.labels)
        # What is where is asked for the sake of what there is: without it, drops and shadows are not learned.
        maps = F.binary_cross_entropy_with_logits(near.float(), near_target, pos_weight=weight)
        maps = maps + F.binary_cross_entropy_with_logits(far.float(), far_target, pos_weight=weight)
        right = ((logits > 0) == (batch.labels > 0.5)).all(dim=1)
        return kinds + maps, {"right": right.float(), "kinds": kinds.detach(), "maps": maps.detach()}

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
