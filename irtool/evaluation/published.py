"""Rows of the literature, to be held beside measured ones; each with its source and what is known of its protocol."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..tables import parse_toml


@dataclass(frozen=True)
class Row:
    """One published figure.

    Attributes:
        dataset: name of the set.
        method: what was measured.
        psnr, ssim: None where not printed.
        protocol: id of a protocol, "rgb" or "y" where only the channel is known, or "unknown".
        source: where it is printed.
        evidence: "page" (read there), "figure" (read off a figure) or "memory" (not looked up again).
        condition: degradation it was scored under, such as noise(25); empty where the set has one alone.
        training: what the network was trained for: "single task", "all-in-one, 3 tasks" and so on.
        note: what else one must know.
    """

    dataset: str
    method: str
    psnr: float | None = None
    ssim: float | None = None
    protocol: str = "unknown"
    source: str = ""
    evidence: str = "page"
    condition: str = ""
    training: str = ""
    note: str = ""

    @property
    def remark(self) -> str:
        """Source and notes in one line."""
        doubt = {"memory": "from memory", "figure": "read off a figure"}.get(self.evidence, "")
        return "; ".join(part for part in (self.training, self.source, doubt, self.note) if part)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"remark": self.remark}


@cache
def rows() -> tuple[Row, ...]:
    """All that irtool knows, in the order of the file."""
    text = Path(__file__).with_name("published.toml").read_text(encoding="utf-8")
    return tuple(Row(**table) for table in parse_toml(text, "published.toml")["row"])


def rows_of(dataset: str, condition: str = "") -> tuple[Row, ...]:
    """The rows of a set, best first; of one degradation where it has several."""
    wanted_condition = _plain(condition)
    found = [
        r
        for r in rows()
        if r.dataset == dataset and (not wanted_condition or _plain(r.condition) in ("", wanted_condition))
    ]
    return tuple(sorted(found, key=lambda r: -(r.psnr or 0)))


def _plain(condition: str) -> str:
    """A degradation string in the one form that all that mean the same have."""
    from ..synth import parse

    return str(parse(condition)) if condition else ""
