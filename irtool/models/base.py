"""The contract between a network and the rest of irtool: `ModelInfo`, `Condition`, `Model` and `Bound`.

A loaded network is a `Model`. Bound to a `Condition` (which degradations to remove, and what goes with that) it is a
`Bound`, which restores images; `irtool.engine.run` carries it out in bounded memory. Networks that restore in one pass
need no code for either: `SinglePassModel` meets both.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from ..degradation import IDS
from ..diffusion.sampling import Sampling
from ..errors import UnavailableError, UsageError

Callback = Callable[[int, Tensor], None]
"""Called with a time of the process, from T down to 0, and the image there: (3, H, W) float32 on the CPU."""
Progress = Callable[[int, int], None]
"""Called with (tiles or steps done, tiles or steps in all)."""


@dataclass(frozen=True)
class ModelInfo:
    """What a network does and what it needs.

    Attributes:
        name: of the architecture.
        tasks: ids of the degradations it removes.
        multiple: height and width of a tile must be multiples of this many pixels.
        overlap: pixels that a tile reaches beyond what is kept of it, on each side.
        parameters: number of weights.
        gmacs_per_megapixel: multiply-accumulates of one evaluation, in 1e9 per 1e6 pixels.
        bytes_per_pixel: peak working memory of a float32 evaluation per input pixel, activations only.
        task_agnostic: it removes what it was trained on, whatever tasks it is bound to.
        tiling: "exact": the receptive field is within `overlap`, so tiles agree with the whole image to within an
            8-bit level; the image is padded to `multiple`. "blended": the network sees all that it is given (global
            pooling, attention); an image that fits in memory is never cut, otherwise the tiles are blended where they
            overlap, and the network pads by itself.
        padding: how the engine pads for exact tiling: "reflect", or "zeros" where the published inference does so.
        iterative: it evaluates its network many times (a diffusion model): it takes sampling settings and a callback.
        takes_mask: it can be told which pixels are missing.
        scale: height and width of the result are this many times those of the image.
        bears_bf16: it loses at most 0.1 dB in bfloat16, so under "auto" a CPU takes what it is faster in.
        assumed: hyperparameters that neither the file nor the caller gave and that tensors do not tell, with the values
            taken, such as "num_heads=12".
        remarks: sentences for whoever loads the model, such as on its license.
    """

    name: str
    tasks: tuple[str, ...]
    multiple: int
    overlap: int
    parameters: int
    gmacs_per_megapixel: float
    bytes_per_pixel: int
    task_agnostic: bool = False
    tiling: Literal["exact", "blended"] = "exact"
    padding: Literal["reflect", "zeros"] = "reflect"
    iterative: bool = False
    takes_mask: bool = False
    scale: int = 1
    bears_bf16: bool = False
    assumed: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Condition:
    """What a model is bound to.

    Attributes:
        tasks: task weights, degradation id -> weight in [0, 1].
        mask: (1, H, W), 1 where pixels are missing, of the image that is restored; None to have missing regions found,
            where the model can.
        adapter: file of a task adapter (low-rank weight offsets, `irtool.models.lora`) to merge into the weights.
        sampling: settings of the sampler of an iterative model; None for its own.
        callback: shown every state of an iterative model.
    """

    tasks: Mapping[str, float] = field(default_factory=dict)
    mask: Tensor | None = None
    adapter: Path | None = None
    sampling: Sampling | None = None
    callback: Callback | None = None


class Tiled(Protocol):
    """Evaluates a network over images tile by tile, as if it had seen them whole (`irtool.engine.tiling.Tiler`)."""

    def __call__(self, net: Callable[..., Tensor], *images: Tensor, on_progress: Progress | None = None) -> Tensor:
        """``net(*images)`` for images (N, C, H, W) of one size.

        Tiles are moved to the compute device; the result is float32 on the device of the first image.
        """
        ...


class Bound(Protocol):
    """A model bound to a condition."""

    info: ModelInfo

    def to(self, device: torch.device, dtype: torch.dtype) -> Bound:
        """Move to a device and compute in a type; returns itself."""
        ...

    def prepare(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """What is computed once, on the whole image (1, 3, H, W) in [0, 1], on the CPU.

        Returns:
            What the tiles are cut from (1, C, H', W'), most often the image itself; it may be padded at the bottom and
            right, the engine crops. And what the network must know of the whole image, (1, K); K may be 0.
        """
        ...

    def run(self, image: Tensor, context: Tensor, tiled: Tiled, on_progress: Progress) -> Tensor:
        """Restore what `prepare` gave -> (1, 3, H', W'), about [0, 1]; the engine clamps."""
        ...


class Model(Protocol):
    """A loaded network."""

    info: ModelInfo

    def bind(self, condition: Condition) -> Bound:
        """Fix what is to be done.

        Raises:
            UsageError: the model does not know a task, or cannot do what the condition asks for.
            UnavailableError: the adapter is absent or does not fit.
        """
        ...


def check(condition: Condition, info: ModelInfo) -> None:
    """Turn away a condition that a model cannot meet.

    Raises:
        UsageError: a task is none of its tasks; or it takes no mask, no sampling settings or no callback.
    """
    unknown = [task for task in condition.tasks if task not in info.tasks]
    if unknown and not info.task_agnostic:
        raise UsageError(f"The model has no task '{unknown[0]}'.", "It knows: " + ", ".join(info.tasks) + ".")
    if condition.mask is not None and not info.takes_mask:
        raise UsageError(f"A {info.name} model cannot be told where regions are missing.", "Leave `mask` out.")
    if condition.callback is not None and not info.iterative:
        raise UsageError(f"A {info.name} model is no diffusion model: it has no steps to show.")
    if condition.sampling is not None and not info.iterative:
        raise UsageError(
            f"A {info.name} model is no diffusion model: it takes no sampling settings.",
            "Leave `steps`, `sampler` and `seed` out.",
        )


def not_finite(name: str) -> UnavailableError:
    """The error for a network, called `name`, that gave NaN or infinity."""
    return UnavailableError(
        f"The {name} network gave values that are not finite (NaN or infinity): its weights are damaged.",
        "Fetch the file again, or use another model.",
    )


class Placed:
    """The weights of a network in float32, and the copy of them on the device and in the type last asked for.

    Shared by all bounds of a model, so that a network is moved once and not per image. The float32 weights are kept,
    since rounding cannot be undone.
    """

    def __init__(self, source: Any) -> None:
        self.source, self.net = source, source
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self._home = self.device  # where the source is

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Make `net` the network on this device in this type."""
        if (device, dtype) == (self.device, self.dtype):
            return
        # The copy before is let go first: it may be large.
        self.net, self.device, self.dtype = self.source, self._home, torch.float32
        if (device, dtype) == (self.device, self.dtype):
            return
        net = self.source if dtype == torch.float32 else copy.deepcopy(self.source)
        net = net.to(device, dtype)
        for weight in net.parameters():
            if weight.dim() == 4:  # those of convolutions; Module.to would ask it of those with five, and fail
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        self.net, self.device, self.dtype = net, device, dtype
        if dtype == torch.float32:
            self._home = device


