"""irtool restore: pictures in, better pictures out."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import EXIT_OK, UsageError
from ..weights.registry import DEFAULT_DETECTOR, DEFAULT_RESTORER
from . import options
from .output import Output

if TYPE_CHECKING:
    from ..api import Result
    from ..picture import Picture
    from ..plan import Plan
    from .jobs import Job
    from .run import Loaded, Run

Outcome = tuple[str, dict[str, Any]]


def restore(
    inputs: options.Inputs,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="File, folder, or - for stdout; else NAME.restored.EXT.",
        ),
    ] = None,
    recursive: options.Recursive = False,
    auto: Annotated[bool, typer.Option("--auto", help="Find what is wrong and undo it (the default).")] = False,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", metavar="TASK", help="What to undo, such as denoise; repeat it or use commas."),
    ] = None,
    strength: Annotated[
        float,
        typer.Option(
            "--strength", envvar="IRTOOL_STRENGTH", metavar="0..1", help="Share of the result; the rest is input."
        ),
    ] = 1.0,
    existing: Annotated[
        str | None,
        typer.Option(
            "--existing",
            envvar="IRTOOL_EXISTING",
            metavar="|".join(options.EXISTING),
            help="Where an output exists. Default: skip in folder runs, so that they resume; else error.",
        ),
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            "--format", envvar="IRTOOL_FORMAT", metavar="preserve|png|jpg|webp|tiff|avif", help="Format of the outputs."
        ),
    ] = "preserve",
    quality: Annotated[
        int | None,
        typer.Option(
            "--quality",
            envvar="IRTOOL_QUALITY",
            metavar="1..100",
            help="Of JPEG, WebP, AVIF. Default: like the source.",
        ),
    ] = None,
    strip: Annotated[bool, typer.Option("--strip", envvar="IRTOOL_STRIP", help="Leave metadata out.")] = False,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Also write NAME.side-by-side.jpg, before and after.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")] = False,
    device: options.Device = "auto",
    dtype: Annotated[
        str, typer.Option("--dtype", envvar="IRTOOL_DTYPE", metavar="|".join(options.DTYPES), help="Number type.")
    ] = "auto",
    tile: Annotated[
        str, typer.Option("--tile", envvar="IRTOOL_TILE", metavar="auto|N|off", help="Side of the tiles, in pixels.")
    ] = "auto",
    max_memory: Annotated[
        str | None,
        typer.Option("--max-memory", envvar="IRTOOL_MAX_MEMORY", metavar="2GB", help="To stay under."),
    ] = None,
    threads: options.Threads = None,
    model: Annotated[
        str, typer.Option("--model", envvar="IRTOOL_MODEL", metavar="ID|local:PATH", help="The model that restores.")
    ] = DEFAULT_RESTORER,
    detector: options.Detector = DEFAULT_DETECTOR,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> int:
    """Find and undo what is wrong.

    What is wrong is found by itself, or named with --task. A clean photograph is passed through untouched. The input
    is never written to, and an interrupted run is resumed by the same command.
    """
    # Everything that can be wrong with the request is said before torch is imported.
    from ..picture.formats import format_named
    from ..plan import plan_auto, plan_tasks
    from .jobs import has_folder, make_folder, make_jobs, settle_existing
    from .run import Run

    if auto and task:
        raise UsageError("--auto and --task exclude each other.", "Leave one of them out.")
    if not 0 <= strength <= 1:
        raise UsageError(f"--strength lies from 0 to 1, not {strength:g}.")
    if quality is not None and not 1 <= quality <= 100:
        raise UsageError(f"--quality lies from 1 to 100, not {quality}.")
    if format != "preserve" and not format_named(format).writable:
        raise UsageError(f"irtool does not write {format}.", "Use --format png.")
    if tile not in ("auto", "off") and not tile.isdecimal():
        raise UsageError(f"--tile cannot be '{tile}'.", "Give auto, off, or a number of pixels.")
    options.one_of(dtype, options.DTYPES, "--dtype")
    options.check_device(device)
    memory = None if max_memory is None else options.parse_bytes(max_memory)
    plan = plan_tasks(task, strength, model) if task else None
    policy = existing or ("skip" if has_folder(inputs) else "error")
    options.one_of(policy, options.EXISTING, "--existing")
    jobs = make_jobs(
        inputs,
        output=output,
        recursive=recursive,
        format=None if format == "preserve" else format,
        side_by_side=side_by_side,
    )
    to_stdout = any(job.target is None for job in jobs)
    if json and to_stdout and not dry_run:
        raise UsageError("--json and a picture on stdout exclude each other.", "Name a file with -o.")
    jobs, skipped = settle_existing(jobs, policy)
    out = Output(json=json, quiet=quiet, verbose=verbose, stdout_taken=to_stdout and not dry_run)
    run = Run(out, ("restored", "clean", "planned", "skipped"), "Run the same command with --existing skip to go on.")
    for job in skipped:
        _tell_skipped(run, job)
    if dry_run and plan is not None:
        for job in jobs:
            _tell(run, job, _outcome("planned", plan))
        jobs = []
    if not jobs:
        return run.summary(EXIT_OK)
    options.set_threads(threads)

    from .. import api

    def work(job: Job, loaded: Loaded) -> tuple[Result, Picture | None]:
        picture, original = loaded
        if dry_run:
            diagnosis = api.detect(picture, model=detector, device=device)
            return api.Result(picture, plan_auto(diagnosis, strength, model), diagnosis), None
        result = api.restore(
            picture, plan=plan, strength=strength, model=model, detector=detector, device=device, dtype=dtype,
            tile=tile, max_memory=memory, on_progress=run.bar.tiles,
        )  # fmt: skip
        # Pictures are large: the one before is kept only for those who want to see it.
        return replace(result, original=original), picture if job.side is not None else None

    def write(job: Job, made: tuple[Result, Picture | None]) -> Outcome:
        result, before = made
        if dry_run:
            return _outcome("planned", result.plan, result)
        if job.target is None:
            sys.stdout.buffer.write(result.encode(job.format, quality=quality, strip=strip))
            sys.stdout.buffer.flush()
        else:
            result.save(job.target, format=job.format, quality=quality, strip=strip)
        if job.side is not None and before is not None:
            _write_side_by_side(before, result.picture, job.side)
        return _outcome("clean" if result.untouched else "restored", result.plan, result)

    api.prepare(model=None if dry_run else model, detector=detector if plan is None else None, device=device)
    if not dry_run:
        for folder in dict.fromkeys(job.target.parent for job in jobs if job.target is not None):
            make_folder(folder)
    return run.carry(jobs, work, write, lambda job, outcome: _tell(run, job, outcome))


def _outcome(status: str, plan: Plan, result: Result | None = None) -> Outcome:
    """What became of a picture, in words and as a record; small, so that the picture itself can be let go."""
    record: dict[str, Any] = {"status": status, "plan": plan.to_dict()}
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
        return "clean, passed through untouched", record
    if status == "restored":
        return f"undid {', then '.join(map(str, plan.steps))} in {record['seconds']:.1f} s", record
    return str(plan), record


def _tell(run: Run, job: Job, outcome: Outcome) -> None:
    """Print what became of a job."""
    from .run import head

    out, (words, record) = run.out, outcome
    status = record["status"]
    run.counts[status] += 1
    out.record(head(job, status) | record)
    for note in record.get("notes", ()):
        out.note(f"note: {job.name}: {note}")
    if status == "planned" or not out.quiet:
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


def _write_side_by_side(before: Picture, after: Picture, path: Path) -> None:
    import numpy as np

    from ..picture import Picture, side_by_side, write

    drawn = side_by_side(before.pixels, after.pixels)
    write(Picture(drawn.astype(np.float32) / 255), path)
