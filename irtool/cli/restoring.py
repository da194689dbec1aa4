"""What `restore` and `instruct` share: from options that have been checked to pictures that have been written."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import EXIT_OK, UsageError
from . import options
from .output import Output

if TYPE_CHECKING:
    import numpy as np

    from ..api import Result
    from ..detect import Diagnosis
    from ..picture import Picture
    from ..plan import Plan
    from .jobs import Job
    from .run import Loaded, Run
    from .trail import Trail

Outcome = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Request:
    """The options of a run, as given; the names are those of the flags.

    Raises:
        UsageError: a value is out of range. Everything that can be wrong with a request is said before torch is
            imported.
    """

    inputs: Sequence[str]
    model: str
    detector: str
    controller: str = ""
    output: str | None = None
    recursive: bool = False
    existing: str | None = None
    format: str = "preserve"
    quality: int | None = None
    strip: bool = False
    side_by_side: bool = False
    dry_run: bool = False
    device: str = "auto"
    dtype: str = "auto"
    tile: str = "auto"
    max_memory: str | None = None
    ensemble: bool = False
    threads: int | None = None
    preview_steps: bool = False
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    mask: Path | None = None
    root: Path | None = None

    def __post_init__(self) -> None:
        from ..picture.formats import format_named

        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UsageError(f"--quality lies from 1 to 100, not {self.quality}.")
        if self.format != "preserve" and not format_named(self.format).writable:
            raise UsageError(f"irtool does not write {self.format}.", "Use --format png.")
        if self.tile not in ("auto", "off") and not self.tile.isdecimal():
            raise UsageError(f"--tile cannot be '{self.tile}'.", "Give auto, off, or a number of pixels.")
        options.one_of(self.dtype, options.DTYPES, "--dtype")
        options.check_device(self.device)
        if self.max_memory is not None:
            options.parse_bytes(self.max_memory)
        if self.existing is not None:
            options.one_of(self.existing, options.EXISTING, "--existing")


@dataclass(frozen=True)
class Decision:
    """What is to be done to one picture.

    Attributes:
        plan: settled without looking at the picture, or a function that makes it of what is found there.
        told: goes into the JSON record.
        answer: set for a question: nothing is planned or written, and this says the answer.
    """

    plan: Plan | Callable[[Diagnosis], Plan]
    told: Mapping[str, Any] = field(default_factory=dict)
    answer: Callable[[Diagnosis], str] | None = None


def carry_out(request: Request, decide: Callable[[Job], Decision], models: Sequence[str]) -> int:
    """Restore the pictures of a request, or say what would be done; returns the exit code.

    Args:
        request: the options.
        decide: what to do with a picture; called before any is read.
        models: restorers that the decisions name, loaded before any picture is read.

    Raises:
        UsageError, NothingToDoError, UnavailableError: as `jobs.make_jobs` and `api.prepare`.
    """
    from .jobs import has_folder, make_folder, make_jobs, settle_existing
    from .run import Run

    policy = request.existing or ("skip" if has_folder(request.inputs) else "error")
    jobs = make_jobs(
        request.inputs,
        output=request.output,
        recursive=request.recursive,
        format=None if request.format == "preserve" else request.format,
        side_by_side=request.side_by_side,
        preview_steps=request.preview_steps,
        root=request.root,
    )
    dry_run = request.dry_run
    questions = [replace(job, target=None, side=None, trail=None) for job in jobs if decide(job).answer is not None]
    jobs = [job for job in jobs if decide(job).answer is None]
    to_stdout = any(job.target is None for job in jobs)
    if request.json and to_stdout and not dry_run:
        raise UsageError("--json and a picture on stdout exclude each other.", "Name a file with -o.")
    jobs, skipped = settle_existing(jobs, policy)
    jobs = questions + jobs
    decisions = {job: decide(job) for job in jobs}
    out = Output(
        json=request.json,
        quiet=request.quiet,
        verbose=request.verbose,
        stdout_taken=to_stdout and not dry_run,
    )
    kinds = ("restored", "clean", "planned", "answered", "skipped")
    run = Run(out, kinds, "Run the same command with --existing skip to go on.")
    for job in skipped:
        _tell_skipped(run, job)
    if dry_run:
        for job, decision in decisions.items():
            if not callable(decision.plan):
                _tell(run, job, outcome("planned", decision.plan, told=decision.told))
        jobs = [job for job in jobs if callable(decisions[job].plan)]
    if not jobs:
        return run.summary(EXIT_OK)
    options.set_threads(request.threads)
    wanted = models if len(jobs) > len(questions) and not dry_run else ()
    _load(request, wanted, looks=any(callable(decisions[job].plan) for job in jobs), out=out)
    if not dry_run:
        for folder in dict.fromkeys(job.target.parent for job in jobs if job.target is not None):
            make_folder(folder)
    hand = _Hand(request, decisions, run)
    return run.carry(jobs, hand.work, hand.write, lambda job, made: _tell(run, job, made))


def _load(request: Request, models: Sequence[str], *, looks: bool, out: Output) -> None:
    """Load what will be needed, so that what is missing is said before any picture is read."""
    from .. import api
    from ..models.spandrel import terms

    for model in dict.fromkeys(models):
        api.prepare(model=model, controller=request.controller, device=request.device)
        if told := terms(api.info(model, request.controller).name):
            out.note(f"{model}: {told}")
    api.prepare(detector=request.detector if looks else None, device=request.device)


class _Made(NamedTuple):
    """A result, the picture before where it is to be seen beside it, and a diffusion model's way there."""

    result: Result
    before: Picture | None = None
    trail: Trail | None = None


