"""The Python API: an image in, a diagnosis or a restored image out.

Calls of `restore`, `detect` and `instruct` share the last few networks, so that a loop loads them once; `clear_cache`
lets them go. A model of one's own is loaded by `irtool.load_model` (`irtool.loaded`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch import Tensor

from . import engine, experts
from .detection import Detector, Diagnosis, gate
from .detection import load as load_detector
from .diffusion.sampling import Sampling
from .enlarge import check as check_scale
from .enlarge import enlarge
from .errors import UsageError, closest
from .inputs import Image, to_picture, to_tensor
from .memory import Budget, per_pixel
from .models import loading, lora
from .models.architectures import get, names
from .models.base import Callback, Condition, Model, ModelInfo, Progress
from .picture import Picture, read
from .picture.jpeg_bounds import project_to_jpeg_bounds
from .plan import Plan, Rejected, Upscale, enlarging, only_enlarges, plan_auto, plan_second_look, plan_tasks, without
from .repairs.mend import cached_network, mend
from .result import Result
from .weights import DEFAULT_DETECTOR, DEFAULT_RESTORER, companions, locate

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .detection.daclip import DaclipDetector
    from .engine.pipeline import JobResult
    from .targets import Item

DEFAULT_TEXT_MODEL = "irtool-words.v3"
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
        scale: 2, 3 or 4: the result is enlarged that many times, after all else. With none of `tasks`, `plan` and
            `planner` nothing else is done.
        upscaler: id or ``local:PATH`` of the model that enlarges; by default the one that ships.
    """

    strength: float
    sampling: Sampling | None
    controller: str
    scale: int | None
    upscaler: str


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
    by no more than the file's tables allow (`irtool.picture.jpeg_bounds`).

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
    return restore_with(cached_model, image, tasks, plan, planner, model, options)


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
    from .language import CustomTask, check, needs_diagnosis, parse, plan_intents

    if not sentences:
        raise UsageError("Say what is to be done.", 'irtool.instruct("photo.jpg", "remove the rain")')
    intents = parse(sentences, text_model=text_model, own=tuple(adapters or ()))
    check(intents)
    custom_tasks = {word: CustomTask(str(path), lora.base_task(Path(path))) for word, path in (adapters or {}).items()}
    upscaler = options.get("upscaler", "")
    if options.get("scale") is None:
        options = {**options, "upscaler": ""}
    planner = partial(plan_intents, intents, model=model, own=custom_tasks, upscaler=upscaler, **_attributes(options))
    if needs_diagnosis(intents):
        return restore_with(cached_model, image, None, None, planner, model, options)
    return restore_with(cached_model, image, None, planner(), None, model, options)


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
) -> Iterator[JobResult[Item, Result]]:
    """Restore many images, as the command line does: one decoded ahead, one written behind, going on past errors.

    Args:
        inputs: a folder, a file, or a list of them.
        output: the folder for the results, or None: beside each input as NAME.restored.EXT.
        recursive: take folders with all below them; `output` mirrors the tree.
        existing: where an output exists: "skip", "overwrite", "rename" or "error".
        format, quality, strip: as of `Result.save`; by default like each input.
        tasks, plan, planner, model, options: as of `restore`.

    Yields:
        For each image a `JobResult` with its item (`source`, `target`), and the result, or the error that it ended in.
        Skipped ones come first, without either. Outputs are written while the loop runs: what it does not reach is not
        written.

    Raises:
        UsageError: two inputs share an output, an output is an input, and as `restore`.
        NothingToDoError: there is no picture.
    """
    from .engine.pipeline import JobResult, pipelined
    from .targets import make_folder, make_items, may_replace, resolve_existing

    one_or_more = [inputs] if isinstance(inputs, (str, PathLike)) else list(inputs)
    folder = None if output is None else f"{Path(output)}/"
    items, skipped = resolve_existing(
        make_items([str(i) for i in one_or_more], output=folder, recursive=recursive, format=format), existing
    )
    plan, planner = _planned(tasks, plan, planner, model, options)
    mask = options.pop("mask", None)
    prepared = None if mask is None else to_picture(mask, "mask")

    def work(item: Item, picture: Picture) -> Result:
        return restore_with(cached_model, picture, None, plan, planner, model, {**options, "mask": prepared})

    def write(item: Item, result: Result) -> Result:
        assert item.target is not None
        make_folder(item.target.parent)
        replace = may_replace(item.target, existing)
        result.save(item.target, format=item.format, quality=quality, strip=strip, replace=replace)
        return result

    yield from (JobResult(item) for item in skipped)
    yield from pipelined(items, lambda item: to_picture(item.source), work, write)


