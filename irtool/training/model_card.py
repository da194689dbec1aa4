"""The draft of a model card: recipe, data and metrics of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import __version__
from ..fileio import atomic_write
from .recipe import Recipe
from .state import LAST, TrainState, trainable_parameters


def write(
    out: Path,
    recipe: Recipe,
    description: Mapping[str, Any],
    state: TrainState,
    lines: Sequence[Mapping[str, Any]],
    figure_of_merit: str,
) -> Path:
    """Write ``card.md`` into the folder of a run that has ended.

    Args:
        out: folder of the run.
        recipe: what was run.
        description: of the data (`tasks.TrainingData.told`).
        state: at the end.
        lines: of the log.
        figure_of_merit: the held-out metric that chose the best checkpoint.

    Raises:
        OSError: it cannot be written.
    """
    previews = [line for line in lines if f"held_out/{figure_of_merit}" in line]
    last = previews[-1] if previews else {}
    best = max(previews, key=lambda line: line[f"held_out/{figure_of_merit}"]) if previews else {}
    on = (
        f"on {description['held_out']} pictures kept back"
        if description.get("held_out")
        else "on training pictures: none kept back"
    )
    text = [
        f"# {out.name}: draft of a model card",
        "",
        "A draft by `irtool train`. The figures are of its own held-out samples; figures by a protocol come from",
        "`irtool eval`. Before it ships, say what the model is for and what it must not be used for.",
        "",
        "## Training",
        "",
        f"- kind: {recipe.kind}, {trainable_parameters(state.net):,} trained parameters",
        f"- {state.step:,} steps, {state.seconds / 60:.1f} minutes, precision {recipe.precision}",
        f"- recipe sha256: {recipe.sha256}",
        f"- irtool {__version__}; checkpoint {LAST}",
        "",
        "## Data",
        "",
        *_data(description),
        "",
        f"## Figures, {on}",
        "",
        *(_table(last, best) if previews else ["None were made."]),
        "",
        "## Recipe",
        "",
        "```json",
        json.dumps(asdict(recipe), indent=1),
        "```",
        "",
    ]
    path = out / "card.md"
    atomic_write(path, "\n".join(text).encode())
    return path


def _data(description: Mapping[str, Any]) -> list[str]:
    lines = [f"- {key}: {value}" for key, value in description.items() if key not in ("licences", "pairs", "data")]
    lines += [f"- real pairs in {place}: {count}" for place, count in description.get("pairs", {}).items()]
    lines += ["", "| licence | files |", "|---|---|"] if description.get("licences") else []
    return lines + [f"| {name} | {count} |" for name, count in description.get("licences", {}).items()]


def _table(last: Mapping[str, Any], best: Mapping[str, Any]) -> list[str]:
    names = [key for key in last if key.startswith("held_out/")]
    rows = [f"| {n.removeprefix('held_out/')} | {last[n]:.3f} | {best.get(n, float('nan')):.3f} |" for n in names]
    return [f"| figure | at the end, step {last['step']} | best, step {best['step']} |", "|---|---|---|", *rows]
