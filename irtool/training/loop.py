"""The training loop."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..degradation import IDS
from ..errors import IrtoolError, UsageError
from ..models import loading
from .data import POOL, Pools, Sample, cut, load_clean
from .recipe import Phase, Recipe

Report = Callable[[dict[str, Any]], None]
# Below about five 8-bit levels a relative improvement counts for less and less. Without such a floor the
# all but clean samples, whose gradient is mostly noise, drown the others (see docs/experiments.md).
_FLOOR = 0.02


def restoration_loss(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean over the samples of log(L1 + floor), the mean error of a channel counting a quarter.

    The logarithm gives every sample a say in proportion to its relative error, as PSNR does. How bright a dark or hazy
    picture should be is partly a guess; the error of a wrong guess is alike at every pixel, and such gradients
    drown those of texture, which cancel. The layer that sets the tone hears only of this error, and Adam gives it full
    steps whatever the factor.
    """
    error = restored - clean
    error = error - 0.75 * error.mean(dim=(2, 3), keepdim=True)
    return error.abs().mean(dim=(1, 2, 3)).add(_FLOOR).log().mean()


def network(recipe: Recipe) -> nn.Module:
    """A fresh network of the recipe's kind, its weights drawn from the recipe's seed."""
    from ..detect.network import DetectorNet
    from ..models.compact import CompactNet

    torch.manual_seed(recipe.seed)
    return (CompactNet if recipe.kind == "restorer" else DetectorNet)(**recipe.model)


def mixtures(labels: Tensor, g: torch.Generator) -> Tensor:
    """Task mixtures (N, tasks) to train under, from what was applied.

    A clean sample gets a random task: a task asked for in vain must do no harm.
    """
    mixture = labels.clone()
    for row in (labels.sum(1) == 0).nonzero().flatten().tolist():
        mixture[row, int(torch.randint(labels.shape[1], (1,), generator=g))] = 1
    return mixture


def loss_of(net: nn.Module, batch: Sample, recipe: Recipe, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """The loss of a batch and, per sample, the figure to log: PSNR in dB, or the share of right labels."""
    if recipe.kind == "detector":
        logits = net(batch.degraded)
        right = ((logits > 0) == (batch.labels > 0.5)).all(dim=1)
        return F.binary_cross_entropy_with_logits(logits, batch.labels), right.float()
    restored = net(batch.degraded, batch.context, mixtures(batch.labels, g).to(batch.degraded.device))
    mse = (restored.detach().clamp(0, 1) - batch.clean).square().mean(dim=(1, 2, 3))
    return restoration_loss(restored, batch.clean), -10 * mse.clamp_min(1e-6).log10()


class State:
    """All that a run needs to go on from where it was."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.net = network(recipe).to(device)
        self.ema = copy.deepcopy(self.net).eval().requires_grad_(False)
        decayed = [p for p in self.net.parameters() if p.ndim > 1]
        plain = [p for p in self.net.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": recipe.decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.99), fused=True)
        self.step, self.seconds = 0, 0.0
        self.pool, self.taken = 0, 0  # the pool being used, and how many of its samples have been

    def save(self, path: Path, recipe: Recipe) -> None:
        """Write atomically: a run killed while writing keeps its last checkpoint."""
        partial = path.with_suffix(".partial")
        torch.save(
            {
                "net": self.net.state_dict(),
                "ema": self.ema.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "seconds": self.seconds,
                "pool": self.pool,
                "taken": self.taken,
                "recipe": asdict(recipe),
            },
            partial,
        )
        partial.replace(path)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of the same run."""
        held = torch.load(path, map_location="cpu", weights_only=True)
        self.ema.load_state_dict(held["ema"])
        self.net.load_state_dict(held["net"])
        self.optimizer.load_state_dict(held["optimizer"])
        self.step, self.seconds = held["step"], held["seconds"]
        self.pool, self.taken = held["pool"], held["taken"]

    def begin_from(self, path: Path) -> None:
        """Begin with the averaged weights of another run's checkpoint, or with those of an exported model file.

        Raises:
            UsageError: its weights do not fit the recipe's network.
        """
        if path.suffix == ".safetensors":
            weights = loading.read(path)[0].state_dict()
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)["ema"]
        try:
            self.net.load_state_dict(weights)
        except RuntimeError as error:
            raise UsageError(f"{path} does not fit the network of the recipe: {error}.") from error
        self.ema.load_state_dict(weights)


