"""Weights that adapt per task: W_t = W + B_t A_t, for any network.

Our reading of Instruct-IPT's weight modulation (arXiv 2407.00676; its code and ranks were never published): chosen
linear and convolution layers get one low-rank offset per task, of the same rank everywhere. B_t begins at zero: every
task starts at the common weights. While training, each sample of a batch has its own mixture of tasks, so the common
weights learn from all samples and an offset from its own task's (synchronous training); for use, the offsets of a
mixture are merged into the weights and cost nothing. Sparse offsets (ADMS, CVPR 2023: whole kernels of a few per cent
of the weights, found by integrated gradients, FAIG) go through the same interface.
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
    """The mixture (N, tasks) that all modulated layers of a network work under; None for the common weights alone."""

    def __init__(self) -> None:
        self.value: Tensor | None = None


class AdaptedLayer(nn.Module):
    """A linear or convolution layer with one additive weight offset per task.

    Args:
        layer: the common layer, (…, in) -> (…, out) or (N, in, H, W) -> (N, out, H', W').
        _task_weights: shared by all layers of the network. A batch is the first dimension.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, task_weights: TaskWeights) -> None:
        super().__init__()
        self.layer = layer
        self._task_weights = [task_weights]  # in a list, so that no one takes it for a part of this module

    @property
    def weight(self) -> Tensor:
        """The common weights.

        Raises:
            RuntimeError: the layer works under a mixture, so whoever multiplies by these weights himself would leave
                out the offsets; such layers are for `LoRAModel`.
        """
        if self.task_weights is not None:
            raise RuntimeError("The weights of a modulated layer were asked for; under a mixture they are no one's.")
        return self.layer.weight

    @property
    def task_weights(self) -> Tensor | None:
        """What the layer works under now."""
        return self._task_weights[0].value

    def delta_weight(self, task_weights: Tensor) -> Tensor:
        """Weight offsets (N, *weight.shape) of mixtures (N, tasks)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """The layer, under every sample's own weights."""
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
    """Offsets of constant rank: down (tasks, rank, in * k * k), small and random; up (tasks, out, rank), zero."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, task_weights: TaskWeights, tasks: int, rank: int) -> None:
        super().__init__(layer, task_weights)
        outputs, inputs = len(layer.weight), layer.weight[0].numel()
        self.down = nn.Parameter(torch.randn(tasks, rank, inputs) * inputs**-0.5)
        self.up = nn.Parameter(torch.zeros(tasks, outputs, rank))

    def delta_weight(self, task_weights: Tensor) -> Tensor:
        """As `AdaptedLayer.offset`: sum_t m_t B_t A_t."""
        return torch.einsum("nt,tor,tri->noi", task_weights, self.up, self.down).view(-1, *self.layer.weight.shape)

    def forward(self, x: Tensor) -> Tensor:
        """Where the layer allows it, x goes through the low-rank pair and no weight is made per sample."""
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


class FullRankLayer(AdaptedLayer):
    """Offsets without a limit of rank, one weight tensor per task: for the sensitivity search and rank analysis."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, task_weights: TaskWeights, tasks: int) -> None:
        super().__init__(layer, task_weights)
        self.delta = nn.Parameter(torch.zeros(tasks, *layer.weight.shape))

    def delta_weight(self, task_weights: Tensor) -> Tensor:
        """As `AdaptedLayer.offset`: sum_t m_t delta_t."""
        return torch.einsum("nt,t...->n...", task_weights, self.delta)


class SparseLayer(FullRankLayer):
    """Offsets on chosen kernels only (ADMS): `mask` (tasks, out, in / groups) is 1 where a task has its own kernel.

    For a linear layer a kernel is a single weight.
    """

    mask: Tensor

    def __init__(self, layer: nn.Linear | nn.Conv2d, task_weights: TaskWeights, mask: Tensor) -> None:
        super().__init__(layer, task_weights, len(mask))
        self.register_buffer("mask", mask.float())

    def delta_weight(self, task_weights: Tensor) -> Tensor:
        """As `AdaptedLayer.offset`: sum_t m_t mask_t delta_t."""
        mask = self.mask.view(*self.mask.shape, *[1] * (self.delta.ndim - 3))
        return torch.einsum("nt,t...->n...", task_weights, self.delta * mask)


