"""The training loop: `tasks` says what is trained, `state` holds weights, optimizer and position in the data."""

from __future__ import annotations

import json
import math
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import FileError, IrtoolError, UsageError
from ..fileio import exists, read_text
from . import model_card
from .data import seed_of
from .distributed import ProcessGroup, StopSignal, init_distributed
from .log import Callback, Meter, TrainingLog, means
from .prefetch import prefetch
from .recipe import Recipe
from .state import BEST, LAST, TrainState, link_or_copy, trainable_parameters
from .tasks import Batch, TrainingData, TrainingTask, training_task


def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    device: torch.device,
    start: Path | None = None,
    callback: Callback | None = None,
    tensorboard: bool = False,
) -> Path:
    """Run a recipe; resumes by itself where `out` holds a checkpoint.

    Args:
        recipe: what to do.
        data: folder that the recipe's data folders lie in.
        out: folder of the run (docs/training.md says what it will hold).
        device: where to compute.
        start: a checkpoint or an exported .safetensors whose weights a new run starts from.
        callback: called at every step and for every line of the log.
        tensorboard: also write TensorBoard's event files.

    Returns:
        The path of the last checkpoint.

    Raises:
        UsageError: there is no usable data, or `out` holds a run of another recipe.
        IrtoolError: the loss stopped being a number, the disk is full, or another process has gone; the last
            checkpoint stays.
        KeyboardInterrupt: the run was told to end, and has saved where it was.
    """
    task = training_task(recipe.kind)
    with init_distributed(device) as group:
        callback = callback if callback is not None and group.rank == 0 else Callback()
        require_divisible(recipe, group.world_size)
        with group.rank_zero_first():
            source = task.dataset(recipe, data, group.shard)
        for sentence in source.skipped:
            callback.note(f"skipped: {sentence}")
        if source.skipped:
            callback.note(f"{len(source.skipped)} file(s) skipped")
        state = TrainState(task, recipe, group.device)
        if (out / LAST).is_file():
            state.resume(out / LAST, recipe)
            callback.note(f"goes on from step {state.step}")
            if state.data != source.description.get("digest", ""):
                callback.note("the pictures are not those that the run was begun with")
        else:
            _require_own(out)
            if start is not None:
                state.initialize_from(start)
        state.data = str(source.description.get("digest", ""))
        try:
            out.mkdir(parents=True, exist_ok=True)
            log = TrainingLog(out, state.step, tensorboard=tensorboard) if group.rank == 0 else None
            callback.line(
                {
                    "type": "run",
                    "step": state.step,
                    "parameters": trainable_parameters(state.net),
                    "processes": group.world_size,
                }
                | {"skipped": len(source.skipped), **source.description}
            )
            with StopSignal() as stop:
                run(Session(task, recipe, source, state, group, out, log, callback, stop))
            if log is not None:
                model_card.write(out, recipe, source.description, state, log.lines, task.figure_of_merit)
                log.close()
        except ConnectionError:
            raise  # not an error of the disk: `init_distributed` handles it
        except OSError as error:
            reason = (error.strerror or str(error)) + (f": {error.filename}" if error.filename else "")
            raise IrtoolError(
                f"The run cannot write to {out} ({reason}).",
                f"Make room; {out / LAST} is the last good state, and the same command goes on from it.",
            ) from error
    return out / LAST


def _require_own(out: Path) -> None:
    """Turn away a folder whose files a new run would replace.

    Raises:
        UsageError: it holds checkpoints without the one to go on from, or a log that is none of irtool's.
    """
    log, is_own = out / "log.jsonl", False
    if exists(log):
        try:
            first = json.loads(read_text(log).partition("\n")[0] or '{"step": 0}')
            is_own = isinstance(first, dict) and "step" in first
        except (ValueError, RecursionError, FileError):
            is_own = False
    # A run that was killed before its first checkpoint has a log alone.
    foreign = [] if is_own else [*([log] if exists(log) else []), *sorted(out.glob("step-*.pt"))]
    if foreign:
        raise UsageError(f"{foreign[0]} is not of a run that could go on here.", "Name another folder with --out.")


@dataclass
class Session:
    """A run in one process: task, data, state, and where it reports to.

    Attributes:
        journal: None in all processes but the first.
    """

    work: TrainingTask[Any]
    recipe: Recipe
    source: TrainingData[Any]
    state: TrainState
    group: ProcessGroup
    out: Path
    journal: TrainingLog | None
    watcher: Callback
    stop: StopSignal


