"""The training of `DetectorNet`: which degradations does a picture have, how strong are they, and where?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import fileio
from ..degradation import CLEAN, IDS
from ..detection.efficientnet import STRIDE16_BLOCKS
from ..detection.network import LOCAL, DetectorNet, Views
from ..errors import UsageError
from ..models import loading
from ..weights.hub import assets_cache
from .checks import recipe_problems
from .data import Sample, join, seed_of, training_data
from .detector_data import MAPPED, SEVERITY, WEIGHT, DetectorPools, labelled
from .detector_views import CROP_CELLS, VIEWS, WHOLE_CELLS, SeenPools
from .pictures import PictureSet
from .recipe import Recipe
from .tasks import Preview, Shard, TrainingData

# A cell with a drop or a shadow is rare and hard to tell: one missed counts for as many called wrongly.
_MISSED = {"raindrop": 4.0, "shadow": 2.0}


class DetectorTask:
    """The `TrainingTask` of the kind "detector". Its figure is the mean, over the degradations, of the probability
    that a
    held-out picture which has it scores higher than a clean one (the area under the ROC curve).

    The lower half of the backbone and the trunk at native resolution stay as they are in the file that
    `settings["frozen"]` names, so what they see in a sample is computed once (`SeenPools`): a run then costs minutes of
    a CPU where it would cost hours.

    `settings`: "labelled" and "held" are tables of real photographs (`detector_data.labelled`), relative to the data
    root, to learn from and to choose the best checkpoint by; "real" says how often each label comes, beside `weights`;
    "frozen" is the start file, relative to the data root (without it they are as a new run begins); "pools" is how many
    different pools there are.
    """

    figure_of_merit = "auc"

    def problems(self, recipe: Recipe) -> list[str]:
        problems = recipe_problems(DetectorNet, recipe, ("labelled", "held", "real", "frozen", "pools"))
        real = recipe.settings.get("real", {})
        if not isinstance(real, Mapping) or set(real) - {*IDS, CLEAN}:
            problems.append("settings.real is a table of weights by degradation id or 'clean'")
        elif real and "labelled" not in recipe.settings:
            problems.append("settings.real needs settings.labelled, a table of photographs")
        return problems

    def build(self, recipe: Recipe) -> DetectorNet:
        net = DetectorNet(**recipe.model)
        for module in (net.fine, net.backbone.stem, *net.backbone.blocks[:STRIDE16_BLOCKS]):
            module.requires_grad_(False)
        return net

    def dataset(self, recipe: Recipe, root: Path, shard: Shard) -> TrainingData[Sample]:
        skipped: list[str] = []
        tables = [recipe.settings.get(name) for name in ("labelled", "held")]
        real, held = (labelled(root / str(name), skipped) if name else [] for name in tables)
        frozen = root / str(recipe.settings["frozen"]) if "frozen" in recipe.settings else None
        net = _frozen(frozen, recipe).to(shard.device)
        settings = {name: value for name, value in recipe.settings.items() if name != "pools"}  # more of the same
        samples = (recipe.data, recipe.group, recipe.pool, recipe.region, recipe.seed, recipe.weights, settings)
        names = json.dumps(
            [samples, sorted(recipe.model.items()), fileio.sha256(frozen) if frozen else ""], sort_keys=True
        )
        where = assets_cache() / "views" / hashlib.sha256(names.encode()).hexdigest()[:24]

        def pools(pictures: PictureSet, recipe: Recipe, shard: Shard) -> SeenPools:
            fresh = DetectorPools(pictures, recipe, shard, real=real)
            return SeenPools(
                fresh, net, int(recipe.settings.get("pools", 64)), where / f"{shard.rank}-{shard.world_size}"
            )

        found = training_data(recipe, root, shard, pools)
        header = {**found.description, "labelled": len(real), "labelled_held_out": len(held)}
        fresh: DetectorPools = found.pools.pools  # type: ignore[attr-defined]
        fixed = DetectorPools(fresh.pictures, recipe, shard, real=held, vary=False)
        return TrainingData(found.pools, held_out(fixed), found.samples, header, [*found.skipped, *skipped])

    def batch(self, pool: Sample, row: int, rows: int, crop: int, generator: torch.Generator) -> Sample:
        return pool.map(lambda t: t[row::rows])

    def loss(
        self, net: nn.Module, batch: Sample, recipe: Recipe, generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        assert isinstance(net, DetectorNet)
        extras = {name: value.float() for name, value in batch.extras.items()}
        found = net.judge(Views(*(extras[name] for name in VIEWS)))
        mapped = extras[MAPPED][..., None, None]
        missed = torch.tensor([_MISSED.get(i, 1.5) for i in LOCAL], device=mapped.device)[:, None, None]

        def wrong(logits: Tensor, cells: Tensor) -> Tensor:
            each = F.binary_cross_entropy_with_logits(logits.float(), cells, pos_weight=missed, reduction="none")
            return (each * mapped).mean() / mapped.mean().clamp(min=0.05)

        kinds = F.binary_cross_entropy_with_logits(found.kinds.float(), batch.labels, reduction="none")
        kinds = (kinds * extras[WEIGHT]).mean()
        clean = F.binary_cross_entropy_with_logits(found.clean.float(), 1 - batch.labels.amax(dim=1))
        crop_cells = extras[CROP_CELLS]
        crop_maps = [wrong(found.crop_maps[:, i], crop_cells[:, i]) for i in range(crop_cells.shape[1])]
        maps = wrong(found.whole_map, extras[WHOLE_CELLS]) + sum(crop_maps) / len(crop_maps)
        known = ~extras[SEVERITY].isnan()
        off = (found.severity.float().sigmoid() - extras[SEVERITY].nan_to_num()).abs() * known
        severity = off.sum() / known.sum().clamp(min=1)
        right = ((found.kinds > 0) == (batch.labels > 0.5)).all(dim=1)
        parts = {"right": right.float(), "kinds": kinds, "clean": clean, "maps": maps, "severity": severity}
        figures = {name: value.detach() for name, value in parts.items()}
        return 2 * kinds + 0.2 * clean + 0.5 * maps + 0.5 * severity, figures

    def preview(self, net: nn.Module, held_out: Sample, recipe: Recipe) -> Preview:
        logits = torch.cat([net(held_out.degraded[i : i + 1]).float() for i in range(len(held_out))])
        predicted, is_there = logits > 0, held_out.labels > 0.5
        is_clean = ~is_there.any(dim=1)
        figures = {
            "right": float((predicted == is_there).all(dim=1).float().mean()),
            "label_right": float((predicted == is_there).float().mean()),
            "auc": _mean_auc(logits, is_there, is_clean),
            "clean_right": float((~predicted[is_clean]).all(dim=1).float().mean()),
        }
        names = held_out.names()
        shown = [i for i, name in enumerate(names) if name not in names[:i]]
        found = ["+".join(i for i, on in zip(IDS, row, strict=True) if on) or CLEAN for row in predicted.tolist()]
        pictures = held_out.degraded.permute(0, 2, 3, 1).cpu().numpy()
        return Preview(
            figures,
            rows=[[pictures[i]] for i in shown],
            titles=("input",),
            captions=[[f"is {names[i]}, found {found[i]}"] for i in shown],
        )

    def export(self, net: nn.Module, recipe: Recipe, target: Path, notes: Mapping[str, str]) -> None:
        loading.save(net, target, architecture="detector", config=recipe.model, notes=notes)


def _frozen(path: Path | None, recipe: Recipe) -> DetectorNet:
    """The network whose frozen layers look at the samples: that of a file, or that which a new run begins with.

    Raises:
        UsageError: the file holds no detector.
    """
    if path is None:
        torch.manual_seed(recipe.seed)
        return DetectorNet(**recipe.model).eval().requires_grad_(False)
    net, header = loading.read(path)
    if not isinstance(net, DetectorNet):
        raise UsageError(f"{path} holds a {header['architecture']}, not a detector.")
    return net


def held_out(pools: DetectorPools, each: int = 10) -> Sample:
    """Fixed samples of every kind of the pools: `each` of the real photographs, and two of what is synthesised."""
    h, w = round(pools.recipe.region / 16) * 16, round(1.22 * pools.recipe.region / 16) * 16
    made = []
    for number, (kind, real) in enumerate(pools.kinds):
        for which in range(each * (2 if kind == CLEAN else 1) if real else 2):
            g = torch.Generator().manual_seed(seed_of(0x48, number, which))
            made.append(pools.photograph(kind, h, w, g) if real else pools.sample(kind, pools._region(g, h, w), g))
    return join(made)


def _mean_auc(logits: Tensor, is_there: Tensor, is_clean: Tensor) -> float:
    areas = []
    for i in range(logits.shape[1]):
        higher = logits[is_there[:, i], i][:, None] - logits[is_clean, i][None]
        if higher.numel():
            areas.append(float((higher > 0).float().mean() + 0.5 * (higher == 0).float().mean()))
    return sum(areas) / max(1, len(areas))
