"""One page that holds a whole run: figures, distribution, the worst, median and best pictures, every picture's score.

The page is one file that needs nothing beside it and loads nothing. Beside it lies `run.jsonl`, the records, which
`--resume` goes on with and `--compare` reads.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError
from .published import Row
from .summary import Record, read_run

PAGE, RUN, SHOWN = "index.html", "run.jsonl", "pictures"
SIDE = 960
"""Longer side, in pixels, of the pictures on the page."""
VOLATILE = ("versions", "device", "layout", "pairs")
"""What may differ between the parts of a resumed run."""


class Report:
    """The folder of a run.

    Args:
        folder: made where it is not there.
        head: of the run.
        resume: go on with what is there.

    Attributes:
        done: records of the earlier part by name; empty for a new run. Broken pairs are tried again.

    Raises:
        UsageError: a run is there already and is not to be resumed, or is another one.
    """

    def __init__(self, folder: Path, head: Record, resume: bool = False) -> None:
        self.folder, self.head = folder, head
        self.file = folder / RUN
        self.done: dict[str, Record] = {}
        if self.file.exists():
            if not resume:
                raise UsageError(f"{folder} holds a run already.", "Go on with it by --resume, or name another folder.")
            self._take_up()
        try:
            (folder / SHOWN).mkdir(parents=True, exist_ok=True)
            records = [head, *self.done.values()]
            partial = self.file.with_suffix(".partial")
            partial.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
            partial.replace(self.file)
        except OSError as error:
            raise UsageError(f"{folder} cannot be written: {error.strerror}.") from error

    def _take_up(self) -> None:
        before, records = read_run(self.file)
        other = [k for k in self.head if k not in VOLATILE and before.get(k) != self.head[k]]
        if other:
            raise UsageError(
                f"{self.folder} holds another run: {', '.join(other)} differ.",
                "Name another folder, or ask for the same.",
            )
        self.done = {r["name"]: r for r in records if "error" not in r}

    def add(self, record: Record) -> None:
        """Keep the record of a picture, at once, unless it is here."""
        if record["name"] not in self.done:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")

    def keep(self, name: str, before: np.ndarray, after: np.ndarray, truth: np.ndarray) -> None:
        """Keep small copies of a picture (H, W, 3) uint8 until it is known which are shown."""
        from PIL import Image

        for kind, pixels in (("before", before), ("after", after), ("truth", truth)):
            image = Image.fromarray(pixels)
            image.thumbnail((SIDE, SIDE))
            image.save(self._shown(name, kind), "JPEG", quality=92, subsampling=0)

    def lacking(self, records: Sequence[Record]) -> list[str]:
        """Names of the pictures for the page whose copies an earlier part of the run has dropped."""
        return [r["name"] for _, r in picks(records) if not self._shown(r["name"], "truth").is_file()]

    def _shown(self, name: str, kind: str) -> Path:
        return self.folder / SHOWN / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.{kind}.jpg"

    def finish(
        self,
        records: Sequence[Record],
        summary: Record,
        *,
        title: str,
        notes: Sequence[str] = (),
        rows: Sequence[Row] = (),
    ) -> Path:
        """Write the page, and drop the copies of pictures that are not on it."""
        picked = picks(records)
        shown = [
            (role, record, [self._shown(record["name"], k) for k in ("before", "after", "truth")])
            for role, record in picked
        ]
        page = render(
            {
                "title": title,
                "subtitle": subtitle(self.head, summary),
                "run": self.head,
                "summary": summary,
                "images": list(records),
                "picks": [
                    _pick(role, record, files) for role, record, files in shown if all(f.is_file() for f in files)
                ],
                "notes": list(notes),
                "cost": cost(summary),
                "published": [row.to_dict() for row in rows],
                "published_note": "As printed by their authors; comparable only where the protocol is the same.",
                "origin": origin(self.head, summary),
            }
        )
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(summary) + "\n")
        for copy in (self.folder / SHOWN).glob("*.jpg"):
            copy.unlink()
        (self.folder / SHOWN).rmdir()
        target = self.folder / PAGE
        target.write_text(page, encoding="utf-8")
        return target


def render(data: Mapping[str, Any]) -> str:
    """The page with its data."""
    template = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    # Inside a script element only "<" could end the data early.
    told = json.dumps(data).replace("<", "\\u003c")
    return template.replace(
        '<script id="data" type="application/json">{}', f'<script id="data" type="application/json">{told}'
    )


def picks(records: Sequence[Record]) -> list[tuple[str, Record]]:
    """The worst, median and best scored pictures by PSNR; each once."""
    scored = sorted(
        (r for r in records if "error" not in r),
        key=lambda r: np.inf if r["output"]["psnr"] is None else r["output"]["psnr"],
    )
    if not scored:
        return []
    places = {"worst": 0, "best": len(scored) - 1, "median": (len(scored) - 1) // 2}
    chosen = {place: role for role, place in reversed(places.items())}
    return [(chosen[place], scored[place]) for place in sorted(chosen)]


def _pick(role: str, record: Record, files: Sequence[Path]) -> dict[str, str]:
    before, after, truth = ("data:image/jpeg;base64," + base64.b64encode(file.read_bytes()).decode() for file in files)
    return {
        "role": role,
        "name": record["name"],
        "told": _told(record),
        "before": before,
        "after": after,
        "truth": truth,
    }


def _told(record: Record) -> str:
    low, high = record["input"]["psnr"], record["output"]["psnr"]
    shown = ["equal" if v is None else f"{v:.2f} dB" for v in (low, high)]
    plan = f"; {record['plan']}" if "plan" in record else ""
    return f"{shown[0]} to {shown[1]}, SSIM {record['output']['ssim']:.4f}{plan}"


def subtitle(head: Record, summary: Record) -> str:
    """Set, count, protocol."""
    made = f", degraded by {head['degrade']}" if head["degrade"] else ""
    protocol = head["protocol"]
    rules = f"protocol {protocol['id']}: {protocol['summary']}"
    return f"{summary['scored']} of {summary['pairs']} pairs scored{made}; {rules}"


def cost(summary: Record) -> str:
    """Seconds and memory in words."""
    if not summary.get("scored"):
        return ""
    peak = summary.get("peak_bytes")
    memory = f", peak memory {peak / 2**20:.0f} MiB" if peak else ""
    return f"{summary['seconds'] / summary['scored']:.2f} s per picture{memory}"


def origin(head: Record, summary: Record) -> list[tuple[str, str]]:
    """All that a citation needs, as (what, value)."""

    def flat(value: Any) -> str:
        if isinstance(value, Mapping):
            return ", ".join(f"{k} {flat(v)}" for k, v in value.items() if v not in ("", None, {}))
        if isinstance(value, (list, tuple)):
            return ", ".join(map(flat, value))
        return str(value)

    told = [(key.replace("_", " "), flat(value)) for key, value in head.items() if key != "type" and value is not None]
    return [
        *((key, value) for key, value in told if value),
        ("content of all scored files, sha256", summary.get("content", "")),
    ]


def to_csv(records: Sequence[Record]) -> str:
    """One line per picture; an infinite PSNR is "inf", a broken pair has its error and no figures."""
    scored = [r for r in records if "error" not in r]
    sides = [(side, m) for side in ("input", "output") for m in (scored[0][side] if scored else ())]
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["name", *(f"{side}_{m}" for side, m in sides), "width", "height", "seconds", "content", "error"])
    for r in records:
        if "error" in r:
            writer.writerow([r["name"], *[""] * (len(sides) + 4), r["error"]])
        else:
            figures = ["inf" if r[side][m] is None else r[side][m] for side, m in sides]
            writer.writerow([r["name"], *figures, r["width"], r["height"], r["seconds"], r["content"], ""])
    return out.getvalue()


def save_png(folder: Path, name: str, pixels: np.ndarray) -> None:
    """Write a restored picture (H, W, 3) uint8 under its name, the folders in it included."""
    from PIL import Image

    from ..picture import save_bytes

    target = folder / f"{name}.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    data = BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    save_bytes(data.getvalue(), target)