def progress_of(state: State, recipe: Recipe) -> float:
    """Share of the run that is done, by the clock or by steps."""
    return state.seconds / (recipe.minutes * 60) if recipe.minutes > 0 else state.step / recipe.steps


def phase_of(recipe: Recipe, progress: float) -> Phase:
    """The phase that holds at `progress`."""
    return next((p for p in recipe.phases if progress < p.until), recipe.phases[-1])


def rate_of(recipe: Recipe, step: int, progress: float) -> float:
    """Learning rate: linear warm-up, then a cosine down to a hundredth."""
    cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return recipe.rate * min(1.0, (step + 1) / max(1, recipe.warmup)) * cosine


def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    device: torch.device,
    start: Path | None = None,
    report: Report = lambda line: None,
) -> Path:
    """Run a recipe; resumes by itself where `out` holds a checkpoint.

    Args:
        recipe: what to do.
        data: folder that the recipe's data folders lie in.
        out: folder for `checkpoint.pt` and `log.jsonl`.
        device: where to compute.
        start: a checkpoint or an exported .safetensors whose weights a new run starts from.
        report: called with every line of the log.

    Returns:
        The path of the last checkpoint.

    Raises:
        UsageError: there is no usable data.
        IrtoolError: the loss stopped being a number; the last checkpoint stays.
    """
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    state = State(recipe, device)
    if checkpoint.exists():
        state.resume(checkpoint)
    elif start is not None:
        state.begin_from(start)
    pictures, skipped = load_clean(data, recipe.data, recipe.region)
    report(
        {
            "pictures": len(pictures),
            "skipped": skipped,
            "step": state.step,
            "parameters": sum(p.numel() for p in state.net.parameters()),
        }
    )

    losses: list[float] = []
    figures: dict[str, list[float]] = {}
    loader = DataLoader(
        Pools(pictures, recipe), batch_size=None, sampler=range(state.pool, 1 << 40), num_workers=1, prefetch_factor=2
    )
    pools = iter(loader)
    pool = next(pools)
    clock = time.monotonic()
    with (out / "log.jsonl").open("a", encoding="utf-8") as log:
        while (progress := progress_of(state, recipe)) < 1:
            phase = phase_of(recipe, progress)
            if state.taken + phase.batch > POOL:
                pool, state.pool, state.taken = next(pools), state.pool + 1, 0
            g = torch.Generator().manual_seed(recipe.seed * 7919 + state.step)
            batch = cut(pool, state.taken, phase.batch, phase.crop, g)
            state.taken += phase.batch
            batch = Sample(*(t.to(device) for t in (batch.degraded, batch.clean, batch.context, batch.labels)))
            for group in state.optimizer.param_groups:
                group["lr"] = rate_of(recipe, state.step, progress)
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
                loss, figure = loss_of(state.net, batch, recipe, g)
            if not torch.isfinite(loss):
                raise IrtoolError(
                    f"The loss is {loss.item()} at step {state.step}.",
                    f"{checkpoint} is the last good state; lower the rate.",
                )
            loss.backward()
            nn.utils.clip_grad_norm_(state.net.parameters(), recipe.clip)
            state.optimizer.step()
            state.optimizer.zero_grad(set_to_none=True)
            # The average forgets the first steps quickly and then settles at the recipe's decay.
            keep = min(recipe.ema, (1 + state.step) / (10 + state.step))
            torch._foreach_lerp_(list(state.ema.parameters()), list(state.net.parameters()), 1 - keep)
            for kept, current in zip(state.ema.buffers(), state.net.buffers(), strict=True):
                kept.copy_(current)
            state.step += 1
            now = time.monotonic()
            state.seconds, clock = state.seconds + now - clock, now
            losses.append(loss.item())
            for row, value in zip(batch.labels.tolist(), figure.tolist(), strict=True):
                figures.setdefault("+".join(i for i, on in zip(IDS, row, strict=True) if on) or "clean", []).append(
                    value
                )
            if state.step % recipe.report_every == 0:
                singles = {k: sum(v) / len(v) for k, v in sorted(figures.items()) if k.count("+") == 0}
                line = {
                    "step": state.step,
                    "minutes": state.seconds / 60,
                    "rate": group["lr"],
                    "loss": sum(losses) / len(losses),
                    **singles,
                }
                log.write(json.dumps({k: round(v, 5) for k, v in line.items()}) + "\n")
                log.flush()
                report(line)
                losses, figures = [], {}
            if state.step % recipe.save_every == 0:
                state.save(checkpoint, recipe)
    state.save(checkpoint, recipe)
    return checkpoint