@dataclass(frozen=True)
class _Hand:
    """Does to one picture after the other what was decided."""

    request: Request
    decisions: Mapping[Job, Decision]
    run: Run

    def work(self, job: Job, loaded: Loaded) -> _Made:
        """Restore a picture, or only look at it."""
        from .. import api
        from ..plan import Plan
        from .trail import Trail

        request, decision = self.request, self.decisions[job]
        picture, original = loaded
        if request.dry_run or decision.answer is not None:
            assert callable(decision.plan)
            diagnosis = api.detect(picture, model=request.detector, device=request.device)
            made = decision.plan(diagnosis) if decision.answer is None else Plan((), decision.answer(diagnosis))
            return _Made(api.Result(picture, made, diagnosis))
        trail = None if job.trail is None else Trail()
        memory = None if request.max_memory is None else options.parse_bytes(request.max_memory)
        result = api.restore(
            picture, plan=decision.plan, mask=request.mask, detector=request.detector, device=request.device,
            dtype=request.dtype, tile=request.tile, max_memory=memory, ensemble=request.ensemble,
            on_progress=self.run.bar.tiles, on_state=trail,
        )  # fmt: skip
        # Pictures are large: the one before is kept only for those who want to see it.
        return _Made(replace(result, original=original), picture if job.side is not None else None, trail)

    def write(self, job: Job, made: _Made) -> Outcome:
        """Write what came of it."""
        from ..picture import side_by_side

        request, result, decision = self.request, made.result, self.decisions[job]
        if decision.answer is not None:
            return outcome("answered", result.plan, result, decision.told)
        if request.dry_run:
            return outcome("planned", result.plan, result, decision.told)
        if job.target is None:
            sys.stdout.buffer.write(result.encode(job.format, quality=request.quality, strip=request.strip))
            sys.stdout.buffer.flush()
        else:
            result.save(job.target, format=job.format, quality=request.quality, strip=request.strip)
        if job.side is not None and made.before is not None:
            _write_drawn(side_by_side(made.before.pixels, result.picture.pixels), job.side)
        if job.trail is not None and made.trail:
            _write_drawn(made.trail.sheet(), job.trail)
        return outcome("clean" if result.untouched else "restored", result.plan, result, decision.told)


def outcome(status: str, plan: Plan, result: Result | None = None, told: Mapping[str, Any] | None = None) -> Outcome:
    """What became of a picture, in words and as a record; small, so that the picture itself can be let go."""
    record: dict[str, Any] = {"status": status, **(told or {}), "plan": plan.to_dict()}
    if result is not None:
        record |= {
            "diagnosis": None if result.diagnosis is None else result.diagnosis.to_dict(),
            "width": result.picture.width,
            "height": result.picture.height,
            "seconds": round(result.seconds, 3),
            "tiles": result.tiles,
            "peak_bytes": result.peak_bytes,
            "notes": list(result.picture.notes),
        }
    if status == "clean":
        found = None if result is None else result.diagnosis
        why = "clean" if found is not None and found.is_clean else plan.reason
        return f"{why}, passed through untouched", record
    if status == "answered":
        return plan.reason, record
    if status == "restored":
        return f"undid {', then '.join(map(str, plan.steps))} in {record['seconds']:.1f} s", record
    return str(plan), record


def _tell(run: Run, job: Job, made: Outcome) -> None:
    """Print what became of a job."""
    from .run import head

    out, (words, record) = run.out, made
    status = record["status"]
    run.counts[status] += 1
    out.record(head(job, status) | record)
    for note in record.get("notes", ()):
        out.note(f"note: {job.name}: {note}")
    if status in ("planned", "answered") or not out.quiet:
        out.result(f"{job.name}{'' if job.target is None else f' -> {job.target}'}: {words}")
    if record.get("tiles"):
        peak = "unknown" if record["peak_bytes"] is None else f"{record['peak_bytes'] / 2**20:.0f} MiB"
        size = f"{record['width']}x{record['height']}"
        out.detail(f"{job.name}: {record['plan']['reason']}; {size}, {record['tiles']} tile(s), peak memory {peak}")


def _tell_skipped(run: Run, job: Job) -> None:
    from .run import head

    run.counts["skipped"] += 1
    run.out.detail(f"{job.name}: {job.target} exists already, skipped")
    run.out.record(head(job, "skipped"))


def _write_drawn(page: np.ndarray, path: Path) -> None:
    """Write a drawn (H, W, 3) uint8 page."""
    from ..picture import Picture, write

    write(Picture(page.astype("float32") / 255), path)
