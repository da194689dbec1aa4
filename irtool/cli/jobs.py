"""From arguments to jobs: which pictures, and where each result goes. Everything is settled before work begins."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import NothingToDoError, PictureError, UsageError
from ..picture import Found, find, format_for, format_named, sniff, suffix_for

STDIO = "-"
SUFFIX = ".restored"
SIDE = ".side-by-side"
STEPS = ".steps"
_OURS = re.compile(rf"({re.escape(SUFFIX)}|\.degraded|{re.escape(SIDE)}|{re.escape(STEPS)})(-\d+)?$")


@dataclass(frozen=True)
class Job:
    """One picture to be restored.

    Attributes:
        source: the input, None for stdin.
        target: the output, None for stdout.
        format: of the output; None keeps the input's.
        side: where a before/after picture goes, if one is wanted.
        trail: where a sheet of a diffusion model's steps goes, if one is wanted.
    """

    source: Path | None
    target: Path | None
    format: str | None
    side: Path | None = None
    trail: Path | None = None

    @property
    def name(self) -> str:
        """What messages call the input."""
        return "stdin" if self.source is None else str(self.source)


def gather(inputs: Sequence[str], *, recursive: bool, output: Path | None = None) -> list[Found | None]:
    """The pictures that the arguments stand for; None is stdin.

    Results of earlier runs that lie in an input folder are left out: all below `output`, and names that irtool gives.

    Raises:
        UsageError: stdin is named along with other inputs.
        NothingToDoError: there is no picture.
    """
    if STDIO in inputs:
        if len(inputs) > 1:
            raise UsageError("- (stdin) cannot be combined with other inputs.")
        return [None]
    folders = [Path(i) for i in inputs if Path(i).is_dir()]
    named = set(inputs)
    own = output.resolve() if output is not None and output.is_dir() else None

    def is_result(found: Found) -> bool:
        if str(found.path) in named:
            return False
        inside = own is not None and own in found.path.resolve().parents
        return inside or _OURS.search(found.path.stem) is not None

    taken = [f for f in find(inputs, recursive=recursive) if not is_result(f)]
    if not taken:
        deeper = not recursive and any(p.is_dir() for folder in folders for p in folder.iterdir())
        hint = "Use -r to look into the folders below." if deeper else "Give pictures, or a folder that holds some."
        raise NothingToDoError(f"There are no pictures in {', '.join(map(str, folders))}.", hint)
    return list(taken)


def has_folder(inputs: Iterable[str]) -> bool:
    """Whether one of the inputs is a folder."""
    return any(i != STDIO and Path(i).is_dir() for i in inputs)


def make_jobs(
    inputs: Sequence[str],
    *,
    output: str | None,
    recursive: bool,
    format: str | None,
    side_by_side: bool,
    preview_steps: bool = False,
    root: Path | None = None,
) -> list[Job]:
    """Name the output of every input.

    Args:
        inputs: as given.
        output: a file, a folder, ``-`` for stdout, or None: beside the input as NAME.restored.EXT (stdin: stdout).
        recursive: take folders with all below them.
        format: a format name, or None to keep that of each input.
        side_by_side: also name a before/after picture.
        preview_steps: also name a sheet of a diffusion model's steps.
        root: an output folder mirrors the tree below it for named files too.

    Raises:
        UsageError: two inputs share an output, an output is an input, or `output` does not fit the inputs.
        NothingToDoError: there is no picture.
    """
    kind = None if format is None else format_named(format).name
    folder = _output_folder(inputs, output)
    found = gather(inputs, recursive=recursive, output=folder)
    if output == STDIO and len(found) > 1:
        raise UsageError(f"-o - takes one picture, and there are {len(found)}.", "Name a folder with -o.")
    jobs = []
    for item in found:
        source = None if item is None else item.path
        if output == STDIO or (source is None and output is None):
            jobs.append(Job(source, None, kind))
            continue
        if output is not None and folder is None:
            target = Path(output)
            named = format_for(target).name if kind is None or target.suffix else kind
            if kind is not None and named != kind:
                raise UsageError(f"-o {target} and --format {format} name different formats.", "Leave one of them out.")
            jobs.append(Job(source, target, named))
            continue
        suffix = suffix_for(kind or _format_of(source), source)
        if folder is None:
            assert source is not None
            target = source.with_name(source.stem + SUFFIX + suffix)
        else:
            relative = Path("stdin") if item is None else _relative(item, root)
            # A folder that cannot be listed stands for itself, and its path below itself is empty.
            target = (
                folder / relative.with_name(relative.stem + suffix) if relative.name else folder / f"unread{suffix}"
            )
        jobs.append(Job(source, target, kind or format_for(target).name))
    if (side_by_side or preview_steps) and any(job.target is None for job in jobs):
        flag = "--side-by-side" if side_by_side else "--preview-steps"
        raise UsageError(f"{flag} needs an output file to lie beside.", "Name one with -o.")
    jobs = [_with_sheets(job, side_by_side, preview_steps) for job in jobs]
    check_targets(jobs)
    return jobs


def _relative(item: Found, root: Path | None) -> Path:
    """Where a picture lies below the root, or below the folder that gave it if it does not lie there."""
    if root is None or root not in item.path.parents:
        return item.relative
    below = item.path.relative_to(root)
    return item.relative if ".." in below.parts else below


def _with_sheets(job: Job, side: bool, trail: bool) -> Job:
    """The job with names for the further pictures that are wanted, beside its output."""

    def beside(mark: str) -> Path:
        assert job.target is not None
        return job.target.with_name(job.target.stem + mark + ".jpg")

    return replace(job, side=beside(SIDE) if side else None, trail=beside(STEPS) if trail else None)


def _output_folder(inputs: Sequence[str], output: str | None) -> Path | None:
    """The folder that `output` names, if it names one."""
    if output is None or output == STDIO:
        return None
    path = Path(output)
    many = len(inputs) > 1 or has_folder(inputs)
    if many and path.exists() and not path.is_dir():
        raise UsageError(f"-o {output} is a file, and there is more than one input.", "Name a folder.")
    if not (many or path.is_dir() or output.endswith(("/", os.sep))):
        return None
    for item in inputs:
        if item != STDIO and Path(item).is_dir() and path.exists() and path.samefile(item):
            hint = "Name another folder; without -o, results go beside the inputs as NAME.restored.EXT."
            raise UsageError(f"-o {output} is the input folder.", hint)
    return path


def _format_of(source: Path | None) -> str:
    """The format a result is written in when none is named: by content, since names lie; else by name; else PNG."""
    if source is None:
        return "PNG"
    try:
        with source.open("rb") as file:
            kind = sniff(file.read(4096))
    except OSError:
        kind = None
    try:
        found = format_named(kind) if kind else format_for(source)
    except UsageError:
        return "PNG"
    return found.name if found.writable else "PNG"


def check_targets(jobs: Sequence[Job]) -> None:
    """No output is an input, under whatever name; no two inputs share an output."""
    inputs: dict[tuple[int, int], str] = {}
    for job in jobs:
        identity = _identity(job.source)
        if identity is not None:
            inputs[identity] = job.name
    taken: dict[Path, str] = {}
    for job in jobs:
        for target in (job.target, job.side, job.trail):
            if target is None:
                continue
            identity = _identity(target)
            if identity is not None and identity in inputs:
                hint = "Choose another name or folder with -o."
                told = f"The output {target} is the input {inputs[identity]}, which is never written to."
                raise UsageError(told, hint)
            key = target.parent.resolve() / target.name
            if key in taken:
                hint = "Run them apart, or rename one of them."
                raise UsageError(f"{taken[key]} and {job.name} would both be written to {target}.", hint)
            taken[key] = job.name


def _identity(path: Path | None) -> tuple[int, int] | None:
    """Device and number of a file, the same for all its names; of stdin for None."""
    try:
        status = os.fstat(sys.stdin.fileno()) if path is None else path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def settle_existing(jobs: Sequence[Job], policy: str) -> tuple[list[Job], list[Job]]:
    """Apply ``--existing`` to outputs that are there already.

    Args:
        jobs: as made.
        policy: "skip", "overwrite", "rename" or "error".

    Returns:
        The jobs to do, and those skipped.

    Raises:
        UsageError: there are some, and the policy is "error".
    """
    there = [job for job in jobs if job.target is not None and os.path.lexists(job.target)]
    if not there or policy == "overwrite":
        return list(jobs), []
    if policy == "error":
        more = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise UsageError(
            f"{there[0].target} exists already{more}.", "Choose with --existing overwrite, skip or rename."
        )
    occupied = {job.target for job in there}
    if policy == "skip":
        return [job for job in jobs if job.target not in occupied], there
    taken = {job.target for job in jobs}
    return [_renamed(job, taken) if job.target in occupied else job for job in jobs], []


def _renamed(job: Job, taken: set[Path | None]) -> Job:
    """The job with the first free name NAME-2, NAME-3, ..."""
    assert job.target is not None
    number = 2
    while True:
        target = job.target.with_name(f"{job.target.stem}-{number}{job.target.suffix}")
        if target not in taken and not os.path.lexists(target):
            break
        number += 1
    taken.add(target)
    return _with_sheets(replace(job, target=target), job.side is not None, job.trail is not None)


def make_folder(path: Path) -> None:
    """Create a folder for outputs.

    Raises:
        PictureError: it cannot be created or written to.
    """
    hint = "Check its permissions, or choose another with -o."
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PictureError(f"The folder {path} cannot be created ({error.strerror}).", hint) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise PictureError(f"The folder {path} cannot be written to.", hint)
