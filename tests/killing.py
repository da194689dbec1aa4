"""A folder restored as shards whose processes are killed at random moments and started again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image


@dataclass
class Killing:
    """What was seen.

    Attributes:
        kills: processes that were killed.
        memory, files: of each process, resident bytes and open files, sampled over its life.
        finished: the processes that ended by themselves.
        seconds: from the first process to the last.
    """

    kills: int = 0
    memory: dict[int, list[int]] = field(default_factory=dict)
    files: dict[int, list[int]] = field(default_factory=dict)
    finished: set[int] = field(default_factory=set)
    seconds: float = 0.0


def small_pictures(folder: Path, count: int, side: int = 24) -> None:
    """Noisy pictures of a few hundred pixels in folders of a thousand."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(60, 190, side)[None, :, None]
    for i in range(count):
        path = folder / f"{i // 1000:02}" / f"{i:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((ramp + rng.normal(0, 25, (side, side, 3))).clip(0, 255).astype(np.uint8)).save(path)


def command(source: Path, target: Path, *more: str) -> list[str]:
    """The command line that restores a folder."""
    arguments = ["restore", str(source), "-r", "-o", str(target), "--task", "denoise", "--threads", "1", "-q"]
    return [sys.executable, "-m", "irtool", *arguments, *more]


def run_shards_killed(
    source: Path, target: Path, shards: int, kills: int, environment: Mapping[str, str], at_once: int = 2, seed: int = 0
) -> Killing:
    """Run all shards, `at_once` at a time; kill one at random when a random share of the outputs is there.

    Raises:
        AssertionError: a process that was not killed failed.
    """
    total, seen, generator = sum(1 for _ in source.rglob("*.png")), Killing(), random.Random(seed)
    moments = sorted(generator.uniform(0.02, 0.8) * total for _ in range(kills))
    waiting, running = [f"{i + 1}/{shards}" for i in range(shards)], {}
    start = time.perf_counter()
    while waiting or running:
        while waiting and len(running) < at_once:
            shard = waiting.pop(0)
            process = subprocess.Popen(command(source, target, "--shard", shard), env=dict(environment))
            running[process] = shard
        time.sleep(0.05)
        made = sum(1 for _ in target.rglob("*.png")) if target.exists() else 0
        if moments and made >= moments[0]:
            moments.pop(0)
            alive = [process for process in running if process.poll() is None]
            if alive:
                generator.choice(alive).send_signal(signal.SIGKILL)
                seen.kills += 1
        for process, shard in list(running.items()):
            if (code := process.poll()) is None:
                _sample(process.pid, seen)
                continue
            del running[process]
            assert code in (0, -signal.SIGKILL), f"shard {shard} ended with {code}"
            if code:
                waiting.insert(0, shard)
            else:
                seen.finished.add(process.pid)
    seen.seconds = time.perf_counter() - start
    return seen


def _sample(pid: int, seen: Killing) -> None:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except (OSError, IndexError):  # it has just ended
        return
    seen.memory.setdefault(pid, []).append(pages * os.sysconf("SC_PAGE_SIZE"))
    seen.files.setdefault(pid, []).append(files)


def recorded(target: Path) -> Counter[str]:
    """How often the account has each picture as restored."""
    counted: Counter[str] = Counter()
    for file in (target / ".irtool").glob("*.jsonl"):
        for line in file.read_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # cut off by the kill
            if record.get("status") == "restored":
                counted[record["path"]] += 1
    return counted


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every output, by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}
