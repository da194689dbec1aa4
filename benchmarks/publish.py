"""What the benchmarks do with what they found."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def publish(lines: Iterable[str], out: Path | None) -> None:
    """Print the lines of a report, and write them to a file if one is named."""
    text = "\n".join(lines) + "\n"
    print(text)
    if out:
        out.write_text(text, encoding="utf-8")
