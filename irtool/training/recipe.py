"""Recipes: everything a training run depends on, as TOML.

A recipe may say ``extends = "default"`` (a built-in name, or a file beside it) and then holds only what differs; tables
such as [model] and [weights] are merged key by key, everything else is replaced.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..degradation import CLEAN, IDS
from ..errors import UsageError, closest
from ..fileio import exists, read_text, resolved
from ..tables import fill, number, parse_toml, read_toml, unknown
from .tasks import TASKS, training_task

BUILT_IN = Path(__file__).parent / "recipes"
LARGEST_WEIGHT = 1e6
KINDS = (*IDS, "real", "mixed", CLEAN)
# What may change when a run goes on: how long it is and what it tells, not what it learns from.
CHANGEABLE_ON_RESUME = frozenset({"minutes", "steps", "save_every", "report_every", "preview_every", "keep"})


@dataclass(frozen=True)
class Phase:
    """A stretch of the run with its own crop and batch size (a curriculum of patch sizes).

    Attributes:
        until: share of the run, in (0, 1], at which the phase ends.
        crop: side in pixels of the square crops the network sees; a multiple of 16.
        batch: crops per step, over all processes.
    """

    until: float = number(dataclasses.MISSING, 0, 1, above=True)
    crop: int = number(dataclasses.MISSING, 16, 4096)
    batch: int = number(dataclasses.MISSING, 1, 65536)


@dataclass(frozen=True)
class Pairs:
    """Pictures that were damaged by the world, each with its clean twin.

    Attributes:
        task: ids of the damage they show, one or more.
        degraded, clean: folders, relative to the data root; `pictures.matched` says which files belong together.
        manifest: instead of both, a table with the columns "degraded" and "clean" (see `pictures.manifest`).
        weight: relative frequency, beside those of `Recipe.weights`.
        transplant: whether half of the samples are clean pictures to which the difference of a pair was added, as light
            that falls on streaks is; so that a few pairs show their degradation over many pictures.
    """

    task: tuple[str, ...]
    degraded: str = ""
    clean: str = ""
    manifest: str = ""
    weight: float = number(1.0, 0, 1e6)
    transplant: bool = False


@dataclass(frozen=True)
class Recipe:
    """A training run.

    Attributes:
        kind: one of `tasks.TASKS`, such as "restorer" (CompactNet) or "detector" (DetectorNet).
        model: keyword arguments of the network.
        settings: what the kind of training takes besides; the job checks it.
        data: folders or manifests of clean pictures, relative to the data root given on the command line.
        pairs: real pairs.
        hold: pictures of the clean ones, spread over all of them, that are kept back for the held-out figures
            and sheets. Of fewer than ten times as many, a tenth; of fewer than ten, none: the figures are then made on
            training pictures, and the log says so.
        minutes: length of the run in minutes of wall-clock time; 0 counts steps instead.
        steps: length in steps where `minutes` is 0.
        phases: crop and batch sizes over the run.
        region: side in pixels of the square that is degraded and that the context describes; the crop
            the network sees is cut from it. It is never smaller than the crop.
        group: samples that share one draw of kind and parameters: the degradations are vectorised over them.
        pool: samples made together, of which batches are then taken; a multiple of every batch and of `group`.
        weights: relative frequency of each kind of sample: the ten degradations, "real" (the
            second-order chain), "mixed" (two or three degradations) and "clean".
        rate, warmup, decay, clip, ema: peak learning rate, warm-up steps, weight decay, gradient-norm
            clip, decay of the exponential moving average of the weights.
        floor: share of the peak rate that the cosine ends at.
        beta1, beta2, eps: of AdamW.
        seed: of the data and of the initial weights.
        precision: "bf16" (autocast) or "fp32".
        save_every: steps between checkpoints.
        report_every: steps between lines of the log.
        preview_every: steps between looks at the held-out samples (figures, sheet, curve).
        keep: checkpoints kept, the last ones; the best one is kept besides.
    """

    kind: str = "restorer"
    model: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    data: tuple[str, ...] = ("train_clean",)
    pairs: tuple[Pairs, ...] = ()
    hold: int = number(8, 0, 100_000)
    minutes: float = number(0.0, 0, 1e7)
    steps: int = number(10000, 0, 10**10)
    phases: tuple[Phase, ...] = (Phase(1.0, 128, 8),)
    region: int = number(160, 16, 8192)
    group: int = number(2, 1, 65536)
    pool: int = number(32, 1, 65536)
    weights: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 1.0))
    rate: float = number(1e-3, 0, 100, above=True)
    warmup: int = number(200, 0, 10**10)
    decay: float = number(0.0, 0, 100)
    clip: float = number(1.0, 0, 1e9, above=True)
    ema: float = number(0.999, 0, 1, below=True)
    floor: float = number(0.01, 0, 1)
    beta1: float = number(0.9, 0, 1, below=True)
    beta2: float = number(0.99, 0, 1, below=True)
    eps: float = number(1e-8, 0, 1, above=True)
    seed: int = number(0, 0, 2**53)
    precision: str = "bf16"
    save_every: int = number(500, 1, 10**10)
    report_every: int = number(50, 1, 10**10)
    preview_every: int = number(1000, 1, 10**10)
    keep: int = number(2, 1, 10**6)

    @property
    def sha256(self) -> str:
        """A name for what the recipe says, whatever file it was in."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()


