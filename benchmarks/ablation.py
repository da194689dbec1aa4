"""What helps a small all-in-one restorer learn? One thing changed at a time, the same samples and steps for all.

    python benchmarks/ablation.py --data DATA --steps 300 --seeds 2

Short runs of small networks: they say how a run begins, not where it ends. Figures are PSNR in dB over samples of
pictures that were kept back, the mean over their kinds, and the spread over seeds.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from irtool.models.compact import CompactNet
from irtool.training import recipe as recipes
from irtool.training.data import Pools, Sample, cut, held_out
from irtool.training.pictures import gather
from irtool.training.restorer import RestorerTask, psnr, restoration_loss

SMALL = {"width": 32, "encoder": [1, 1, 1], "middle": 1, "decoder": [1, 1, 1], "rank": 4, "hidden": 64}
KINDS = ("noise", "jpeg", "blur", "rain", "snow", "haze", "lowlight", "missing")
CROP, BATCH, POOL = 64, 16, 64
RATE, WARMUP = 1.5e-3, 20
Loss = Callable[[Tensor, Tensor], Tensor]
JOB = RestorerTask()


def l1(restored: Tensor, clean: Tensor) -> Tensor:
    return (restored - clean).abs().mean()


def charbonnier(restored: Tensor, clean: Tensor) -> Tensor:
    return ((restored - clean).square() + 1e-6).sqrt().mean()


def with_frequencies(restored: Tensor, clean: Tensor) -> Tensor:
    """The project's loss, and a tenth of the L1 distance of the Fourier transforms (MIMO-UNet, Cho et al. 2021)."""
    spectrum = torch.fft.rfft2((restored - clean).float(), norm="ortho").abs().mean()
    return restoration_loss(restored, clean) + 0.1 * spectrum / 0.05


class FullResolution(nn.Module):
    """A compact net without its half-resolution stem: the same net on a picture twice as large."""

    def __init__(self, net: CompactNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, context: Tensor, task_weights: Tensor) -> Tensor:
        return F.avg_pool2d(self.net(F.interpolate(x, scale_factor=2.0), context, task_weights), 2)


@dataclass(frozen=True)
class Variant:
    """One line of the table.

    Attributes:
        name: what is different.
        model: changes to `SMALL`.
        loss: of restored and clean.
        crop: side; the batch is as large as keeps the pixels.
        task_input: what of the task the network has: "both", "offsets", "features" or "nothing".
        classify: share of the steps that first learn to name the degradation.
        full: no half-resolution stem.
        teacher: width of a larger net trained first on the same samples, whose output is half of the target.
    """

    name: str
    model: dict[str, Any] = field(default_factory=dict)
    loss: Loss = restoration_loss
    crop: int = CROP
    task_input: str = "both"
    classify: float = 0.0
    full: bool = False
    teacher: int = 0


VARIANTS = (
    Variant("as the default: log L1, half-resolution stem, offsets and features"),
    Variant("L1", loss=l1),
    Variant("Charbonnier", loss=charbonnier),
    Variant("PSNR loss", loss=partial(restoration_loss, kind="psnr")),
    Variant("with a frequency term", loss=with_frequencies),
    Variant("the task not told", task_input="nothing"),
    Variant("the task as features only (FiLM of the attention)", task_input="features"),
    Variant("the task as offsets only", task_input="offsets"),
    Variant("degradations named first, a fifth of the steps", classify=0.2),
    Variant("crops of 32, four times as many", crop=32),
    Variant("crops of 96, fewer", crop=96),
    Variant("deeper: two blocks a level", {"width": 23, "encoder": [2, 2, 2], "middle": 2, "decoder": [2, 2, 2]}),
    Variant("wider: two levels", {"width": 36, "encoder": [1, 1], "decoder": [1, 1]}),
    Variant("full-resolution stem, width 16", {"width": 16}, full=True),
    Variant("distilled from width 64", teacher=64),
)