class SinglePassModel:
    """A network that restores an image in one pass, and is the same for all tasks (`Model` and `Bound`).

    Subclasses say in `forward` how the network is called, and in `prepare` what it is told of the whole image.

    Args:
        net: the network, on the CPU in float32; ``net(x)`` restores (N, 3, h, w) in [0, 1].
        info: of the network.
    """

    def __init__(self, net: Any, info: ModelInfo) -> None:
        self.info, self.placed = info, Placed(net)

    @property
    def net(self) -> Any:
        """The network that computes."""
        return self.placed.net

    def bind(self, condition: Condition) -> Bound:
        """Itself, unless an adapter is to be merged in."""
        check(condition, self.info)
        return self if condition.adapter is None else self.adapted(condition.adapter)

    def adapted(self, adapter: Path) -> Any:
        """A copy with a task adapter merged into its weights."""
        from . import lora

        copied = copy.copy(self)
        copied.placed = Placed(lora.apply(copy.deepcopy(self.placed.source).cpu(), adapter))
        return copied

    def to(self, device: torch.device, dtype: torch.dtype) -> Bound:
        self.placed.to(device, dtype)
        return self

    def prepare(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return image, torch.zeros(1, 0)

    def forward(self, tile: Tensor, context: Tensor) -> Tensor:
        """Restore tiles (N, C, h, w) in the type of the network; context (1, K) float32 -> (N, 3, h, w)."""
        restored: Tensor = self.net(tile)
        return restored

    def run(self, image: Tensor, context: Tensor, tiled: Tiled, on_progress: Progress) -> Tensor:
        context = context.to(self.placed.device)
        with torch.inference_mode():
            return tiled(
                lambda tile: self.forward(tile.to(self.placed.dtype), context).float(), image, on_progress=on_progress
            )


def describe(
    net: nn.Module,
    header: Mapping[str, str],
    name: str,
    *,
    overlap: int,
    bytes_per_pixel: int,
    tasks: tuple[str, ...] = IDS,
    multiple: int = 1,
    gmacs: float | None = None,
    **more: Any,
) -> ModelInfo:
    """The `ModelInfo` of a network, with what is the same for all.

    Args:
        net: the network; if `gmacs` is not given it is called with (1, 3, 128, 128) on the meta device to count.
        header: of its file; "tasks" there (JSON) goes before `tasks`, "assumed" (JSON) is handed on.
        name: of the architecture.
        tasks: that networks of the architecture remove unless their file says otherwise.
        overlap, bytes_per_pixel, multiple: as of `ModelInfo`.
        gmacs: multiply-accumulates in 1e9 per megapixel, where they are known.
        more: further attributes of `ModelInfo`.
    """
    from .macs import counted

    if gmacs is None:
        gmacs = counted(net, torch.empty(1, 3, 128, 128, device="meta"))
    assumed = tuple(json.loads(header.get("assumed", "[]")))
    if assumed:
        remark = (
            f"its tensors do not tell {' and '.join(a.partition('=')[0] for a in assumed)}; {', '.join(assumed)} is "
        )
        more["remarks"] = (*more.get("remarks", ()), remark + "assumed, as published")
    return ModelInfo(
        name=name,
        tasks=tuple(json.loads(header.get("tasks", "[]"))) or tuple(tasks),
        multiple=multiple,
        overlap=overlap,
        parameters=sum(p.numel() for p in net.parameters()),
        gmacs_per_megapixel=gmacs,
        bytes_per_pixel=bytes_per_pixel,
        assumed=assumed,
        **more,
    )


def settings(header: Mapping[str, str]) -> dict[str, Any]:
    """What the record of a file in weights.toml says beside its tensors."""
    return dict(json.loads(header.get("settings", "{}")))
