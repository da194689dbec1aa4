"""Estimates a run by training a few steps: the plan that `irtool train --dry-run` prints."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..engine.device import peak_bytes
from .loop import LossModule
from .prefetch import prefetch
from .recipe import Recipe
from .state import TrainState, trainable_parameters
from .tasks import Shard, training_task

STEPS = 3  # measured steps, after a warm-up step


def estimate_run(recipe: Recipe, data: Path | None, out: Path | None, device: torch.device) -> dict[str, Any]:
    """Find the data, build the network, and train it for a few steps that are discarded. Only the picture cache is
    written to.

    Args:
        recipe: to look at.
        data: folder that its data folders lie in; without it nothing is measured.
        out: folder of the run, for what would be written.
        device: where to compute.

    Returns:
        By name: parameters; of the data what `tasks.Source.told` says, "samples_per_epoch" and "skipped"; for each
        phase
        "seconds_per_step" (median), "gmacs_per_sample" (multiply-accumulates of convolutions and matrix products in
        a forward pass, in 1e9) and "peak_bytes" (of the process on a CPU, of torch on a GPU, up to then);
        "steps", "epochs" and "minutes" that the run would take; and "writes", the files.

    Raises:
        UsageError: see `loop.train`.
    """
    task = training_task(recipe.kind)
    state = TrainState(task, recipe, device)
    plan: dict[str, Any] = {
        "device": str(device),
        "parameters": sum(p.numel() for p in state.net.parameters()),
        "trained_parameters": trainable_parameters(state.net),
        "checkpoint_bytes": _checkpoint_bytes(state),
    }
    if data is not None:
        source = task.dataset(recipe, data, Shard(0, 1, device))
        plan |= {**source.description, "skipped": list(source.skipped), "samples_per_epoch": source.samples}
        plan["phases"] = []
        with closing(prefetch(source.pools, 0, device)) as pools:
            before = time.perf_counter()
            pool = next(pools)
            plan["seconds_per_pool"] = time.perf_counter() - before
        for phase in recipe.phases:
            plan["phases"].append(asdict(phase) | _measure(task, recipe, state, pool, phase.crop, phase.batch))
        plan |= _length(recipe, plan["phases"], source.samples)
    place = out or Path("OUT")
    names = (
        "checkpoint.pt",
        f"step-*.pt (the last {recipe.keep})",
        "best.pt",
        "log.jsonl",
        "curve.png",
        "sheets/*.jpg",
    )
    plan["writes"] = [str(place / name) for name in (*names, "card.md")]
    return plan


def _measure(task: Any, recipe: Recipe, state: TrainState, pool: Any, crop: int, batch: int) -> dict[str, float | None]:
    step = LossModule(task, state.net, recipe)
    device = next(state.net.parameters()).device
    rows = recipe.pool // batch
    seconds, flops = [], 0
    for number in range(STEPS + 1):
        generator = torch.Generator().manual_seed(number)
        sample = task.batch(pool, number % rows, rows, crop, generator).to(device)
        before = time.perf_counter()
        if number == 0:
            with FlopCounterMode(display=False) as counter:
                loss = step(sample, generator, number)[0]
            flops = counter.get_total_flops()
        else:
            loss = step(sample, generator, number)[0]
        loss.backward()
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.update_ema(recipe.ema)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - before)
    return {
        "seconds_per_step": statistics.median(seconds[1:]),
        "gmacs_per_sample": flops / 2e9 / batch,
        "peak_bytes": peak_bytes(device),
    }


def _length(recipe: Recipe, phases: list[dict[str, Any]], epoch: int) -> dict[str, float]:
    """Steps, minutes and epochs of the whole run, each phase at its own speed."""
    steps = minutes = samples = before = 0.0
    for phase in phases:
        fraction, before = phase["until"] - before, phase["until"]
        count = fraction * (recipe.minutes * 60 / phase["seconds_per_step"] if recipe.minutes > 0 else recipe.steps)
        steps += count
        samples += count * phase["batch"]
        minutes += count * phase["seconds_per_step"] / 60
    return {"steps": round(steps), "minutes": minutes, "epochs": samples / max(1, epoch)}


def _checkpoint_bytes(state: TrainState) -> int:
    """Weights, their average and the optimiser's two moments."""
    weights = sum(p.numel() * p.element_size() for p in state.net.parameters())
    return 2 * weights + 2 * 4 * trainable_parameters(state.net)


def lines(plan: Mapping[str, Any]) -> list[str]:
    """The plan in words."""
    lines = [f"device            {plan['device']}"]
    lines.append(f"parameters        {plan['parameters']:,} ({plan['trained_parameters']:,} trained)")
    if "phases" not in plan:
        lines.append("data              not looked at: give --data to find it and to measure steps")
    else:
        lines += _data_lines(plan)
    lines.append(f"each checkpoint   {plan['checkpoint_bytes'] / 1e6:,.1f} MB")
    return lines + [f"would write       {name}" for name in plan["writes"]]


def _data_lines(plan: Mapping[str, Any]) -> list[str]:
    lines = []
    if "pictures" in plan:
        lines.append(
            f"data              {plan['pictures']:,} pictures, {plan['megapixels']:,} megapixels; "
            f"{plan['held_out']} kept back; {len(plan['skipped'])} skipped"
        )
        lines += [f"pairs             {count:,} in {place}" for place, count in plan["pairs"].items()]
        lines += [f"licence           {name}: {count:,} files" for name, count in plan["licences"].items()]
    lines.append(f"an epoch          {plan['samples_per_epoch']:,} samples")
    for phase in plan["phases"]:
        peak = f", peak {phase['peak_bytes'] / 2**30:.2f} GiB" if phase["peak_bytes"] else ""
        lines.append(
            f"up to {phase['until']:<12.0%}{phase['batch']} crops of {phase['crop']} x {phase['crop']}: "
            f"{phase['seconds_per_step']:.3f} s a step, {phase['gmacs_per_sample']:.3f} GMACs a sample{peak}"
        )
    lines.append(f"a pool            {plan['seconds_per_pool']:.2f} s for the first, with the start of its process")
    lines.append(
        f"the run           {plan['steps']:,} steps, {plan['minutes']:,.1f} minutes, {plan['epochs']:,.2f} epochs"
    )
    return lines
