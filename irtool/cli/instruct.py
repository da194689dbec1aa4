"""irtool instruct: say in words what is to be done to pictures."""

from __future__ import annotations

import json as jsons
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import FileError, PictureError, UsageError
from ..fileio import read_text, resolved
from ..shard import parse as parse_shard
from ..tables import LARGEST_FILE, numbered_rows
from ..weights.registry import DEFAULT_DETECTOR, DEFAULT_RESTORER
from . import options
from .presets import Preset

if TYPE_CHECKING:
    from ..language import CustomTask, Intent
    from .batch import JobPlan

DEFAULT_TEXT_MODEL = "irtool-words.v3"


def instruct(
    instructions: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT... SENTENCE...",
            help="Pictures or folders (- is stdin), then what is to be done, a sentence or several in order.",
            show_default=False,
        ),
    ] = None,
    listed: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="CSV or JSON lines with a picture and an instruction each."),
    ] = None,
    output: options.Output = None,
    recursive: options.Recursive = False,
    upscaler: options.Upscaler = "",
    strength: options.Strength = 1.0,
    preset: Preset = None,
    existing: options.Existing = None,
    name: options.NameOption = None,
    format: options.Format = "preserve",
    quality: options.Quality = None,
    strip: options.Strip = False,
    side_by_side: options.SideBySide = False,
    dry_run: options.DryRun = False,
    limit: options.Limit = None,
    watch: options.Watch = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    tile: options.Tile = "auto",
    padding: options.Padding = "auto",
    max_memory: options.MaxMemory = None,
    ensemble: options.Ensemble = False,
    threads: options.Threads = None,
    jobs: options.Jobs = "1",
    shard: options.ShardOption = None,
    offline: options.Offline = False,
    model: options.Model = DEFAULT_RESTORER,
    detector: options.Detector = DEFAULT_DETECTOR,
    controller: options.Controller = "",
    steps: options.Steps = None,
    sampler: options.Sampler = None,
    seed: options.Seed = None,
    text_model: Annotated[
        str,
        typer.Option(
            "--text-model",
            envvar="IRTOOL_TEXT_MODEL",
            metavar="ID|local:PATH",
            help="What understands the words: irtool-words.v3 or instructir.",
        ),
    ] = DEFAULT_TEXT_MODEL,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            "--adapter",
            "--offsets",
            metavar="[WORD=]FILE",
            help="A task of your own and the word you have for it; by default the file says. Can be repeated.",
        ),
    ] = None,
    log: options.Log = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> int:
    """Do to pictures what you say, in your own words.

    irtool instruct photo.jpg "remove the rain, it is also a bit dark, but keep the grain"

    Understands English, Chinese, Spanish, German, French and Japanese. A question is answered and writes nothing. What
    irtool cannot do is said, with exit code 2, before any picture is touched.
    """
    from ..language import check, parse
    from .batch import Request, restore_batch

    if not 0 <= strength <= 1:
        raise UsageError(f"--strength lies from 0 to 1, not {strength:g}.")
    inputs, sentences = split(instructions or [])
    lists: dict[Path, list[str]] = {}
    if listed is not None:
        if inputs or sentences:
            raise UsageError("--from names pictures and sentences itself.", "Leave the others out.")
        lists = read_list(listed)
        inputs = [str(path) for path in lists]
    elif not inputs or not sentences:
        raise UsageError(
            "Name a picture and say what is to be done.", 'irtool instruct photo.jpg "remove the rain and brighten it"'
        )
    custom_tasks = read_custom_tasks(adapter or ())
    parse_instruction = partial(parse, text_model=text_model, own=tuple(custom_tasks))
    intents = {resolved(path): parse_instruction(instructions) for path, instructions in lists.items()}
    common = parse_instruction(sentences)
    for intent_list in intents.values() or [common]:
        check(intent_list)
    more = {"sampling": options.sampling(steps, sampler, seed), "controller": controller}
    request = Request(
        inputs, model, detector, controller=controller, output=output, recursive=recursive, existing=existing,
        format=format, quality=quality, strip=strip, side_by_side=side_by_side, dry_run=dry_run, device=device,
        dtype=dtype, tile=tile, padding=padding, max_memory=max_memory, threads=threads, json=json, quiet=quiet,
        verbose=verbose, ensemble=ensemble, jobs=jobs, shard=None if shard is None else parse_shard(shard),
        root=listed.parent if listed is not None else None, name=name, limit=limit, log=log,
        watch=watch,
    )  # fmt: skip

    def decide(source: Path | None) -> JobPlan:
        intent_list = common if source is None or not intents else intents[resolved(source)]
        return decision(intent_list, strength=strength, model=model, own=custom_tasks, upscaler=upscaler, **more)

    return restore_batch(request, decide, [model])


