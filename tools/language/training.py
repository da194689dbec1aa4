"""Train the text model on composed sentences:

    python -m tools.language train irtool/assets/irtool-words.v2.safetensors

Sentences are composed anew for every part of the run, so none is seen twice but by chance.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save as serialize
from safetensors.torch import load_file
from torch import Tensor, nn

from irtool.language.labels import ACTS, KINDS, LEVELS, ORDERS
from irtool.language.packing import unpack
from irtool.language.tagger import HEADS
from irtool.language.tokens import features, tokenize

from .grammar import Composed
from .network import DILATIONS, TaggerNet
from .packing import pack
from .sentences import compose

IGNORE = -100
AVERAGED = 4
"""Steps between updates of the moving average of the weights, which is what is written."""


@dataclass(frozen=True)
class Example:
    """A sentence as numbers: the features and labels of every token."""

    rows: list[list[int]]
    kind: list[int]
    act: list[int]
    level: list[int]
    order: int


def example(sentence: Composed) -> Example | None:
    """The tokens of a composed sentence with their labels; None if it has none."""
    text, marks = "", []
    for piece, mark in sentence.pieces:
        text += piece
        marks += [mark] * len(piece)
    tokens = tokenize(text)
    if not tokens:
        return None
    of = [marks[t.start] for t in tokens]
    return Example(
        features(tokens),
        [KINDS.index(m.kind) if m else 0 for m in of],
        [ACTS.index(m.act) if m else IGNORE for m in of],
        [LEVELS.index(m.level) if m and m.act == "undo" else IGNORE for m in of],
        ORDERS.index(sentence.order),
    )


def collate(batch: list[Example]) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """ids, their weights, offsets, mask and targets of a batch."""
    longest = max(len(e.rows) for e in batch)
    ids: list[int] = []
    weights: list[float] = []
    offsets = np.zeros(len(batch) * longest, dtype=np.int64)
    mask = np.zeros((len(batch), longest, 1), dtype=np.float32)
    targets = {name: np.full((len(batch), longest), IGNORE, dtype=np.int64) for name in HEADS}
    for i, e in enumerate(batch):
        for j in range(longest):
            offsets[i * longest + j] = len(ids)
            row = e.rows[j] if j < len(e.rows) else [0]
            ids += row
            weights += [1.0] + [max(1, len(row) - 1) ** -0.5] * (len(row) - 1)
        mask[i, : len(e.rows)] = 1
        for name in HEADS:
            targets[name][i, : len(e.rows)] = getattr(e, name)
    labels = {k: torch.from_numpy(v) for k, v in targets.items()}
    labels["order"] = torch.tensor([e.order for e in batch])
    return torch.tensor(ids), torch.tensor(weights), torch.from_numpy(offsets), torch.from_numpy(mask), labels


def loss_of(logits: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
    """Cross entropies of all heads."""
    total = 0.5 * F.cross_entropy(logits["order"], targets["order"])
    for name in HEADS:
        part = F.cross_entropy(logits[name].flatten(0, 1), targets[name].flatten(), ignore_index=IGNORE)
        total = total + {"kind": 2.0, "act": 1.5, "level": 1.5}[name] * part
    return total


def train(
    target: Path,
    *,
    sentences: int = 240_000,
    batch: int = 128,
    rate: float = 4e-3,
    seed: int = 0,
    seconds: float = math.inf,
    start: Path | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Path:
    """Train a text model and write it as safetensors.

    Args:
        target: the file to write.
        sentences: composed and learned from, each once.
        batch: sentences per step, of about equal length.
        rate: peak of the learning rate.
        seed: of the sentences and of the weights.
        seconds: of training at most; the learning rate decays over them where `sentences` would take longer.
        start: a file of an earlier run to begin with.
        report: called with a line now and then.
    """
    torch.manual_seed(seed)
    state = _widened(load_file(start)) if start is not None else {}
    net = TaggerNet(max(1, _members(state)))
    if state:
        net.load_state_dict(state)
    average = {k: v.detach().clone() for k, v in net.state_dict().items()}
    groups = [
        {"params": [p for n, p in net.named_parameters() if ".embed." in n], "factor": 2.0},  # each is met seldom
        {"params": [p for n, p in net.named_parameters() if ".embed." not in n], "factor": 1.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=0.001, fused=True)
    steps = -(-sentences // batch)
    part = min(64 * batch, sentences)
    begun, step, losses = time.monotonic(), 0, []
    for number in range(-(-sentences // part)):
        made = [e for s in compose(part, seed * 100_003 + number) if (e := example(s)) is not None]
        made.sort(key=lambda e: len(e.rows))
        batches = [made[i : i + batch] for i in range(0, len(made), batch)]
        for i in torch.randperm(len(batches)).tolist():
            progress = max(step / steps, (time.monotonic() - begun) / seconds)
            if progress >= 1:
                break
            for group in optimizer.param_groups:
                cosine = 0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * progress))
                group["lr"] = rate * group["factor"] * min(1.0, (step + 1) / 100) * cosine
            ids, weights, offsets, mask, targets = collate(batches[i])
            # A word left out as a whole must be known by its parts, as a misspelt one is.
            weights = weights * (1 - ((weights == 1) & (torch.rand_like(weights) < 0.1)).float())
            logits = net(ids, weights, offsets, mask)
            loss = loss_of(logits, targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            step += 1
            losses.append(loss.item())
            if step % AVERAGED == 0:
                keep = min(0.998**AVERAGED, (1 + step) / (10 + step))
                with torch.no_grad():
                    for key, value in net.state_dict().items():
                        average[key].lerp_(value, 1 - keep)
        with torch.no_grad():
            right = (logits["kind"].argmax(-1) == targets["kind"])[targets["kind"] != IGNORE].float().mean()
        _write(average, target, {"sentences": str(step * batch), "seed": str(seed)})
        loss_now, passed = np.mean(losses[-128:]), time.monotonic() - begun
        report(f"{step * batch} sentences, {right:.3f} of tokens right, loss {loss_now:.4f}, {passed:.0f} s")
        if passed >= seconds:
            break
    return target


def _widened(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a text model, with rows of zeros for labels that it was trained without."""
    state = {k: torch.from_numpy(v) for k, v in unpack({k: v.numpy() for k, v in tensors.items()}).items()}
    for key, value in state.items():
        head = key.split(".")[2]
        more = HEADS[head] - len(value) if head in HEADS else 0
        state[key] = torch.cat([value, value.new_zeros(more, *value.shape[1:])])
    return state


def _members(weights: Mapping[str, Tensor]) -> int:
    """How many networks some tensors are of."""
    return len({name.split(".")[1] for name in weights})


def join(target: Path, parts: Sequence[Path]) -> None:
    """Write the ensemble of some text models."""
    weights: dict[str, Tensor] = {}
    for part in parts:
        tensors = unpack({name: value.numpy() for name, value in load_file(part).items()})
        taken = _members(weights)
        for name, value in tensors.items():
            _, number, rest = name.split(".", 2)
            weights[f"nets.{taken + int(number)}.{rest}"] = torch.from_numpy(value)
    _write(weights, target, {})


def _write(weights: Mapping[str, Tensor], target: Path, notes: Mapping[str, str]) -> None:
    """Packed. Replaced atomically, so that a run that is stopped leaves what it had."""
    header = {
        "architecture": "tagger",
        "config": json.dumps({"members": _members(weights), "dilations": DILATIONS}),
        "licence": "Apache-2.0",
        **notes,
    }
    packed = pack({name: value.float().numpy() for name, value in weights.items()})
    partial = target.with_suffix(".partial")
    partial.write_bytes(serialize(packed, metadata=header))
    partial.replace(target)
