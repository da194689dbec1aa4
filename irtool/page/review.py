"""The page of a folder run (``irtool restore FOLDER -o OUT --review``): one file, OUT/review.html.

While the run goes on, each picture leaves small copies in OUT/.irtool/review, beside the account
(`irtool.account`); the page is made of both at the end, so that it is whole whatever number of processes, shards or
resumed runs did the work.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from .. import account
from ..errors import UsageError
from ..fileio import atomic_write, exists
from ..picture import Picture
from ..plan import Plan
from . import images

if TYPE_CHECKING:
    from ..result import Result
    from ..targets import Item

NAME, FOLDER = "review.html", "review"
SIDE, THUMBNAIL = 800, 160
"""Longer side in pixels of the pictures with a slider, and of the others."""
MOST_PAIRS, MOST_THUMBNAILS = 200, 4000
"""Pictures with a slider and with a thumbnail, the most changed first: the page stays near 60 MB however many there
are. All others are lines of text."""
MARK = '<meta name="generator" content="irtool">'


@dataclass(frozen=True)
class Small:
    """A picture before it was restored, reduced; (h, w, 3) uint8."""

    pixels: np.ndarray

    @staticmethod
    def of(picture: Picture) -> Small:
        """The reduced copy of a picture."""
        return Small(np.asarray(images.reduced(images.to_image(picture), SIDE)))

    def keep(self, folder: Path, item: Item, result: Result) -> float:
        """Keep small copies of the picture and its result for the page of an output folder.

        Returns:
            How much it changed: the mean absolute difference of the reduced copies in levels of 255.
        """
        place = folder / account.FOLDER / FOLDER
        place.mkdir(parents=True, exist_ok=True)
        first = last = Image.fromarray(self.pixels)
        if not result.untouched:
            last = images.to_image(result.picture).resize(first.size, Image.Resampling.BOX, reducing_gap=2.0)
        split = first.copy()
        split.paste(last.crop((first.width // 2, 0, *first.size)), (first.width // 2, 0))
        files = {"thumb": images.jpeg(images.reduced(split, THUMBNAIL), 75)}
        if not result.untouched:
            files |= {"before": images.jpeg(first, 80), "after": images.jpeg(last, 80)}
        for kind, data in files.items():
            atomic_write(place / f"{_key(item.name)}.{kind}.jpg", data)
        return float(np.abs(np.asarray(last, np.float32) - np.asarray(first, np.float32)).mean())


def check(folder: Path) -> None:
    """Refuse to replace a review.html that irtool did not make.

    Raises:
        UsageError: there is one.
    """
    page = folder / NAME
    if exists(page) and MARK not in page.read_bytes()[:2000].decode(errors="replace"):
        raise UsageError(f"{page} was not made by irtool, and is not replaced.", "Rename it, or leave `review` out.")


def _key(source: Path | str) -> str:
    path = os.fsencode(Path(source).absolute())
    return hashlib.sha256(path).hexdigest()[:20]


def write(folder: Path) -> Path:
    """Make the page of an output folder.

    Raises:
        UsageError: there is no account of a run.
        FileError: it cannot be written.
    """
    _, lines = account.read(folder)
    check(folder)
    known = [line for line in lines if line.get("status") == "failed" or exists(folder / line.get("relative", "\0"))]
    known.sort(key=lambda line: (-(line.get("change") or 0), line["path"]))
    rows = []
    for rank, line in enumerate(known):
        kinds = ["thumb"] * (rank < MOST_THUMBNAILS)
        if rank < MOST_PAIRS and line.get("change"):
            kinds += ["before", "after"]
        files = {kind: folder / account.FOLDER / FOLDER / f"{_key(line['path'])}.{kind}.jpg" for kind in kinds}
        rows.append(_row(line) | {kind: _data(file) for kind, file in files.items() if file.is_file()})
    return atomic_write(folder / NAME, render({"title": folder.resolve().name, "rows": rows, "pairs": MOST_PAIRS}))


def _data(file: Path) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(file.read_bytes()).decode()


def _row(line: Mapping[str, Any]) -> dict[str, Any]:
    """What the page says of a picture."""
    output = line.get("relative", "")
    plan, diagnosis = line.get("plan") or {}, line.get("diagnosis") or {}
    scores = diagnosis.get("scores", {})
    steps = [str(part) for part in Plan.from_dict(plan).removals] if plan else []
    if plan.get("upscale"):
        steps.append(f"enlarged {plan['upscale']['scale']} times")
    failed, name = line.get("status") == "failed", Path(line["path"]).name
    # What was found is said with its scores already; the rest of the reason is news.
    why = [
        part for part in plan.get("reason", "").split("; ") if not re.match("found (?!afterwards)|the picture is", part)
    ]
    return {
        "name": name if failed else output,
        "href": "" if failed else quote(os.fsencode(output)),
        "status": line.get("status"),
        "found": [[i, scores.get(i)] for i in diagnosis.get("present", ()) if i != "clean"],
        "perhaps": [[i, scores.get(i)] for i in diagnosis.get("perhaps", ())],
        "undone": steps,
        "left": [
            f"{' and '.join(one['kinds'])}{' in part' * bool(one['strength'])}: {one['reason']}"
            for one in plan.get("rejected", ())
        ],
        "why": "; ".join(why),
        "seconds": line.get("seconds"),
        "change": round(line.get("change") or 0, 2),
        "error": (line.get("error") or "").replace(line["path"], name),
    }


def render(data: Mapping[str, Any]) -> str:
    """The page with its data; it may run its own script and style, and load nothing."""
    template = Path(__file__).with_name("review.html").read_text(encoding="utf-8")
    inline = {tag: template.split(f"<{tag}>")[1].split(f"</{tag}>")[0] for tag in ("style", "script")}
    hashes = {tag: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for tag, text in inline.items()}
    policy = "default-src 'none'; img-src data:; " + "; ".join(f"{tag}-src 'sha256-{h}'" for tag, h in hashes.items())
    # Inside a script element only "<" could end the data early.
    payload = json.dumps(data).replace("<", "\\u003c")
    page = template.replace("<!-- policy -->", f'<meta http-equiv="Content-Security-Policy" content="{policy}">')
    return page.replace('type="application/json">{}', f'type="application/json">{payload}')
