"""Low-rank adapters per task (LoRA), for any network: W_t = W + B_t A_t.

Our reading of Instruct-IPT's weight modulation (arXiv 2407.00676; its code and ranks were never published): chosen
linear and convolution layers get one adapter per task, all of one rank. B_t is initialized to zero, so every
task starts at the shared weights. In training each sample of a batch has its own task weights: the shared weights learn
from all samples, an adapter from those of its task (synchronous training). For inference the adapters are merged into
the weights and cost nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from ..errors import FileError, UnavailableError, UsageError
from ..fileio import atomic_write, open_regular

HINT = "Give a file that irtool train --recipe add-task has led to."


class TaskWeights:
    """The task weights (N, tasks) that all adapted layers of a network share; None for the base weights alone."""

    def __init__(self) -> None:
        self.value: Tensor | None = None


class AdaptedLayer(nn.Module):
    """A linear or convolution layer with one additive change of its weight per task.

    Args:
        layer: the base layer, (…, in) -> (…, out) or (N, in, H, W) -> (N, out, H', W').
        task_weights: shared by all layers of the network; the batch is the first dimension.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, task_weights: TaskWeights) -> None:
        super().__init__()
        self.layer = layer
        self._task_weights = [task_weights]  # in a list, so that no one takes it for a part of this module

    @property
    def weight(self) -> Tensor:
        """The base weights.

        Raises:
            RuntimeError: task weights are set, so code that multiplies by these weights itself would leave out the
                adapters; such layers are for `LoRAModel`.
        """
        if self.task_weights is not None:
            raise RuntimeError("The base weight of an adapted layer is undefined while task weights are set.")
        return self.layer.weight

    @property
    def task_weights(self) -> Tensor | None:
        """The task weights (N, tasks) in effect; None for the base weights alone."""
        return self._task_weights[0].value

    def delta_weight(self, task_weights: Tensor) -> Tensor:
        """The change of the weight (N, *weight.shape) for task weights (N, tasks)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """The layer, with the weights of each sample."""
        if self.task_weights is None:
            return self.layer(x)
        weight = self.layer.weight + self.delta_weight(self.task_weights)
        if isinstance(self.layer, nn.Linear):
            y = torch.bmm(x.reshape(len(x), -1, x.shape[-1]), weight.to(x.dtype).transpose(1, 2))
            y = y.view(*x.shape[:-1], -1)
            return y if self.layer.bias is None else y + self.layer.bias
        # Samples become groups of one convolution.
        conv = self.layer
        n = len(x)
        assert isinstance(conv.padding, tuple)
        y = F.conv2d(
            x.reshape(1, -1, *x.shape[2:]), weight.flatten(0, 1).to(x.dtype), None, conv.stride, conv.padding,
            conv.dilation, n * conv.groups,
        )  # fmt: skip
        y = y.view(n, -1, *y.shape[2:])
        return y if conv.bias is None else y + conv.bias[:, None, None]


class LoRALayer(AdaptedLayer):
    """Adapters of one rank: down (tasks, rank, in * k * k), small and random; up (tasks, out, rank), zero."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, task_weights: TaskWeights, tasks: int, rank: int) -> None:
        super().__init__(layer, task_weights)
        outputs, inputs = len(layer.weight), layer.weight[0].numel()
        self.down = nn.Parameter(torch.randn(tasks, rank, inputs) * inputs**-0.5)
        self.up = nn.Parameter(torch.zeros(tasks, outputs, rank))

    def delta_weight(self, task_weights: Tensor) -> Tensor:
        """sum_t w_t B_t A_t."""
        return torch.einsum("nt,tor,tri->noi", task_weights, self.up, self.down).view(-1, *self.layer.weight.shape)

    def forward(self, x: Tensor) -> Tensor:
        """Where the layer allows it, x goes through the low-rank pair, and no weight is built per sample."""
        task_weights, layer = self.task_weights, self.layer
        if task_weights is None or (isinstance(layer, nn.Conv2d) and layer.groups > 1):
            return super().forward(x)
        tasks, outputs, rank = self.up.shape
        up = self.up.transpose(0, 1).reshape(outputs, -1)
        share = task_weights.repeat_interleave(rank, dim=1)
        if isinstance(layer, nn.Linear):
            low = F.linear(x, self.down.flatten(0, 1)) * share.view(len(x), *[1] * (x.ndim - 2), -1)
            return layer(x) + F.linear(low, up)
        down = self.down.reshape(tasks * rank, *layer.weight.shape[1:])
        low = F.conv2d(x, down, None, layer.stride, layer.padding, layer.dilation) * share[:, :, None, None]
        return layer(x) + F.conv2d(low, up[:, :, None, None])