def split(instructions: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tell pictures from sentences: what exists, ``-``, or is named like a picture, is a picture.

    Raises:
        UsageError: a picture comes after a sentence.
        PictureError: what is named like a picture is not there.
    """
    from ..picture import is_pattern
    from ..picture.formats import SUFFIXES
    from ..targets import is_address

    def is_path(text: str) -> bool:
        if text == "-" or (is_address(text) and " " not in text):
            return True
        if is_pattern(text) and Path(text).suffix.lower() in SUFFIXES:
            return True
        try:
            if Path(text).exists():
                return True
        except (OSError, ValueError):
            return False
        return Path(text).suffix.lower() in SUFFIXES and (" " not in text.strip() or "/" in text)

    inputs = [text for text in instructions if is_path(text)]
    for text in inputs:
        if text != "-" and not is_address(text) and not is_pattern(text) and not Path(text).exists():
            raise PictureError(f"{text} does not exist.")
    sentences = [text for text in instructions if not is_path(text)]
    if instructions and list(instructions) != inputs + sentences:
        raise UsageError("Pictures come first, then sentences.", 'irtool instruct a.jpg b.jpg "remove the rain"')
    return inputs, sentences


def read_list(path: Path) -> dict[Path, list[str]]:
    """Instructions per picture from a CSV (columns picture, instruction) or JSON lines (the same as keys).

    Paths are relative to the file. A picture named several times gets its instructions in order.

    Raises:
        UsageError: the file cannot be read, or a line of it is wrong.
    """
    hint = "A CSV has the columns picture,instruction; JSON lines have these keys."
    rows: list[tuple[int, object]] = []
    try:
        text = "" if path.suffix.lower() in (".csv", ".tsv") else read_text(path, LARGEST_FILE)
        rows = [] if text else list(numbered_rows(path))
    except FileError as error:
        raise UsageError(f"--from {error.message}", error.hint) from error
    if text:
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip():
                continue
            try:
                rows.append((number, jsons.loads(line)))
            except (ValueError, RecursionError) as error:
                raise UsageError(f"{path}, line {number}: no JSON ({error}).", hint) from error
    found: dict[Path, list[str]] = {}
    for number, row in rows:
        picture = row.get("picture") if isinstance(row, dict) else None
        instruction = row.get("instruction") if isinstance(row, dict) else None
        instructions = instruction if isinstance(instruction, list) else [instruction]
        sentences = [s for s in instructions if isinstance(s, str) and s.strip()]
        if not isinstance(picture, str) or not picture or not sentences or len(sentences) != len(instructions):
            raise UsageError(f"{path}, line {number}: needs a picture and an instruction.", hint)
        found.setdefault(path.parent / picture, []).extend(sentences)
    if not found:
        raise UsageError(f"{path} names no pictures.", hint)
    return found


def read_custom_tasks(values: Sequence[str]) -> dict[str, CustomTask]:
    """Tasks of one's own by their words, from ``WORD=FILE`` or ``FILE``, whose task then is the word.

    Raises:
        UsageError: a word is missing or named twice.
        UnavailableError: a file is absent or holds no adapter.
    """
    from ..language import CustomTask

    found: dict[str, CustomTask] = {}
    for text in values:
        from ..models import lora  # with torch, so only where there are any

        plain = "=" not in text or Path(text).exists()
        word, name = ("", text) if plain else text.split("=", 1)
        path = Path(name)
        like = lora.base_task(path)
        word = lora.tasks(path)[0] if plain else word.strip()
        if not word or word in found:
            raise UsageError(
                f"--adapter {text}: the word {f'{word!r} is named twice' if word else 'is missing'}.",
                "Say which word means which file: --adapter moire=my-task.safetensors",
            )
        found[word] = CustomTask(str(path), like)
    return found


def decision(intents: Sequence[Intent], **step: Any) -> JobPlan:
    """What is to be done to a picture of which this was said; `step` are attributes of the plan (`plan_intents`)."""
    from ..language.intent import answer, needs_diagnosis, plan_intents, scale_of
    from ..plan import Upscale
    from .batch import JobPlan

    scale = scale_of(intents)
    upscale = None if scale is None else Upscale(scale, step.get("upscaler", ""))

    record = {"instruction": [intent.to_dict() for intent in intents]}
    planner = partial(plan_intents, intents, **step)
    if all(intent.question for intent in intents):
        return JobPlan(planner=planner, record=record, answer=partial(answer, intents))
    if needs_diagnosis(intents):
        return JobPlan(planner=planner, record=record, upscale=upscale)
    return JobPlan(planner(), record=record, upscale=upscale)