def clear_cache() -> None:
    """Let go of the networks that `restore`, `detect` and `instruct` keep."""
    _detector.cache_clear()
    cached_model.cache_clear()
    cached_network.cache_clear()


def prepare(
    models: Sequence[str] = (),
    *,
    detector: str | None = None,
    controller: str = "",
    upscales: Iterable[Upscale] = (),
    device: str = "auto",
) -> dict[str, ModelInfo]:
    """Load networks ahead of a run, so that what is missing is said before any image is read; says what each model
    does and needs, without those that enlarge.

    Raises:
        UsageError, UnavailableError: as `restore`.
    """
    target_device = engine.pick_device(device)
    named = dict.fromkeys(DEFAULT_RESTORER if experts.is_best(model) else model for model in models)
    loaded = {model: cached_model(model, controller).info for model in named}
    for model, info in loaded.items():
        if info.scale != 1:
            raise only_enlarges(model)
    for upscale in upscales:
        check_scale(cached_model(upscale.model), upscale)
    if detector is not None:
        _detector(detector, target_device)
    return loaded


def info(model: str, controller: str = "") -> ModelInfo:
    """What a restorer does and needs, loaded as `restore` would load it.

    Raises:
        UsageError, UnavailableError: as `restore`.
    """
    return cached_model(model, controller).info


def _attributes(options: Wanted) -> Attributes:
    """What of the options belongs to the steps of a plan."""
    strength = options.get("strength", 1.0)
    if not 0 <= strength <= 1:
        raise UsageError(f"The strength lies from 0 to 1, not {strength:g}.")
    return {"strength": strength, "sampling": options.get("sampling"), "controller": options.get("controller", "")}


def _planned(
    tasks: Sequence[str] | str | None, plan: Plan | None, planner: Planner | None, model: str, options: Wanted
) -> tuple[Plan | None, Planner | None]:
    """The plan that was asked for, or what makes one of a diagnosis.

    Raises:
        TypeError: there is no such option.
        UsageError: more than one of them is given, or a value is out of range.
    """
    if unknown := [name for name in options if name not in Wanted.__optional_keys__]:
        raise TypeError(f"unexpected keyword argument '{unknown[0]}'. {closest(unknown[0], Wanted.__optional_keys__)}")
    if (tasks is not None) + (plan is not None) + (planner is not None) > 1:
        raise UsageError("Give `tasks`, `plan` or `planner`, not several of them.")
    attributes = _attributes(options)
    if (scale := options.get("scale")) is not None:
        upscale = Upscale(scale, options.get("upscaler", ""))
        rest: Wanted = {**options, "scale": None, "upscaler": ""}
        alone = tasks is None and plan is None and planner is None and options.get("mask") is None
        if alone and (rest.get("sampling") is None or not rest["sampling"].operator):  # type: ignore[union-attr]
            return Plan(reason="as asked", upscale=upscale), None
        plan, planner = _planned(tasks, plan, planner, model, rest)
        return plan and replace(plan, upscale=upscale), planner and partial(enlarging, planner, upscale)
    if options.get("upscaler"):
        raise UsageError("`upscaler` enlarges, and no `scale` was given.", "Give a `scale` of 2, 3 or 4.")
    if plan is not None or planner is not None:
        return plan, planner
    sampling = options.get("sampling")
    if tasks is None and sampling is not None and sampling.operator:
        from .diffusion.observation import tasks_of  # the degradation models, which few runs need

        tasks = tasks_of(sampling.operator)
    if tasks is None and options.get("mask") is not None:
        tasks = "missing"
    if tasks is not None:
        return plan_tasks([tasks] if isinstance(tasks, str) else tasks, model=model, **attributes), None
    return None, partial(plan_auto, model=model, **attributes)


