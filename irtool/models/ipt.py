"""IPT, the Image Processing Transformer (Chen et al., CVPR 2021).

A head per task makes 64 feature channels of a patch of 48 x 48 pixels, a transformer works on its 256 tokens of 3 x 3
pixels under a query per task, and a tail per task makes the picture. Values are 0..255 inside, as published; positions
are learned for the fixed patch, so a larger picture is done in patches that fade into each other (`blend`). The
published stride is 12 pixels, some 850 patches for a small photograph; here it is larger.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError
from .base import Condition, ModelInfo, Placed, Progress, SinglePassModel, Tiled, check, describe
from .lora import parameters

Shapes = Mapping[str, tuple[int, ...]]
MEAN = (0.4488, 0.4371, 0.4040)


class Attention(nn.Module):
    """Multi-head attention without biases; its three input projections are one tensor, named as torch names it."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(size, 3 * size, bias=False)
        self.out_proj = nn.Linear(size, size, bias=False)
        # A linear layer, so that offsets fit it like any other; its published name is that of a bare tensor.
        self._register_load_state_dict_pre_hook(self._inward)
        self._register_state_dict_hook(self._outward)

    def _inward(self, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
        if prefix + "in_proj_weight" in state:
            state[prefix + "project.weight"] = state.pop(prefix + "in_proj_weight")

    @staticmethod
    def _outward(_module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
        if prefix + "project.weight" in state:
            state[prefix + "in_proj_weight"] = state.pop(prefix + "project.weight")

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries (N, L, C), keys and values (N, S, C) -> (N, L, C)."""
        size = q.shape[-1]
        if q is k and k is v:
            q, k, v = self.project(q).chunk(3, dim=-1)
        else:
            # Offsets may have taken the place of the plain layer, so the whole projection is asked and a third kept.
            q, k, v = (self.project(x)[..., i * size : (i + 1) * size] for i, x in enumerate((q, k, v)))
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """Pre-norm self-attention and a ReLU pair."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.self_attn = Attention(size, heads)
        self.linear1, self.linear2 = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)
        self.norm1, self.norm2 = nn.LayerNorm(size), nn.LayerNorm(size)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """Tokens (N, L, C), positions that broadcast to them -> (N, L, C)."""
        y = self.norm1(x)
        q = y + position
        x = x + self.self_attn(q, q, y)
        return x + self.linear2(F.relu(self.linear1(self.norm2(x))))


class DecoderLayer(nn.Module):
    """Self-attention and attention to the encoder's output, the query of the task added to what asks."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.self_attn, self.multihead_attn = Attention(size, heads), Attention(size, heads)
        self.linear1, self.linear2 = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(size), nn.LayerNorm(size), nn.LayerNorm(size)

    def forward(self, x: Tensor, memory: Tensor, query: Tensor) -> Tensor:
        """Tokens (N, L, C), the encoder's output (N, L, C), the query of the task (1, L, C) -> (N, L, C)."""
        y = self.norm1(x)
        q = y + query
        x = x + self.self_attn(q, q, y)
        x = x + self.multihead_attn(self.norm2(x) + query, memory, memory)
        return x + self.linear2(F.relu(self.linear1(self.norm3(x))))


class Position(nn.Module):
    """Learned positions."""

    def __init__(self, tokens: int, size: int) -> None:
        super().__init__()
        self.pe = nn.Embedding(tokens, size)
        self.register_buffer("position_ids", torch.arange(tokens)[None])


class Layers(nn.Module):
    """A list of layers under the name that the published files give it."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)


class Body(nn.Module):
    """The transformer on (N, C, P, P) features of one patch."""

    def __init__(self, patch: int, patch_dim: int, channels: int, layers: int, heads: int, queries: int) -> None:
        super().__init__()
        self.side, size = patch_dim, channels * patch_dim**2
        tokens = (patch // patch_dim) ** 2
        self.linear_encoding = nn.Linear(size, size)
        self.mlp_head = nn.Sequential(
            nn.Linear(size, 4 * size), nn.Identity(), nn.ReLU(), nn.Linear(4 * size, size), nn.Identity()
        )
        self.query_embed = nn.Embedding(queries, tokens * size)
        self.encoder = Layers([EncoderLayer(size, heads) for _ in range(layers)])
        self.decoder = Layers([DecoderLayer(size, heads) for _ in range(layers)])
        self.position_encoding = Position(tokens, size)

    def forward(self, x: Tensor, query: int) -> Tensor:
        """Features (N, C, P, P), the number of the query -> the same shape."""
        patch = x.shape[-1]
        y = F.unfold(x, self.side, stride=self.side).transpose(1, 2)  # (N, tokens, size)
        y = self.linear_encoding(y) + y
        # Added once, at the entry: the layers get no position of their own.
        y = y + self.position_encoding.pe.weight
        none = torch.zeros((), dtype=y.dtype, device=y.device)
        for layer in self.encoder.layers:
            y = layer(y, none)
        memory, query_embedding = y, self.query_embed.weight[query].view(1, *y.shape[1:])
        for layer in self.decoder.layers:
            y = layer(y, memory, query_embedding)
        y = self.mlp_head(y) + y
        return F.fold(y.transpose(1, 2), patch, self.side, stride=self.side)


class ResBlock(nn.Module):
    """Two 5 x 5 convolutions around a ReLU, added to what came in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 5, padding=2), nn.ReLU(), nn.Conv2d(channels, channels, 5, padding=2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        y: Tensor = self.body(x)
        return x + y


def _upsampler(scale: int, channels: int) -> nn.Sequential:
    steps = {1: (), 2: (2,), 3: (3,), 4: (2, 2)}[scale]
    stages: list[nn.Module] = []
    for s in steps:
        stages += [nn.Conv2d(channels, s * s * channels, 3, padding=1), nn.PixelShuffle(s)]
    return nn.Sequential(*stages)


def _mean_shift(sign: int) -> nn.Conv2d:
    shift = nn.Conv2d(3, 3, 1)
    with torch.no_grad():
        shift.weight.copy_(torch.eye(3).view(3, 3, 1, 1))
        shift.bias.copy_(sign * 255 * torch.tensor(MEAN))  # type: ignore[union-attr]
    return shift.requires_grad_(False)


class IPT(nn.Module):
    """The whole network, for one patch at a time.

    Args:
        scale: of every task, in the order of heads, tails and queries: 1 restores, 2 to 4 enlarge.
        patch_size: side of a patch in pixels; a multiple of `patch_dim` and of 4.
        patch_dim: side of a token in pixels.
        num_layers: of the encoder and of the decoder.
        n_feats: channels.
        num_heads: of attention.
        num_queries: tasks that the body has queries for.
    """

    def __init__(
        self,
        scale: Sequence[int] = (1,),
        patch_size: int = 48,
        patch_dim: int = 3,
        num_layers: int = 12,
        n_feats: int = 64,
        num_heads: int = 12,
        num_queries: int = 1,
    ) -> None:
        super().__init__()
        self.scale, self.patch = tuple(scale), patch_size
        self.sub_mean, self.add_mean = _mean_shift(-1), _mean_shift(1)
        self.head = nn.ModuleList(
            nn.Sequential(nn.Conv2d(3, n_feats, 3, padding=1), ResBlock(n_feats), ResBlock(n_feats)) for _ in scale
        )
        self.body = Body(patch_size, patch_dim, n_feats, num_layers, num_heads, num_queries)
        self.tail = nn.ModuleList(
            nn.Sequential(_upsampler(s, n_feats), nn.Conv2d(n_feats, 3, 3, padding=1)) for s in scale
        )

    def forward(self, x: Tensor, task: int = 0) -> Tensor:
        """Patches (N, 3, patch, patch) in 0..255 -> (N, 3, scale * patch, scale * patch), not clamped."""
        y = self.head[task](self.sub_mean(x))
        # A published file for one task has one query, whatever the place of its head.
        y = y + self.body(y, min(task, self.body.query_embed.num_embeddings - 1))
        return self.add_mean(self.tail[task](y))


Patches = Callable[[Tensor], Tensor]


def _batched(run: Patches, patches: list[Tensor], batch: int) -> Tensor:
    return torch.cat([run(torch.cat(patches[i : i + batch])) for i in range(0, len(patches), batch)])


def blend(run: Patches, x: Tensor, side: int, stride: int, batch: int = 64) -> Tensor:
    """A picture in patches that fade into each other: weights fall linearly from the middle of a patch to its edge.

    Args:
        run: (N, 3, side, side) -> the same shape.
        x: (N, 3, H, W), both sides at least `side`; the last patches lie flush with the far edges.
        side, stride: of the patches, in pixels; stride at most side.

    Returns:
        The shape of x.
    """
    height, width = x.shape[-2:]
    ramp = torch.minimum(torch.arange(side) + 1, side - torch.arange(side)).to(x)
    window = ramp[:, None] * ramp

    def starts(length: int) -> list[int]:
        return [*range(0, length - side, stride), length - side]

    total, weight = torch.zeros_like(x), x.new_zeros(1, 1, height, width)
    places = [(t, c) for t in starts(height) for c in starts(width)]
    done = _batched(run, [x[..., t : t + side, c : c + side] for t, c in places], batch)
    for (t, c), patch in zip(places, done.split(len(x)), strict=True):
        total[..., t : t + side, c : c + side] += patch * window
        weight[..., t : t + side, c : c + side] += window
    return total / weight


def recognize(shapes: Shapes) -> dict[str, Any] | None:
    """The configuration of `IPT`, read off the shapes of its tensors; None where they are not its.

    The number of attention heads leaves no trace in the tensors: it is None, unless the sizes are the published ones.
    """
    if "body.linear_encoding.weight" not in shapes or "head.0.0.weight" not in shapes:
        return None
    features, size = shapes["head.0.0.weight"][0], shapes["body.linear_encoding.weight"][0]
    side = round((size / features) ** 0.5)
    tokens = shapes["body.position_encoding.pe.weight"][0]
    scales: list[int] = []
    while f"tail.{len(scales)}.1.weight" in shapes:
        i = len(scales)
        first = shapes.get(f"tail.{i}.0.0.weight")
        twice = f"tail.{i}.0.2.weight" in shapes
        scales.append(1 if first is None else 4 if twice else round((first[0] / features) ** 0.5))
    layers = 1 + max(int(n.split(".")[3]) for n in shapes if n.startswith("body.encoder.layers."))
    return {
        "scale": scales,
        "patch_size": round(tokens**0.5) * side,
        "patch_dim": side,
        "num_layers": layers,
        "n_feats": features,
        "num_heads": 12 if (features, side) == (64, 3) else None,
        "num_queries": shapes["body.query_embed.weight"][0],
    }


class IPTBound(SinglePassModel):
    """IPT bound to a task: blended patches at half a patch's stride."""

    def __init__(self, placed: Placed, info: ModelInfo, task: int) -> None:
        self.placed, self.info, self.task = placed, info, task

    def forward(self, tile: Tensor, context: Tensor) -> Tensor:
        side = self.net.patch
        run = lambda p: self.net(p.to(self.placed.dtype) * 255, self.task).float() / 255  # noqa: E731
        # A tile smaller than a patch is continued at its right and bottom.
        more = [max(0, side - s) for s in tile.shape[-2:]]
        filled = F.pad(tile, (0, more[1], 0, more[0]), mode="replicate")
        return blend(run, filled, side, side // 2)[..., : tile.shape[-2], : tile.shape[-1]]

    def run(self, image: Tensor, context: Tensor, tiled: Tiled, on_progress: Progress) -> Tensor:
        with torch.inference_mode():  # tiles in float32: patches are blended in it
            return tiled(lambda tile: self.forward(tile, context), image, on_progress=on_progress)


def info(net: IPT, header: Mapping[str, str], name: str, tasks: Sequence[str]) -> ModelInfo:
    """The record of an IPT, or of one whose layers have adapters to be merged."""
    tokens, size = net.body.position_encoding.pe.weight.shape
    body = sum(p.numel() for p in parameters(net.body)[0]) - net.body.query_embed.weight.numel()
    # Every weight of the body meets every token, and each pixel lies in four patches.
    macs = 4 * (body + 2 * 2 * tokens * size * len(net.body.encoder.layers)) / net.body.side**2
    own = {key: value for key, value in header.items() if key != "tasks"}  # there they may be a table
    return describe(
        net, own, name, tasks=tuple(tasks), multiple=net.patch // 2, overlap=net.patch, gmacs=macs / 1e3,
        bytes_per_pixel=4 * 4 * 12 * size // net.body.side**2,
    )  # fmt: skip


class IPTModel:
    """A loaded IPT (the `Model` protocol): its tasks that do not enlarge.

    Args:
        net: the network.
        tasks: degradation id -> number of its head, tail and query.
        header: of its file.
    """

    def __init__(self, net: IPT, tasks: Mapping[str, int], header: Mapping[str, str]) -> None:
        self.placed, self.tasks = Placed(net), dict(tasks)
        self.info = info(net, header, "ipt", tuple(self.tasks))

    def bind(self, condition: Condition) -> IPTBound:
        check(condition, self.info)
        if len(condition.tasks) != 1:
            raise UsageError(
                "IPT removes one degradation at a time.",
                f"Ask for one of {', '.join(condition.tasks or self.tasks)}, then for the next.",
            )
        bound = IPTBound(self.placed, self.info, self.tasks[next(iter(condition.tasks))])
        return bound if condition.adapter is None else bound.adapted(condition.adapter)


PRETRAINED = {"rain": 3, "noise": 5}
"""Places in the published file of six tasks: x2, x3, x4, rain, noise of sigma 30, noise of sigma 50."""


def restorer(net: IPT, header: Mapping[str, str], *_: nn.Module) -> IPTModel:
    """The model of a loaded network; its header may name the tasks (JSON, degradation id -> place, or a list of ids).

    Raises:
        UsageError: the file enlarges and restores nothing.
    """
    tasks = json.loads(header.get("tasks", "[]"))
    if isinstance(tasks, dict):
        return IPTModel(net, tasks, header)
    if net.scale == (2, 3, 4, 1, 1, 1):
        return IPTModel(net, PRETRAINED, header)
    if net.scale == (1,):
        # A published file for one task does not say which; any that it may be for can be asked of it.
        return IPTModel(net, dict.fromkeys(tasks or PRETRAINED, 0), header)
    raise UsageError("This IPT enlarges pictures, which irtool does not do.", "Give one for rain or noise.")