def built_in() -> list[str]:
    """Names of the recipes that come with irtool."""
    return sorted(p.stem for p in BUILT_IN.glob("*.toml"))


def find(name: str, folder: Path | None = None) -> Path:
    """The TOML file of a recipe given by built-in name or by path (relative to `beside`, a folder, where given).

    Raises:
        UsageError: there is none; the hint names the closest.
    """
    path = (folder or Path()) / name
    if path.suffix == ".toml" and exists(path):
        return path
    if name in built_in():
        return BUILT_IN / f"{name}.toml"
    otherwise = f"Built in: {', '.join(built_in())}; or give a .toml file."
    raise UsageError(f"There is no recipe '{name}'.", closest(name, built_in(), otherwise))


def comment(path: Path) -> str:
    """The comment at the head of a recipe: what it is for, its command, what it gave."""
    lines = []
    for line in read_text(path).splitlines():
        if not line.startswith("#"):
            break
        lines.append(line[1:].removeprefix(" "))
    return "\n".join(lines)


def table(path: Path, _seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """What a recipe file says, with what it extends filled in; nothing is checked but the TOML.

    Raises:
        UsageError: the file is no TOML, or extends something that is not there, or itself.
    """
    if resolved(path) in _seen:
        raise UsageError(f"{path} extends itself: " + " -> ".join(p.name for p in (*_seen, path)) + ".")
    content = read_toml(path)
    if "extends" not in content:
        return content
    base = content.pop("extends")
    if not isinstance(base, str):
        raise UsageError(f"{path}: 'extends' names a recipe, in quotes, not {base!r}.")
    merged = table(find(base, path.parent), (*_seen, resolved(path)))
    for key, value in content.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = {**merged[key], **value} if both else value
    return merged


def change(table: Mapping[str, Any], changes: Iterable[str]) -> dict[str, Any]:
    """A table with ``key=value`` changes. Values are TOML, bare words are strings, ``a.b=`` reaches into a table.

    Raises:
        UsageError: a change is no ``key=value``, or reaches into what is no table.
    """
    changed = dict(table)
    for text in changes:
        key, equals, value_text = text.partition("=")
        if not equals or not key:
            raise UsageError(f"'{text}' is no change to a recipe.", "Write key=value, such as minutes=5.")
        try:
            value: Any = parse_toml(f"value = {value_text}", text)["value"]
        except UsageError:
            value = value_text
        first, dot, rest = key.partition(".")
        if not dot:
            changed[key] = value
        elif isinstance(changed.get(first, {}), Mapping) and first in ("model", "settings", "weights"):
            changed[first] = {**changed.get(first, {}), rest: value}
        else:
            raise UsageError(f"A recipe has no table '{first}'.", "Tables: model, settings, weights.")
    return changed


def load(path: Path, changes: Iterable[str] = ()) -> Recipe:
    """Read a recipe; every mistake in it is named at once.

    Raises:
        UsageError: the file is no TOML, or has unknown keys, wrong types or values out of range.
    """
    return build(change(table(path), changes), str(path))


def build(table: Mapping[str, Any], name: str) -> Recipe:
    """Check a table and make the recipe of it; `name` is for messages.

    Raises:
        UsageError: something is wrong; the message says all of it.
    """
    recipe, problems = check(table)
    if recipe is None or problems:
        raise UsageError(f"{name} has {len(problems)} problem(s): " + "; ".join(problems) + ".")
    return recipe


def check(table: Mapping[str, Any]) -> tuple[Recipe | None, list[str]]:
    """The recipe of a table as far as it can be made, and all that is wrong with it, a phrase each."""
    problems: list[str] = []
    recipe = fill(Recipe, table, problems)
    if recipe is None:
        return None, problems
    unbounded = any(problem.startswith(("model", "settings")) for problem in problems)
    problems += _out_of_range(recipe)
    if recipe.kind in TASKS and not unbounded:
        problems += training_task(recipe.kind).problems(recipe)
    return recipe, problems


def missing_data(recipe: Recipe, root: Path) -> list[str]:
    """A phrase for each folder or manifest that the recipe names and that is not below `root`."""
    sources = [("data", name) for name in recipe.data]
    sources += [("pairs", n) for p in recipe.pairs for n in (p.degraded, p.clean, p.manifest) if n]
    return [f"{key}: {root / name} is not there" for key, name in sources if not (root / name).exists()]


def _out_of_range(recipe: Recipe) -> list[str]:
    problems = []
    if recipe.kind not in TASKS:
        problems.append(f"kind: one of {', '.join(TASKS)}, not {unknown(recipe.kind, TASKS)}")
    if recipe.precision not in ("bf16", "fp32"):
        problems.append(f"precision: 'bf16' or 'fp32', not '{recipe.precision}'")
    problems += [f"weights: unknown kind {unknown(kind, KINDS)}" for kind in recipe.weights if kind not in KINDS]
    if not all(0 <= w <= LARGEST_WEIGHT for w in recipe.weights.values()):
        problems.append(f"weights: none may be below 0 or above {LARGEST_WEIGHT:g}")
    if not any(w > 0 for w in (*recipe.weights.values(), *(p.weight for p in recipe.pairs))):
        problems.append("weights: at least one must be positive")
    if recipe.minutes == 0 and recipe.steps < 1:
        problems.append("steps: at least 1 where minutes is 0")
    if recipe.pool % recipe.group:
        problems.append(f"pool: {recipe.pool} must be a multiple of group, {recipe.group}")
    return problems + _phases(recipe) + [problem for pairs in recipe.pairs for problem in _pairs(pairs)]


def _phases(recipe: Recipe) -> list[str]:
    ends = [p.until for p in recipe.phases]
    problems = []
    if not ends or ends != sorted(set(ends)) or ends[0] <= 0 or ends[-1] != 1.0:
        problems.append("phases: 'until' must rise and end at 1.0")
    for phase in recipe.phases:
        if phase.crop % 16:
            problems.append(f"phases: crop {phase.crop} must be a multiple of 16")
        if phase.crop > recipe.region:
            problems.append(f"phases: crop {phase.crop} must not exceed region, {recipe.region}")
        if recipe.pool % phase.batch:
            problems.append(f"phases: batch {phase.batch} must be at least 1 and divide pool, {recipe.pool}")
    return problems


def _pairs(pairs: Pairs) -> list[str]:
    problems = [f"pairs: unknown task {unknown(task, IDS)}" for task in pairs.task if task not in IDS]
    if not pairs.task:
        problems.append("pairs: 'task' must name at least one degradation")
    if bool(pairs.manifest) == bool(pairs.degraded or pairs.clean) or bool(pairs.degraded) != bool(pairs.clean):
        problems.append("pairs: give either 'manifest' or both 'degraded' and 'clean'")
    return problems
