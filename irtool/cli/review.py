"""The page of a run, ``--review``: checked before the run, written after it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError

if TYPE_CHECKING:
    from ..page.review import Small
    from ..picture import Picture
    from ..targets import Item
    from .options import Request
    from .output import Output


def check(request: Request, items: Sequence[Item]) -> None:
    """Raise a UsageError where the outputs do not go into a folder, or its review.html is somebody else's."""
    if not request.review or request.dry_run:
        return
    from ..page import review

    folder = Path(request.output or "")
    if any(item.target is None or folder not in item.target.parents for item in items):
        raise UsageError("--review needs an output folder, and -o names a file.", "End its name with a slash.")
    review.check(folder)


def small(request: Request, item: Item, picture: Picture) -> Small | None:
    """What the page shows of a picture before it is restored; None without --review."""
    if not request.review or item.source is None:
        return None
    from ..page.review import Small

    return Small.of(picture)


def finish(request: Request, out: Output, code: int) -> int:
    """Write the page, where it is wanted and there is an account; the exit code that was given."""
    if request.review and not request.dry_run:
        from ..page import review

        try:
            out.note(f"review: {review.write(Path(request.output or ''))}")
        except UsageError as error:  # all was done before, by runs without --review
            out.note(f"no review: {error.message}")
    return code
