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
from ..models import loading, lora
from ..models.compact import CompactNet, Pointwise
from ..models.inpaint import fill_detected_holes
from ..tables import unknown
from ..weights import locate
from .data import Sample
from .recipe import Recipe
from .restorer import RestorerTask

SETTINGS = ("base", "task", "like", "rank")


class AddTask(RestorerTask):
    """The `TrainingTask` of the kind "add-task": a new task on a frozen network; the metric is PSNR in dB.

    Settings: `base`, the restorer; `task`, a name for the new task; `like`, the task of the restorer that it begins as
    (a degradation id); `rank` of the offsets.
    """

    def problems(self, recipe: Recipe) -> list[str]:
        settings, wrong = dict(recipe.settings), []
        wrong += [f"settings: unknown key {unknown(key, SETTINGS)}" for key in settings if key not in SETTINGS]
        wrong += [f"settings: '{key}' is missing" for key in SETTINGS if key not in settings]
        if recipe.model:
            wrong.append("model: the network is that of settings.base")
        if settings.get("like", IDS[0]) not in IDS:
            wrong.append(f"settings: like is one of {', '.join(IDS)}, not {unknown(str(settings['like']), IDS)}")
        if not isinstance(settings.get("rank", 1), int) or settings.get("rank", 1) < 1:
            wrong.append("settings: rank is a whole number from 1")
        if wrong:
            return wrong
        try:
            architecture = loading.describe(locate(str(settings["base"])))[0]
        except IrtoolError as error:
            return [f"settings: base: {error.message}"]
        return [] if architecture == "compact" else [f"settings: base is a {architecture}, not a compact restorer"]

    def build(self, recipe: Recipe) -> lora.LoRAModel:  # type: ignore[override]  # another network, the same samples
        net = loading.read(locate(str(recipe.settings["base"])))[0]
        assert isinstance(net, CompactNet)
        net.merge({str(recipe.settings["like"]): 1.0})
        names = [f"{name}.weight" for name, layer in net.named_modules() if isinstance(layer, Pointwise)]
        return lora.LoRAModel(net, names, int(recipe.settings["rank"]))

    def restore(self, net: nn.Module, sample: Sample) -> Tensor:
        # The network is merged for the task it starts from, so the task weights of a sample do not apply.
        assert isinstance(net, lora.LoRAModel)
        fill = net.net.get_buffer("fixed")[:, INDEX["missing"]] > 0
        restored: Tensor = net(fill_detected_holes(sample.degraded, fill.expand(len(sample))), sample.context)
        return restored

    def export(self, net: nn.Module, recipe: Recipe, target: Path, notes: Mapping[str, str]) -> None:
        settings = recipe.settings
        more = {"like": str(settings["like"]), **notes}
        lora.save(net, target, tasks=[str(settings["task"])], base=str(settings["base"]), notes=more)