def run(session: Session) -> None:
    """Train from where the state is to the end of the recipe."""
    s, recipe, state, group = session, session.recipe, session.state, session.group
    step_of, meter, pool = group.wrap(LossModule(s.work, state.net, recipe)), Meter(group.device), None
    with closing(prefetch(s.source.pools, state.pool, group.device)) as pools:
        while (progress := progress_of(state, recipe)) < 1:
            # Data: the next batch of the pool in use, or of a new one.
            phase = phase_of(recipe, progress)
            rows = recipe.pool // recipe.phases[phase].batch
            with meter.waiting():
                pool = next(pools) if pool is None else pool
                if state.row and (phase != state.phase or state.row >= rows):
                    pool, state.pool, state.row = next(pools), state.pool + 1, 0
            state.phase = phase
            shared = torch.Generator().manual_seed(seed_of(recipe.seed, state.step))
            batch = s.work.batch(pool, state.row, rows, recipe.phases[phase].crop, shared).to(group.device)

            # The step.
            rate = rate_of(recipe, state.step, progress)
            for settings in state.optimizer.param_groups:
                settings["lr"] = rate
            seed = seed_of(recipe.seed, state.step, group.rank, 1)
            torch.manual_seed(seed)
            loss, figures = step_of(batch, torch.Generator().manual_seed(seed), state.step)
            loss.backward()
            norm = nn.utils.clip_grad_norm_([p for p in state.net.parameters() if p.requires_grad], recipe.clip)
            state.optimizer.step()
            state.optimizer.zero_grad(set_to_none=True)
            state.update_ema(recipe.ema)
            state.row, state.step = state.row + 1, state.step + 1
            meter.add(loss.detach() + 0 * norm, figures, batch.names())  # a gradient that is not finite shows too
            state.seconds, ending = group.synchronize(state.seconds + meter.lap(), bool(s.stop))
            s.watcher.step(state.step, min(1.0, progress_of(state, recipe)))

            finished = progress_of(state, recipe) >= 1
            record(session, meter, rate, finished=finished, ending=ending)
            if ending and not finished:
                s.watcher.note(f"saved at step {state.step}; the same command goes on from there")
                raise KeyboardInterrupt


def record(session: Session, meter: Meter, rate: float, *, finished: bool, ending: bool) -> None:
    """After a step, write what is due: a line of the log, a preview of the held-out samples, a checkpoint.

    Raises:
        IrtoolError: the loss of a step since the last record was not finite.
    """
    s, recipe, state, log = session, session.recipe, session.state, session.journal
    look = finished or state.step % recipe.preview_every == 0
    report = look or ending or state.step % recipe.report_every == 0
    save = finished or ending or state.step % recipe.save_every == 0
    better = False
    if (report or save) and (ago := meter.not_finite()) is not None:
        raise not_a_number(state.step - ago, s.out)
    if report:
        line = {"step": state.step, "minutes": state.seconds / 60, "rate": rate}
        line = line | means(s.group.all_gather(meter.take())) | line  # these names are the loop's
        if log is not None:
            if look and s.source.held_out is not None:
                line |= preview_held_out(s.work, recipe, s.source.held_out, state, log)
                better = line[f"held_out/{s.work.figure_of_merit}"] > state.best
                state.best = max(state.best, line[f"held_out/{s.work.figure_of_merit}"])
            log.add(line)
            if look:
                log.draw()
            s.watcher.line({"type": "log", **line})
    if (save or better) and log is not None:
        state.save(s.out, recipe)
        if better:
            link_or_copy(s.out / BEST, s.out / LAST)


class LossModule(nn.Module):
    """The loss of a job as a module, so that DistributedDataParallel can average its gradients."""

    def __init__(self, task: TrainingTask[Any], net: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.task, self.net, self.recipe = task, net, recipe

    def forward(self, batch: Batch, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        kind = next(self.net.parameters()).device.type
        with torch.autocast(kind, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            return self.task.loss(self.net, batch, self.recipe, generator, step)


@torch.inference_mode()
def preview_held_out(
    task: TrainingTask[Any], recipe: Recipe, held_out: Any, state: TrainState, log: TrainingLog
) -> dict[str, float]:
    """Preview the averaged network, draw it, and give its figures as "held_out/..."."""
    kind = next(state.ema.parameters()).device.type
    with torch.autocast(kind, torch.bfloat16, enabled=recipe.precision == "bf16"):
        preview = task.preview(state.ema, held_out, recipe)
    log.show(preview, state.step)
    return {f"held_out/{k}": v for k, v in preview.figures.items()}


def progress_of(state: TrainState, recipe: Recipe) -> float:
    """Fraction of the run that is done, by time or by steps."""
    return state.seconds / (recipe.minutes * 60) if recipe.minutes > 0 else state.step / recipe.steps


def phase_of(recipe: Recipe, progress: float) -> int:
    """Index of the phase at `progress`."""
    return next((i for i, p in enumerate(recipe.phases) if progress < p.until), len(recipe.phases) - 1)


def rate_of(recipe: Recipe, step: int, progress: float) -> float:
    """Learning rate: linear warm-up, then a cosine down to the recipe's floor."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    factor = recipe.floor + (1 - recipe.floor) * cosine
    return recipe.rate * min(1.0, (step + 1) / max(1, recipe.warmup)) * factor


def require_divisible(recipe: Recipe, processes: int) -> None:
    """Every process must be able to make its share of a batch, and of a pool whole groups.

    Raises:
        UsageError: it cannot.
    """
    groups = recipe.pool // recipe.group
    indivisible = [p.batch for p in recipe.phases if p.batch % processes]
    if groups % processes or indivisible:
        what = f"batch {indivisible[0]}" if indivisible else f"the {groups} groups of a pool"
        raise UsageError(
            f"{what} cannot be shared by {processes} processes.", "Start another number of them, or change the recipe."
        )


def not_a_number(step: int, out: Path) -> IrtoolError:
    """The error of a loss or gradient that is not finite."""
    last = out / LAST
    kept = f"{last} is the last good state" if last.is_file() else "No checkpoint had been written yet"
    return IrtoolError(f"The loss or its gradient is not finite at step {step}.", f"{kept}; lower the rate.")
