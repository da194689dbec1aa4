"""The Python API: a picture in, a diagnosis or a better picture out.

Nothing is remembered between calls but the last few networks, so that a loop over pictures loads them once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from . import engine
from . import picture as pictures
from .detect import Detector, Diagnosis
from .detect import load as load_detector
from .diffusion.observation import tasks_of
from .diffusion.sampling import Sampling
from .errors import PictureError, UsageError
from .language import understand
from .language.understand import DEFAULT_TEXT_MODEL
from .language.wish import Own, check, looks, plan_wishes
from .models import loading, modulation
from .models.architectures import get, names
from .models.base import Condition, Model, ModelInfo
from .picture import Picture
from .picture.quantised import within
from .plan import Plan, plan_auto, plan_rest, plan_tasks
from .weights import DEFAULT_DETECTOR, DEFAULT_RESTORER, locate, needs

if TYPE_CHECKING:
    from .detect.daclip import DaclipDetector

Source = Picture | str | Path | bytes
Progress = Callable[[int, int], None]
States = Callable[[int, torch.Tensor], None]


@dataclass(frozen=True)
class Result:
    """A restored picture and how it came about.

    Attributes:
        picture: the restored picture; the very one that went in where nothing was to be done.
        plan: what was done.
        diagnosis: what was found at first, or None where the plan came from elsewhere.
        seconds: time spent on diagnosis and restoration, without decoding.
        tiles: tiles computed over all steps.
        peak_bytes: most memory held (see `irtool.engine.Outcome`), None where unknown or nothing was computed.
        original: the bytes of the file, where the picture came from bytes.
    """

    picture: Picture
    plan: Plan
    diagnosis: Diagnosis | None = None
    seconds: float = 0.0
    tiles: int = 0
    peak_bytes: int | None = None
    original: bytes | None = field(default=None, repr=False)

    @property
    def untouched(self) -> bool:
        """Nothing was to be done: the picture is as it was."""
        return not self.plan.steps

    def encode(self, format: str | None = None, *, quality: int | None = None, strip: bool = False) -> bytes:
        """The bytes of the result's file.

        An untouched picture gives back the bytes it came from, unless another format, a quality or `strip` is asked
        for: encoding a clean JPEG once more would do harm.

        Args:
            format: a format name, by default the picture's own.
            quality: 1 to 100, by default like the source.
            strip: leave metadata out.

        Raises:
            UsageError, PictureError, UnavailableError: as `irtool.picture.encode`.
        """
        kind = pictures.format_named(format or self.picture.format)
        if self.untouched and kind.name == self.picture.format and quality is None and not strip:
            original = self.original
            if original is None and self.picture.source is not None:
                try:
                    original = self.picture.source.read_bytes()
                except OSError as error:
                    raise PictureError(f"{self.picture.name}: cannot be read again ({error.strerror})") from error
            # A format that is read but not written, such as GIF, comes under another name and must not pass as it.
            if original is not None and pictures.sniff(original[:4096]) == kind.name:
                return original
        return pictures.encode(self.picture, kind.name, quality=quality, strip=strip)

    def save(
        self, path: str | Path, *, format: str | None = None, quality: int | None = None, strip: bool = False
    ) -> Path:
        """Write the result, whole or not at all; the arguments are those of `encode`.

        Args:
            path: the file to write; without `format` its suffix names the format.

        Raises:
            UsageError: the path is the input, or its suffix names no format.
            PictureError: it cannot be written.
        """
        path = Path(path)
        source = self.picture.source
        if source is not None and path.exists() and source.exists() and path.samefile(source):
            raise UsageError(f"{path} is the input, which is never written to.", "Choose another name or folder.")
        kind = format or pictures.format_for(path).name
        return pictures.save_bytes(self.encode(kind, quality=quality, strip=strip), path)


def detect(source: Source, *, model: str = DEFAULT_DETECTOR, device: str = "auto") -> Diagnosis:
    """Say what is wrong with a picture.

    Args:
        source: a `Picture`, a path, or the bytes of a file.
        model: id of a detector in weights.toml, or ``local:PATH``.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Returns:
        A score in [0, 1] for each degradation, and those that are present, strongest first.

    Raises:
        PictureError: the picture cannot be read.
        UsageError: an unknown model or device.
        UnavailableError: the weights or the device are not here.
    """
    return _detector(model, engine.pick_device(device)).diagnose(_tensor(_read(source)))


def restore(
    source: Source,
    *,
    tasks: Sequence[str] | str | None = None,
    plan: Plan | Callable[[Diagnosis], Plan] | None = None,
    strength: float = 1.0,
    model: str = DEFAULT_RESTORER,
    detector: str = DEFAULT_DETECTOR,
    sampling: Sampling | None = None,
    controller: str = "",
    mask: Source | None = None,
    device: str = "auto",
    dtype: str = "auto",
    tile: str = "auto",
    max_memory: int | None = None,
    ensemble: bool = False,
    on_progress: Progress | None = None,
    on_state: States | None = None,
) -> Result:
    """Put a picture right.

    Without `tasks` and `plan` the picture is diagnosed first and what was found is undone; a clean picture comes back
    untouched. Where compression is undone first, and alone, and the pixels are those of a JPEG file, they change by no
    more than the file's tables allow (`irtool.picture.quantised`).

    Args:
        source: a `Picture`, a path, or the bytes of a file.
        tasks: what to undo instead, as ids, task verbs or synonyms: ``["denoise", "rain"]`` or ``"denoise,rain"``.
        plan: a finished plan to carry out instead, or a function that makes one of what is found; `strength`, `model`,
            `sampling` and `controller` are then those of its steps.
        strength: share of the result in the output, in [0, 1]; the rest is the input.
        model: id of a restorer in weights.toml, or ``local:PATH``.
        detector: likewise, of a detector.
        sampling: steps, sampler and seed of a diffusion model.
        controller: id or ``local:PATH`` of the DA-CLIP that steers the model; empty for its own.
        mask: a picture of the same size, white where regions are missing; what restores them then leaves all else as
            it is. Without `tasks` and `plan` that is all that is done.
        device: "auto", "cpu", "cuda" or "cuda:N".
        dtype: "auto", "fp32", "bf16" or "fp16".
        tile: "auto", "off", or the side of a tile in pixels.
        max_memory: bytes to stay under.
        ensemble: average over four mirrored views of the picture: a little better, four times slower.
        on_progress: called with (tiles done, tiles in all) during each step.
        on_state: of a diffusion model, called with every time reached, from T down to 0, and the state there: (3, H, W)
            float32 on the CPU, about [0, 1].

    Raises:
        PictureError: the picture cannot be read, or the memory allowed is too small for it.
        UsageError: an unknown name, or a value out of range.
        UnavailableError: the weights or the device are not here.
    """
    if tasks is not None and plan is not None:
        raise UsageError("Give tasks or a plan, not both.")
    if not 0 <= strength <= 1:
        raise UsageError(f"The strength lies from 0 to 1, not {strength:g}.")
    if sampling is not None and sampling.operator and tasks is None and plan is None:
        tasks = tasks_of(sampling.operator)
    if mask is not None and tasks is None and plan is None:
        tasks = "missing"
    if tasks is not None:
        words = [tasks] if isinstance(tasks, str) else tasks
        plan = plan_tasks(words, strength, model, sampling=sampling, controller=controller)
    where = engine.pick_device(device)
    picture = _read(source)
    begun = time.perf_counter()
    pixels = _tensor(picture)
    diagnosis = None
    if plan is None:
        plan = partial(plan_auto, strength=strength, model=model, sampling=sampling, controller=controller)
    if callable(plan):
        diagnosis = _detector(detector, where).diagnose(pixels)
        plan = plan(diagnosis)
    holes = None if mask is None else _holes(_read(mask), picture, plan)
    tiles, peak, done = 0, None, 0
    while done < len(plan.steps):
        step = plan.steps[done]
        condition = Condition(
            step.mixture,
            mask=holes if "missing" in step.mixture else None,
            adapter=Path(step.offsets) if step.offsets else None,
            sampling=step.sampling,
            callback=on_state,
        )
        outcome = engine.run(
            _restorer(step.model, step.controller).bind(condition), pixels, device=where, dtype=dtype, tile=tile,
            max_memory=max_memory, ensemble=ensemble, on_progress=on_progress,
        )  # fmt: skip
        restored = outcome.pixels
        if holes is not None and tuple(step.mixture) == ("missing",):
            restored = torch.where(holes > 0, restored, pixels)
        if done == 0 and picture.jpeg is not None and tuple(step.mixture) == ("jpeg",):
            # Only of its own pixels does a file say how far off they can be, and only from compression alone.
            restored = torch.from_numpy(within(restored.numpy(), pixels.numpy(), picture.jpeg))
        pixels = restored if step.strength == 1 else torch.lerp(pixels, restored, step.strength)
        tiles += outcome.tiles
        peak = outcome.peak_bytes if peak is None else max(peak, outcome.peak_bytes or 0)
        done += 1
        if plan.again is not None and done == len(plan.steps):
            plan = plan_rest(plan, _detector(detector, where).diagnose(pixels))
    if plan.steps:
        picture = picture.with_pixels(pixels.permute(1, 2, 0).contiguous().numpy())
    seconds = time.perf_counter() - begun
    return Result(picture, plan, diagnosis, seconds, tiles, peak, source if isinstance(source, bytes) else None)


def instruct(
    source: Source,
    *said: str,
    text_model: str = DEFAULT_TEXT_MODEL,
    offsets: Mapping[str, str | Path] | None = None,
    **options: Any,
) -> Result:
    """Do to a picture what is said, in English, Chinese, Spanish, German, French or Japanese.

    A question changes nothing: the picture comes back untouched, with its diagnosis, and the plan's reason answers.

    Args:
        source: a `Picture`, a path, or the bytes of a file.
        said: a sentence or several, carried out in order.
        text_model: what understands them, see `irtool.language.load`.
        offsets: tasks of your own: the word that the sentences have for it -> file of its weight offsets.
        options: of `restore`, but for `tasks` and `plan`.

    Raises:
        UsageError: nothing was said, it was not understood, or irtool cannot do it; and as `restore`.
    """
    if not said:
        raise UsageError("Say what is to be done.", 'irtool.instruct("photo.jpg", "remove the rain")')
    wishes = understand(said, text_model=text_model, own=tuple(offsets or ()))
    check(wishes)
    own = {word: Own(str(path), modulation.begins(Path(path))) for word, path in (offsets or {}).items()}
    attributes = {k: options[k] for k in ("strength", "model", "sampling", "controller") if k in options}
    planned = partial(plan_wishes, wishes, own=own, **attributes)
    return restore(source, plan=planned if looks(wishes) else planned(), **options)


def prepare(
    *, model: str | None = None, detector: str | None = None, controller: str = "", device: str = "auto"
) -> None:
    """Load networks ahead of a run, so that what is missing is said before any picture is read.

    Raises:
        UsageError, UnavailableError: as `restore`.
    """
    where = engine.pick_device(device)
    if detector is not None:
        _detector(detector, where)
    if model is not None:
        _restorer(model, controller)


def info(model: str, controller: str = "") -> ModelInfo:
    """What a restorer does and needs, loaded as `restore` would load it.

    Raises:
        UsageError, UnavailableError: as `restore`.
    """
    return _restorer(model, controller).info


def _read(source: Source) -> Picture:
    return source if isinstance(source, Picture) else pictures.read(source)


def _tensor(picture: Picture) -> torch.Tensor:
    """(3, H, W) of a picture."""
    return torch.from_numpy(picture.pixels).permute(2, 0, 1).contiguous()


def _holes(mask: Picture, picture: Picture, plan: Plan) -> torch.Tensor:
    """(1, H, W), 1 where a mask is white."""
    if not any("missing" in step.mixture for step in plan.steps):
        raise UsageError("A mask was given, but missing regions are not to be restored.", "Add the task missing.")
    (height, width), (tall, wide) = picture.pixels.shape[:2], mask.pixels.shape[:2]
    if (height, width) != (tall, wide):
        raise UsageError(
            f"{mask.name} has {wide}x{tall} pixels, {picture.name} {width}x{height}.",
            "A mask is as large as the picture, white where something is missing.",
        )
    return (_tensor(mask).mean(0, keepdim=True) > 0.5).float()


@lru_cache(maxsize=2)
def _detector(reference: str, device: torch.device) -> Detector | DaclipDetector:
    return load_detector(locate(reference), device)


@lru_cache(maxsize=2)
def _restorer(reference: str, controller: str = "") -> Model:
    def companions_of(architecture: str, header: Mapping[str, str]) -> list[Path]:
        beside: tuple[str, ...] = tuple(json.loads(header.get("needs", "[]"))) or needs(reference, architecture)
        if controller:
            if not get(architecture).steered:
                known = ", ".join(name for name in names() if get(name).steered)
                raise UsageError(f"{reference} takes no controller.", f"Architectures that do: {known}.")
            beside = (controller,)
        return [locate(companion) for companion in beside]

    return loading.load(locate(reference), companions_of=companions_of)