def make(variant: Variant) -> CompactNet:
    net = CompactNet(**{**SMALL, **variant.model})
    if variant.task_input in ("features", "nothing"):
        for name, weight in net.named_parameters():
            if name.endswith((".up", ".down")):
                weight.requires_grad_(False)  # B stays zero
    if variant.task_input in ("offsets", "nothing"):
        # The last inputs of the embedding are the mixture.
        def forget(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
            return (torch.cat([inputs[0][:, : -len(net.tasks)], torch.zeros_like(inputs[0][:, -len(net.tasks) :])], 1),)

        net.embed.register_forward_pre_hook(forget)
    return net


def batches(pools: list[Sample], crop: int, steps: int, seed: int) -> Iterator[Sample]:
    """As many pixels in each, whatever the crop."""
    g = torch.Generator().manual_seed(seed)
    size = max(1, BATCH * CROP * CROP // crop**2)
    for step in range(steps):
        # A batch of small crops needs more than one pool's row has; it is drawn from two.
        pool = pools[step * BATCH // POOL % len(pools)]
        rows = max(1, len(pool) // size)
        yield cut(pool, step % rows, rows, crop, g)


def learn(net: nn.Module, source: Iterator[Sample], loss: Callable[[Sample], Tensor], steps: int) -> list[nn.Module]:
    """Train; returns the last weights, and their average over about the last tenth of the steps."""
    trained = [p for p in net.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)
    average = deepcopy(net)
    for step, batch in enumerate(source):
        share = min(1.0, (step + 1) / WARMUP) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = RATE * share
        value = loss(batch)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        with torch.no_grad():
            for a, p in zip(average.parameters(), net.parameters(), strict=True):
                a.lerp_(p, 9 / (step + 10))  # a decay of 0.98 and more is the same thing in runs of less than 440 steps
    return [net, average]


def train(variant: Variant, pools: list[Sample], steps: int, seed: int) -> list[nn.Module]:
    torch.manual_seed(seed)
    small = make(variant)
    net: nn.Module = FullResolution(small) if variant.full else small
    first = round(variant.classify * steps)
    if first:
        width = small.encoders[-1].blocks[0].norm1.normalized_shape[0] * 2
        head = nn.Linear(width, len(small.tasks))
        seen: list[Tensor] = []
        watching = small.middle.register_forward_hook(lambda _m, _i, out: seen.append(out))
        both = nn.ModuleList([small, head])

        def named(batch: Sample) -> Tensor:
            seen.clear()
            with torch.autocast("cpu", torch.bfloat16):
                small(batch.degraded, batch.context, torch.zeros_like(batch.task_weights))
                logits = head(seen[0].float().mean(dim=(1, 2)))
            return F.binary_cross_entropy_with_logits(logits.float(), batch.labels)

        learn(both, batches(pools, variant.crop, first, seed), named, first)
        watching.remove()
    teacher = None
    if variant.teacher:
        large = Variant("teacher", {"width": variant.teacher})
        teacher = train(large, pools, steps, seed)[1].eval().requires_grad_(False)

    def restored(batch: Sample) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            out = JOB.restore(net, batch)
            target = batch.clean
            if teacher is not None:
                with torch.no_grad():
                    target = (target + JOB.restore(teacher, batch).float().clamp(0, 1)) / 2
        return variant.loss(out.float(), target)

    return learn(net, batches(pools, variant.crop, steps - first, seed + 1), restored, steps - first)


@torch.no_grad()
def score(net: nn.Module, held_out: Sample) -> float:
    """Mean over the kinds of the mean PSNR of their samples, dB."""
    net.eval()
    by_kind: dict[str, list[float]] = {}
    for i, name in enumerate(held_out.names()):
        one = held_out.map(itemgetter(slice(i, i + 1)))
        by_kind.setdefault(name, []).append(float(psnr(JOB.restore(net, one), one.clean)))
    return float(np.mean([np.mean(values) for values in by_kind.values()]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds train_clean/")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    began = time.monotonic()
    base = replace(
        recipes.load(recipes.find("default")), region=96, pool=POOL, weights={k: 1.0 for k in KINDS}, hold=12
    )
    pictures = gather(base, args.data)
    results: dict[str, list[list[float]]] = {}
    before = 0.0
    for seed in range(args.seeds):
        pool_set = Pools(pictures, replace(base, seed=seed))
        pools = [pool_set[i] for i in range(-(-args.steps * BATCH // POOL))]
        held_samples = held_out(pool_set, each=6)
        before = float(psnr(held_samples.degraded, held_samples.clean).mean())
        for variant in VARIANTS:
            nets = train(variant, pools, args.steps, seed)
            results.setdefault(variant.name, []).append([score(net, held_samples) for net in nets])
            print(f"seed {seed}  {variant.name}: {results[variant.name][-1]}", flush=True)
    print("\n| changed | parameters | kMAC per pixel | PSNR, dB | last weights |\n|---|---|---|---|---|")
    for variant in VARIANTS:
        net, found = make(variant), np.array(results[variant.name])
        macs = net.macs_per_pixel() * (4 if variant.full else 1) / 1e3
        size = sum(p.numel() for p in net.parameters() if p.requires_grad)
        mean, spread = found.mean(0), found.std(0)
        print(f"| {variant.name} | {size / 1e6:.2f} M | {macs:.0f} | {mean[1]:.2f} ± {spread[1]:.2f} | {mean[0]:.2f} |")
    minutes = (time.monotonic() - began) / 60
    print(
        f"\nThe input has {before:.2f} dB. {args.steps} steps of {BATCH} crops of {CROP} pixels, {args.seeds} "
        f"seed(s); {len(pictures.clean)} pictures to learn from, {len(pictures.held_out)} kept back. Weights averaged "
        f"over about the last tenth (last column: not averaged). {minutes:.0f} minutes on {args.threads} thread(s), "
        f"torch {torch.__version__}."
    )


if __name__ == "__main__":
    main()
