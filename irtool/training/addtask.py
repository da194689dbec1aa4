"""A new task for a frozen restorer: a LoRA adapter in a file of some hundred kB.

irtool train --recipe add-task --data DATA --out runs/my-task settings.task=my-task settings.like=noise
irtool train export runs/my-task/best.pt my-task.safetensors
irtool restore photo.jpg --offsets my-task.safetensors
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from ..degradation import IDS, INDEX
from ..errors import IrtoolError
from ..models import loading, modulation
from ..models.compact import CompactNet, Pointwise
from ..models.holes import filled
from ..tables import unknown
from ..weights import locate
from .data import Sample
from .recipe import Recipe
from .restorer import RestorerJob

SETTINGS = ("base", "task", "like", "rank")


class AddTaskJob(RestorerJob):
    """The `Job` of the kind "add-task": a new task on a frozen network; the metric is PSNR in dB.

    Settings: `base`, the restorer; `task`, a name for the new task; `like`, the task of the restorer that it begins as
    (a degradation id); `rank` of the offsets.
    """

    def problems(self, recipe: Recipe) -> list[str]:
        told, wrong = dict(recipe.settings), []
        wrong += [f"settings: unknown key {unknown(key, SETTINGS)}" for key in told if key not in SETTINGS]
        wrong += [f"settings: '{key}' is missing" for key in SETTINGS if key not in told]
        if recipe.model:
            wrong.append("model: the network is that of settings.base")
        if told.get("like", IDS[0]) not in IDS:
            wrong.append(f"settings: like is one of {', '.join(IDS)}, not {unknown(str(told['like']), IDS)}")
        if not isinstance(told.get("rank", 1), int) or told.get("rank", 1) < 1:
            wrong.append("settings: rank is a whole number from 1")
        if wrong:
            return wrong
        try:
            architecture = loading.describe(locate(str(told["base"])))[0]
        except IrtoolError as error:
            return [f"settings: base: {error.message}"]
        return [] if architecture == "compact" else [f"settings: base is a {architecture}, not a compact restorer"]

    def build(self, recipe: Recipe) -> modulation.Adapted:  # type: ignore[override]  # another network, the same samples
        net = loading.read(locate(str(recipe.settings["base"])))[0]
        assert isinstance(net, CompactNet)
        net.merge({str(recipe.settings["like"]): 1.0})
        names = [f"{name}.weight" for name, layer in net.named_modules() if isinstance(layer, Pointwise)]
        return modulation.Adapted(net, names, int(recipe.settings["rank"]))

    def restore(self, net: nn.Module, sample: Sample) -> Tensor:
        # The network is merged for the task it starts from, so the task weights of a sample do not apply.
        assert isinstance(net, modulation.Adapted)
        asked = net.net.get_buffer("fixed")[:, INDEX["missing"]] > 0
        restored: Tensor = net(filled(sample.degraded, asked.expand(len(sample))), sample.context)
        return restored

    def export(self, net: nn.Module, recipe: Recipe, target: Path, notes: Mapping[str, str]) -> None:
        told = recipe.settings
        more = {"like": str(told["like"]), **notes}
        modulation.save(net, target, tasks=[str(told["task"])], base=str(told["base"]), notes=more)
