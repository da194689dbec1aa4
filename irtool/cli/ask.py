"""Asking whether a result is to be kept, with input and output side by side."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..picture import Picture, side_by_side, write_page
from ..plan import Plan

if TYPE_CHECKING:
    from ..result import Result
    from ..targets import Item
    from .batch import Run


def keep(result: Result, before: Picture, item: Item, run: Run) -> Result:
    """The result where the user keeps it, else the input untouched.

    The comparison is a JPEG in a temporary folder, which the system's viewer opens where there is one; its path is
    printed in any case. No answer (the end of the input) is a no.
    """
    with tempfile.TemporaryDirectory(prefix="irtool-") as folder:
        page = Path(folder) / "before-after.jpg"
        write_page(side_by_side(before.pixels, result.picture.pixels), page)
        run.bar.end()
        typer.echo(f"{item.name}: {result.plan}\nbefore | after: {page.as_uri()}", err=True)
        typer.launch(str(page))
        try:
            if typer.confirm("Keep the result?", default=True, err=True):
                return result
        except typer.Abort:
            typer.echo("", err=True)
    plan = Plan(reason="the result was not wanted", keep=result.plan.keep)
    return replace(result, picture=before, plan=plan)
