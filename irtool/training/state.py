"""The state of a run, its checkpoints, and resuming."""

from __future__ import annotations

import copy
import io
import os
import re
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import FileError, IrtoolError, UnavailableError, UsageError, reason
from ..fileio import atomic_write, exists, open_regular
from ..models import loading
from ..weights.convert import require_harmless
from .recipe import CHANGEABLE_ON_RESUME, Recipe, build
from .tasks import TrainingTask

LAST, BEST = "checkpoint.pt", "best.pt"


class TrainState:
    """Weights, their exponential moving average (EMA), the optimizer, and the position in the data.

    Attributes:
        net, ema: the trained network, and the EMA of its weights, which is exported.
        step, seconds: progress of the run.
        pool, row, phase: the current pool, the batches already taken from it, and their phase.
        best: the best held-out figure so far.
        written: the checkpoints of this run that are kept, the oldest first; no others are ever removed.
    """

    def __init__(self, task: TrainingTask[Any], recipe: Recipe, device: torch.device) -> None:
        torch.manual_seed(recipe.seed)
        self.net = task.build(recipe).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = copy.deepcopy(self.net).eval().requires_grad_(False)
        trained = [p for p in self.net.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=recipe.rate, betas=(recipe.beta1, recipe.beta2), eps=recipe.eps,
            fused=True,
        )  # fmt: skip
        self.step, self.seconds = 0, 0.0
        self.pool, self.row, self.phase = 0, 0, 0
        self.best = float("-inf")
        self.data = ""
        self.written: list[Path] = []

    def update_ema(self, decay: float) -> None:
        """Update the EMA; the decay grows from 0.1 to its final value, so that the first steps are forgotten."""
        keep = min(decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.ema.parameters()), [p.detach() for p in self.net.parameters()], 1 - keep)
        for averaged, current in zip(self.ema.buffers(), self.net.buffers(), strict=True):
            averaged.copy_(current)

    def save(self, out: Path, recipe: Recipe) -> None:
        """Write ``step-N.pt``, link ``checkpoint.pt`` to it, and remove older ones than the recipe keeps.

        Every name refers to a complete checkpoint at any moment, also when this is interrupted.

        Raises:
            IrtoolError: it cannot be written; what was there stays.
        """
        content = {
            "net": self.net.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "pool": self.pool,
            "row": self.row,
            "phase": self.phase,
            "best": self.best,
            "data": self.data,
            "recipe": asdict(recipe),
        }
        # Through memory: torch's own writer ends the process where the disk is full.
        buffer = io.BytesIO()
        torch.save(content, buffer)
        path = out / f"step-{self.step:08d}.pt"
        try:
            atomic_write(path, buffer.getbuffer())
            link_or_copy(out / LAST, path)
        except (OSError, FileError) as error:
            last = f"{out / LAST} is the last good one; " if exists(out / LAST) else ""
            raise IrtoolError(
                f"The checkpoint of step {self.step} cannot be written to {out}: {reason(error)}.",
                f"{last}make room, and run the same command again.",
            ) from error
        self.written = [*(p for p in self.written if p != path), path]
        for old in self.written[: -recipe.keep]:
            old.unlink(missing_ok=True)
        del self.written[: -recipe.keep]

    def resume(self, path: Path, recipe: Recipe) -> None:
        """Resume from a checkpoint of the same run.

        Raises:
            UsageError: it is no checkpoint, or one of another recipe.
        """
        content = read(path)
        if "row" not in content:
            raise UsageError(
                f"{path} was written by an older irtool and cannot be gone on from.",
                f"Begin a new run from its weights: --start {path}, with another --out.",
            )
        saved_recipe, new_recipe = asdict(build(content["recipe"], str(path))), asdict(recipe)
        changed = [
            f"{k}: {saved_recipe[k]} -> {new_recipe[k]}"
            for k in new_recipe
            if k not in CHANGEABLE_ON_RESUME and saved_recipe[k] != new_recipe[k]
        ]
        if changed:
            raise UsageError(
                f"{path} was begun with another recipe ({'; '.join(changed)}).",
                f"Give another --out for a new run (--start {path} takes its weights), or the same recipe.",
            )
        self.ema.load_state_dict(content["ema"])
        self.net.load_state_dict(content["net"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.step, self.seconds, self.best = content["step"], content["seconds"], content["best"]
        # Those of the earlier part; of higher steps they are another run's.
        steps = {
            p: int(m[1]) for p in path.parent.glob("step-*.pt") if (m := re.fullmatch(r"step-(\d{8,})\.pt", p.name))
        }
        self.written = sorted((p for p, step in steps.items() if step <= self.step), key=steps.__getitem__)
        self.pool, self.row, self.phase, self.data = content["pool"], content["row"], content["phase"], content["data"]

    def initialize_from(self, path: Path) -> None:
        """Initialize the weights from the EMA of another run's checkpoint, or from an exported model file.

        Raises:
            UsageError: it is neither, or its weights do not fit the recipe's network.
        """
        weights = loading.read(path)[0].state_dict() if path.suffix == ".safetensors" else read(path)["ema"]
        try:
            if hasattr(self.net, "adopt"):  # the network knows how to begin as a smaller one
                weights = self.net.adopt(weights)
            self.net.load_state_dict(weights)
        except RuntimeError as error:
            raise UsageError(f"{path} does not fit the network of the recipe: {error}.") from error
        self.ema.load_state_dict(weights)


def read(path: Path) -> dict[str, Any]:
    """A checkpoint, of this or an older version, on the CPU.

    Raises:
        UsageError: the file is no checkpoint of irtool.
    """
    try:
        require_harmless(path)
        with open_regular(path) as file:
            content = torch.load(file, map_location="cpu", weights_only=True)
        if not {"ema", "step", "recipe"} <= set(content):
            raise KeyError("it lacks weights or recipe")
    except (FileError, UnavailableError) as error:
        raise UsageError(error.message.rstrip(".") + ".", error.hint) from error
    except Exception as error:  # torch's loaders raise whatever they trip over, in words that tell how to open anything
        raise UsageError(f"{path} is no checkpoint of irtool ({type(error).__name__}).") from error
    return dict(content)


def link_or_copy(name: Path, path: Path) -> None:
    """Let `name` be the file `path`, from one moment to the next: a link where the disk has them, else a copy.

    Raises:
        FileError: it cannot be written.
    """
    partial = name.with_name(f".irtool-{secrets.token_hex(8)}.tmp")
    try:
        os.link(path, partial)
    except OSError:
        atomic_write(name, path.read_bytes())
        return
    partial.replace(name)


def trainable_parameters(net: nn.Module) -> int:
    """Number of weights that are trained."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)
