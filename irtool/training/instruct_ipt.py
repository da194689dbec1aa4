"""The training of Instruct-IPT: a transformer and its offsets per task, learned together from mixed batches.

irtool train --recipe instruct-ipt --data DATA --out runs/instruct-ipt
irtool train export runs/instruct-ipt/best.pt instruct-ipt.safetensors
irtool restore photo.jpg --model local:instruct-ipt.safetensors --task dehaze
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from ..degradation import CLEAN, IDS, INDEX
from ..errors import UsageError
from ..models import loading
from ..models.instruct_ipt import TASKS, InstructIPT
from ..models.ipt import IPT
from ..tables import unknown
from ..weights import locate
from .checks import recipe_problems
from .data import Sample
from .recipe import Recipe
from .restorer import RestorerTask

SETTINGS = ("base", "place")


class InstructIPTTask(RestorerTask):
    """The `TrainingTask` of the kind "instruct-ipt": PSNR in dB, each kind of sample counting alike.

    Settings, both optional: `base`, an IPT whose weights the common ones begin as (needed again by whatever reads a
    checkpoint of the run); `place`, which of its heads.
    """

    def problems(self, recipe: Recipe) -> list[str]:
        wrong = recipe_problems(InstructIPT, recipe, SETTINGS)
        if wrong:
            return wrong
        tasks, side = list(recipe.model.get("tasks", TASKS)), recipe.model.get("patch_size", 48)
        wrong += [f"model: unknown task {unknown(task, IDS)}" for task in tasks if task not in IDS]
        kinds = [kind for kind, weight in recipe.weights.items() if weight > 0]
        kinds += [task for pairs in recipe.pairs for task in pairs.task]
        taught = ", ".join(tasks)
        wrong += [f"weights: '{k}' is none of the tasks, {taught}" for k in kinds if k not in (*tasks, CLEAN)]
        wrong += [f"phases: crop {p.crop} is not the patch, {side}" for p in recipe.phases if p.crop != side]
        return wrong

    def build(self, recipe: Recipe) -> InstructIPT:  # type: ignore[override]  # another network, the same samples
        """The network; loads the base too.

        Raises:
            UnavailableError: the base cannot be had.
            UsageError: it is no IPT, or one of another size.
        """
        net = InstructIPT(**recipe.model)
        if base := str(recipe.settings.get("base", "")):
            # How many heads the base has, its tensors do not tell; its weights go into a network with this many.
            plain, header = loading.read(locate(base), num_heads=recipe.model.get("num_heads", 12))
            if not isinstance(plain, IPT):
                raise UsageError(f"settings.base holds a {header['architecture']}, not an IPT.", "Leave it out.")
            net.init_from_ipt(plain, int(recipe.settings.get("place", 0)))
        return net

    def restore(self, net: nn.Module, sample: Sample) -> Tensor:
        columns = [INDEX[task] for task in net.tasks]  # type: ignore[union-attr]
        restored: Tensor = net(sample.degraded, sample.task_weights[:, columns])
        return restored

    def export(self, net: nn.Module, recipe: Recipe, target: Path, notes: Mapping[str, str]) -> None:
        loading.save(net, target, architecture="instruct-ipt", config=recipe.model, notes=notes)
