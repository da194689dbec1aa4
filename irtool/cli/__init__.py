"""The command line: one file per verb.

Typer and Rich live here and nowhere else, and no module here imports torch at its top: --help must start at once.
"""

from __future__ import annotations

from .app import main
from .process import run

__all__ = ["main", "run"]