def restore_with(
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
    target_device = engine.pick_device(options.get("device", "auto"))
    limit = options.get("max_memory")
    if limit is not None and isinstance(image, (str, PathLike, bytes)):
        scale = options.get("scale") or (1 if plan is None or plan.upscale is None else plan.upscale.scale)
        image = read(image, budget=Budget(limit, per_pixel=per_pixel(scale)))  # type: ignore[arg-type]
    picture = to_picture(image)
    mask = options.get("mask")
    masking = None if mask is None else to_picture(mask, "mask")
    source_sha256 = picture.source_sha256
    started = time.perf_counter()
    pixels = torch.from_numpy(picture.pixels).permute(2, 0, 1)  # a view: a copy would be a quarter of all that is held
    look = _Look(options.get("detector", DEFAULT_DETECTOR), target_device)
    diagnosis = None
    if planner is not None:
        diagnosis = look(pixels)
        plan = planner(diagnosis)
    assert plan is not None
    missing = None if masking is None else _mask(masking, picture, plan)
    if plan.repairs:
        run = partial(engine.run, device=look.device, **_settings(options))
        pixels, plan = mend(plan, pixels, look.device, model_of, run)
    pixels, plan, tiles, peak = _carry_out(plan, pixels, picture, missing, model_of, look, options, diagnosis)
    if plan.removals:
        picture = picture.with_pixels(pixels.permute(1, 2, 0).contiguous().numpy())
    if plan.upscale is not None:
        del pixels
        model_that_enlarges = model_of(plan.upscale.model, "")
        picture, outcome = enlarge(picture, plan.upscale, model_that_enlarges, device=look.device, **_settings(options))
        tiles += outcome.tiles
        peak = outcome.peak_bytes if peak is None else max(peak, outcome.peak_bytes or 0)
    seconds = time.perf_counter() - started
    return Result(picture, plan, diagnosis, seconds, tiles, peak, source_sha256)


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
    options: Wanted,
    found: Diagnosis | None,
) -> tuple[Tensor, Plan, int, int | None]:
    """The steps of a plan, one after the other, and those of the second look (`Plan.again`): pixels (3, H, W), the plan
    as it was carried out, tiles and peak memory.

    Where the plan follows from a diagnosis, `found`, every result is checked before the next step (`detection.gate`).
    """
    tiles, peak, done = 0, None, 0
    while done < len(plan.steps):
        step = plan.steps[done]
        condition = Condition(
            step.task_weights,
            mask=missing if "missing" in step.task_weights else None,
            adapter=Path(step.adapter) if step.adapter else None,
            sampling=step.sampling,
            callback=options.get("callback"),
        )
        model = model_of(step.model, step.controller)
        if model.info.scale != 1:
            raise only_enlarges(step.model)
        outcome = engine.run(model.bind(condition), pixels, device=look.device, **_settings(options))
        own = done == 0 and not plan.repairs  # the pixels are still those of the file
        restored = outcome.pixels
        if missing is not None and tuple(step.task_weights) == ("missing",):
            restored = torch.where(missing > 0, restored, pixels)
        if own and picture.jpeg is not None and tuple(step.task_weights) == ("jpeg",):
            # Only of its own pixels does a file say how far off they can be, and only from compression alone.
            restored = torch.from_numpy(project_to_jpeg_bounds(restored.numpy(), pixels.numpy(), picture.jpeg))
        restored = restored if step.strength == 1 else torch.lerp(pixels, restored, step.strength)
        tiles += outcome.tiles
        peak = outcome.peak_bytes if peak is None else max(peak, outcome.peak_bytes or 0)
        if found is None or found.features is None:
            pixels, done = restored, done + 1
        else:
            pixels, share, found, verdict = gate.check(pixels, restored, found, look, step.task_weights)
            if not verdict.passed:
                rejected = Rejected(tuple(step.task_weights), verdict.reason, share, verdict.measured)
                plan = without(plan, done, rejected)
            done += share > 0
        if plan.again is not None and done == len(plan.steps):
            plan = plan_second_look(plan, look(pixels) if found is None or found.features is None else found)
    return pixels, plan, tiles, peak


def _settings(options: Wanted) -> dict[str, Any]:
    """What of the options `engine.run` takes."""
    return {
        "dtype": options.get("dtype", "auto"),
        "tile": options.get("tile", "auto"),
        "max_memory": options.get("max_memory"),
        "ensemble": options.get("ensemble", False),
        "padding": options.get("padding", "auto"),
        "on_progress": options.get("on_progress"),
    }


def _mask(mask: Picture, picture: Picture, plan: Plan) -> Tensor:
    """(1, H, W), 1 where a mask is white."""
    if not any("missing" in step.task_weights for step in plan.steps):
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


@lru_cache(maxsize=3)
def cached_model(reference: str, controller: str = "") -> Model:
    return load_reference(reference, controller, {})


def load_reference(reference: str, controller: str, hyperparameters: Mapping[str, Any]) -> Model:
    def companions_of(architecture: str, header: Mapping[str, str]) -> list[Path]:
        if controller and not get(architecture).steered:
            known = ", ".join(name for name in names() if get(name).steered)
            raise UsageError(f"{reference} takes no controller.", f"Architectures that do: {known}.")
        companion_ids = (controller,) if controller else companions(reference, architecture, header)
        return [locate(companion) for companion in companion_ids]

    return loading.load(locate(reference), companions_of=companions_of, **hyperparameters)
