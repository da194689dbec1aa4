"""The Python API: an image in, a diagnosis or a restored image out.

Calls of `restore`, `detect` and `instruct` share the last few networks, so that a loop loads them once; `clear_cache`
lets them go. A `LoadedModel` (`load_model`) is shared with nobody and freed when it is dropped.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial, singledispatch
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import torch
from torch import Tensor

from . import engine
from .detect import Detector, Diagnosis
from .detect import load as load_detector
from .diffusion.sampling import Sampling
from .errors import UsageError
from .inputs import Image, to_picture, to_tensor
from .memory import RESTORED, Budget
from .models import loading, modulation
from .models.architectures import get, names
from .models.base import Callback, Condition, Model, ModelInfo, Progress
from .picture import Picture, read
from .picture.quantised import within
from .plan import Plan, plan_auto, plan_rest, plan_tasks
from .result import Result
from .weights import DEFAULT_DETECTOR, DEFAULT_RESTORER, locate, needs

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .batch import Done
    from .detect.daclip import DaclipDetector

DEFAULT_TEXT_MODEL = "irtool-words.v1"
Planner = Callable[[Diagnosis], Plan]


class Options(TypedDict, total=False):
    """How a plan is carried out; the same for all ways to ask for one.

    Keys:
        detector: id of the detector in weights.toml, or ``local:PATH``.
        mask: an image of the same size, white where regions are missing; what restores them then leaves all else as it
            is.
        device: "auto", "cpu", "cuda" or "cuda:N".
        dtype: "auto", "fp32", "bf16" or "fp16".
        tile: "auto", "off", or the side of a tile in pixels.
        max_memory: bytes to stay under.
        ensemble: average over four mirrored views of the image: a little better, four times slower.
        padding: how sides are continued to what the network needs: "auto" (as its authors do), "reflect" or "zeros".
        on_progress: called with (tiles or steps done, tiles or steps in all) during each step.
        callback: of a diffusion model, called with every time reached, from T down to 0, and the state there: (3, H, W)
            float32 on the CPU, about [0, 1].
    """

    detector: str
    mask: Image | None
    device: str
    dtype: str
    tile: str
    max_memory: int | None
    ensemble: bool
    padding: str
    on_progress: Progress | None
    callback: Callback | None


class Attributes(TypedDict):
    """Attributes of the steps of a plan (`irtool.plan.Step`)."""

    strength: float
    sampling: Sampling | None
    controller: str


class Wanted(Options, total=False):
    """`Options`, and the attributes of the steps that are planned.

    Keys:
        strength: share of the result in the output, in [0, 1]; the rest is the input.
        sampling: steps, sampler and seed of a diffusion model.
        controller: id or ``local:PATH`` of the DA-CLIP that steers the model; empty for its own.
    """

    strength: float
    sampling: Sampling | None
    controller: str


def detect(image: Image, *, model: str = DEFAULT_DETECTOR, device: str = "auto") -> Diagnosis:
    """Say what is wrong with an image.

    Args:
        image: see `irtool.inputs.Image`.
        model: id of a detector in weights.toml, or ``local:PATH``.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Returns:
        A score in [0, 1] for each degradation, and those that are present, strongest first.

    Raises:
        PictureError: the image cannot be read.
        UsageError: an unknown model or device, or no image.
        UnavailableError: the weights or the device are not here.
    """
    return _detector(model, engine.pick_device(device)).diagnose(to_tensor(to_picture(image)))


def restore(
    image: Image,
    *,
    tasks: Sequence[str] | str | None = None,
    plan: Plan | None = None,
    planner: Planner | None = None,
    model: str = DEFAULT_RESTORER,
    **options: Unpack[Wanted],
) -> Result:
    """Restore an image.

    Without `tasks`, `plan` and `planner` the image is diagnosed first and what was found is removed; a clean one comes
    back untouched. Where compression is removed first, and alone, and the pixels are those of a JPEG file, they change
    by no more than the file's tables allow (`irtool.picture.quantised`).

    Args:
        image: see `irtool.inputs.Image`.
        tasks: what to remove instead, as ids, task verbs or synonyms: ``["denoise", "rain"]`` or ``"denoise,rain"``.
        plan: a finished plan to carry out instead; `model`, `strength`, `sampling` and `controller` are then those of
            its steps.
        planner: makes the plan of what is found; likewise.
        model: id of a restorer in weights.toml, ``local:PATH`` or ``hf-hub:REPO``.
        options: see `Wanted` and `Options`. With a `mask` and none of `tasks`, `plan` and `planner`, the missing
            regions are restored and nothing else.

    Raises:
        PictureError: the image cannot be read, or the memory allowed is too small for it.
        UsageError: an unknown name, a value out of range, or no image.
        UnavailableError: the weights or the device are not here, or a network gave values that are not finite.
    """
    return _restore(_restorer, image, tasks, plan, planner, model, options)


def instruct(
    image: Image,
    *sentences: str,
    text_model: str = DEFAULT_TEXT_MODEL,
    adapters: Mapping[str, str | Path] | None = None,
    model: str = DEFAULT_RESTORER,
    **options: Unpack[Wanted],
) -> Result:
    """Do to an image what is said, in English, Chinese, Spanish, German, French or Japanese.

    A question changes nothing: the image comes back untouched, with its diagnosis, and the plan's reason answers.

    Args:
        image: see `irtool.inputs.Image`.
        sentences: one or several, carried out in order.
        text_model: what understands them, see `irtool.language.load`.
        adapters: tasks of your own: the word that the sentences have for it -> file of its task adapter.
        model: as of `restore`.
        options: see `Wanted` and `Options`.

    Raises:
        UsageError: nothing was said, it was not understood, or irtool cannot do it; and as `restore`.
    """
    from .language import understand
    from .language.wish import Own, check, looks, plan_wishes

    if not sentences:
        raise UsageError("Say what is to be done.", 'irtool.instruct("photo.jpg", "remove the rain")')
    wishes = understand(sentences, text_model=text_model, own=tuple(adapters or ()))
    check(wishes)
    own = {word: Own(str(path), modulation.begins(Path(path))) for word, path in (adapters or {}).items()}
    planner = partial(plan_wishes, wishes, model=model, own=own, **_attributes(options))
    if looks(wishes):
        return _restore(_restorer, image, None, None, planner, model, options)
    return _restore(_restorer, image, None, planner(), None, model, options)


def restore_folder(
    inputs: str | PathLike[str] | Sequence[str | PathLike[str]],
    output: str | PathLike[str] | None = None,
    *,
    recursive: bool = False,
    existing: str = "skip",
    format: str | None = None,
    quality: int | None = None,
    strip: bool = False,
    tasks: Sequence[str] | str | None = None,
    plan: Plan | None = None,
    planner: Planner | None = None,
    model: str = DEFAULT_RESTORER,
    **options: Unpack[Wanted],
) -> Iterator[Done]:
    """Restore many images, as the command line does: one decoded ahead, one written behind, going on past errors.

    Args:
        inputs: a folder, a file, or a list of them.
        output: the folder for the results, or None: beside each input as NAME.restored.EXT.
        recursive: take folders with all below them; `output` mirrors the tree.
        existing: where an output exists: "skip", "overwrite", "rename" or "error".
        format, quality, strip: as of `Result.save`; by default like each input.
        tasks, plan, planner, model, options: as of `restore`.

    Yields:
        For each image a `Done` with its item (`source`, `target`), and the result, or the error that it ended in.
        Skipped ones come first, without either. Outputs are written while the loop runs: what it does not reach is not
        written.

    Raises:
        UsageError: two inputs share an output, an output is an input, and as `restore`.
        NothingToDoError: there is no picture.
    """
    from .batch import Done, run
    from .targets import Item, make_folder, make_items, resolve_existing

    one_or_more = [inputs] if isinstance(inputs, (str, PathLike)) else list(inputs)
    folder = None if output is None else f"{Path(output)}/"
    items, skipped = resolve_existing(
        make_items([str(i) for i in one_or_more], output=folder, recursive=recursive, format=format), existing
    )
    plan, planner = _planned(tasks, plan, planner, model, options)
    mask = options.pop("mask", None)
    prepared = None if mask is None else to_picture(mask, "mask")

    def work(item: Item, picture: Picture) -> Result:
        return _restore(_restorer, picture, None, plan, planner, model, {**options, "mask": prepared})

    def write(item: Item, result: Result) -> Result:
        assert item.target is not None
        make_folder(item.target.parent)
        result.save(item.target, format=item.format, quality=quality, strip=strip)
        return result

    yield from (Done(item) for item in skipped)
    yield from run(items, work, write)


class LoadedModel:
    """A restorer in memory, freed when it is dropped. Made by `load_model`.

    Attributes:
        info: what the network does and needs.
        device, dtype: where and in which type it computes unless told otherwise.
    """

    def __init__(self, model: Model, reference: str, device: str, dtype: str) -> None:
        engine.pick_device(device)
        self._model, self._reference, self.device, self.dtype = model, reference, device, dtype
        self.info: ModelInfo = model.info

    def __repr__(self) -> str:
        size = f"{self.info.parameters / 1e6:.1f} M parameters"
        return f"<irtool.LoadedModel {self._reference} ({self.info.name}, {size}) on {self.device}>"

    def restore(
        self,
        image: Image,
        *,
        tasks: Sequence[str] | str | None = None,
        plan: Plan | None = None,
        planner: Planner | None = None,
        **options: Unpack[Wanted],
    ) -> Result:
        """As `irtool.restore`, with this model."""
        own: Wanted = {"device": self.device, "dtype": self.dtype}
        return _restore(self._of, image, tasks, plan, planner, self._reference, {**own, **options})

    def _of(self, reference: str, controller: str = "") -> Model:
        return self._model if reference == self._reference else _restorer(reference, controller)


def load_model(
    source: str | PathLike[str] | Mapping[str, Tensor],
    *,
    device: str = "auto",
    dtype: str = "auto",
    controller: str = "",
    **hyperparameters: object,
) -> LoadedModel:
    """Load a restorer once, to restore many images.

    Args:
        source: the id of a record in weights.toml ("irtool-small"), ``local:PATH``, ``hf-hub:REPO``, a `Path`, or a
            state dict with published names.
        device: "auto", "cpu", "cuda" or "cuda:N".
        dtype: "auto", "fp32", "bf16" or "fp16".
        controller: id or ``local:PATH`` of the DA-CLIP that steers the model; empty for its own.
        hyperparameters: what the file does not tell, such as ``num_heads=12``; they go before what is read off its
            tensors.

    Raises:
        UsageError: an unknown id or device.
        UnavailableError: the weights are not here or fit no architecture, or tensors do not tell a hyperparameter.
    """
    model, reference = _model_of(source, controller, hyperparameters)
    if model.info.assumed:
        warnings.warn(
            f"{reference}: its tensors do not tell {', '.join(model.info.assumed)}; assumed, as published. "
            "Give it to load_model to be sure.",
            stacklevel=2,
        )
    return LoadedModel(model, reference, device, dtype)


@singledispatch
def _model_of(source: object, controller: str, hyperparameters: Mapping[str, object]) -> tuple[Model, str]:
    raise UsageError(f"`source` is {type(source).__name__}, no model.", "Give an id, a path, or a state dict.")


@_model_of.register
def _(source: str, controller: str, hyperparameters: Mapping[str, object]) -> tuple[Model, str]:
    return _load(source, controller, hyperparameters), source


@_model_of.register
def _(source: PathLike, controller: str, hyperparameters: Mapping[str, object]) -> tuple[Model, str]:  # type: ignore[type-arg]
    return _model_of(f"local:{Path(source)}", controller, hyperparameters)


@_model_of.register
def _(source: Mapping, controller: str, hyperparameters: Mapping[str, object]) -> tuple[Model, str]:  # type: ignore[type-arg]
    net, header = loading.from_tensors(source, **hyperparameters)
    beside = (controller,) if controller else needs("local:", header["architecture"])
    companions = [loading.read(locate(companion))[0] for companion in beside]
    return loading.wrap(net, header, companions), f"tensors:{header['architecture']}"


def clear_cache() -> None:
    """Let go of the networks that `restore`, `detect` and `instruct` keep."""
    _detector.cache_clear()
    _restorer.cache_clear()


def prepare(
    models: Sequence[str] = (), *, detector: str | None = None, controller: str = "", device: str = "auto"
) -> dict[str, ModelInfo]:
    """Load networks ahead of a run, so that what is missing is said before any image is read.

    Returns:
        What each model does and needs.

    Raises:
        UsageError, UnavailableError: as `restore`.
    """
    where = engine.pick_device(device)
    loaded = {model: _restorer(model, controller).info for model in models}
    if detector is not None:
        _detector(detector, where)
    return loaded


def info(model: str, controller: str = "") -> ModelInfo:
    """What a restorer does and needs, loaded as `restore` would load it.

    Raises:
        UsageError, UnavailableError: as `restore`.
    """
    return _restorer(model, controller).info


def _attributes(options: Wanted) -> Attributes:
    """What of the options belongs to the steps of a plan."""
    strength = options.get("strength", 1.0)
    if not 0 <= strength <= 1:
        raise UsageError(f"The strength lies from 0 to 1, not {strength:g}.")
    return {
        "strength": strength,
        "sampling": options.get("sampling"),
        "controller": options.get("controller", ""),
    }


def _planned(
    tasks: Sequence[str] | str | None, plan: Plan | None, planner: Planner | None, model: str, options: Wanted
) -> tuple[Plan | None, Planner | None]:
    """The plan that was asked for, or what makes one of a diagnosis."""
    if (tasks is not None) + (plan is not None) + (planner is not None) > 1:
        raise UsageError("Give `tasks`, `plan` or `planner`, not several of them.")
    attributes = _attributes(options)
    if plan is not None or planner is not None:
        return plan, planner
    if tasks is None and options.get("mask") is not None:
        tasks = "missing"
    if tasks is not None:
        return plan_tasks([tasks] if isinstance(tasks, str) else tasks, model=model, **attributes), None
    return None, partial(plan_auto, model=model, **attributes)


def _restore(
    model_of: Callable[[str, str], Model],
    image: Image,
    tasks: Sequence[str] | str | None,
    plan: Plan | None,
    planner: Planner | None,
    model: str,
    options: Wanted,
) -> Result:
    """`restore`, with models from `model_of`: (reference, controller) -> model."""
    plan, planner = _planned(tasks, plan, planner, model, options)
    where = engine.pick_device(options.get("device", "auto"))
    limit = options.get("max_memory")
    if limit is not None and isinstance(image, (str, PathLike, bytes)):
        image = read(image, budget=Budget(limit, per_pixel=RESTORED))  # type: ignore[arg-type]
    picture = to_picture(image)
    mask = options.get("mask")
    masking = None if mask is None else to_picture(mask, "mask")
    begun = time.perf_counter()
    pixels = torch.from_numpy(picture.pixels).permute(2, 0, 1)  # a view: a copy would be a quarter of all that is held
    look = _Look(options.get("detector", DEFAULT_DETECTOR), where)
    diagnosis = None
    if planner is not None:
        diagnosis = look(pixels)
        plan = planner(diagnosis)
    assert plan is not None
    missing = None if masking is None else _mask(masking, picture, plan)
    pixels, plan, tiles, peak = _carry_out(plan, pixels, picture, missing, model_of, look, where, options)
    if plan.steps:
        picture = picture.with_pixels(pixels.permute(1, 2, 0).contiguous().numpy())
    seconds = time.perf_counter() - begun
    return Result(picture, plan, diagnosis, seconds, tiles, peak)


@dataclass
class _Look:
    """The detector, loaded when it is first asked."""

    reference: str
    device: torch.device

    def __call__(self, pixels: Tensor) -> Diagnosis:
        return _detector(self.reference, self.device).diagnose(pixels)


def _carry_out(
    plan: Plan,
    pixels: Tensor,
    picture: Picture,
    missing: Tensor | None,
    model_of: Callable[[str, str], Model],
    look: _Look,
    device: torch.device,
    options: Wanted,
) -> tuple[Tensor, Plan, int, int | None]:
    """The steps of a plan, one after the other, and those that come to light after them.

    Returns:
        The pixels (3, H, W), the plan as it was carried out, tiles and peak memory.
    """
    tiles, peak, done = 0, None, 0
    while done < len(plan.steps):
        step = plan.steps[done]
        condition = Condition(
            step.mixture,
            mask=missing if "missing" in step.mixture else None,
            adapter=Path(step.offsets) if step.offsets else None,
            sampling=step.sampling,
            callback=options.get("callback"),
        )
        outcome = engine.run(
            model_of(step.model, step.controller).bind(condition), pixels, device=device,
            dtype=options.get("dtype", "auto"), tile=options.get("tile", "auto"), max_memory=options.get("max_memory"),
            ensemble=options.get("ensemble", False), padding=options.get("padding", "auto"),
            on_progress=options.get("on_progress"),
        )  # fmt: skip
        restored = outcome.pixels
        if missing is not None and tuple(step.mixture) == ("missing",):
            restored = torch.where(missing > 0, restored, pixels)
        if done == 0 and picture.jpeg is not None and tuple(step.mixture) == ("jpeg",):
            # Only of its own pixels does a file say how far off they can be, and only from compression alone.
            restored = torch.from_numpy(within(restored.numpy(), pixels.numpy(), picture.jpeg))
        pixels = restored if step.strength == 1 else torch.lerp(pixels, restored, step.strength)
        tiles += outcome.tiles
        peak = outcome.peak_bytes if peak is None else max(peak, outcome.peak_bytes or 0)
        done += 1
        # What is checked after restoring is checked here: the step's result is `pixels`.
        if plan.again is not None and done == len(plan.steps):
            plan = plan_rest(plan, look(pixels))
    return pixels, plan, tiles, peak


def _mask(mask: Picture, picture: Picture, plan: Plan) -> Tensor:
    """(1, H, W), 1 where a mask is white."""
    if not any("missing" in step.mixture for step in plan.steps):
        raise UsageError("A mask was given, but missing regions are not to be restored.", "Add the task missing.")
    (height, width), (tall, wide) = picture.pixels.shape[:2], mask.pixels.shape[:2]
    if (height, width) != (tall, wide):
        raise UsageError(
            f"{mask.name} has {wide}x{tall} pixels, {picture.name} {width}x{height}.",
            "A mask is as large as the picture, white where something is missing.",
        )
    return (to_tensor(mask).mean(0, keepdim=True) > 0.5).float()


@lru_cache(maxsize=2)
def _detector(reference: str, device: torch.device) -> Detector | DaclipDetector:
    return load_detector(locate(reference), device)


@lru_cache(maxsize=2)
def _restorer(reference: str, controller: str = "") -> Model:
    return _load(reference, controller, {})


def _load(reference: str, controller: str, hyperparameters: Mapping[str, object]) -> Model:
    def companions_of(architecture: str, header: Mapping[str, str]) -> list[Path]:
        beside: tuple[str, ...] = tuple(json.loads(header.get("needs", "[]"))) or needs(reference, architecture)
        if controller:
            if not get(architecture).steered:
                known = ", ".join(name for name in names() if get(name).steered)
                raise UsageError(f"{reference} takes no controller.", f"Architectures that do: {known}.")
            beside = (controller,)
        return [locate(companion) for companion in beside]

    return loading.load(locate(reference), companions_of=companions_of, **hyperparameters)
