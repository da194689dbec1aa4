"""The one queue of the page: a thread that looks at pictures and restores them, one at a time.

A picture that a tab waits to see is looked at before any other is restored. Cancelling takes effect at the next tile or
step of the network.
"""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from .. import memory
from ..errors import IrtoolError, UsageError, explained
from ..picture import Picture, read
from . import images
from .session import Entry, Request, Session

PREVIEW_SIDE, PREVIEW_PIXELS = 640, 1_500_000
"""Longer side of the reduced preview; and pixels above which a picture gets one."""


class CancelledError(Exception):
    """The job was cancelled."""


@dataclass
class Job:
    """What waits for its turn: to look at a picture, or to restore it.

    Attributes:
        entry: the picture.
        request: None to look only.
        cancelled: set to end it.
    """

    entry: Entry
    request: Request | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)


class Worker:
    """The queue and its thread.

    Args:
        session: where the pictures are.
        options: of `irtool.restore`: detector, device, dtype and so on.
        threads: of torch.
    """

    def __init__(self, session: Session, options: dict[str, Any], threads: int) -> None:
        self.session, self.options, self.threads = session, options, threads
        self._waiting: deque[Job] = deque()
        self._current: Job | None = None
        self._changed = threading.Condition(threading.RLock())
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="irtool-page", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def close(self) -> None:
        """Cancel everything and wait for the thread, which ends at the next tile."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            if self._current is not None:
                self._current.cancelled.set()
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout=60)

    def submit(self, entry: Entry, request: Request | None = None) -> None:
        """Add a job; one that waits for the same picture is replaced.

        Raises:
            UsageError: the picture is being restored.
        """
        with self._changed:
            current = self._current
            if current is not None and current.entry is entry and current.request and not current.cancelled.is_set():
                raise UsageError(f"{entry.name} is being restored.", "Cancel that first.")
            alike = [job for job in self._waiting if job.entry is entry and (job.request is None) == (request is None)]
            for job in alike:
                self._waiting.remove(job)
            if request is None:
                self._waiting.appendleft(Job(entry))
            else:
                self._waiting.append(Job(entry, request))
            self.session.change(entry, state="queued", restoring=request is not None, error=None)
            self._changed.notify_all()

    def cancel(self, entry: Entry | None = None) -> None:
        """Cancel the jobs of a picture, or all."""
        with self._changed:
            for job in [job for job in self._waiting if entry in (None, job.entry)]:
                self._waiting.remove(job)
                self._settle(job.entry)
            if self._current is not None and entry in (None, self._current.entry):
                self._current.cancelled.set()

    def _settle(self, entry: Entry) -> None:
        """The state of a picture that nothing is done to now."""
        with self._changed:
            waits = any(job.entry is entry for job in self._waiting)
        done = "done" if entry.result is not None else "ready" if entry.diagnosis is not None else "new"
        state = "queued" if waits else done
        self.session.change(entry, state=state, progress=None, preview=None)

    def counts(self) -> dict[str, Any]:
        """What the pages show of the queue: how many wait, and the id of the picture that is worked on."""
        with self._changed:
            current = self._current
            return {"waiting": len(self._waiting), "current": None if current is None else current.entry.id}

    def _run(self) -> None:
        import torch  # here, so that the server answers before it is loaded

        torch.set_num_threads(self.threads)
        while True:
            with self._changed:
                self._current = None
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                job = self._current = self._waiting.popleft()
            entry = job.entry
            try:
                self._do(job)
                self._settle(entry)
            except CancelledError:
                self._settle(entry)
            except Exception as error:
                self.session.change(entry, state="failed", progress=None, preview=None, error=described(error))
            if entry.id not in self.session.entries:
                self.session.remove(entry)  # it went while it was worked on

    def _do(self, job: Job) -> None:
        entry, request, session = job.entry, job.request, self.session
        session.change(entry, state="working", restoring=request is not None, progress=None, error=None)
        scale = (request and request.scale) or 1
        budget = memory.Budget(per_pixel=memory.per_pixel(scale))
        picture = read(entry.path, name=entry.name, max_pixels=session.limits.pixels, budget=budget)
        if entry.diagnosis is None:
            self._look(entry, picture)
        if request is None or job.cancelled.is_set():
            return
        if request.save and entry.item is not None and entry.public.get("saved"):
            return  # as restore skips what is there
        plan = request.plan()
        steps = len(plan.steps) if plan is not None else len(entry.public["suggestion"]["tasks"])
        options = {**self.options, **self._planned(request), "scale": request.scale}
        if picture.width * picture.height > PREVIEW_PIXELS:
            self._preview(job, picture, options)
        options["mask"] = session.mask(entry, (picture.width, picture.height)) if self._masks(entry, request) else None
        self._restore(job, picture, options, steps + (request.scale is not None))
        if request.save and entry.item is not None:
            try:
                session.save(entry, "error")
            except IrtoolError as error:  # the result is there, and can be saved under another name
                session.change(entry, error=described(error))

    def _look(self, entry: Entry, picture: Picture) -> None:
        """Diagnose a picture, and keep what the pages show of it."""
        from ..api import detect
        from ..plan import plan_auto

        session = self.session
        image = images.to_image(picture)
        shown = images.as_shown(image)
        # A browser shows a JPEG in sRGB as we do; of other files it may not know the format or the colors.
        as_it_is = picture.original if picture.jpeg is not None and picture.icc is None and shown is image else None
        session.keep(entry, "before.jpg", as_it_is or images.jpeg(shown))
        session.keep(entry, "thumb.jpg", images.jpeg(images.reduced(image, images.THUMBNAIL), 80))
        found = detect(picture, model=self.options["detector"], device=self.options["device"])
        for kind, data in images.where(found).items():
            session.keep(entry, f"where-{kind}.png", data)
        plan = plan_auto(found)
        entry.diagnosis = found
        session.change(
            entry,
            width=picture.width,
            height=picture.height,
            shown=list(shown.size),
            notes=list(picture.notes),
            found={i: found.scores[i] for i in found.present},
            perhaps={i: found.scores[i] for i in found.uncertain},
            where=[i for i in (*found.present, *found.uncertain) if i in found.maps],
            suggestion={"tasks": [(i, step.strength) for step in plan.steps for i in step.task_weights]},
        )

    def _planned(self, request: Request) -> dict[str, Any]:
        """The arguments of `irtool.restore` that say what is to be done."""
        from ..plan import plan_auto

        plan = request.plan()
        if plan is None:
            return {"planner": partial(plan_auto, model=request.model)}
        return {"plan": plan}

    def _masks(self, entry: Entry, request: Request) -> bool:
        return entry.masked and any(kind == "missing" for kind, _ in request.tasks)

    def _preview(self, job: Job, picture: Picture, options: dict[str, Any]) -> None:
        """Restore a reduced copy, to be seen until the whole is ready."""
        from ..api import restore

        entry = job.entry
        small = np.asarray(images.reduced(images.to_image(picture), PREVIEW_SIDE))
        assert job.request is not None
        size = (small.shape[1], small.shape[0])
        mask = self.session.mask(entry, size) if self._masks(entry, job.request) else None
        done = restore(small, **{**options, "scale": None, "mask": mask, "on_progress": self._reporter(job, None)})
        self.session.keep(entry, "preview.jpg", images.jpeg(images.to_image(done.picture)))
        self.session.change(entry, preview=self.session.version + 1)

    def _restore(self, job: Job, picture: Picture, options: dict[str, Any], steps: int) -> None:
        """Restore a picture, and keep the file of the result and what is shown of it."""
        from ..api import restore

        entry, session = job.entry, self.session
        result = restore(picture, **options, on_progress=self._reporter(job, steps))
        if job.cancelled.is_set():
            raise CancelledError
        notes: list[str] = []
        item = entry.item
        format = item.format if item is not None and item.format is not None else result.picture.format
        data = result.encode(format, notes=notes)
        file = session.keep(entry, "result", data)
        image = images.as_shown(images.to_image(result.picture))
        session.keep(entry, "after.jpg", images.jpeg(image))
        entry.result = (file, format)
        session.change(
            entry,
            result={
                "version": session.version + 1,
                "width": result.picture.width,
                "height": result.picture.height,
                "shown": list(image.size),
                "bytes": len(data),
                "seconds": round(result.seconds, 1),
                "untouched": result.untouched,
                "steps": [str(part) for part in result.plan.removals],
                "left": [str(one) for one in result.plan.rejected],
                "reason": result.plan.reason,
                "notes": [*result.picture.notes, *notes],
                "name": session.result_name(entry),
            },
            saved=None,
        )

    def _reporter(self, job: Job, steps: int | None) -> Callable[[int, int], None]:
        """What the network calls after each tile: tells the pages how far it is, and ends a job that was cancelled.

        Args:
            job: the job.
            steps: passes of a network that are foreseen; None to tell nothing.
        """
        before = [0, 0.0]

        def report(done: int, total: int) -> None:
            if job.cancelled.is_set():
                raise CancelledError
            if steps is None:
                return
            share = done / max(1, total)
            before[0] += share < before[1]  # the next step begins
            before[1] = share
            progress = (before[0] + share) / max(steps, before[0] + 1)
            self.session.change(job.entry, progress=round(min(1.0, progress), 3))

        return report


def described(error: Exception) -> dict[str, str]:
    """An error as the pages show it."""
    known = explained(error)
    if known is None:
        traceback.print_exception(error)
        known = IrtoolError(
            f"A bug in irtool ({type(error).__name__}: {error}).", "Report what irtool serve has printed."
        )
    message, hint = (text.replace("`", "") for text in (known.message, known.hint))
    return {"error": message if message.endswith(".") else f"{message}.", "hint": hint}
