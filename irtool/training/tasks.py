"""Kinds of training: the interface that the loop uses.

Pictures, tasks and losses are the affair of a `TrainingTask`, one for each `kind` of a recipe. A new kind is one
module with one class and one line in `TASKS` (docs/training.md, "Add a kind of training in five steps").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn
    from torch.utils.data import Dataset

    from .recipe import Recipe

# kind -> "module:class", under irtool; imported when first used, so that listing recipes does not import torch.
TASKS: dict[str, str] = {
    "restorer": "training.restorer:RestorerTask",
    "detector": "training.detector:DetectorTask",
    "add-task": "training.addtask:AddTask",
    "instruct-ipt": "training.instruct_ipt:InstructIPTTask",
    "daclip-controller": "training.controller:ControllerTask",
    "universal-ir": "training.conditioned:UniversalTask",
    "nafnet-daclip": "training.conditioned:ConditionedNAFNetTask",
    "diffusion-prior": "training.prior:PriorTask",
    "rl-i2it": "training.rl_i2it:StepwiseTask",
    "lm4lv": "training.lm4lv:LM4LVTask",
    "upscale": "training.upscale:UpscaleTask",
    "fade": "training.fade:FadeTask",
    "scratches": "training.scratches:ScratchesTask",
    "upscale-int8": "training.upscale_int8:UpscaleInt8Task",
    "ir-sde": "training.irsde:IRSDETask",
}


class Batch(Protocol):
    """A batch of samples; `irtool.training.data.Sample` is one."""

    def __len__(self) -> int: ...

    def to(self, device: torch.device) -> Any:
        """The same on a device."""
        ...

    def names(self) -> Sequence[str]:
        """What each sample is, such as "noise" or "rain+jpeg": the figures of the log are also kept by these."""
        ...


B = TypeVar("B", bound=Batch)


@dataclass(frozen=True)
class Shard:
    """Rank and world size of this process, and its device."""

    rank: int
    world_size: int
    device: torch.device


@dataclass(frozen=True)
class TrainingData(Generic[B]):
    """The data of a run.

    Attributes:
        pools: item `i`, for any i >= 0, is this process's share of pool `i`: `recipe.pool / share.world_size` samples
        that
            follow from the recipe, `i` and the share alone. That is what makes a run resume with the very samples
            it would have seen.
        held_out: fixed samples that are never trained on, or None.
        samples: samples in an epoch, as the job defines it.
        description: what was found, for the plan, the log and the model card: text and numbers by name.
        skipped: one sentence for each file that could not be used.
    """

    pools: Dataset[B]
    held_out: B | None = None
    samples: int = 0
    description: Mapping[str, Any] = field(default_factory=dict)
    skipped: Sequence[str] = ()


@dataclass(frozen=True)
class Preview:
    """Metrics and pictures of a network on the held-out samples.

    Attributes:
        figures: by name; `TrainingTask.figure_of_merit` must be one of them.
        rows: pictures of the sheet, (H, W, 3) in [0, 1], row by row; empty where there is nothing to see.
        titles: one per column.
        captions: one per picture.
    """

    figures: Mapping[str, float]
    rows: Sequence[Sequence[np.ndarray | None]] = ()
    titles: Sequence[str] = ("input", "output", "target")
    captions: Sequence[Sequence[str]] = ()


class TrainingTask(Protocol[B]):
    """One kind of training.

    Attributes:
        figure_of_merit: name of the held-out metric that chooses the best checkpoint; higher is better.
    """

    figure_of_merit: str

    def problems(self, recipe: Recipe) -> list[str]:
        """What is wrong with `recipe.model` and `recipe.settings`, a phrase each; allocates nothing large."""
        ...

    def build(self, recipe: Recipe) -> nn.Module:
        """The network, on the CPU; torch has been seeded by the recipe. Frozen weights have
        `requires_grad` off. Several networks are one module that holds them."""
        ...

    def dataset(self, recipe: Recipe, root: Path, shard: Shard) -> TrainingData[B]:
        """Find and prepare the data below `root`.

        Raises:
            UsageError: a folder is missing, or nothing usable is in it.
        """
        ...

    def batch(self, pool: B, row: int, rows: int, crop: int, generator: torch.Generator) -> B:
        """Batch `row` of the `rows` batches of a pool, cut to `crop`. `generator` is alike in all processes."""
        ...

    def loss(
        self, net: nn.Module, batch: B, recipe: Recipe, generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, a scalar that is a mean over the samples, and figures to log: scalars, or one value per sample.

        It runs under autocast. `generator`, on the CPU, differs in every process and step; torch's own generators are
        seeded at every step too, so dropout may use them. What must not depend on the number of processes is drawn
        in `dataset` and travels in the batch.
        """
        ...

    def preview(self, net: nn.Module, held_out: B, recipe: Recipe) -> Preview:
        """Look at the held-out samples with the averaged network, in inference mode."""
        ...

    def export(self, net: nn.Module, recipe: Recipe, target: Path, notes: Mapping[str, str]) -> None:
        """Write the averaged network as a safetensors file that `irtool.models.loading` or its own loader reads."""
        ...


def training_task(kind: str) -> TrainingTask[Any]:
    """The job of a kind; raises KeyError for one that `TASKS` does not have."""
    module, _, name = TASKS[kind].partition(":")
    task: TrainingTask[Any] = getattr(import_module(f"irtool.{module}"), name)()
    return task
