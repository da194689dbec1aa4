"""Where a run writes, checked before it begins: never onto what it reads, never onto files that it has not made."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..data import PairSet
from ..errors import UsageError
from ..fileio import exists, identity
from .report import PAGE, RUN, image_path


def check_outputs(
    found: PairSet,
    *,
    csv: Path | None = None,
    images: Path | None = None,
    report: Path | None = None,
    read: Iterable[Path] = (),
    overwrite: bool = False,
) -> None:
    """Turn away outputs that are inputs, share a name, or exist already.

    Args:
        found: the pairs, whose pictures are inputs.
        csv: the table to write, if one is wanted.
        images: the folder for restored pictures, if they are wanted.
        report: the folder of a report, if one is wanted.
        read: further files that the run reads, such as a model.
        overwrite: files that exist may be replaced, unless they are inputs.

    Raises:
        UsageError: an output must not be written.
    """
    inputs = {
        identity(path): path for pair in found.pairs for path in (pair.degraded, pair.reference) if path is not None
    }
    inputs |= {identity(path): path for path in read}
    inputs.pop(None, None)
    report_files = {} if report is None else {(report / name).absolute(): report / name for name in (PAGE, RUN)}
    image_files = (
        [] if images is None else [image_path(images, pair.name) for pair in found.pairs if pair.reference is not None]
    )
    for target in (*image_files, *([] if csv is None else [csv])):
        other = inputs.get(identity(target))
        if other is not None:
            raise UsageError(f"{target} would be written over {other}.", "Choose another name or folder.")
        if target.absolute() in report_files:
            raise UsageError(f"{target} would be written twice.", "Choose another name or folder.")
        report_files[target.absolute()] = target
        if not overwrite and exists(target):
            hint = "Choose another name or folder, or --existing overwrite; --resume goes on with a run of --report."
            raise UsageError(f"{target} exists already.", hint)
