"""Runs over pictures: what `restore`, `instruct` and `detect` share.

A run is: targets -> plans -> (read | restore | write) -> one line or record per picture, and a summary. Every picture
is decided on once, before any is read.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from .. import cores, memory
from ..account import Account
from ..errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_SOME_FAILED, IrtoolError, PictureError, UsageError, explained
from ..memory import Budget, peak_resident_bytes
from ..targets import Item, check_targets, is_done, make_folders, may_replace, resolve_existing
from . import options, review
from .options import Request
from .output import Bar, Output, in_flags, write_stdout

if TYPE_CHECKING:
    from ..detection import Diagnosis
    from ..engine.pipeline import JobResult
    from ..engine.workers import Stages
    from ..page.review import Small
    from ..picture import Frames, Picture
    from ..plan import Plan, Upscale
    from ..result import Result
    from .trajectory import Trajectory

    Results = Generator[JobResult[Item, Any], None, None]

STATUSES = ("restored", "clean", "planned", "answered", "skipped")


def _check_first(path: Path, budget: Budget) -> None:
    """Refuse a picture that will not fit by its header, before torch is loaded: the refusal costs nothing."""
    from ..picture import probe

    _, width, height = probe(path)
    budget.require(str(path), (width, height), 0.0)


@dataclass(frozen=True)
class JobPlan:
    """What is to be done to one picture.

    Attributes:
        plan: made without looking at the picture; None where `planner` makes it of what is found there.
        planner: see `plan`.
        record: goes into the JSON record.
        answer: set for a question: nothing is planned or written, and this says the answer.
        upscale: the enlargement that the plan ends with; or None.
    """

    plan: Plan | None = None
    planner: Callable[[Diagnosis], Plan] | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    answer: Callable[[Diagnosis], str] | None = None
    upscale: Upscale | None = None


@dataclass(frozen=True)
class StatusRecord:
    """What became of a picture, in words and as a record, without the picture itself; `item` has the outputs' names."""

    words: str
    record: dict[str, Any]
    item: Item | None = None


