"""LM4LV at the size of a stand-in: three tasks through a frozen transformer, trained, and measured on photographs.

    python benchmarks/lm4lv.py --data DATA --test FOLDER_OF_PHOTOGRAPHS --runs runs/lm4lv

Trains the autoencoder of the recipe lm4lv-small, and about it one set of adapters for each of noise removal, mask
removal and rotation by 180 degrees (one model a task, as published). Runs that are in --runs already are resumed.
Prints the mean PSNR over fresh samples of the photographs, beside the published baseline, the degraded picture through
the autoencoder alone, and one color for everything. --language-model takes a model of the Hugging Face hub or a folder;
the default is the control, a frozen transformer with random weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from irtool.training import loop, recipe, state
from irtool.training.export import export
from irtool.training.lm4lv import LM4LVTask
from irtool.training.restorer import psnr
from irtool.training.tasks import Shard

CPU = torch.device("cpu")
TASKS: dict[str, dict[str, Any]] = {
    "noise removal": {"weights": {"noise": 1.0}},
    "mask removal": {"weights": {"missing": 1.0}},
    "rotation": {"weights": {"clean": 1.0}, "settings": {"spatial": "rotate"}},
}
CROP = 32
"""Side of the crops, that of the autoencoder: noise is not averaged away."""


def made(changes: dict[str, Any]) -> recipe.Recipe:
    """The recipe lm4lv-small with changes; `weights` are replaced, other tables are merged."""
    table = recipe.table(recipe.find("lm4lv-small"))
    table |= {"minutes": 0.0, "region": CROP, "group": 4, "preview_every": 10**6, "save_every": 10**6}
    for key, value in changes.items():
        table[key] = {**table.get(key, {}), **value} if key in ("model", "settings") else value
    return recipe.build(table, "lm4lv-small")


def measured(r: recipe.Recipe, checkpoint: Path, photographs: Path, count: int) -> list[float]:
    """PSNR in dB of the input, of the mean color of all targets, of the input through the autoencoder, of the output,
    and of the target through the autoencoder."""
    task = LM4LVTask()
    net = task.build(r).eval()
    net.load_state_dict(state.read(checkpoint)["ema"])
    table = recipe.table(recipe.find("lm4lv-small"))
    table |= {"region": CROP, "group": 1, "pool": count, "hold": 0, "seed": 1000, "data": [photographs.name]}
    table |= {"weights": dict(r.weights), "settings": dict(r.settings), "model": dict(r.model)}
    table["phases"] = [{"until": 1.0, "crop": CROP, "batch": count}]
    source = task.dataset(recipe.build(table, "test"), photographs.parent, Shard(0, 1, CPU))
    sample = source.pools[0]
    with torch.inference_mode():
        figures = task.preview(net, sample, r).figures
        degraded, clean = task.pictures(CROP, sample, r)
    plain = clean.mean((0, 2, 3), keepdim=True).expand_as(clean)
    return [float(psnr(degraded, clean).mean()), float(psnr(plain, clean).mean()),
            figures["psnr/degraded_through_autoencoder"], figures["psnr"], figures["psnr/clean_through_autoencoder"],
            ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--language-model", default="random:96x2")
    parser.add_argument("--autoencoder-steps", type=int, default=600)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--count", type=int, default=48, help="samples that are measured")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    given = parser.parse_args()
    phases = [{"until": 1.0, "crop": CROP, "batch": given.batch}]
    vision = given.runs / "autoencoder.safetensors"
    if not vision.is_file():
        r = made({"steps": given.autoencoder_steps, "phases": phases, "weights": {"clean": 1.0},
                  "settings": {"stage": "autoencoder"}})  # fmt: skip
        export(loop.train(r, given.data, given.runs / "autoencoder", device=CPU), vision)
    print("| task | input | mean color of all | through the autoencoder | LM4LV | target through the autoencoder |")
    print("|---|---|---|---|---|---|")
    for name in given.tasks:
        changes = TASKS[name]
        model = {"vision": str(vision), "language_model": given.language_model}
        r = made({**changes, "steps": given.steps, "phases": phases, "model": model})
        checkpoint = loop.train(r, given.data, given.runs / name.replace(" ", "-"), device=CPU)
        cells = measured(r, checkpoint, given.test, given.count)
        print(f"| {name} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
