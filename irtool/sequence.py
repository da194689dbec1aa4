"""Animations and pages restored: by one plan, and in an animation with one context, so that nothing flickers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from . import provenance
from .api import cached_model
from .memory import Budget
from .models.base import Bound, Condition, Model, Progress, Tiled
from .picture import Frames, FramesWriter, Picture, sniff
from .plan import Plan
from .result import Result

ModelOf = Callable[[str, str], Model]
HELD = 16
"""Bytes that a frame holds for each of its pixels until all are written: as codes, and what the encoder copies."""
Restore = Callable[[Picture, Plan | None, ModelOf], Result]
"""Restores a picture by a plan (None: by what is found in it) with models from a source: `irtool.api.restore_with`."""


@dataclass(frozen=True, repr=False)
class FramesResult(Result):
    """Frames restored; `picture` is the one in the middle, and all else is of the whole file."""

    encoded: bytes = b""

    def encode(self, format: str | None = None, **options: Any) -> bytes:
        """The file, as `restore_frames` was told to write it."""
        return self.encoded


def restore_frames(
    frames: Frames,
    restore: Restore,
    plan: Plan | None,
    *,
    format: str | None = None,
    quality: int | None = None,
    strip: bool = False,
    budget: Budget | None = None,
) -> FramesResult:
    """Restore all frames of a file and encode them again.

    What is wrong is found in the frame in the middle, and its plan is carried out on all of them. What a network is
    told of the whole picture is that of the middle frame for all frames of an animation; each page has its own.

    Args:
        frames: the file.
        restore: see `Restore`.
        plan: what is to be done, or None to find out.
        format, quality, strip: as of `Result.encode`.
        budget: the memory allowed; frames that will not fit, all of them as they are written, are refused.

    Returns:
        The result; where nothing was to be done and nothing is to be changed, with the bytes of the file.

    Raises:
        PictureError: a frame is damaged, or the format does not hold them; and as `irtool.restore`.
    """
    writer = FramesWriter(format or frames.format, paged=frames.paged, loop=frames.loop, quality=quality, strip=strip)
    models: ModelOf = cached_model if frames.paged else _SharedContext()
    lead = restore(frames.middle, plan, models)
    plan = replace(lead.plan, again=None)
    same = writer.kind.name == sniff(frames.data[:4096]) and quality is None and not strip
    if plan.empty and same:
        return _result(lead, plan, frames.data)
    (budget or Budget()).require(frames.name, (lead.picture.width, lead.picture.height), HELD * frames.count)
    seconds, tiles, peak = lead.seconds, lead.tiles, lead.peak_bytes
    record = provenance.of(plan, hashlib.sha256(frames.data).hexdigest())
    for picture, duration in frames:
        done = picture
        if not plan.empty:
            result = restore(picture, plan, models)
            seconds, tiles = seconds + result.seconds, tiles + result.tiles
            peak = max(peak or 0, result.peak_bytes or 0) or None
            done = result.picture if strip else provenance.recorded(result.picture, record)
        writer.add(done, duration)
    return _result(replace(lead, seconds=seconds, tiles=tiles, peak_bytes=peak), plan, writer.finish())


def _result(lead: Result, plan: Plan, encoded: bytes) -> FramesResult:
    parts = {**vars(lead), "plan": replace(plan, rejected=lead.plan.rejected)}
    return FramesResult(**parts, encoded=encoded)


class _SharedContext:
    """A source of models that are told the same of every image: what the first was measured to be."""

    def __init__(self) -> None:
        self._contexts: dict[tuple[object, ...], Tensor] = {}

    def __call__(self, reference: str, controller: str = "") -> Model:
        return _Model(cached_model(reference, controller), self._contexts, (reference, controller))


class _Model:
    def __init__(self, model: Model, contexts: dict[tuple[object, ...], Tensor], key: tuple[object, ...]) -> None:
        self.info, self._model, self._contexts, self._key = model.info, model, contexts, key

    def bind(self, condition: Condition) -> Bound:
        bound = self._model.bind(condition)
        return _Bound(bound, self._contexts, (*self._key, *condition.tasks.items()))


class _Bound:
    def __init__(self, bound: Bound, contexts: dict[tuple[object, ...], Tensor], key: tuple[object, ...]) -> None:
        self.info, self._bound, self._contexts, self._key = bound.info, bound, contexts, key

    def to(self, device: torch.device, dtype: torch.dtype) -> Bound:
        self._bound = self._bound.to(device, dtype)
        return self

    def prepare(self, image: Tensor) -> tuple[Tensor, Tensor]:
        source, context = self._bound.prepare(image)
        return source, self._contexts.setdefault(self._key, context)

    def run(self, image: Tensor, context: Tensor, tiled: Tiled, on_progress: Progress) -> Tensor:
        return self._bound.run(image, context, tiled, on_progress)