class Run:
    """Counts and prints what becomes of the pictures of a run.

    Args:
        out: where to print.
        statuses: what a picture can end in, besides "failed".
        hint: said when the run is interrupted with more than one picture to do.
    """

    def __init__(self, out: Output, statuses: Sequence[str], hint: str = "") -> None:
        self.out, self.hint = out, hint
        self.counts = dict.fromkeys((*statuses, "failed"), 0)
        self.bar = Bar()
        self.begun = time.perf_counter()
        self.account: Account | None = None

    def results(
        self,
        items: Sequence[Item],
        make: Callable[..., Stages],
        *,
        jobs: str,
        device: str,
        threads: int | None,
        ahead: bool = True,
        on: str | None = None,
    ) -> Results:
        """The results of items: worked on in this process, or shared out among several, each with part of the threads.

        Args:
            items: what is worked on.
            make: makes the stages: given the number of the process; or, in this one, None and this run.
            jobs, device, threads: as the flags.
            ahead: read the next picture beside the work; without it one is held at a time.
            on: the cluster that does it instead (`irtool.cluster`).
        """
        if on is not None:
            from ..cluster import on_ray

            return on_ray(items, make, on, threads=threads, gpu=device.startswith("cuda"), on_end=self._end)
        count = 1 if jobs == "1" else options.jobs(jobs, len(items), device)
        if count > 1:
            from ..engine.workers import parallel

            share = max(1, options.thread_count(threads) // count)
            return parallel(
                items, make, count, threads=share, overlap=ahead and cores.gpus(device) > 0,
                on_remark=self.out.note, on_begin=lambda item: self.bar.begin(item.name), on_end=self._end,
            )  # fmt: skip
        options.set_threads(threads)
        stages = make(None, self)
        for remark in stages.load():
            self.out.note(remark)
        return self.here(items, stages.read, stages.work, stages.write, ahead=ahead)

    def here(
        self,
        items: Sequence[Item],
        read: Callable[[Item], Picture],
        work: Callable[[Item, Picture], Any],
        write: Callable[[Item, Any], Any],
        *,
        ahead: bool = True,
    ) -> Results:
        """The results of items, carried through the stages in this process."""
        from ..engine.pipeline import READ_AHEAD, pipelined

        def shown(item: Item, picture: Picture) -> Any:
            self.bar.begin(item.name)
            try:
                return work(item, picture)
            finally:
                self.bar.end()

        return pipelined(items, read, shown, write, ahead=READ_AHEAD if ahead else 0)

    def _end(self) -> None:
        self.bar.end()

    def process(self, items: Sequence[Item], results: Results, report: Callable[[Item, Any], None]) -> int:
        """Take the result of every item; `report` prints what became of it. Returns the exit code."""
        last: Exception | None = None
        try:
            with closing(results), self.out.progress(len(items)) as self.bar:
                for done in results:
                    if isinstance(done.error, BrokenPipeError):
                        raise done.error
                    if done.result is None:
                        last = done.error
                        self.failed(done.item, done.error)
                    else:
                        report(done.item, done.result)
        except KeyboardInterrupt:
            self.out.note("interrupted; nothing half-written is left")
            if self.hint and len(items) > 1:
                self.out.note(f"hint: {self.hint}")
            return self.summary(EXIT_INTERRUPTED)
        if last is None:
            return self.summary(EXIT_OK)
        # Of one picture alone, the kind of its error is the answer.
        return self.summary(last.exit_code if len(items) == 1 and isinstance(last, IrtoolError) else EXIT_SOME_FAILED)

    def count(self, item: Item, status: str, record: Mapping[str, Any]) -> None:
        """Count a picture and print its JSON record."""
        self.counts[status] += 1
        head = {"type": "image", "input": "-" if item.source is None else str(item.source), "status": status}
        if item.target is not None:
            head["output"] = str(item.target)
            if self.account is not None and item.source is not None:
                self.account.add(item.source, item.target, status, record)
        self.out.record(head | dict(record))

    def failed(self, item: Item, error: Exception | None) -> None:
        """Say what went wrong with one picture."""
        error = error or RuntimeError("no result")
        self.out.failure(error, item.name)
        known = explained(error)
        message = in_flags(known.message) if known is not None else f"{type(error).__name__}: {error}"
        self.count(item, "failed", {"error": message, "hint": in_flags(getattr(error, "hint", ""))})

    def summary(self, code: int) -> int:
        """Print the closing record or line, close the account, and return the exit code."""
        if self.account is not None:
            self.account.close()
        seconds = round(time.perf_counter() - self.begun, 3)
        peak = peak_resident_bytes()
        totals = {"seconds": seconds, "peak_resident_bytes": peak, "exit_code": code}
        self.out.record({"type": "summary", **self.counts, **totals})
        if peak is not None:
            self.out.detail(f"peak memory of the process, libraries included: {peak / 1e6:.0f} MB")
        # One picture has had its own line, unless there was nothing to do about it.
        if sum(self.counts.values()) > 1 or self.counts.get("skipped"):
            counts = ", ".join(f"{count} {status}" for status, count in self.counts.items() if count)
            self.out.note(f"{counts} in {seconds:.1f} s")
        return code


@overload
def read(item: Item, budget: Budget) -> Picture: ...
@overload
def read(item: Item, budget: Budget, several: bool) -> Picture | Frames: ...
def read(item: Item, budget: Budget, several: bool = False) -> Picture | Frames:
    """Decode the input of an item; a file of several frames, which is refused otherwise, is opened under `several`."""
    from ..picture import FramesError, read_frames
    from ..picture import read as decode

    if item.format == "AVIF":
        budget = Budget(budget.limit, per_pixel=budget.per_pixel + memory.AS_AVIF, floor=budget.floor)
    source: Any = item.source
    if source is None:
        source = sys.stdin.buffer
    elif not isinstance(source, Path):  # an address: irtool.remote
        source = source.read_bytes(budget.room() // 2)
    try:
        return decode(source, name=item.name, budget=budget)
    except FramesError:
        if not several or item.source is None:  # stdin was read to its end
            raise
        return read_frames(source, name=item.name, budget=budget)


def restore_batch(request: Request, decide: Callable[[Path | None], JobPlan], models: Sequence[str]) -> int:
    """Restore the pictures of a request, or say what would be done; returns the exit code.

    Args:
        request: the options.
        decide: what to do with the picture of a path (None: stdin); called once for each, before any is read.
        models: restorers that the decisions name, loaded before any picture is read.

    Raises:
        UsageError, NothingToDoError, UnavailableError: as `targets.make_items` and `api.prepare`.
    """
    if request.watch:
        from .watch import watch

        return watch(request, partial(_restore_batch, request, decide, models))
    return _restore_batch(request, decide, models)


def _restore_batch(
    request: Request,
    decide: Callable[[Path | None], JobPlan],
    models: Sequence[str],
    only: Collection[Path] | None = None,
) -> int:
    """`restore_batch` of the pictures that are there, or of some of them."""
    items = [item for item in request.items() if only is None or item.source in only]
    decisions = {item.source: decide(item.source) for item in items}
    if request.name is not None:
        items = _named(items, decisions, request.others)
    questions = [item for item in items if decisions[item.source].answer is not None]
    items = [item for item in items if decisions[item.source].answer is None]
    to_stdout = any(item.target is None for item in items) and not request.dry_run
    if request.json and to_stdout:
        raise UsageError("--json and a picture on stdout exclude each other.", "Name a file with -o.")
    items, skipped = resolve_existing(items, request.policy)
    items = [replace(item, target=None, side=None, trajectory=None) for item in questions] + items[: request.limit]
    out = Output(
        json=request.json, quiet=request.quiet, verbose=request.verbose, stdout_taken=to_stdout, log=request.log
    )
    run = Run(out, STATUSES, "Run the same command with --existing skip to go on.")
    for item in skipped:
        out.detail(f"{item.name}: {item.target} exists already, skipped")
        run.count(item, "skipped", {})
    if request.dry_run:
        for item in items:
            if (plan := decisions[item.source].plan) is not None:
                report(run, item, outcome("planned", plan, decisions[item.source]))
        items = [item for item in items if decisions[item.source].plan is None]
    if not items:
        return review.finish(request, out, run.summary(EXIT_OK))
    review.check(request, items)
    upscales = {d.upscale for d in (decisions[item.source] for item in items) if d.upscale is not None}
    largest = max((upscale.scale for upscale in upscales), default=1)
    needs_detector = any(decisions[item.source].plan is None for item in items)
    if request.max_memory is not None and len(items) == 1 and isinstance(items[0].source, Path):
        _check_first(items[0].source, request.budget(needs_detector, largest))
    computing = not request.dry_run and len(items) > len(questions)
    make = partial(
        _Restorer, request, decisions, models if computing else [], needs_detector, upscales if computing else ()
    )
    results = run.results(
        items, make, jobs=request.jobs, device=request.device, threads=request.threads,
        ahead=request.max_memory is None, on=request.on,
    )  # fmt: skip
    if not request.dry_run:
        make_folders(items)
        run.account = request.account() if request.is_shared_out or request.review else None
    return review.finish(request, out, run.process(items, results, lambda item, made: report(run, item, made)))


def _named(items: Sequence[Item], decisions: Mapping[Path | None, JobPlan], others: Sequence[Path]) -> list[Item]:
    """Items with the names that their plans give them, where those do not depend on what is found in a picture.

    Raises:
        UsageError: two of them would share an output, or an output is an input.
    """
    plans = {source: decision.plan for source, decision in decisions.items() if decision.plan}
    named = [item.for_plan(plans[item.source]) if item.source in plans else item for item in items]
    check_targets(named, others)
    return named


@dataclass(frozen=True)
class _Restored:
    """A result; where they are to be seen, the picture before, a diffusion model's way there, and a small copy."""

    result: Result
    before: Picture | None = None
    trajectory: Trajectory | None = None
    small: Small | None = None


class _Restorer:
    """Does to one picture after the other what was decided (`irtool.engine.workers.Stages`).

    Args:
        request, decisions: what is to be done.
        models: to be loaded; and the detector where it is needed, and what enlarges (`upscales`).
        number: of the process, where there are several: they take turns on the GPUs and share the memory; else None.
        run: shows the progress; None in another process.
    """

    def __init__(
        self, request: Request, decisions: Mapping[Path | None, JobPlan], models: Sequence[str], needs_detector: bool,
        upscales: Collection[Upscale], number: int | None, run: Run | None = None,
    ) -> None:  # fmt: skip
        if number is not None:
            request = replace(request, device=cores.device_of(request.device, number))
        self.request = request
        self.decisions, self.models, self.needs_detector, self.run = decisions, models, needs_detector, run
        self.upscales = upscales
        self.mask: Picture | None = None
        self.written: set[Path | None] = set()  # under --name
        self.budget = request.budget(needs_detector, max((upscale.scale for upscale in upscales), default=1))

    def load(self) -> list[str]:
        """Load what will be needed, so that what is missing is said before any picture is read."""
        from ..api import prepare

        request = self.request
        detector = request.detector if self.needs_detector else None
        infos = prepare(
            self.models, detector=detector, controller=request.controller, upscales=self.upscales, device=request.device
        )
        if request.mask is not None and not request.dry_run:
            from ..picture import read as decode

            self.mask = decode(request.mask)
        return [f"{model}: {remark}" for model, info in infos.items() for remark in info.remarks]

    def read(self, item: Item) -> Picture | Frames:
        """Decode a picture, or open a file of several frames."""
        return read(item, self.budget, several=True)

    def work(self, item: Item, picture: Picture | Frames) -> _Restored:
        """Restore a picture, or only look at it."""
        from ..api import detect, restore
        from ..picture import Picture
        from ..plan import Plan
        from ..result import Result

        request, decision = self.request, self.decisions[item.source]
        if not isinstance(picture, Picture):
            if not request.dry_run and decision.answer is None:
                from .frames import restore_file

                progress = self.run.bar.tiles if self.run else None
                result = restore_file(picture, item.format, request, decision, self.mask, self.budget, progress)
                return _Restored(result, picture.middle if item.side is not None else None)
            picture = picture.middle
        if request.dry_run or decision.answer is not None:
            diagnosis = detect(picture, model=request.detector, device=request.device)
            if decision.answer is not None:
                return _Restored(Result(picture, Plan((), decision.answer(diagnosis)), diagnosis))
            assert decision.planner is not None
            return _Restored(Result(picture, decision.planner(diagnosis), diagnosis))
        small = review.small(request, item, picture)
        trajectory = None
        if item.trajectory is not None:
            from .trajectory import Trajectory

            trajectory = Trajectory()
        result = restore(
            picture, plan=decision.plan, planner=decision.planner, mask=self.mask, detector=request.detector,
            device=request.device, dtype=request.dtype, tile=request.tile, padding=request.padding,
            max_memory=self.budget.limit,
            ensemble=request.ensemble, on_progress=self.run.bar.tiles if self.run else None, callback=trajectory,
        )  # fmt: skip
        if request.ask and self.run and not result.untouched:
            from .ask import keep

            result = keep(result, picture, item, self.run)
        # Pictures are large: the one before is kept only for those who want to see it.
        before = picture if item.side is not None else None
        return _Restored(result, before, trajectory, small)

    def write(self, item: Item, restored: _Restored) -> StatusRecord:
        """Write what came of it."""
        from ..picture import side_by_side, write_page

        request, result, decision = self.request, restored.result, self.decisions[item.source]
        item = item.for_plan(result.plan)
        if decision.answer is not None or request.dry_run:
            status = "planned" if decision.answer is None else "answered"
            return replace(outcome(status, result.plan, decision, result), item=item)
        if item.target in self.written:
            raise PictureError(f"{item.target} is the output of another picture, too.", "Use {stem} in --name.")
        lost: list[str] = []
        outputs = [path for path in item.outputs if request.policy != "skip" or not is_done(path)]
        if item.side in outputs and item.side is not None and restored.before is not None:
            page = side_by_side(restored.before.pixels, result.picture.pixels)
            write_page(page, item.side, replace=may_replace(item.side, request.policy), like=item.source)
        if item.trajectory in outputs and item.trajectory is not None and restored.trajectory:
            replaces = may_replace(item.trajectory, request.policy)
            write_page(restored.trajectory.sheet(), item.trajectory, replace=replaces, like=item.source)
        chosen: dict[str, Any] = {"quality": request.quality, "strip": request.strip, "notes": lost}
        if item.target is None:
            write_stdout(result.encode(item.format, **chosen))
        elif item.target in outputs and not isinstance(item.target, Path):  # an address: irtool.remote
            item.target.write_bytes(result.encode(item.format, **chosen))
        elif item.target in outputs:
            result.save(item.target, format=item.format, replace=may_replace(item.target, request.policy), **chosen)
        done = outcome("clean" if result.untouched else "restored", result.plan, decision, result)
        done.record["notes"] += lost
        if restored.small is not None:
            done.record["change"] = restored.small.keep(Path(request.output or ""), item, result)
        if request.name is not None:
            self.written.add(item.target)
        return replace(done, item=item)


def outcome(status: str, plan: Plan, decision: JobPlan, result: Result | None = None) -> StatusRecord:
    """What became of a picture."""
    record: dict[str, Any] = {"status": status, **decision.record, "plan": plan.to_dict()}
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
    rejected = "".join(f"; {one}" for one in plan.rejected)
    if status == "clean":
        diagnosis = None if result is None else result.diagnosis
        why = "clean" if diagnosis is not None and diagnosis.is_clean else plan.reason
        return StatusRecord(f"{why}, passed through untouched{rejected}", record)
    if status == "answered":
        return StatusRecord(plan.reason, record)
    if status == "restored":
        done = [f"undid {', then '.join(map(str, plan.removals))}"] if plan.removals else []
        if plan.upscale is not None:
            done.append(f"enlarged {plan.upscale.scale} times to {record['width']}x{record['height']}")
        return StatusRecord(f"{', then '.join(done)} in {record['seconds']:.1f} s{rejected}", record)
    return StatusRecord(str(plan), record)


def report(run: Run, item: Item, restored: StatusRecord) -> None:
    """Print what became of an item."""
    out, record, item = run.out, restored.record, restored.item or item
    status = record["status"]
    run.count(item, status, record)
    for note in record.get("notes", ()):
        out.note(f"note: {item.name}: {note}")
    words = f"{item.name}{'' if item.target is None else f' -> {item.target}'}: {in_flags(restored.words)}"
    if status in ("planned", "answered") or not out.quiet:
        out.result(words)
    else:
        out.keep(words)
    if record.get("tiles"):
        peak = "unknown" if record["peak_bytes"] is None else f"{record['peak_bytes'] / 2**20:.0f} MiB"
        size = f"{record['width']}x{record['height']}"
        out.detail(f"{item.name}: {record['plan']['reason']}; {size}, {record['tiles']} tile(s), peak memory {peak}")
