"""irtool models: the checkpoints irtool knows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict

from ..degradation import IDS
from ..errors import EXIT_OK
from ..models.architectures import get, names
from ..weights import DEFAULT_DETECTOR, DEFAULT_RESTORER, Record, records, state
from . import options
from .output import Output


def models(json: options.Json = False) -> int:
    """List the models.

    What each does, how large it is, whether it is here; and the networks of which no weights were published.
    """
    out = Output(json=json)
    print_models(out, records())
    recorded = {record.family for record in records()}
    others = [name for name in names() if name not in recorded and get(name).restorer]
    out.result("")
    out.result(f"no published file is known of: {', '.join(others)}")
    out.result("    their weights are trained here (irtool train list) or brought: --model local:FILE or hf-hub:REPO")
    out.record({"type": "summary", "models": len(records())})
    return EXIT_OK


def print_models(out: Output, known: Sequence[Record]) -> None:
    """Print records as a table, or each as a line of JSON."""
    rows = [("MODEL", "STATE", "SIZE", "LICENCE", "FAMILY", "TASKS")]
    for record in known:
        found = state(record)
        default = record.id in (DEFAULT_RESTORER, DEFAULT_DETECTOR)
        fields = {**asdict(record), "bytes": record.bytes, "state": found, "present": found == "here"}
        out.record({"type": "model", **fields, "default": default})
        tasks = f"all {len(IDS)}" if set(record.tasks) == set(IDS) else ", ".join(record.tasks) or "-"
        name = f"{record.id} *" if default else record.id
        rows.append((name, found, format_size(record.bytes), record.licence, record.family, tasks))
    for line in table(rows):
        out.result(line)
    if any(record.id in (DEFAULT_RESTORER, DEFAULT_DETECTOR) for record in known):
        out.result("")
        out.result("* taken where no other is named")


def format_size(size: int | None) -> str:
    """A number of bytes for people."""
    if size is None:
        return "unknown"
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


def table(rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines with the columns of `rows` below each other."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