LayerFactory = Callable[[str, "nn.Linear | nn.Conv2d", TaskWeights], AdaptedLayer]


def add_adapters(
    net: nn.Module, wrap: LayerFactory, chosen: Callable[[str, nn.Module], bool] = lambda name, layer: True
) -> TaskWeights:
    """Put offsets on the chosen linear and convolution layers of a network, in place.

    Args:
        net: any network.
        wrap: makes a `AdaptedLayer` of (name, layer, mixture).
        chosen: which layers, by name.

    Returns:
        The mixture they share, to be set by `task_weights_as`.

    Raises:
        UsageError: no layer was chosen.
    """
    task_weights = TaskWeights()
    found = [(n, m) for n, m in net.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d)) and chosen(n, m)]
    if not found:
        raise UsageError(
            "No layer of the network was chosen for offsets.",
            "Linear layers and convolutions can have them.",
        )
    for name, layer in found:
        owner, _, last = name.rpartition(".")
        adapted = wrap(name, layer, task_weights).to(device=layer.weight.device, dtype=layer.weight.dtype)
        setattr(net.get_submodule(owner), last, adapted)
    return task_weights


@contextmanager
def task_weights_as(holder: TaskWeights, value: Tensor | None) -> Iterator[None]:
    """Within the block the network works under `now`, (N, tasks)."""
    previous, holder.value = holder.value, value
    try:
        yield
    finally:
        holder.value = previous


def layers(net: nn.Module) -> dict[str, AdaptedLayer]:
    """The modulated layers of a network by name."""
    return {n: m for n, m in net.named_modules() if isinstance(m, AdaptedLayer)}


def parameters(net: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The common parameters of a network and those of its offsets."""
    own = {id(p) for m in layers(net).values() for n, p in m.named_parameters() if not n.startswith("layer.")}
    common = [p for p in net.parameters() if id(p) not in own]
    return common, [p for p in net.parameters() if id(p) in own]


@torch.no_grad()
def merge(net: nn.Module, task_weights: Tensor | None) -> nn.Module:
    """Fold the offsets of one mixture (tasks,) into the weights and put the plain layers back; returns the network."""
    for name, module in layers(net).items():
        if task_weights is not None:
            module.weight.add_(module.delta_weight(task_weights[None].to(module.weight))[0])
        owner, _, last = name.rpartition(".")
        setattr(net.get_submodule(owner), last, module.layer)
    return net


class LoRAModel(nn.Module):
    """A network and low-rank offsets for batches of one task each, put on weights instead of layers.

    It takes any network, also one that multiplies by the weights of its layers itself, as the attention of the
    diffusion U-Nets does.

    Args:
        net: any network.
        names: of the weights that get an offset, as in its state_dict; two or more dimensions each.
        rank: of the offsets.
        tasks: how many.
        frozen: none of the network's own weights learn, as when a task is added to a finished network.
    """

    def __init__(self, net: nn.Module, names: Sequence[str], rank: int, tasks: int = 1, frozen: bool = True) -> None:
        super().__init__()
        self.net, self.names = net.requires_grad_(not frozen), tuple(names)
        weights = [net.get_parameter(name) for name in names]
        self.down = nn.ParameterList(torch.randn(tasks, rank, w[0].numel()) * w[0].numel() ** -0.5 for w in weights)
        self.up = nn.ParameterList(torch.zeros(tasks, len(w), rank) for w in weights)

    def forward(self, *inputs: Any, task: int = 0) -> Tensor:
        """The network's own inputs and output, under its weights plus the offsets of a task."""
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
    """Write the low-rank offsets of a network as float16 safetensors, without the network.

    Args:
        net: has `LoRALayer` layers, or is `LoRAModel`.
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
    """The tensors, float32, and the header of a file of offsets.

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
        raise UnavailableError(f"{path} holds no offsets.", HINT)
    return tensors, header


def base_task(path: Path) -> str:
    """The task of the model that the offsets of a file begin as.

    Raises:
        UnavailableError: as `read`, or the file does not say.
    """
    like = read(path)[1].get("like", "")
    if not like:
        raise UnavailableError(f"{path} does not say which task it begins as.", HINT)
    return like


def tasks(path: Path) -> list[str]:
    """The names of the tasks in a file of offsets.

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
    """Merge a file of offsets into a plain network, in place; returns it.

    Args:
        net: the network that the offsets were learned on; its layers have a two- or four-dimensional weight each.
        path: see `save`.
        weights: task -> its share; by default 1 for a file's only task.

    Raises:
        UnavailableError: the file is no offsets, or does not fit the network.
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
                f"{path} does not fit the network: {name}.", f"It was learned on {header.get('base', 'another one')}."
            )
        weight.add_(torch.einsum("t,tor,tri->oi", share, up, down).view(weight.shape).to(weight))  # type: ignore
    return net


