"""Quantization-aware training of networks that enlarge ("upscale-int8"): `QuantizedETDS`, begun from an `ETDS`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from ..models import loading
from ..models.etds_int8 import QuantizedETDS
from .data import Sample
from .recipe import Recipe
from .tasks import Shard, TrainingData
from .upscale import UpscaleTask


class UpscaleInt8Task(UpscaleTask):
    """The `TrainingTask` of the kind "upscale-int8". Samples and settings are those of "upscale"; `alone` is 0.

    A run starts (``--start``) from the float network, which is equalized and calibrated on the samples of the first
    pool before it is trained.
    """

    network = QuantizedETDS

    def __init__(self) -> None:
        self.calibration: Tensor | None = None

    def problems(self, recipe: Recipe) -> list[str]:
        problems = super().problems(recipe)
        if recipe.settings.get("alone"):
            problems.append("settings: alone must be 0, the streams are one")
        return problems

    def build(self, recipe: Recipe) -> nn.Module:
        net = QuantizedETDS(**recipe.model)
        net.ranges.requires_grad_(False)
        net.conv_clip.requires_grad_(False)  # exact as it is
        net.calibration = self.calibration
        return net

    def dataset(self, recipe: Recipe, root: Path, shard: Shard) -> TrainingData[Sample]:
        source = super().dataset(recipe, root, shard)
        self.calibration = source.pools[0].degraded.cpu()
        return source

    def enlarge(self, net: nn.Module, small: Tensor) -> tuple[Tensor, Tensor | None]:
        return net(small), None

    def export(self, net: nn.Module, recipe: Recipe, target: Path, notes: Mapping[str, str]) -> None:
        loading.save(net, target, architecture="etds-int8", config=dict(recipe.model), notes=notes)
