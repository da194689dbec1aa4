"""What irtool did to a picture, as a record in the picture's own XMP.

The record holds no time and no path: the same input, plan and weights give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from . import __version__
from .errors import IrtoolError
from .fileio import sha256
from .picture import xmp

if TYPE_CHECKING:
    from .picture import Picture
    from .plan import Plan

NAMESPACE, PREFIX = "urn:irtool:xmp:1.0/", "irtool"
_LARGEST = 1 << 20  # characters of a property that are parsed; a plan has some hundred
_DIGITS = 4  # of a strength: what differs behind them does not show, and may differ between machines


@dataclass(frozen=True)
class Provenance:
    """How a picture came about.

    Attributes:
        version: of irtool.
        plan: what was done, as `irtool.plan.Plan.from_dict` takes it; models and adapters from files are named without
            their folders.
        models: model -> sha256 of its file, or None where it has none.
        source_sha256: of the file that was restored; empty where it was none.
    """

    version: str
    plan: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, str | None] = field(default_factory=dict)
    source_sha256: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "version": self.version,
            "plan": dict(self.plan),
            "models": dict(self.models),
            "source_sha256": self.source_sha256 or None,
        }


@cache
def model_sha256(reference: str) -> str | None:
    """sha256 of the file of a model; None where there is no such file."""
    from .weights import get, locate

    try:
        path = locate(reference)  # what ships has been compared with its sha256 by now
        shipped = ":" not in reference and get(reference).kind == "asset"
        return get(reference).files[0].sha256 if shipped else sha256(path)
    except (OSError, IrtoolError):
        return None


def of(plan: Plan, source_sha256: str = "") -> Provenance:
    """The record of a plan that has been carried out."""
    references = [*plan.models, *([] if plan.upscale is None else [plan.upscale.model])]
    whole = plan.to_dict()
    kept = {key: whole[key] for key in ("repairs", "steps", "keep", "upscale") if whole.get(key)}
    for step in kept.get("steps", ()):
        step["strength"] = round(step["strength"], _DIGITS)
        step |= {key: _without_folder(step[key]) for key in ("model", "controller", "offsets") if key in step}
    if plan.upscale is not None:
        kept["upscale"]["model"] = _without_folder(plan.upscale.model)
    models = {_without_folder(reference): model_sha256(reference) for reference in dict.fromkeys(references)}
    return Provenance(__version__, kept, models, source_sha256)


def _without_folder(reference: str) -> str:
    """A reference that tells strangers nothing of the folders of a machine."""
    if reference.startswith("local:"):
        return f"local:{PurePath(reference[6:]).name}"
    return PurePath(reference).name if reference.endswith(".safetensors") else reference


def recorded(picture: Picture, record: Provenance) -> Picture:
    """The picture with a record in its XMP, in place of one that is there; all else in the packet is kept.

    A packet that cannot be edited is kept without the record, and a note says so.
    """
    values = {
        "Version": record.version,
        "Plan": json.dumps(record.plan, separators=(",", ":")),
        "Models": json.dumps(record.models, separators=(",", ":")),
        "SourceSHA256": record.source_sha256,
    }
    packet = xmp.with_properties(picture.xmp, NAMESPACE, PREFIX, {k: v for k, v in values.items() if v})
    if packet is None:
        note = "its XMP cannot be edited, so what was done is not recorded in it"
        return replace(picture, notes=(*picture.notes, note))
    return replace(picture, xmp=packet)


def read(packet: bytes | None) -> Provenance | None:
    """The record in an XMP packet; None where there is none."""
    found = xmp.properties(packet, NAMESPACE) if packet and NAMESPACE.encode() in packet else {}
    if "Version" not in found:
        return None
    plan, models = (_table(found.get(key, "")) for key in ("Plan", "Models"))
    named = {str(key): value if isinstance(value, str) else None for key, value in models.items()}
    return Provenance(found["Version"], plan, named, found.get("SourceSHA256", ""))


def _table(text: str) -> dict[str, Any]:
    """A JSON object; empty where it is none: files come from strangers."""
    try:
        value = json.loads(text) if len(text) <= _LARGEST else None
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {}