LayerFactory = Callable[[str, "nn.Linear | nn.Conv2d", TaskWeights], AdaptedLayer]


def add_adapters(
    net: nn.Module, wrap: LayerFactory, chosen: Callable[[str, nn.Module], bool] = lambda name, layer: True
) -> TaskWeights:
    """Adapt the chosen linear and convolution layers of a network, in place.

    Args:
        net: any network.
        wrap: makes an `AdaptedLayer` of (name, layer, task weights).
        chosen: which layers, by name.

    Returns:
        The task weights they share, to be set by `task_weights_as`.

    Raises:
        UsageError: no layer was chosen.
    """
    task_weights = TaskWeights()
    found = [(n, m) for n, m in net.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d)) and chosen(n, m)]
    if not found:
        raise UsageError(
            "No layer of the network was chosen to be adapted.",
            "Linear layers and convolutions can be.",
        )
    for name, layer in found:
        owner, _, last = name.rpartition(".")
        adapted = wrap(name, layer, task_weights).to(device=layer.weight.device, dtype=layer.weight.dtype)
        setattr(net.get_submodule(owner), last, adapted)
    return task_weights


@contextmanager
def task_weights_as(holder: TaskWeights, value: Tensor | None) -> Iterator[None]:
    """Sets the task weights of a network, (N, tasks) or None, within the block."""
    previous, holder.value = holder.value, value
    try:
        yield
    finally:
        holder.value = previous


def layers(net: nn.Module) -> dict[str, AdaptedLayer]:
    """The adapted layers of a network by name."""
    return {n: m for n, m in net.named_modules() if isinstance(m, AdaptedLayer)}


