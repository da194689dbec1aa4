"""irtool restore: pictures in, better pictures out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..diffusion.sampling import Sampling
from ..errors import UsageError
from ..shard import parse as parse_shard
from ..weights.registry import DEFAULT_DETECTOR, DEFAULT_RESTORER
from . import options
from .presets import Preset

if TYPE_CHECKING:
    from ..detection import Diagnosis
    from ..plan import Plan


def restore(
    inputs: options.Inputs,
    output: options.Output = None,
    recursive: options.Recursive = False,
    auto: Annotated[bool, typer.Option("--auto", help="Find what is wrong and undo it (the default).")] = False,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", metavar="TASK", help="What to undo, such as denoise; repeat it or use commas."),
    ] = None,
    adapter: Annotated[
        Path | None,
        typer.Option("--adapter", "--offsets", metavar="FILE", help="A task of your own, from the recipe add-task."),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option("--mask", metavar="FILE", help="A picture of the same size, white where something is missing."),
    ] = None,
    scale: options.Scale = None,
    upscaler: options.Upscaler = "",
    strength: options.Strength = 1.0,
    preset: Preset = None,
    existing: options.Existing = None,
    name: options.NameOption = None,
    format: options.Format = "preserve",
    quality: options.Quality = None,
    strip: options.Strip = False,
    side_by_side: options.SideBySide = False,
    ask: Annotated[
        bool, typer.Option("--ask", help="Show input and result of each picture, and wait whether to keep it.")
    ] = False,
    review: options.Review = False,
    dry_run: options.DryRun = False,
    limit: options.Limit = None,
    watch: options.Watch = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    tile: options.Tile = "auto",
    padding: options.Padding = "auto",
    max_memory: options.MaxMemory = None,
    ensemble: options.Ensemble = False,
    threads: options.Threads = None,
    jobs: options.Jobs = "1",
    shard: options.ShardOption = None,
    on: options.On = None,
    offline: options.Offline = False,
    model: options.Model = DEFAULT_RESTORER,
    detector: options.Detector = DEFAULT_DETECTOR,
    controller: options.Controller = "",
    steps: options.Steps = None,
    sampler: options.Sampler = None,
    seed: options.Seed = None,
    guidance: options.Guidance = None,
    operator: options.Operator = None,
    guidance_strength: options.GuidanceStrength = None,
    published: options.Published = False,
    preview_steps: options.PreviewSteps = False,
    log: options.Log = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> int:
    """Find and undo what is wrong.

    What is wrong is found by itself, or named with --task. A clean photograph is passed through untouched. --scale
    enlarges, with --auto or --task after all else. The input is never written to, and an interrupted run is resumed by
    the same command. Options are also taken from the environment, a --preset and your configuration, in this order.
    --task hdr makes one picture of two or three exposures of a scene instead; its --model is a diffusion prior.
    """
    from ..experts import is_best
    from ..plan import Plan, enlarging, plan_auto, plan_tasks
    from . import exposures
    from .batch import JobPlan, Request, restore_batch

    if exposures.named(task):
        others = {"--auto": auto, "--adapter": adapter, "--mask": mask, "--ask": ask, "--ensemble": ensemble,
                  "--side-by-side": side_by_side, "--preview-steps": preview_steps, "--recursive": recursive,
                  "--controller": controller, "--strength": strength != 1, "--max-memory": max_memory,
                  "--scale": scale is not None, "--name": name, "--limit": limit, "--watch": watch,
                  "--review": review}  # fmt: skip
        request = Request(inputs, model, detector, output=output, existing=existing, format=format, quality=quality,
                          strip=strip, dry_run=dry_run, device=device, dtype=dtype, threads=threads, json=json,
                          quiet=quiet, verbose=verbose, log=log)  # fmt: skip
        settings = options.sampling(steps, sampler, seed, guidance, operator, guidance_strength, published)
        return exposures.fuse_exposures(request, settings or Sampling(), others)
    if auto + bool(task) + (adapter is not None) > 1:
        raise UsageError("--auto, --task and --adapter exclude each other.", "Leave one of them out.")
    if mask is not None:
        _check_mask(mask, auto or adapter is not None)
        task = task or ["missing"]
    if operator is not None and not auto and not task and adapter is None:
        from ..diffusion.observation import tasks_of

        task = list(tasks_of(operator))
    upscale = options.upscale(scale, upscaler)
    if not 0 <= strength <= 1:
        raise UsageError(f"--strength lies from 0 to 1, not {strength:g}.")
    more: dict[str, Any] = {"controller": controller}
    more["sampling"] = options.sampling(steps, sampler, seed, guidance, operator, guidance_strength, published)
    request = Request(
        inputs, model, detector, controller=controller, output=output, recursive=recursive, existing=existing,
        format=format, quality=quality, strip=strip, side_by_side=side_by_side, dry_run=dry_run, device=device,
        dtype=dtype, tile=tile, padding=padding, max_memory=max_memory, threads=threads, preview_steps=preview_steps,
        json=json, quiet=quiet, verbose=verbose, mask=mask, ensemble=ensemble, ask=ask,
        jobs=jobs, on=on, shard=None if shard is None else parse_shard(shard), name=name, limit=limit, log=log,
        watch=watch, review=review,
    )  # fmt: skip
    plan: Plan | None = None
    planner: Callable[[Diagnosis], Plan] | None = None
    models = [model]
    if adapter is not None:
        from ..models.lora import base_task

        plan = plan_tasks([base_task(adapter)], strength, model, adapter=str(adapter), **more)
    elif task:
        plan = plan_tasks(task, strength, model, **more)
        _check_masked(mask, plan)
        models = [step.model for step in plan.steps] if is_best(model) else models
    elif upscale is not None and not auto:
        plan, models = Plan(reason="as asked"), []
    else:
        planner = partial(enlarging, partial(plan_auto, strength=strength, model=model, **more), upscale)
    decision = JobPlan(plan and replace(plan, upscale=upscale), planner, upscale=upscale)
    return restore_batch(request, lambda source: decision, models)


def _check_masked(mask: Path | None, plan: Plan) -> None:
    """Raise a UsageError where --mask says what is missing and no step restores it."""
    if mask is not None and not any("missing" in step.task_weights for step in plan.steps):
        raise UsageError("--mask needs --task missing, which is not among the tasks.", "Add it, or leave --task out.")


def _check_mask(mask: Path, other: bool) -> None:
    """Raise a UsageError where --mask is no file, or stands beside another way to say what is to be done."""
    if other:
        raise UsageError("--mask goes with --task missing, which it stands for.", "Leave --auto and --adapter out.")
    if not mask.is_file():
        raise UsageError(f"--mask {mask} is not a file.")
