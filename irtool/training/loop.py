"""The training loop: `jobs` says what is trained, `state` holds weights, optimizer and position in the data."""

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
from . import card
from .data import seed_of
from .feed import feed
from .jobs import Batch, Job, Source, job
from .journal import Journal, Meter, Watcher, means
from .processes import Group, Stop, together
from .recipe import Recipe
from .state import BEST, LAST, State, held_by, stand_for


def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    device: torch.device,
    start: Path | None = None,
    watcher: Watcher | None = None,
    tensorboard: bool = False,
) -> Path:
    """Run a recipe; resumes by itself where `out` holds a checkpoint.

    Args:
        recipe: what to do.
        data: folder that the recipe's data folders lie in.
        out: folder of the run (docs/training.md says what it will hold).
        device: where to compute.
        start: a checkpoint or an exported .safetensors whose weights a new run starts from.
        watcher: called at every step and for every line of the log.
        tensorboard: also write TensorBoard's event files.

    Returns:
        The path of the last checkpoint.

    Raises:
        UsageError: there is no usable data, or `out` holds a run of another recipe.
        IrtoolError: the loss stopped being a number, the disk is full, or another process has gone; the last
            checkpoint stays.
        KeyboardInterrupt: the run was told to end, and has saved where it was.
    """
    work = job(recipe.kind)
    with together(device) as group:
        watcher = watcher if watcher is not None and group.rank == 0 else Watcher()
        require_divisible(recipe, group.size)
        with group.first():
            source = work.dataset(recipe, data, group.share)
        for sentence in source.skipped:
            watcher.note(f"skipped: {sentence}")
        if source.skipped:
            watcher.note(f"{len(source.skipped)} file(s) skipped")
        state = State(work, recipe, group.device)
        if (out / LAST).is_file():
            state.resume(out / LAST, recipe)
            watcher.note(f"goes on from step {state.step}")
            if state.data != source.told.get("digest", ""):
                watcher.note("the pictures are not those that the run was begun with")
        else:
            _require_own(out)
            if start is not None:
                state.begin_from(start)
        state.data = str(source.told.get("digest", ""))
        try:
            out.mkdir(parents=True, exist_ok=True)
            journal = Journal(out, state.step, tensorboard=tensorboard) if group.rank == 0 else None
            watcher.line(
                {"type": "run", "step": state.step, "parameters": held_by(state.net), "processes": group.size}
                | {"skipped": len(source.skipped), **source.told}
            )
            with Stop() as stop:
                run(Session(work, recipe, source, state, group, out, journal, watcher, stop))
            if journal is not None:
                card.write(out, recipe, source.told, state, journal.lines, work.figure)
                journal.close()
        except ConnectionError:
            raise  # not an error of the disk: `together` handles it
        except OSError as error:
            told = (error.strerror or str(error)) + (f": {error.filename}" if error.filename else "")
            raise IrtoolError(
                f"The run cannot write to {out} ({told}).",
                f"Make room; {out / LAST} is the last good state, and the same command goes on from it.",
            ) from error
    return out / LAST


def _require_own(out: Path) -> None:
    """Turn away a folder whose files a new run would replace.

    Raises:
        UsageError: it holds checkpoints without the one to go on from, or a log that is none of irtool's.
    """
    log, own = out / "log.jsonl", False
    if exists(log):
        try:
            first = json.loads(read_text(log).partition("\n")[0] or '{"step": 0}')
            own = isinstance(first, dict) and "step" in first
        except (ValueError, RecursionError, FileError):
            own = False
    # A run that was killed before its first checkpoint has a log alone.
    foreign = [] if own else [*([log] if exists(log) else []), *sorted(out.glob("step-*.pt"))]
    if foreign:
        raise UsageError(f"{foreign[0]} is not of a run that could go on here.", "Name another folder with --out.")


@dataclass
class Session:
    """A run in one process: task, data, state, and where it reports to.

    Attributes:
        journal: None in all processes but the first.
    """

    work: Job[Any]
    recipe: Recipe
    source: Source[Any]
    state: State
    group: Group
    out: Path
    journal: Journal | None
    watcher: Watcher
    stop: Stop