def parameters(net: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The base parameters of a network and those of its adapters."""
    own = {id(p) for m in layers(net).values() for n, p in m.named_parameters() if not n.startswith("layer.")}
    common = [p for p in net.parameters() if id(p) not in own]
    return common, [p for p in net.parameters() if id(p) in own]


@torch.no_grad()
def merge(net: nn.Module, task_weights: Tensor | None) -> nn.Module:
    """Merge the adapters under task weights (tasks,) into the weights and restore the plain layers; returns `net`."""
    for name, module in layers(net).items():
        if task_weights is not None:
            module.weight.add_(module.delta_weight(task_weights[None].to(module.weight))[0])
        owner, _, last = name.rpartition(".")
        setattr(net.get_submodule(owner), last, module.layer)
    return net


class LoRAModel(nn.Module):
    """A network with adapters on weights instead of layers, for batches of one task each.

    It takes any network, also one that multiplies by the weights of its layers itself, as the attention of the
    diffusion U-Nets does.

    Args:
        net: any network.
        names: of the weights that are adapted, as in its state_dict; two or more dimensions each.
        rank: of the adapters.
        tasks: how many.
        frozen: only the adapters learn, as when a task is added to a finished network.
    """

    def __init__(self, net: nn.Module, names: Sequence[str], rank: int, tasks: int = 1, frozen: bool = True) -> None:
        super().__init__()
        self.net, self.names = net.requires_grad_(not frozen), tuple(names)
        weights = [net.get_parameter(name) for name in names]
        self.down = nn.ParameterList(torch.randn(tasks, rank, w[0].numel()) * w[0].numel() ** -0.5 for w in weights)
        self.up = nn.ParameterList(torch.zeros(tasks, len(w), rank) for w in weights)

    def forward(self, *inputs: Any, task: int = 0) -> Tensor:
        """The network's own inputs and output, with the adapter of a task."""
        weights = {
            name: self.net.get_parameter(name) + (up[task] @ down[task]).view_as(self.net.get_parameter(name))
            for name, up, down in zip(self.names, self.up, self.down, strict=True)
        }
        out: Tensor = torch.func.functional_call(self.net, weights, inputs)
        return out

    def tensors(self) -> dict[str, Tensor]:
        """As `save` writes them."""
        tensors: dict[str, Tensor] = {}
        for name, up, down in zip(self.names, self.up, self.down, strict=True):
            layer = name.removesuffix(".weight")
            tensors[f"{layer}.down"], tensors[f"{layer}.up"] = down, up
        return tensors


def save(
    net: nn.Module, path: Path, *, tasks: Sequence[str], base: str, notes: Mapping[str, str] | None = None
) -> None:
    """Write the adapters of a network as float16 safetensors, without the network.

    Args:
        net: has `LoRALayer` layers, or is a `LoRAModel`.
        path: target, replaced whole or not at all.
        tasks: a name for each, in order.
        base: id of the model that they belong to.
        notes: further header entries.
    """
    tensors = net.tensors() if isinstance(net, LoRAModel) else {}
    for name, module in layers(net).items():
        assert isinstance(module, LoRALayer)
        tensors[f"{name}.down"], tensors[f"{name}.up"] = module.down, module.up
    header = {"architecture": "offsets", "tasks": json.dumps(list(tasks)), "base": base, **(notes or {})}
    atomic_write(path, serialise({k: v.detach().cpu().half().contiguous() for k, v in tensors.items()}, header))


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, float32, and the header of an adapter file.

    Raises:
        UnavailableError: it is absent or no such file.
    """
    try:
        open_regular(path).close()
        with safe_open(str(path), framework="pt") as file:
            header = dict(file.metadata() or {})
            tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileError as error:
        message = error.message if path.exists() else f"{path} does not exist"
        raise UnavailableError(f"{message}.", HINT) from error
    except (SafetensorError, OSError, ValueError) as error:
        raise UnavailableError(f"{path} is not a readable safetensors file: {error}.", HINT) from error
    if header.get("architecture") != "offsets":
        raise UnavailableError(f"{path} holds no task adapter.", HINT)
    return tensors, header


def base_task(path: Path) -> str:
    """The task of the base model that an adapter was initialized from.

    Raises:
        UnavailableError: as `read`, or the file does not say.
    """
    like = read(path)[1].get("like", "")
    if not like:
        raise UnavailableError(f"{path} does not name the task it was initialized from.", HINT)
    return like


def tasks(path: Path) -> list[str]:
    """The names of the tasks in an adapter file.

    Raises:
        UnavailableError: as `read`, or the header is damaged.
    """
    try:
        named = json.loads(read(path)[1].get("tasks", ""))
    except (ValueError, RecursionError):
        named = None
    if not isinstance(named, list) or not named or not all(isinstance(name, str) for name in named):
        raise UnavailableError(f"{path} has a damaged header: tasks.", HINT)
    return named


@torch.no_grad()
def apply(net: nn.Module, path: Path, weights: Mapping[str, float] | None = None) -> nn.Module:
    """Merge an adapter file into a plain network, in place; returns it.

    Args:
        net: the network that the adapters were trained on; its layers have a two- or four-dimensional weight each.
        path: see `save`.
        weights: task -> its share; by default 1 for a file's only task.

    Raises:
        UnavailableError: the file holds no adapter, or does not fit the network.
        UsageError: a task is not in the file, or none was named of several.
    """
    tensors, header = read(path)
    tasks: list[str] = json.loads(header["tasks"])
    if weights is None:
        if len(tasks) > 1:
            raise UsageError(f"{path} has several tasks.", "Name one of: " + ", ".join(tasks) + ".")
        weights = {tasks[0]: 1.0}
    unknown = [task for task in weights if task not in tasks]
    if unknown:
        raise UsageError(f"{path} has no task '{unknown[0]}'.", "It has: " + ", ".join(tasks) + ".")
    share = torch.tensor([float(weights.get(task, 0)) for task in tasks])
    modules = dict(net.named_modules())
    for name in sorted({key.rpartition(".")[0] for key in tensors}):
        weight = getattr(modules.get(name), "weight", None)
        down, up = tensors.get(f"{name}.down"), tensors.get(f"{name}.up")
        fits = weight is not None and down is not None and up is not None
        if not fits or up.shape[1] * down.shape[2] != weight.numel():  # type: ignore[union-attr]
            raise UnavailableError(
                f"{path} does not fit the network: {name}.", f"It was trained on {header.get('base', 'another one')}."
            )
        weight.add_(torch.einsum("t,tor,tri->oi", share, up, down).view(weight.shape).to(weight))  # type: ignore
    return net
