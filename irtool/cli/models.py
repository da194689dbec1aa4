"""irtool models: the checkpoints irtool knows."""

from __future__ import annotations

from dataclasses import asdict

from ..errors import EXIT_OK
from ..weights import DEFAULT_DETECTOR, DEFAULT_RESTORER, is_present, records
from . import options
from .output import Output


def models(json: options.Json = False) -> int:
    """List the models.

    What each does, how large it is, whether it is here.
    """
    out = Output(json=json)
    known = records()
    for record in known:
        here = is_present(record)
        default = record.id in (DEFAULT_RESTORER, DEFAULT_DETECTOR)
        out.record({"type": "model", **asdict(record), "present": here, "default": default})
        verb = "finds" if record.family == "detector" else "undoes"
        state = "here" if here else "missing"
        marks = f"{state}, default" if default else state
        out.result(f"{record.id}  {record.family}, {record.bytes / 1e6:.1f} MB, {record.licence}, {marks}")
        out.result(f"    {verb} {', '.join(record.tasks)}")
    out.record({"type": "summary", "models": len(known)})
    return EXIT_OK
