"""What the page knows: its pictures, what was found in them and what became of them.

One session serves all tabs. Every change has a number, so that a tab asks only for what is new since it last looked.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import targets
from ..degradation import lookup_task
from ..errors import NothingToDoError, PictureError, UsageError
from ..fileio import exists
from ..language import Intent, check, plan_intents
from ..picture import probe, read, save_bytes, suffix_for
from ..plan import SCALES, Plan
from ..targets import Item

MASK_BYTES, MASK_PIXELS = 8 << 20, 4_300_000
"""Bounds of a brushed mask: the page draws it with sides of at most 2,048 pixels."""


@dataclass(frozen=True)
class Limits:
    """What is taken from a browser.

    Attributes:
        file_bytes: of one picture.
        total_bytes: of all pictures that were dropped and not removed since.
        pixels: of one picture; also of those in the folder.
    """

    file_bytes: int = 512 << 20
    total_bytes: int = 8 << 30
    pixels: int = 120_000_000


@dataclass(frozen=True)
class Request:
    """What is to be done to a picture.

    Attributes:
        auto: what is found is removed, as by ``restore --auto``; else `tasks`.
        tasks: (degradation id, strength above 0 and up to 1).
        ordered: the tasks are carried out one by one, in their order.
        model: the restorer.
        scale: 2, 3 or 4, or None.
        save: the result is written beside the original, unless a file is there.
    """

    auto: bool
    model: str
    tasks: tuple[tuple[str, float], ...] = ()
    ordered: bool = False
    scale: int | None = None
    save: bool = False

    @staticmethod
    def of(data: Mapping[str, Any], models: Sequence[str]) -> Request:
        """The request that a page sent.

        Raises:
            UsageError: it is none, or asks for nothing, or for a model that was not offered.
        """
        try:
            tasks = tuple((str(kind), float(strength)) for kind, strength in data.get("tasks", ()))
        except (TypeError, ValueError) as error:
            raise UsageError("These are no tasks with strengths.") from error
        model, scale = data.get("model") or models[0], data.get("scale")
        if model not in models:
            raise UsageError(f"The model '{model}' was not offered.", f"Choose one of {', '.join(models)}.")
        if scale is not None and scale not in SCALES:
            raise UsageError("A picture is enlarged 2, 3 or 4 times.")
        auto = bool(data.get("auto"))
        request = Request(auto, model, tasks, bool(data.get("ordered")), scale, bool(data.get("save")))
        request.plan()
        return request

    def plan(self) -> Plan | None:
        """The plan of the tasks; None where the picture decides.

        Raises:
            UsageError: there is no such task, a strength is out of range, or nothing is to be done.
        """
        if self.auto:
            return None
        wrong = [strength for _, strength in self.tasks if not 0 < strength <= 1]
        if wrong:
            raise UsageError(f"A strength lies above 0 and up to 1, not {wrong[0]:g}.")
        if not self.tasks and self.scale is None:
            raise UsageError("Nothing is switched on.", "Switch on what is to be removed, or choose an enlargement.")
        asked = {lookup_task(kind): strength for kind, strength in self.tasks}
        intent = Intent(tasks={d.id: strength for d, strength in asked.items()}, ordered=self.ordered)
        return replace(plan_intents([intent], model=self.model), reason="as asked")


@dataclass
class Entry:
    """A picture of the session.

    Attributes:
        id: random; names the files that are kept of it.
        name: as it is shown. Never part of a path.
        path: the file that is read.
        item: of a picture of the folder, where its result goes.
        public: what the pages are told of it.
        diagnosis: once it was looked at.
        result: (file of the result, its format).
        masked: a mask was brushed.
    """

    id: str
    name: str
    path: Path
    item: Item | None = None
    bytes: int = 0
    version: int = 0
    public: dict[str, Any] = field(default_factory=dict)
    diagnosis: Any = None
    result: tuple[Path, str] | None = None
    masked: bool = False


class Session:
    """The pictures, in the order they came.

    Args:
        scratch: a folder of its own, for what was dropped and what is shown; the caller removes it.
        limits: see `Limits`.
        items: pictures of the folder with their outputs.
    """

    def __init__(self, scratch: Path, limits: Limits, items: Sequence[Item] = ()) -> None:
        self.scratch, self.limits = scratch, limits
        self.lock = threading.RLock()
        self.version = 0
        self.entries: dict[str, Entry] = {}
        self.removed: list[tuple[int, str]] = []
        for item in items:
            assert item.source is not None
            entry = Entry(_new_id(), shown_name(item.relative or item.source.name), item.source, item)
            there = item.target is not None and exists(item.target)
            self._add(entry, saved=shown_name(item.target.name) if there and item.target else None, folder=True)

    def _add(self, entry: Entry, **facts: Any) -> None:
        with self.lock:
            self.entries[entry.id] = entry
        self.change(entry, id=entry.id, name=entry.name, state="new", **facts)

    def change(self, entry: Entry, **facts: Any) -> None:
        """Let the pages know something of a picture."""
        with self.lock:
            self.version += 1
            entry.version = self.version
            entry.public |= facts

    def since(self, version: int) -> dict[str, Any]:
        """What has changed since a version; 0 for everything."""
        with self.lock:
            return {
                "version": self.version,
                "pictures": [dict(entry.public) for entry in self.entries.values() if entry.version > version],
                "removed": [id for number, id in self.removed if number > version] if version else [],
            }

    def get(self, id: str) -> Entry:
        """The picture of an id.

        Raises:
            NothingToDoError: it is no longer there.
        """
        entry = self.entries.get(id)
        if entry is None:
            raise NothingToDoError("This picture is no longer on the page.", "Drop it once more.")
        return entry

    def new_file(self) -> Path:
        """A path for a picture that is being received."""
        return self.scratch / f"{_new_id()}.source"

    def room(self) -> int:
        """Bytes that may still be received, of one picture."""
        with self.lock:
            taken = sum(entry.bytes for entry in self.entries.values())
        return min(self.limits.file_bytes, self.limits.total_bytes - taken)

    def add_upload(self, name: str, path: Path) -> Entry:
        """Take in a file that was received.

        Raises:
            PictureError, UnavailableError: it is no picture, or has too many pixels.
        """
        name = shown_name(name.replace("\\", "/").rpartition("/")[2])
        self._check(path, name)
        entry = Entry(path.stem, name, path, bytes=path.stat().st_size)
        self._add(entry, folder=False)
        return entry

    def _check(self, path: Path, name: str) -> None:
        _, width, height = probe(path, name=name)
        if width * height > self.limits.pixels:
            raise PictureError(
                f"{name}: {width} x {height} is more than the {self.limits.pixels / 1e6:g} megapixels allowed.",
                "Start irtool serve with a larger --max-megapixels, or reduce the picture.",
            )

    def remove(self, entry: Entry) -> None:
        """Forget a picture and all that was kept of it; a file of the folder stays."""
        with self.lock:
            if self.entries.pop(entry.id, None) is not None:
                self.version += 1
                self.removed.append((self.version, entry.id))
        for file in self.scratch.glob(f"{entry.id}.*"):
            file.unlink(missing_ok=True)

    def file(self, entry: Entry, kind: str) -> Path:
        """Where something is kept of a picture, such as "before.jpg"."""
        return self.scratch / f"{entry.id}.{kind}"

    def keep(self, entry: Entry, kind: str, data: bytes) -> Path:
        """Write what is kept of a picture: whoever reads it meanwhile gets the old or the new."""
        path, new = self.file(entry, kind), self.scratch / f"{_new_id()}.new"
        new.write_bytes(data)
        return new.replace(path)

    def set_mask(self, entry: Entry, data: bytes) -> None:
        """Keep a brushed mask, white where something is missing; one without white removes it.

        Raises:
            PictureError: it is no picture, or too large.
        """
        mask = read(data, name="the mask", max_pixels=MASK_PIXELS) if data else None
        white = None if mask is None else mask.pixels.mean(axis=2) > 0.5
        if white is not None and white.any():
            Image.fromarray(white.astype(np.uint8) * 255).save(self.file(entry, "mask.png"))
            entry.masked = True
        else:
            entry.masked = False
        self.change(entry, masked=entry.masked)

    def mask(self, entry: Entry, size: tuple[int, int]) -> np.ndarray:
        """The brushed mask at a size (width, height), as the API takes it: (H, W) uint8."""
        with Image.open(self.file(entry, "mask.png")) as mask:
            return np.asarray(mask.resize(size, Image.Resampling.NEAREST))

    def result_name(self, entry: Entry) -> str:
        """The name that a result is downloaded under."""
        assert entry.result is not None
        name = Path(entry.name).name
        return f"{Path(name).stem}{targets.SUFFIX}{suffix_for(entry.result[1], name)}"

    def save(self, entry: Entry, existing: str) -> Path:
        """Write the result where ``irtool restore`` would.

        Args:
            entry: a picture of the folder, restored.
            existing: where a file is there: "error", "rename" or "overwrite".

        Raises:
            UsageError: a file is there, or there is no place or no result.
            PictureError: it cannot be written.
        """
        if entry.item is None or entry.item.target is None:
            raise UsageError(f"{entry.name} was dropped on the page, which does not know its folder.", "Download it.")
        if entry.result is None:
            raise UsageError(f"{entry.name} has no result yet.", "Restore it first.")
        if existing not in ("error", "rename", "overwrite"):
            raise UsageError(f"`existing` cannot be '{existing}'.")
        item = targets.resolve_existing([entry.item], existing)[0][0]
        assert item.target is not None
        targets.make_folder(item.target.parent)
        data = entry.result[0].read_bytes()
        save_bytes(data, item.target, replace=existing == "overwrite", like=item.source)
        self.change(entry, saved=shown_name(item.target.name))
        return item.target


def heard(text: str, diagnosis: Any, model: str) -> dict[str, Any]:
    """What words ask for, as switches of the page.

    Args:
        text: a sentence or several.
        diagnosis: of the picture.
        model: the restorer.

    Returns:
        "tasks": (id, strength) in order; "keep"; "ordered"; "scale"; "answer" to a question, or an empty string.

    Raises:
        UsageError: it was not understood, or irtool cannot do it.
    """
    from ..language import parse

    if not text.strip():
        raise UsageError("Nothing was said.", 'Say what is to be done: "remove the rain, keep the grain".')
    intents = parse(text)
    check(intents)
    plan = plan_intents(intents, diagnosis, model=model)
    asked = all(intent.question for intent in intents)
    return {
        "tasks": [
            *((repair.kind, repair.strength) for repair in plan.repairs),
            *((kind, step.strength) for step in plan.steps for kind in step.task_weights),
        ],
        "keep": list(plan.keep),
        "ordered": any(intent.ordered for intent in intents),
        "scale": None if plan.upscale is None else plan.upscale.scale,
        "answer": plan.reason if asked else "",
    }


def shown_name(text: str) -> str:
    """A file name as it is shown: what is no Unicode is spelt out, what breaks lines or turns text is left out."""
    text = text.encode("utf-8", "backslashreplace").decode()
    text = re.sub(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]", "", text).strip()
    return text[-200:] or "picture"


def _new_id() -> str:
    return secrets.token_hex(8)