@torch.no_grad()
def rank_energy(delta: Tensor) -> Tensor:
    """How much of an offset its leading ranks hold: E(r) = sum_{k<=r} s_k^2 / sum_k s_k^2.

    Args:
        delta: (tasks, out, ...).

    Returns:
        (tasks, ranks), rising to 1.
    """
    s = torch.linalg.svdvals(delta.flatten(2)).square()
    return s.cumsum(1) / s.sum(1, keepdim=True).clamp_min(1e-20)


def faig(
    baseline: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    gradient: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    steps: int = 100,
) -> dict[str, Tensor]:
    """Filter attribution by integrated gradients (Xie et al., NeurIPS 2021): what a kernel's change did to the error.

    Along the path theta(a) = a baseline + (1 - a) target: |(baseline - target) mean_n dF/dtheta(a_n)|, summed over each
    kernel.

    Args:
        baseline, target: weights by name before and after learning one degradation.
        gradient: the gradient of the error F at given weights.
        steps: points on the path.

    Returns:
        By name of each weight of two or more dimensions: (out, in), one score per kernel.
    """
    total = {k: torch.zeros_like(v) for k, v in target.items()}
    for i in range(steps):
        a = (i + 0.5) / steps
        at = {k: a * baseline[k] + (1 - a) * target[k] for k in target}
        for name, g in gradient(at).items():
            total[name] += g / steps
    scores = {k: ((baseline[k] - target[k]) * total[k]).abs() for k in target if target[k].ndim >= 2}
    return {k: v.flatten(2).sum(2) if v.ndim > 2 else v for k, v in scores.items()}


def top_kernels(scores: Mapping[str, Sequence[Tensor]], share: float = 0.03) -> dict[str, Tensor]:
    """Masks of the kernels that matter to one degradation more than to the others (FAIG-SD).

    Args:
        scores: by layer, one (out, in) per degradation, from `faig`.
        share: of all kernels, per degradation.

    Returns:
        By layer (degradations, out, in), 1 where chosen.
    """
    stacked = {k: torch.stack(list(v)) for k, v in scores.items()}
    count = len(next(iter(stacked.values())))
    if count > 1:  # against the mean of the others
        stacked = {k: v - (v.sum(0, keepdim=True) - v) / (count - 1) for k, v in stacked.items()}
    cuts = []
    for d in range(count):
        flat = torch.cat([v[d].flatten() for v in stacked.values()])
        cuts.append(flat.topk(max(1, round(share * flat.numel()))).values[-1])
    limits = torch.stack(cuts).view(-1, 1, 1)
    return {k: (v >= limits).float() for k, v in stacked.items()}
