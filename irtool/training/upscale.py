"""The training of networks that enlarge ("upscale"): `DualStreamETDS` on small copies of clean pictures.

Chao et al., CVPR 2023: L1 between result and picture, and a second L1 on what the stream that carries the picture
gives alone. Small copies are made as super-resolution is published with (`ops.downscale`); some can be compressed as
pictures are that people want to enlarge, or degraded by any kind of `Recipe.weights`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import synth
from ..degradation import CLEAN, IDS, INDEX
from ..models import loading
from ..models.etds import DualStreamETDS, fused
from ..ops import downscale
from .checks import recipe_problems
from .data import REAL, Pools, Sample, training_data
from .recipe import Recipe
from .restorer import psnr
from .tasks import Preview, Shard, TrainingData

QUALITY = (70, 98)
"""JPEG qualities of small copies that are compressed, the lower one included."""
HELD_OUT_EACH = 24  # samples of each kind
LUMA = (65.481 / 255, 128.553 / 255, 24.966 / 255)  # BT.601, without its offset


class SmallCopies(Pools):
    """Pools of samples whose `degraded` is `settings` smaller than their `clean`, by the scale of the network."""

    def group(self, kind: str | int, g: torch.Generator, count: int | None = None) -> Sample:
        if isinstance(kind, int):
            raise ValueError("pairs are not enlarged")
        count, kinds = count or self.recipe.group, self._chain(kind, g)
        side, scale = self.recipe.region, int(self.recipe.model["scale"])
        clean = torch.stack([self._region(g, side) for _ in range(count)])
        small = downscale(clean, scale).clamp(0, 1)
        for each in kinds:
            small = synth.random_chain(each, g).apply(small, g)
        if float(torch.rand((), generator=g)) < self.recipe.settings.get("compressed", 0.0):
            quality = int(torch.randint(*QUALITY, (1,), generator=g))
            small = synth.parse(f"jpeg(q={quality})").apply(small, g)
        labels = torch.zeros(count, len(IDS))
        labels[:, [INDEX[i] for each in kinds for i in REAL.get(each, (each,))]] = 1
        small = (small * 255).round() / 255
        return Sample(small, clean, torch.zeros(count, 0), labels, labels.clone())


class UpscaleTask:
    """The `TrainingTask` of the kind "upscale". The figure is luma PSNR in dB of held-out pictures.

    Settings: compressed, share of the groups whose small copies are JPEGs of `QUALITY`; alone, weight of the L1 of the
    picture's own stream; luma, weight of an L1 of BT.601 luma beside that of RGB. Kinds of `Recipe.weights` degrade the
    small copies; "clean" leaves them.
    """

    figure_of_merit = "psnr"
    network: type[nn.Module] = DualStreamETDS
    known: tuple[str, ...] = ("compressed", "alone", "luma")

    def problems(self, recipe: Recipe) -> list[str]:
        problems = recipe_problems(self.network, recipe, self.known)
        scale = recipe.model.get("scale")
        if scale not in (2, 3, 4):
            return [*problems, f"model: scale is 2, 3 or 4, not {scale!r}"]
        sides = {"region": recipe.region} | {f"crop of phase {i}": p.crop for i, p in enumerate(recipe.phases, 1)}
        problems += [
            f"{name}: {side} must be a multiple of the scale, {scale}" for name, side in sides.items() if side % scale
        ]
        for key in ("compressed", "alone", "luma"):
            value, most = recipe.settings.get(key, 0), 1 if key == "compressed" else 100
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
                problems.append(f"settings: {key} lies from 0 to {most}, not {value!r}")
        if recipe.pairs:
            problems.append("pairs: this kind of training makes its own small copies; leave them out")
        return problems

    def build(self, recipe: Recipe) -> nn.Module:
        return DualStreamETDS(**recipe.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def dataset(self, recipe: Recipe, root: Path, shard: Shard) -> TrainingData[Sample]:
        return training_data(recipe, root, shard, SmallCopies, HELD_OUT_EACH)

    def batch(self, pool: Sample, row: int, rows: int, crop: int, generator: torch.Generator) -> Sample:
        """The same random crop of every `rows`-th sample; it begins at whole small pixels."""
        scale = pool.clean.shape[-1] // pool.degraded.shape[-1]
        small = crop // scale
        top, left = (
            int(torch.randint(pool.degraded.shape[-1] - small + 1, (1,), generator=generator)) for _ in range(2)
        )
        taken = pool.map(lambda t: t[row::rows])
        degraded = taken.degraded[..., top : top + small, left : left + small]
        top, left = top * scale, left * scale
        clean = taken.clean[..., top : top + crop, left : left + crop]
        return Sample(degraded, clean, taken.context, taken.labels, taken.task_weights)

    def enlarge(self, net: nn.Module, small: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the network gives, not clipped, and what its second stream gives alone."""
        assert isinstance(net, DualStreamETDS)
        return net.streams(small.contiguous(memory_format=torch.channels_last))

    def loss(
        self, net: nn.Module, batch: Sample, recipe: Recipe, generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        large, alone = self.enlarge(net, batch.degraded)
        error = large.float() - batch.clean
        loss = error.abs().mean()
        if weight := recipe.settings.get("alone", 0):
            assert alone is not None
            loss = loss + weight * F.l1_loss(alone.float(), batch.clean)
        if weight := recipe.settings.get("luma", 0):
            loss = loss + weight * luma(error).abs().mean()
        return loss, {"psnr": psnr(large, batch.clean)}

    def preview(self, net: nn.Module, held_out: Sample, recipe: Recipe) -> Preview:
        large = torch.cat([self.enlarge(net, row[None])[0].float().clamp(0, 1) for row in held_out.degraded])
        border = recipe.model["scale"]
        inside = (..., slice(border, -border), slice(border, -border))
        plain = F.interpolate(held_out.degraded, large.shape[-2:], mode="bicubic", align_corners=False).clamp(0, 1)
        after, before = (
            -10 * luma(picture - held_out.clean)[inside].square().mean(dim=(1, 2)).clamp_min(1e-6).log10()
            for picture in (large, plain)
        )
        figures = {"psnr": float(after.mean()), "psnr_gain": float((after - before).mean())}
        names = held_out.names()
        for name in dict.fromkeys(names):
            figures[f"psnr/{name}"] = float(after[[i for i, n in enumerate(names) if n == name]].mean())
        columns = [t.permute(0, 2, 3, 1).cpu().numpy() for t in (plain, large, held_out.clean)]
        shown: Sequence[int] = range(min(4, len(large)))
        return Preview(
            figures,
            rows=[[column[i] for column in columns] for i in shown],
            titles=("bicubic", "output", "target"),
            captions=[[f"{before[i]:.2f} dB", f"{after[i]:.2f} dB", ""] for i in shown],
        )

    def export(self, net: nn.Module, recipe: Recipe, target: Path, notes: Mapping[str, str]) -> None:
        assert isinstance(net, DualStreamETDS)
        whole = fused(net)
        config = {"scale": whole.scale, "blocks": whole.blocks, "width": whole.width}
        header = {"trained_on": json.dumps([k for k, w in recipe.weights.items() if w > 0 and k != CLEAN])}
        loading.save(whole, target, architecture="etds", config=config, notes={**header, **notes})


def luma(rgb: Tensor) -> Tensor:
    """BT.601 luma of (N, 3, H, W), in the studio range's scale and without its offset -> (N, H, W)."""
    return (rgb * rgb.new_tensor(LUMA)[:, None, None]).sum(1)
