"""The compact all-in-one network that ships with irtool.

A NAFNet-family U-net (Chen et al., "Simple Baselines for Image Restoration", ECCV 2022) with four differences:

* it works on a pixel-unshuffled (half-resolution) stem, so most of its work is dense matrix products;
* its 1x1 convolutions have a low-rank adapter (LoRA) per task, ``W + sum_t m_t B_t A_t`` (after the modulation of
  Instruct-IPT, arXiv 2407.00676), merged once for the task weights ``m``: tasks cost nothing at run time;
* nothing inside it pools over the tile: the channel attention is driven by the task weights and by `global_stats`,
  statistics taken once over the whole picture, so tiles agree with the whole;
* first a gain and a shift per color channel, read off those statistics, bring the picture to where the convolutions
  work; then they predict a gain and an offset per pixel, ``y = x (1 + a) + b``. Low light, haze, shadow and veils are
  affine, globally or locally, so the full-resolution input carries the detail through.

Missing regions of one color are found and filled smoothly before (`irtool.models.inpaint`). Where one path of the
camera explains a blur, the network also sees the picture with that path divided out (`irtool.models.blind_deblur`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..degradation import IDS
from ..ops import in_strips, pad_to_multiple, patch_size
from . import blind_deblur, lora
from .base import Condition, ModelInfo, Placed, Progress, Tiled, check
from .global_stats import CONTEXT_SIZE, global_stats
from .inpaint import fill_detected_holes, fill_holes
from .unet_blocks import linear

WHOLE = slice(None)
_GUESS_AXIS = {"stem.weight": 1, "head.weight": 0, "head.bias": 0}
"""Weights that partly belong to the deblurred estimate, and the dimension along which its part comes last."""


def _dense(x: Tensor, weight: Tensor) -> Tensor:
    """A 1x1 convolution without bias: (N, H, W, inputs) with weight (outputs, inputs) -> (N, H, W, outputs)."""
    return linear(x.flatten(1, 2), weight).unflatten(1, x.shape[1:3])


class Resampled(nn.Linear):
    """A 1x1 convolution before pixels are spread, or after they were gathered; without bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return _dense(x, self.weight)


