"""Quantization-aware training of networks that enlarge ("upscale-int8"): `QuantizedETDS`, begun from an `ETDS`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import weights
from ..errors import IrtoolError
from ..models import loading
from ..models.etds import ETDS
from ..models.etds_int8 import QuantizedETDS
from .data import Sample
from .recipe import Recipe
from .restorer import psnr
from .tasks import Shard, TrainingData
from .upscale import UpscaleTask


class UpscaleInt8Task(UpscaleTask):
    """The `TrainingTask` of the kind "upscale-int8". Samples and settings are those of "upscale"; `alone` is 0.

    A run starts (``--start``) from the float network, which is equalized and calibrated on the samples of the first
    pool before it is trained. The setting `teacher` names a float network (id or ``local:FILE``): the loss is then the
    mean squared difference from what that gives, which is the loss by rounding alone, instead of L1 from the picture.
    """

    network = QuantizedETDS
    known = (*UpscaleTask.known, "teacher")

    def __init__(self) -> None:
        self.calibration: Tensor | None = None
        self.teacher: nn.Module | None = None

    def problems(self, recipe: Recipe) -> list[str]:
        problems = super().problems(recipe)
        if recipe.settings.get("alone"):
            problems.append("settings: alone must be 0, the streams are one")
        if not isinstance(recipe.settings.get("teacher", ""), str):
            problems.append(f"settings: teacher is the name of a model, not {recipe.settings['teacher']!r}")
        return problems

    def build(self, recipe: Recipe) -> nn.Module:
        net = QuantizedETDS(**recipe.model)
        net.ranges.requires_grad_(False)
        net.conv_clip.requires_grad_(False)  # exact as it is
        net.calibration = self.calibration
        if name := recipe.settings.get("teacher"):
            teacher, _ = loading.read(weights.locate(name))
            if not isinstance(teacher, ETDS) or teacher.scale != net.scale:
                raise IrtoolError(f"settings: teacher {name} is no ETDS that enlarges {net.scale} times.")
            self.teacher = teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def dataset(self, recipe: Recipe, root: Path, shard: Shard) -> TrainingData[Sample]:
        source = super().dataset(recipe, root, shard)
        self.calibration = source.pools[0].degraded.cpu()
        return source

    def enlarge(self, net: nn.Module, small: Tensor) -> tuple[Tensor, Tensor | None]:
        return net(small.contiguous(memory_format=torch.channels_last)), None

    def loss(
        self, net: nn.Module, batch: Sample, recipe: Recipe, generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if self.teacher is None:
            return super().loss(net, batch, recipe, generator, step)
        with torch.no_grad():
            target, _ = self.enlarge(self.teacher.to(batch.degraded.device), batch.degraded)
        large, _ = self.enlarge(net, batch.degraded)
        return (large - target).square().mean(), {"psnr": psnr(large, batch.clean)}

    def export(self, net: nn.Module, recipe: Recipe, target: Path, notes: Mapping[str, str]) -> None:
        loading.save(net, target, architecture="etds-int8", config=dict(recipe.model), notes=notes)
