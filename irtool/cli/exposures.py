"""irtool restore A B C --task hdr: one picture of several exposures of a scene."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..diffusion.sampling import Sampling
from ..errors import EXIT_OK, UsageError
from ..targets import STDIO, Item, gather, make_folder, make_items, resolve_existing
from . import options
from .batch import STATUSES, JobPlan, Request, Run, StatusRecord, outcome, read, report
from .output import Output

if TYPE_CHECKING:
    from ..models.base import Progress
    from ..models.prior import PriorModel
    from ..picture import Picture
    from ..result import Result

HDR = "hdr"
STEPS = 100


def named(tasks: Sequence[str] | None) -> bool:
    """Whether the tasks ask for exposures to be fused.

    Raises:
        UsageError: they ask for something else too.
    """
    words = [word.strip().lower() for task in tasks or () for word in task.split(",")]
    if HDR in words and len(words) > 1:
        raise UsageError("--task hdr makes one picture of all inputs; nothing else is removed.", "Name it alone.")
    return HDR in words


def fuse_exposures(request: Request, sampling: Sampling, others: Mapping[str, Any]) -> int:
    """Fuse the inputs of a request by GDP into one picture, in the size, format and place of the first.

    Args:
        request: the options; its model must be a diffusion prior.
        sampling: steps and seed.
        others: options without a meaning here by their flags; true where they were given.

    Raises:
        UsageError: there are not 2 or 3 inputs, another option was given, or the model is no diffusion prior.
        NothingToDoError, UnavailableError: as `restore_batch`.
    """
    found = _checked(request, sampling, others)
    items = make_items(
        [str(found[0])], output=request.output, recursive=False,
        format=None if request.format == "preserve" else request.format, others=(*found[1:], *request.others),
    )  # fmt: skip
    items, skipped = resolve_existing(items, request.existing or "error")
    run = Run(Output(json=request.json, quiet=request.quiet, verbose=request.verbose, log=request.log), STATUSES)
    for item in skipped:
        run.count(item, "skipped", {})
    if not items or request.dry_run:
        for item in items:
            report(run, item, StatusRecord(f"fuse {len(found)} exposures", {"status": "planned"}))
        return run.summary(EXIT_OK)
    options.set_threads(request.threads)
    from .. import engine
    from ..api import cached_model
    from ..models.prior import PriorModel

    device = engine.pick_device(request.device)
    model = cached_model(request.model)
    if not isinstance(model, PriorModel):
        raise UsageError(f"--task hdr needs a diffusion prior, and {request.model} is none.", "Give --model adm-256.")
    model.placed.to(device, engine.pick_dtype(request.dtype, device))
    assert items[0].target is not None
    make_folder(items[0].target.parent)

    def fused(item: Item, first: Picture) -> Result:
        return _fused(model, first, found, sampling, request.model, run.bar.tiles)

    def written(item: Item, result: Result) -> StatusRecord:
        assert item.target is not None
        notes: list[str] = []
        result.save(item.target, format=item.format, quality=request.quality, strip=request.strip, notes=notes,
                    replace=request.policy == "overwrite")  # fmt: skip
        decision = JobPlan(result.plan, record={"exposures": list(map(str, found))})
        done = outcome("restored", result.plan, decision, result)
        done.record["notes"] += notes
        return replace(done, words=f"fused {len(found)} exposures in {result.seconds:.1f} s")

    results = run.here(items, partial(read, budget=request.budget()), fused, written)
    return run.process(items, results, partial(report, run))


def _checked(request: Request, sampling: Sampling, others: Mapping[str, Any]) -> list[Path]:
    """The exposures that a request names; see `fuse_exposures` for the errors."""
    for flag, given in others.items():
        if given:
            raise UsageError(f"{flag} has no meaning with --task hdr.", "Leave it out.")
    if replace(sampling, steps=0, seed=0) not in (Sampling(), Sampling(guidance="gdp")):
        raise UsageError("--task hdr is sampled by gdp: only --steps and --seed can be set.", "Leave the others out.")
    if STDIO in request.inputs or request.output == STDIO:
        raise UsageError("--task hdr reads files and writes a file.", "Name them.")
    found = [one.path for one in gather(request.inputs, recursive=False) if one is not None]
    if len(found) not in (2, 3):
        raise UsageError(f"--task hdr takes 2 or 3 exposures of a scene, not {len(found)}.", "Name their files.")
    return found


def _fused(
    model: PriorModel, first: Picture, paths: Sequence[Path], sampling: Sampling, reference: str, on_progress: Progress
) -> Result:
    """The exposures as one picture, with the metadata of the first."""
    from ..inputs import to_tensor
    from ..models.prior import fuse
    from ..picture import read as decode
    from ..plan import Plan, Step
    from ..result import Result

    started = time.perf_counter()
    exposures = [to_tensor(picture)[None] for picture in (first, *map(decode, paths[1:]))]
    for path, exposure in zip(paths, exposures, strict=True):
        if exposure.shape != exposures[0].shape:
            wide, tall, width, height = exposure.shape[3], exposure.shape[2], first.width, first.height
            raise UsageError(f"{path} has {wide}x{tall} pixels, {paths[0]} {width}x{height}.", "Align them first.")
    pixels = fuse(model, exposures, sampling.steps or STEPS, sampling.seed, on_progress)[0]
    plan = Plan((Step({"lowlight": 1.0}, reference, sampling=sampling),), "exposures fused")
    picture = first.with_pixels(pixels.permute(1, 2, 0).contiguous().numpy())
    return Result(picture, plan, seconds=time.perf_counter() - started)