def run(session: Session) -> None:
    """Train from where the state is to the end of the recipe."""
    s, recipe, state, group = session, session.recipe, session.state, session.group
    step_of, meter, pool = group.wrap(Step(s.work, state.net, recipe)), Meter(group.device), None
    with closing(feed(s.source.pools, state.pool, group.device)) as pools:
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
            state.average(recipe.ema)
            state.row, state.step = state.row + 1, state.step + 1
            meter.add(loss.detach() + 0 * norm, figures, batch.names())  # a gradient that is not finite shows too
            state.seconds, ending = group.agree(state.seconds + meter.lap(), bool(s.stop))
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
    s, recipe, state, journal = session, session.recipe, session.state, session.journal
    look = finished or state.step % recipe.preview_every == 0
    report = look or ending or state.step % recipe.report_every == 0
    save = finished or ending or state.step % recipe.save_every == 0
    better = False
    if (report or save) and (ago := meter.not_finite()) is not None:
        raise not_a_number(state.step - ago, s.out)
    if report:
        line = {"step": state.step, "minutes": state.seconds / 60, "rate": rate}
        line = line | means(s.group.collect(meter.take())) | line  # these names are the loop's
        if journal is not None:
            if look and s.source.held is not None:
                line |= look_at(s.work, recipe, s.source.held, state, journal)
                better = line[f"held_out/{s.work.figure}"] > state.best
                state.best = max(state.best, line[f"held_out/{s.work.figure}"])
            journal.add(line)
            if look:
                journal.draw()
            s.watcher.line({"type": "log", **line})
    if (save or better) and journal is not None:
        state.save(s.out, recipe)
        if better:
            stand_for(s.out / BEST, s.out / LAST)


class Step(nn.Module):
    """The loss of a job as a module, so that DistributedDataParallel can average its gradients."""

    def __init__(self, work: Job[Any], net: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.work, self.net, self.recipe = work, net, recipe

    def forward(self, batch: Batch, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        kind = next(self.net.parameters()).device.type
        with torch.autocast(kind, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            return self.work.loss(self.net, batch, self.recipe, generator, step)


@torch.inference_mode()
def look_at(work: Job[Any], recipe: Recipe, held: Any, state: State, journal: Journal) -> dict[str, float]:
    """Preview the averaged network, draw it, and give its figures as "held_out/..."."""
    kind = next(state.ema.parameters()).device.type
    with torch.autocast(kind, torch.bfloat16, enabled=recipe.precision == "bf16"):
        preview = work.preview(state.ema, held, recipe)
    journal.show(preview, state.step)
    return {f"held_out/{k}": v for k, v in preview.figures.items()}


def progress_of(state: State, recipe: Recipe) -> float:
    """Fraction of the run that is done, by time or by steps."""
    return state.seconds / (recipe.minutes * 60) if recipe.minutes > 0 else state.step / recipe.steps


def phase_of(recipe: Recipe, progress: float) -> int:
    """Index of the phase at `progress`."""
    return next((i for i, p in enumerate(recipe.phases) if progress < p.until), len(recipe.phases) - 1)


def rate_of(recipe: Recipe, step: int, progress: float) -> float:
    """Learning rate: linear warm-up, then a cosine down to the recipe's floor."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    share = recipe.floor + (1 - recipe.floor) * cosine
    return recipe.rate * min(1.0, (step + 1) / max(1, recipe.warmup)) * share


def require_divisible(recipe: Recipe, processes: int) -> None:
    """Every process must be able to make its share of a batch, and of a pool whole groups.

    Raises:
        UsageError: it cannot.
    """
    groups = recipe.pool // recipe.group
    uneven = [p.batch for p in recipe.phases if p.batch % processes]
    if groups % processes or uneven:
        what = f"batch {uneven[0]}" if uneven else f"the {groups} groups of a pool"
        raise UsageError(
            f"{what} cannot be shared by {processes} processes.", "Start another number of them, or change the recipe."
        )


def not_a_number(step: int, out: Path) -> IrtoolError:
    """The error of a loss or gradient that is not finite."""
    last = out / LAST
    kept = f"{last} is the last good state" if last.is_file() else "No checkpoint had been written yet"
    return IrtoolError(f"The loss or its gradient is not finite at step {step}.", f"{kept}; lower the rate.")
