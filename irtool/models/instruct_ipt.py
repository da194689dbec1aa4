"""Instruct-IPT (Tian et al., arXiv 2407.00676): the body of IPT with an adapter per task.

Its code, layers, ranks and weights were never published, so this is our own reading: IPT with one head, one query and
one tail for all tasks, and low-rank adapters (`irtool.models.lora`) on the linear layers of its transformer and,
optionally, on the convolutions of head and tail. Shared weights and adapters are trained together. For inference the
adapters are merged into the weights, so a task costs what IPT costs, and two tasks can be undone in one pass.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UsageError
from . import lora
from .base import Condition, Placed, check
from .ipt import IPT, IPTBound, blend, info

TASKS = ("noise", "blur", "rain", "haze", "snow")
"""The five tasks of the paper."""


class InstructIPT(nn.Module):
    """IPT with an adapter per task.

    Untrained it is the identity: the head passes the three channels through, every branch ends in zeros, and the tail
    joins the channels again.

    Args:
        tasks: ids of the degradations, in the order of the task weights.
        rank: of the adapters.
        convolutions: adapt the convolutions of head and tail too.
        patch_size, patch_dim, num_layers, n_feats, num_heads: as of `IPT`.
    """

    def __init__(
        self,
        tasks: Sequence[str] = TASKS,
        rank: int = 4,
        convolutions: bool = True,
        patch_size: int = 48,
        patch_dim: int = 3,
        num_layers: int = 12,
        n_feats: int = 64,
        num_heads: int = 12,
    ) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.ipt = IPT((1,), patch_size, patch_dim, num_layers, n_feats, num_heads)
        _pass_through(self.ipt)
        self.task_weights = lora.add_adapters(
            self.ipt,
            lambda name, layer, task_weights: lora.LoRALayer(layer, task_weights, len(self.tasks), rank),
            lambda name, layer: "_mean" not in name and (convolutions or isinstance(layer, nn.Linear)),
        )

    def forward(self, x: Tensor, task_weights: Tensor) -> Tensor:
        """Restore pictures, each with its own task weights.

        Args:
            x: (N, 3, H, W) in [0, 1], both sides at least a patch; larger ones are done in blended patches.
            task_weights: (N, tasks).

        Returns:
            (N, 3, H, W), about [0, 1], not clamped.
        """

        def patches(p: Tensor) -> Tensor:
            # One picture's patches do not follow each other: first come the first patches of all pictures.
            with lora.task_weights_as(self.task_weights, task_weights.repeat(len(p) // len(x), 1)):
                out: Tensor = self.ipt(255 * p) / 255
                return out

        side = self.ipt.patch
        return patches(x) if x.shape[-2:] == (side, side) else blend(patches, x, side, side // 2, batch=16)

    def vector(self, task_weights: Mapping[str, float]) -> Tensor:
        """Task weights as a vector (tasks,)."""
        return torch.tensor([float(task_weights.get(task, 0)) for task in self.tasks])

    @torch.no_grad()
    def init_from_ipt(self, plain: IPT, place: int) -> None:
        """Take the weights of an `IPT`, and of its heads, tails and queries those of one task, for the common ones.

        Raises:
            UsageError: the sizes differ.
        """
        last = plain.body.query_embed.num_embeddings - 1
        for name, weight in self.ipt.named_parameters():
            if name.endswith((".down", ".up")):
                continue
            named = name.replace(".layer.", ".")
            for part in ("head", "tail"):
                named = named.replace(f"{part}.0.", f"{part}.{place}.", 1) if named.startswith(part) else named
            try:
                value: Tensor = plain.get_parameter(named)
            except AttributeError:
                raise UsageError(f"settings.base has no {named}.", f"It has {len(plain.head)} heads.") from None
            value = value[min(place, last)][None] if named.endswith("query_embed.weight") else value
            if value.shape != weight.shape:
                sizes = f"{tuple(value.shape)}, not {tuple(weight.shape)}"
                raise UsageError(f"{named} of settings.base is {sizes}.", "Give [model] the sizes of that network.")
            weight.copy_(value)


@torch.no_grad()
def _pass_through(net: IPT) -> None:
    """Weights under which the network gives back its patch."""
    head: Any = net.head[0]
    tail: Any = net.tail[0]
    body: Any = net.body
    layers = [*body.encoder.layers, *body.decoder.layers]
    attentions = [layer.self_attn for layer in layers] + [layer.multihead_attn for layer in body.decoder.layers]
    ends = [block.body[-1] for block in head[1:]] + [layer.linear2 for layer in layers]
    ends += [attention.out_proj for attention in attentions] + [body.linear_encoding, body.mlp_head[-2], tail[-1]]
    for parameter in (p for layer in ends for p in layer.parameters()):
        nn.init.zeros_(parameter)
    nn.init.normal_(net.body.position_encoding.pe.weight, std=0.02)
    nn.init.zeros_(head[0].bias)
    head[0].weight[:3] = 0
    for color in range(3):
        head[0].weight[color, color, 1, 1] = 1
        tail[-1].weight[color, color, 1, 1] = 0.5  # the body's output is added to what it was given


class InstructIPTModel:
    """A loaded `InstructIPT` (the `Model` protocol)."""

    def __init__(self, net: InstructIPT, header: Mapping[str, str]) -> None:
        self.net, self.info = net, info(net.ipt, header, "instruct-ipt", net.tasks)
        self._merged: tuple[Mapping[str, float], Placed] | None = None  # the last one: it is large

    def bind(self, condition: Condition) -> IPTBound:
        check(condition, self.info)
        if self._merged is None or self._merged[0] != condition.tasks:
            merged = copy.deepcopy(self.net.ipt)
            lora.merge(merged, self.net.vector(condition.tasks))
            self._merged = dict(condition.tasks), Placed(merged)
        bound = IPTBound(self._merged[1], self.info, 0)
        return bound if condition.adapter is None else bound.adapted(condition.adapter)


def restorer(net: InstructIPT, header: Mapping[str, str]) -> InstructIPTModel:
    """The model of a loaded network (see `irtool.models.loading`)."""
    return InstructIPTModel(net, header)
