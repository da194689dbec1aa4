"""One page that holds a whole run: figures, distribution, the worst, median and best pictures, every picture's score.

The page is one file that needs nothing beside it and loads nothing. Beside it lies `run.jsonl`, the records, which
`--resume` goes on with and `--compare` reads. While a run goes on, a hidden folder beside them holds small copies of
pictures; nothing else in the folder is ever touched.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FileError, UsageError, reason
from ..fileio import atomic_write, exists
from ..metrics.extra import LOWER_IS_BETTER
from .published import Row
from .summary import Record, read_run

PAGE, RUN, SHOWN, SHARDS = "index.html", "run.jsonl", ".irtool-pictures", "shards"
SIDE = 1200
"""Longer side, in pixels, of the pictures on the page."""
COPIES = 200
"""Pictures of which copies lie on the disk until it is known which are shown; of larger sets only those that are worst
and best so far, and the median is restored once more."""
VOLATILE = ("versions", "device", "layout", "pairs")
"""What may differ between the parts of a resumed run."""
KINDS = ("before", "after", "truth")
PUBLISHED_NOTE = "As their authors print them. Only rows of the same protocol are comparable with the one measured."


class Report:
    """The folder of a run.

    Args:
        folder: made where it is not there.
        head: of the run.
        resume: go on with what is there.

    Attributes:
        done: records of the earlier part by name; empty for a new run. Broken pairs are tried again.

    Raises:
        UsageError: a run is there already and is not to be resumed, or is another one; or a page that is no run's.
    """

    def __init__(self, folder: Path, head: Record, resume: bool = False) -> None:
        self.folder, self.head = folder, head
        self.file = folder / RUN
        self.done: dict[str, Record] = {}
        self._ranked: dict[str, float] = {}
        if resume:
            self._adopt_shards()
        if exists(self.file):
            if not resume:
                raise UsageError(f"{folder} holds a run already.", "Go on with it by --resume, or name another folder.")
            self._resume()
        elif exists(folder / PAGE):
            raise UsageError(f"{folder / PAGE} belongs to no run, and is not replaced.", "Name another folder.")
        try:
            (folder / SHOWN).mkdir(parents=True, exist_ok=True)
            atomic_write(self.file, "".join(json.dumps(r) + "\n" for r in (head, *self.done.values())))
        except (OSError, FileError) as error:
            raise UsageError(f"{folder} cannot be written: {reason(error)}.") from error

    def _adopt_shards(self) -> None:
        """Take over what shards of this run have scored."""
        for file in sorted((self.folder / SHARDS).glob(f"*/{RUN}")):
            self._resume(file)

    def _resume(self, file: Path | None = None) -> None:
        before, records = read_run(file or self.file)
        other = [k for k in self.head if k not in VOLATILE and before.get(k) != self.head[k]]
        if other:
            raise UsageError(
                f"{self.folder} holds another run: {', '.join(other)} differ.",
                "Name another folder, or ask for the same.",
            )
        self.done |= {r["name"]: r for r in records if "error" not in r}

    def add(self, record: Record) -> None:
        """Keep the record of a picture, at once, unless it is here."""
        if record["name"] not in self.done:
            self._append(record)
        if "error" not in record:
            self._ranked[record["name"]] = _rank(record)
            if len(self._ranked) > COPIES:
                self._delete_unused()

    def _append(self, record: Record) -> None:
        try:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            again = "Make room, and run the same command with --resume."
            raise FileError(f"{self.file}: cannot be written ({reason(error)})", again) from error

    def _delete_unused(self) -> None:
        """Remove the copies of all but the worst and the best."""
        low, high = min(self._ranked, key=self._ranked.__getitem__), max(self._ranked, key=self._ranked.__getitem__)
        for name in self._ranked.keys() - {low, high}:
            del self._ranked[name]
            self._drop(name)

    def _drop(self, name: str) -> None:
        """Remove the copies of one picture."""
        for kind in KINDS:
            self._shown(name, kind).unlink(missing_ok=True)

    def keep(self, name: str, before: np.ndarray, after: np.ndarray, reference: np.ndarray) -> None:
        """Keep small copies of a picture (H, W, 3) uint8 until it is known which are shown."""
        from PIL import Image

        for kind, pixels in zip(KINDS, (before, after, reference), strict=True):
            image = Image.fromarray(pixels)
            image.thumbnail((SIDE, SIDE))
            data = BytesIO()
            image.save(data, "JPEG", quality=92, subsampling=0)
            atomic_write(self._shown(name, kind), data.getbuffer())

    def missing_pictures(self, records: Sequence[Record]) -> list[str]:
        """Names of the pictures for the page whose copies an earlier part of the run has dropped."""
        return [r["name"] for _, r in picks(records) if not self._shown(r["name"], "truth").is_file()]

    def _shown(self, name: str, kind: str) -> Path:
        return self.folder / SHOWN / f"{_hashed(name)}.{kind}.jpg"

    def finish(
        self,
        records: Sequence[Record],
        summary: Record,
        *,
        title: str,
        notes: Sequence[str] = (),
        rows: Sequence[Row] = (),
    ) -> Path:
        """Write the page, and then drop the copies of pictures."""
        shown = [(role, r, [self._shown(r["name"], kind) for kind in KINDS]) for role, r in picks(records)]
        page = render(
            {
                "title": title,
                "subtitle": subtitle(self.head, summary),
                "run": self.head,
                "summary": summary,
                "images": list(records),
                "picks": [_pick(role, r, files) for role, r, files in shown if all(f.is_file() for f in files)],
                "lower": LOWER_IS_BETTER,
                "notes": list(notes),
                "cost": cost(summary),
                "measured": measured(self.head, summary).to_dict() if rows else None,
                "published": [row.to_dict() for row in rows],
                "published_note": PUBLISHED_NOTE,
                "csv": to_csv(records),
                "cite": cite(title, self.head, summary),
                "origin": origin(self.head, summary),
            }
        )
        self._append(summary)
        target = atomic_write(self.folder / PAGE, page)
        for record in records:
            self._drop(record["name"])
        with contextlib.suppress(OSError):  # somebody else's files are in it
            (self.folder / SHOWN).rmdir()
        return target


def _hashed(name: str) -> str:
    return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:16]


def render(data: Mapping[str, Any]) -> str:
    """The page with its data."""
    template = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    # Inside a script element only "<" could end the data early.
    payload = json.dumps(data).replace("<", "\\u003c")
    return template.replace(
        '<script id="data" type="application/json">{}', f'<script id="data" type="application/json">{payload}'
    )


def _rank(record: Record) -> float:
    """PSNR of the result in dB; infinite where it equals the truth."""
    psnr = record["output"]["psnr"]
    return float("inf") if psnr is None else float(psnr)


def picks(records: Sequence[Record]) -> list[tuple[str, Record]]:
    """The worst, median and best scored pictures by PSNR; each once."""
    scored = sorted((r for r in records if "error" not in r), key=_rank)
    if not scored:
        return []
    places = {"worst": 0, "best": len(scored) - 1, "median": (len(scored) - 1) // 2}
    chosen = {place: role for role, place in reversed(places.items())}
    return [(chosen[place], scored[place]) for place in sorted(chosen)]


def _pick(role: str, record: Record, files: Sequence[Path]) -> dict[str, Any]:
    coded = ("data:image/jpeg;base64," + base64.b64encode(file.read_bytes()).decode() for file in files)
    low, high = (_decibels(record[side]["psnr"]) for side in ("input", "output"))
    plan = f"; {record['plan']}" if "plan" in record else ""
    return {
        "role": role,
        "name": record["name"],
        "psnr": high,
        "told": f"{low} to {high}, SSIM {record['output']['ssim']:.4f}{plan}",
        "width": record["width"],
        "height": record["height"],
        **dict(zip(KINDS, coded, strict=True)),
    }


def _decibels(psnr: float | None) -> str:
    return "equal" if psnr is None else f"{psnr:.2f} dB"


def subtitle(head: Record, summary: Record) -> str:
    """Set, count, protocol."""
    degradation = f", degraded by {head['degrade']}" if head["degrade"] else ""
    protocol = head["protocol"]
    rules = f"protocol {protocol['id']}: {protocol['summary']}"
    return f"{summary['scored']} of {summary['pairs']} pairs scored{degradation}; {rules}"


def cost(summary: Record) -> list[str]:
    """Seconds and memory in words."""
    if not summary.get("scored"):
        return []
    peak = summary.get("peak_bytes")
    return [
        f"{summary['seconds'] / summary['scored']:.2f} s per picture",
        *([f"peak memory {peak / 2**20:.0f} MiB"] if peak else []),
    ]


def measured(head: Record, summary: Record) -> Row:
    """The run as a row beside published ones."""
    means = {metric: summary.get("output", {}).get(metric, {}).get("mean") for metric in ("psnr", "ssim")}
    return Row(
        head["dataset"],
        head["model"],
        **means,
        protocol=head["protocol"]["id"],
        source=f"measured here on {_share(summary)}",
        note=_weights(head),
    )


def _share(summary: Record) -> str:
    """How many pairs were scored, of those that the published set has where that is known."""
    return f"{summary['scored']} of {summary.get('set_pairs', summary['pairs'])} pairs"


def _weights(head: Record) -> str:
    weights = head["weights"]
    hashes = (weights.get("published_sha256") or weights.get("loaded_sha256", "")).split()
    return f"weights sha256 {' '.join(h[:12] for h in hashes)}" if hashes else ""


def cite(title: str, head: Record, summary: Record) -> str:
    """All that makes the figures of a run mean one thing, in one sentence."""
    figures = [
        f"{'PSNR' if metric == 'psnr' else metric.upper()} {value['mean']:.{2 if metric in ('psnr', 'fid') else 4}f}"
        + (" dB" if metric == "psnr" else "")
        for metric, value in summary.get("output", {}).items()
        if value["mean"] is not None
    ]
    versions = head["versions"]
    parts = [
        _share(summary),
        *([f"degraded by {head['degrade']}, seed {head['seed']}"] if head["degrade"] else []),
        f"protocol {head['protocol']['id']}",
        *filter(None, [_weights(head)]),
        f"files {summary.get('content', '')[:12]}",
        f"{head['dtype']} on {head['device'].partition(' ')[0]}",
        f"irtool {versions['irtool']}",
        f"torch {versions['torch']}",
    ]
    return f"{title}: {', '.join(figures)} ({', '.join(parts)})"


def origin(head: Record, summary: Record) -> list[tuple[str, str]]:
    """All that a citation needs, as (what, value)."""

    def flat(value: Any) -> str:
        if isinstance(value, Mapping):
            return ", ".join(f"{k} {flat(v)}" for k, v in value.items() if v not in ("", None, {}))
        if isinstance(value, (list, tuple)):
            return ", ".join(map(flat, value))
        return str(value)

    fields = [
        (key.replace("_", " "), flat(value)) for key, value in head.items() if key != "type" and value is not None
    ]
    return [
        *((key, value) for key, value in fields if value),
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
            writer.writerow([_cell(r["name"]), *[""] * (len(sides) + 4), _cell(r["error"])])
        else:
            figures = ["inf" if r[side][m] is None else r[side][m] for side, m in sides]
            writer.writerow([_cell(r["name"]), *figures, r["width"], r["height"], r["seconds"], r["content"], ""])
    return out.getvalue()


def _cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return "'" + text if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def image_path(folder: Path, name: str) -> Path:
    """Where the restored picture of a pair goes."""
    return folder / f"{name}.png"


def save_png(folder: Path, name: str, pixels: np.ndarray, *, replace: bool = False) -> None:
    """Write a restored picture (H, W, 3) uint8 to `image_path`, making the folders in its name.

    Raises:
        FileError: it cannot be written; or it exists, and `replace` is not set.
    """
    from PIL import Image

    target = image_path(folder, name)
    target.parent.mkdir(parents=True, exist_ok=True)
    data = BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    atomic_write(target, data.getbuffer(), replace=replace)
