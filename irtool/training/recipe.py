"""Recipes: everything a training run depends on, as TOML."""

from __future__ import annotations

import dataclasses
import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..degradation import CLEAN, IDS
from ..errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BUILT_IN = Path(__file__).parent / "recipes"
KINDS = (*IDS, "real", "mixed", CLEAN)


@dataclass(frozen=True)
class Phase:
    """A stretch of the run with its own crop and batch size (a curriculum of patch sizes).

    Attributes:
        until: share of the run, in (0, 1], at which the phase ends.
        crop: side in pixels of the square crops the network sees; a multiple of 16.
        batch: crops per step.
    """

    until: float
    crop: int
    batch: int


@dataclass(frozen=True)
class Recipe:
    """A training run.

    Attributes:
        kind: "restorer" (CompactNet) or "detector" (DetectorNet).
        model: keyword arguments of the network.
        data: folders of clean pictures, relative to the data root given on the command line.
        minutes: length of the run in minutes of wall-clock time; 0 counts steps instead.
        steps: length in steps where `minutes` is 0.
        phases: crop and batch sizes over the run.
        region: side in pixels of the square that is degraded and that the context describes; the crop
            the network sees is cut from it. It is never smaller than the crop.
        weights: relative frequency of each kind of sample: the ten degradations, "real" (the
            second-order chain), "mixed" (two or three degradations) and "clean".
        rate, warmup, decay, clip, ema: peak learning rate, warm-up steps, weight decay, gradient-norm
            clip, decay of the exponential moving average of the weights.
        seed: of the data and of the initial weights.
        precision: "bf16" (autocast) or "fp32".
        save_every: steps between checkpoints.
        report_every: steps between lines of the log.
    """

    kind: str = "restorer"
    model: Mapping[str, Any] = field(default_factory=dict)
    data: tuple[str, ...] = ("train_clean",)
    minutes: float = 0.0
    steps: int = 10000
    phases: tuple[Phase, ...] = (Phase(1.0, 128, 8),)
    region: int = 160
    weights: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 1.0))
    rate: float = 1e-3
    warmup: int = 200
    decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    precision: str = "bf16"
    save_every: int = 500
    report_every: int = 50


def find(name: str) -> Path:
    """The TOML file of a recipe given by built-in name or by path."""
    path = Path(name)
    if path.suffix == ".toml" and path.is_file():
        return path
    built_in = BUILT_IN / f"{name}.toml"
    if built_in.is_file():
        return built_in
    known = sorted(p.stem for p in BUILT_IN.glob("*.toml"))
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean '{close[0]}'?" if close else "Built in: " + ", ".join(known) + "; or give a .toml file."
    raise UsageError(f"There is no recipe '{name}'.", hint)


def load(path: Path) -> Recipe:
    """Read a recipe; every mistake in it is named at once.

    Raises:
        UsageError: the file is no TOML, or has unknown keys, wrong types or values out of range.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}.") from error
    return build(table, str(path))


def build(table: Mapping[str, Any], name: str) -> Recipe:
    """Check a table and make the recipe of it; `name` is for messages."""
    problems: list[str] = []
    fields = {f.name: f for f in dataclasses.fields(Recipe)}
    defaults = Recipe()
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in fields:
            close = difflib.get_close_matches(key, fields, n=1)
            problems.append(f"unknown key '{key}'" + (f", did you mean '{close[0]}'?" if close else ""))
            continue
        default = getattr(defaults, key)
        if key == "phases":
            try:
                values[key] = tuple(Phase(**p) for p in value)
            except TypeError as error:
                problems.append(f"phases: each needs until, crop and batch ({error})")
        elif key == "data" and isinstance(value, list) and all(isinstance(v, str) for v in value):
            values[key] = tuple(value)
        elif isinstance(default, float) and isinstance(value, (int, float)) and not isinstance(value, bool):
            values[key] = float(value)
        elif isinstance(value, type(default)) or (isinstance(default, Mapping) and isinstance(value, Mapping)):
            values[key] = value
        else:
            problems.append(f"{key}: expected {type(default).__name__}, found {type(value).__name__}")
    recipe = Recipe(**values)
    problems += _out_of_range(recipe)
    if problems:
        raise UsageError(f"{name} has {len(problems)} problem(s): " + "; ".join(problems) + ".")
    return recipe


def _out_of_range(recipe: Recipe) -> list[str]:
    problems = []
    if recipe.kind not in ("restorer", "detector"):
        problems.append(f"kind: 'restorer' or 'detector', not '{recipe.kind}'")
    if recipe.precision not in ("bf16", "fp32"):
        problems.append(f"precision: 'bf16' or 'fp32', not '{recipe.precision}'")
    for kind in recipe.weights:
        if kind not in KINDS:
            close = difflib.get_close_matches(kind, KINDS, n=1)
            problems.append(f"weights: unknown kind '{kind}'" + (f", did you mean '{close[0]}'?" if close else ""))
    if not any(w > 0 for w in recipe.weights.values()):
        problems.append("weights: at least one must be positive")
    ends = [p.until for p in recipe.phases]
    if not ends or ends != sorted(ends) or ends[-1] != 1.0:
        problems.append("phases: 'until' must rise and end at 1.0")
    for phase in recipe.phases:
        if phase.crop % 16 or phase.crop < 16 or phase.batch < 1:
            problems.append(f"phases: crop {phase.crop} must be a multiple of 16 and batch {phase.batch} at least 1")
    if recipe.minutes <= 0 and recipe.steps < 1:
        problems.append("steps: at least 1 where minutes is 0")
    return problems