class Pointwise(nn.Module):
    """A 1x1 convolution with a low-rank adapter per task, on channels-last tokens.

    In training every sample of a batch has its own task weights and so its own weight. After `merge` a plain linear
    layer remains. There is no bias: the layer norms before it have one, and its gradient would be the most expensive
    operation of a training step on a CPU.
    """

    def __init__(self, inputs: int, outputs: int, tasks: int, rank: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.down = nn.Parameter(torch.empty(tasks, rank, inputs))
        self.up = nn.Parameter(torch.zeros(tasks, outputs, rank))  # zero: every task starts at the common weights
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        nn.init.normal_(self.down, std=inputs**-0.5)

    def lora_delta(self, task_weights: Tensor) -> Tensor:
        """The change of the weight (N, outputs, inputs) for task weights (N, tasks)."""
        tasks, _, rank = self.up.shape
        up = torch.einsum("nt,tor->notr", task_weights, self.up).flatten(2)
        return up @ self.down.reshape(tasks * rank, -1)

    def forward(self, x: Tensor, task_weights: Tensor | None, scale: Tensor | None = None) -> Tensor:
        """x (N, H, W, inputs) -> (N, H, W, outputs).

        task_weights is (N, tasks), or None once merged. scale (N, inputs) multiplies the input channels. Both
        act on the weight or on the tokens, whichever of the two is smaller.
        """
        n, h, w, c = x.shape
        if task_weights is None and (scale is None or n == 1):
            return _dense(x, self.weight if scale is None else self.weight * scale)
        if h * w > c:
            weight = self.weight if task_weights is None else self.weight + self.lora_delta(task_weights)
            weight = (weight if scale is None else weight * scale[:, None, :]).to(x.dtype)
            return torch.bmm(x.reshape(n, h * w, c), weight.transpose(1, 2)).view(n, h, w, -1)
        if scale is not None:
            x = x * scale[:, None, None, :].to(x.dtype)
        y = F.linear(x, self.weight)
        if task_weights is None:
            return y
        tasks, outputs, rank = self.up.shape
        low = F.linear(x, self.down.reshape(tasks * rank, c))
        low = low * task_weights.repeat_interleave(rank, dim=1)[:, None, None, :].to(low.dtype)
        return y + F.linear(low, self.up.transpose(0, 1).reshape(outputs, tasks * rank))


class Block(nn.Module):
    """A NAFNet block whose channel attention comes from the picture's context instead of a pool."""

    def __init__(self, width: int, tasks: int, rank: int, context: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.expand = Pointwise(width, 2 * width, tasks, rank)
        self.depthwise = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        self.attention = nn.Linear(context, width)
        self.project = Pointwise(width, width, tasks, rank)
        self.norm2 = nn.LayerNorm(width)
        self.widen = Pointwise(width, 2 * width, tasks, rank)
        self.narrow = Pointwise(width, width, tasks, rank)
        nn.init.normal_(self.attention.weight, std=0.5 * context**-0.5)
        nn.init.ones_(self.attention.bias)
        # Residual branches start small, so the depth of the net does not set the size of its first output.
        for branch in (self.project, self.narrow):
            branch.weight.data.mul_(0.1)

    def forward(self, x: Tensor, context: Tensor, task_weights: Tensor | None) -> Tensor:
        """x (N, H, W, width), context (N, C) -> (N, H, W, width); where nothing is learned, x itself is changed."""
        height, width = x.shape[1:3]
        rows, columns = patch_size(x)
        if torch.is_grad_enabled() or rows >= height:
            x = self._spatial_mixing(x, context, task_weights)
            return x + self._channel_mixing(x, task_weights)
        # Rows at a time, with one more on each side for the 3x3 convolution: the same result from a processor's cache.
        # Those rows are the neighbors' before they change.
        above = {top: x[:, max(0, top - 1) : top].clone() for top in range(0, height, rows)}
        below = {end: x[:, end : end + 1].clone() for end in (*range(rows, height, rows), height)}

        def work(top: int, end: int) -> None:
            strip = torch.cat([above[top], x[:, top:end], below[end]], dim=1)
            inner = slice(above[top].shape[1], above[top].shape[1] + end - top)
            for left in range(0, width, columns):
                right, start = min(width, left + columns), max(0, left - 1)
                patch, across = strip[:, :, start : right + 1], slice(left - start, right - start)
                y = self._spatial_mixing(patch, context, task_weights, inner, across)
                torch.add(y, self._channel_mixing(y, task_weights), out=x[:, top:end, left:right])

        in_strips(height, rows, work, x.device)
        return x

    def _spatial_mixing(
        self, x: Tensor, context: Tensor, task_weights: Tensor | None, rows: slice = WHOLE, columns: slice = WHOLE
    ) -> Tensor:
        """The first half, across neighbouring pixels; of these rows and columns alone."""
        y = self.expand(self.norm1(x), task_weights)
        y = self.depthwise(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        a, b = y[:, rows, columns].chunk(2, dim=-1)
        return x[:, rows, columns] + self.project(a * b, task_weights, self.attention(context))

    def _channel_mixing(self, x: Tensor, task_weights: Tensor | None) -> Tensor:
        """What the second half adds, pixel by pixel."""
        a, b = self.widen(self.norm2(x), task_weights).chunk(2, dim=-1)
        return self.narrow(a * b, task_weights)


class Stage(nn.Module):
    """Blocks at one resolution."""

    def __init__(self, count: int, width: int, tasks: int, rank: int, context: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, tasks, rank, context) for _ in range(count))

    def forward(self, x: Tensor, context: Tensor, task_weights: Tensor | None) -> Tensor:
        for block in self.blocks:
            x = block(x, context, task_weights)
        return x


def _block_macs(width: int) -> int:
    return 6 * width * width + 9 * 2 * width


def _space_to_depth(x: Tensor) -> Tensor:
    """(N, H, W, C) -> (N, H/2, W/2, 4C)."""
    n, h, w, c = x.shape
    return x.view(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h // 2, w // 2, 4 * c)


def _depth_to_space(x: Tensor) -> Tensor:
    """(N, H, W, 4C) -> (N, 2H, 2W, C), the inverse of `_space_to_depth`."""
    n, h, w, c = x.shape
    return x.view(n, h, w, 2, 2, c // 4).permute(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, c // 4)


def _blur_checkerboard(x: Tensor) -> Tensor:
    """(N, H, W, C) under the kernel [1, 2, 1] / 4 in both directions, edges repeated.

    `_depth_to_space` writes every other pixel with weights of its own. Where a smooth sky is multiplied by a large gain
    the difference shows as a grid; this kernel has its zero at just that frequency (Sugawara et al., ICASSP 2018).
    """
    y = F.pad(x.permute(0, 3, 1, 2), (1, 1, 1, 1), mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(y, 2, 1), 2, 1).permute(0, 2, 3, 1)


def _upsample_and_add(y: Tensor, up: nn.Module, skip: Tensor) -> Tensor:
    """The skip (N, 2H, 2W, C) and what comes from the level below it (N, H, W, 2C); without gradients into the skip."""
    height, width = y.shape[1:3]
    rows, columns = (max(2, side // 2) for side in patch_size(y))  # the result has four times the pixels
    if torch.is_grad_enabled() or rows >= height:
        return _blur_checkerboard(_depth_to_space(up(y))) + skip

    def work(top: int, end: int) -> None:
        first = max(0, top - 1)
        for left in range(0, width, columns):
            right, start = min(width, left + columns), max(0, left - 1)
            fine = _blur_checkerboard(_depth_to_space(up(y[:, first : end + 1, start : right + 1])))
            fine = fine[:, 2 * (top - first) :, 2 * (left - start) :][:, : 2 * (end - top), : 2 * (right - left)]
            skip[:, 2 * top : 2 * end, 2 * left : 2 * right] += fine

    in_strips(height, rows, work, y.device)
    return skip


def _mask_gradient(mask: Tensor, gradient: Tensor) -> Tensor:
    return gradient * mask.to(gradient)


def _partial_conv(layer: nn.Conv2d, x: Tensor, inputs: int | None = None, outputs: int | None = None) -> Tensor:
    """A 3x3 convolution with the first of its inputs and outputs alone."""
    if inputs in (None, layer.in_channels) and outputs in (None, layer.out_channels):
        return layer(x)
    bias = None if layer.bias is None else layer.bias[:outputs]
    return F.conv2d(x, layer.weight[:outputs, :inputs], bias, padding=1)


class CompactNet(nn.Module):
    """Gain-and-offset restoration of a picture under weighted tasks.

    Args:
        width: channels at half resolution; they double at each further level.
        encoder, middle, decoder: blocks per level, finest first for the encoder, coarsest first for
            the decoder; both have the same number of levels.
        rank: rank of the task adapters.
        hidden: size of the embedded context.
        tasks: ids of the tasks, in the order of the task-weight vectors.
        guess: whether it takes an estimate of the picture without its blur (`irtool.models.blind_deblur`).
    """

    def __init__(
        self, width: int = 48, encoder: Sequence[int] = (1, 1, 1), middle: int = 1, decoder: Sequence[int] = (1, 1, 1),
        rank: int = 4, hidden: int = 64, tasks: Sequence[str] = IDS, guess: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.tasks, self.guess = tuple(tasks), guess
        self.encoder, self.depth, self.decoder = tuple(encoder), middle, tuple(decoder)
        self.multiple = 2 ** (len(encoder) + 1)
        common = (len(self.tasks), rank, hidden)
        self.register_buffer("fixed", torch.zeros(1, len(self.tasks)), persistent=False)
        self.embed = nn.Sequential(
            nn.Linear(CONTEXT_SIZE + len(self.tasks), hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU()
        )
        self.tone = nn.Linear(hidden, 6)
        self.stem = nn.Conv2d(28 if guess else 16, width, 3, padding=1)
        self.encoders, self.downs = nn.ModuleList(), nn.ModuleList()
        for count in encoder:
            self.encoders.append(Stage(count, width, *common))
            self.downs.append(Resampled(4 * width, 2 * width))
            width *= 2
        self.middle = Stage(middle, width, *common)
        self.ups, self.decoders = nn.ModuleList(), nn.ModuleList()
        for count in decoder:
            self.ups.append(Resampled(width, 2 * width))
            width //= 2
            self.decoders.append(Stage(count, width, *common))
        self.head = nn.Conv2d(width, 28 if guess else 24, 3, padding=1)
        for parameter in (*self.tone.parameters(), *self.head.parameters()):
            nn.init.zeros_(parameter)  # an untrained net changes nothing
        assert self.head.bias is not None
        nn.init.ones_(self.head.bias[24:])  # and adds the deblurred estimate unchanged

    def forward(self, x: Tensor, context: Tensor, task_weights: Tensor | None = None) -> Tensor:
        """Restore a batch.

        Args:
            x: (N, 3, H, W) sRGB in [0, 1]; or (N, 4, H, W), the last channel 1 where a hole was filled
                (`irtool.models.inpaint`); or, with `guess`, (N, 7, H, W), the last three the difference of a deblurred
                estimate (`irtool.models.blind_deblur`) to the picture, 0 where there is none. H and W are multiples of
                `multiple`.
            context: (N, CONTEXT_SIZE) from `irtool.models.global_stats.global_stats`.
            task_weights: (N, tasks) weights of the tasks, or None once `merge` has folded them in.

        Returns:
            (N, 3, H, W), about [0, 1], not clamped.
        """
        dtype = self.stem.weight.dtype
        task_input = self.fixed.expand(len(x), -1) if task_weights is None else 2 * task_weights
        context = self.embed(torch.cat([context, task_input.to(context)], dim=1).to(dtype))
        gain, shift = self.tone(context).float().view(-1, 6, 1, 1).chunk(2, dim=1)
        holes = x[:, 3:4] if x.shape[1] > 3 else torch.zeros_like(x[:, :1])
        guess = x[:, 4:] * gain.exp() if x.shape[1] > 4 else None
        x = x[:, :3] * gain.exp() + shift
        y = torch.cat([x, holes] if guess is None else [x, holes, guess], dim=1).to(dtype)
        y = F.pixel_unshuffle(y, 2).contiguous(memory_format=torch.channels_last)
        y = _partial_conv(self.stem, y, inputs=y.shape[1]).permute(0, 2, 3, 1)
        skips = []
        for stage, down in zip(self.encoders, self.downs, strict=True):
            y = stage(y, context, task_weights)
            skips.append(y)
            y = down(_space_to_depth(y))
        y = self.middle(y, context, task_weights)
        for up, stage, skip in zip(self.ups, self.decoders, reversed(skips), strict=True):
            y = stage(_upsample_and_add(y, up, skip), context, task_weights)
        # Without a deblurred estimate its part of the first and the last layer is left out, and costs nothing.
        y = _partial_conv(self.head, y.permute(0, 3, 1, 2), outputs=24 if guess is None else 28)
        y = F.pixel_shuffle(y, 2).float()
        gain, offset = y[:, :3], y[:, 3:6]
        if guess is not None:
            x = x + y[:, 6:] * guess
        return x * (1 + gain) + offset

    def macs_per_pixel(self) -> float:
        """Multiply-accumulates per input pixel of a pass without a deblurred estimate: convolutions and 1x1 layers."""
        width, share, total = self.stem.out_channels, 0.25, 0.25 * 9 * 16 * self.stem.out_channels
        for count in self.encoder:
            total += share * count * _block_macs(width)
            share, width = share / 4, width * 2
            total += share * 2 * width * width
        total += share * self.depth * _block_macs(width)
        for count in self.decoder:
            total += share * 2 * width * width
            share, width = share * 4, width // 2
            total += share * count * _block_macs(width)
        return total + 0.25 * 9 * 24 * width

    def receptive_field(self) -> int:
        """Radius of the receptive field in pixels: the least overlap of tiles without seams."""
        radius, side = 4, 2  # the first and the last layer; `side`: input pixels per pixel of a level
        for down, up in zip(self.encoder, reversed(self.decoder), strict=True):
            radius += side * (down + up) + side  # a 3x3 convolution in every block and in every upsampling
            side *= 2
        return radius + side * self.depth

    @torch.no_grad()
    def grow_from(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights with which this network computes what a smaller one does (function-preserving growth).

        Args:
            weights: the `state_dict` of a network of the same width with fewer blocks at the end of some stages, or
                without `guess`.
        """
        full = dict(self.state_dict())
        for name, own in full.items():
            old = weights.get(name)
            dim = _GUESS_AXIS.get(name, 0)
            if old is not None and name in _GUESS_AXIS and old.shape[dim] < own.shape[dim]:
                more = own.narrow(dim, old.shape[dim], own.shape[dim] - old.shape[dim])
                # The deblurred estimate is not looked at yet, and added unchanged.
                full[name] = torch.cat([old, torch.full_like(more, float(name == "head.bias"))], dim)
            elif old is not None:
                full[name] = old
            elif name.endswith(("project.weight", "narrow.weight")):
                full[name] = torch.zeros_like(own)  # a residual block that adds nothing
        return full | {name: old for name, old in weights.items() if name not in full}

    def train_only(self, tasks: Sequence[str]) -> None:
        """Freeze all but the adapters of these tasks and their columns of the context embedding. Results under other
        tasks stay as they are, bit for bit.

        Raises:
            KeyError: an unknown task.
        """
        if unknown := [task for task in tasks if task not in self.tasks]:
            raise KeyError(unknown[0])
        self.requires_grad_(False)
        chosen = torch.tensor([float(task in tasks) for task in self.tasks])
        embed = self.embed[0]
        assert isinstance(embed, nn.Linear)
        parts = [(embed.weight, torch.cat([torch.zeros(embed.in_features - len(chosen)), chosen]))]
        for layer in self.modules():
            if isinstance(layer, Pointwise):
                parts += [(layer.down, chosen.view(-1, 1, 1)), (layer.up, chosen.view(-1, 1, 1))]
        for weight, mask in parts:
            weight.requires_grad_(True)
            weight.register_hook(partial(_mask_gradient, mask))

    def vector(self, task_weights: Mapping[str, float]) -> Tensor:
        """Task weights as a (1, tasks) vector; raises KeyError for an unknown task."""
        v = torch.zeros(1, len(self.tasks))
        for task, weight in task_weights.items():
            v[0, self.tasks.index(task)] = weight
        return v

    @torch.no_grad()
    def merge(self, task_weights: Mapping[str, float]) -> None:
        """Merge the adapters under these task weights into the weights and drop them: the task weights are fixed."""
        v = self.vector(task_weights).to(self.stem.weight)
        self.fixed = 2 * v
        for layer in self.modules():
            if isinstance(layer, Pointwise):
                layer.weight.add_(layer.lora_delta(v)[0])
                del layer.down, layer.up


class CompactBound:
    """A `CompactNet` merged for one set of task weights (the `Bound` protocol).

    Args:
        placed: the merged network.
        info: of the model.
        mask: (1, H, W), 1 where pixels are missing; None to have them found.
    """

    def __init__(self, placed: Placed, info: ModelInfo, mask: Tensor | None = None) -> None:
        self.placed, self.info, self.mask = placed, info, mask

    @property
    def net(self) -> CompactNet:
        """The network that computes."""
        net: CompactNet = self.placed.net
        return net

    def to(self, device: torch.device, dtype: torch.dtype) -> CompactBound:
        self.placed.to(device, dtype)
        return self

    def prepare(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The padded image with its further channels (see `CompactNet.forward`), and its statistics."""
        context = global_stats(image)
        # What is found in the image, such as a path of the camera, is found in the padded one: so it was measured.
        padded = pad_to_multiple(image, self.info.multiple)
        if self.mask is not None:
            mask = pad_to_multiple(self.mask[None], self.info.multiple)
            source = torch.cat([fill_holes(padded, mask), mask], dim=1)
        elif self._removes("missing"):
            source = fill_detected_holes(padded, torch.ones(1, dtype=torch.bool))
        else:
            source = padded
        if not self.net.guess or not self._removes("blur"):
            return source, context
        with_guess = source.new_zeros(1, 7, *source.shape[2:])
        with_guess[:, : source.shape[1]] = source
        return (with_guess if blind_deblur.add_deblurred(source[0, :3], with_guess[0, 4:]) else source), context

    def _removes(self, task: str) -> bool:
        return task in self.net.tasks and float(self.net.fixed[0, self.net.tasks.index(task)]) > 0

    def forward(self, tile: Tensor, context: Tensor) -> Tensor:
        """Restore tiles (N, C, h, w) in float32 -> (N, 3, h, w)."""
        restored = self.net(tile, context.expand(tile.shape[0], -1))
        if tile.shape[1] > 3 and self._removes("missing") and int(self.net.fixed.count_nonzero()) == 1:
            # The filling is nearer to the ground truth than what the network makes of it (docs/lab/experiments.md).
            restored = torch.where(tile[:, 3:4] > 0, tile[:, :3].to(restored), restored)
        return restored

    def run(self, image: Tensor, context: Tensor, tiled: Tiled, on_progress: Progress) -> Tensor:
        context = context.to(self.placed.device)
        with torch.inference_mode():
            return tiled(lambda tile: self.forward(tile, context), image, on_progress=on_progress)


MERGED = 4
"""Merged networks that a `CompactModel` keeps: a folder asks for few different sets of tasks."""


class CompactModel:
    """A loaded `CompactNet` with the adapters of all its tasks (the `Model` protocol)."""

    def __init__(self, net: CompactNet) -> None:
        self.net = net
        self.info = ModelInfo(
            name="compact",
            tasks=net.tasks,
            multiple=net.multiple,
            overlap=net.receptive_field(),
            parameters=sum(p.numel() for p in net.parameters()),
            gmacs_per_megapixel=net.macs_per_pixel() / 1e3,
            # Measured (tests/test_tiling.py keeps it honest): a stream and a skip at the finest level, a quarter of the
            # pixels, and as much again that does not shrink with the type; blocks take strips.
            bytes_per_pixel=4 * (40 + 5 * net.stem.out_channels // 4),
            takes_mask=True,
            bears_bf16=True,
        )
        self._merged: dict[tuple[frozenset[tuple[str, float]], Path | None], Placed] = {}

    def bind(self, condition: Condition) -> CompactBound:
        check(condition, self.info)
        key = frozenset(condition.tasks.items()), condition.adapter
        placed = self._merged.pop(key, None)
        if placed is None:
            net = copy.deepcopy(self.net)
            net.merge(condition.tasks)
            placed = Placed(net if condition.adapter is None else lora.apply(net, condition.adapter))
        self._merged[key] = placed  # the last one is the one used last
        while len(self._merged) > MERGED:
            del self._merged[next(iter(self._merged))]
        return CompactBound(placed, self.info, condition.mask)


def restorer(net: CompactNet, header: Mapping[str, str]) -> CompactModel:
    """The model of a loaded network (see `irtool.models.loading`); the header says nothing it needs."""
    return CompactModel(net)
