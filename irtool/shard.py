"""Shares of the work for processes that know nothing of each other: on one machine, in a job array, on a cluster."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .errors import UsageError

_SCHEDULERS = "Slurm arrays, srun, AWS Batch arrays, Kubernetes indexed jobs, torchrun (RANK, WORLD_SIZE)"


@dataclass(frozen=True)
class Shard:
    """One of `count` disjoint shares; `index` counts from 0.

    A picture belongs to the shard that a hash of its relative path names, whatever the order of the listing, so shards
    never overlap or miss one, also where their listings differ.
    """

    index: int
    count: int

    def takes(self, name: str) -> bool:
        """Whether what is called `name` belongs to this shard."""
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index

    def __str__(self) -> str:
        return f"{self.index + 1}/{self.count}"


def parse(text: str, environment: Mapping[str, str] = os.environ) -> Shard:
    """The shard that "I/N" names, I from 1 to N, or that the scheduler's variables name under "auto".

    Raises:
        UsageError: it is neither, or no scheduler says which.
    """
    if text == "auto":
        return _from_environment(environment)
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise UsageError(f"`shard` {text} is no share.", "Write it as I/N, such as 2/7, or auto.")
    return Shard(int(index) - 1, int(count))


def _from_environment(environment: Mapping[str, str]) -> Shard:
    def number(name: str) -> int:
        try:
            return int(environment[name])
        except KeyError:
            hint = "Say which as `shard` I/N."
            if name == "JOB_COMPLETIONS":  # Kubernetes tells a pod its index and not how many there are
                hint = "Set JOB_COMPLETIONS to the job's `completions` in the pod's environment."
            raise UsageError(f"`shard` auto: {name} is not set.", hint) from None
        except ValueError:
            raise UsageError(f"`shard` auto: {name} is '{environment[name]}', no number.", "Give I/N.") from None

    def slurm_array() -> tuple[int, int]:
        first = number("SLURM_ARRAY_TASK_MIN")
        last = number("SLURM_ARRAY_TASK_MAX")
        count = number("SLURM_ARRAY_TASK_COUNT")
        step = (last - first) // (count - 1) if count > 1 else 1
        index, rest = divmod(number("SLURM_ARRAY_TASK_ID") - first, max(1, step))
        if rest or (last - first) != step * (count - 1):
            raise UsageError("`shard` auto: the Slurm array has gaps.", "Submit it as --array=0-N, or give I/N.")
        return index, count

    known: dict[str, Callable[[], tuple[int, int]]] = {
        "SLURM_ARRAY_TASK_ID": slurm_array,
        "AWS_BATCH_JOB_ARRAY_INDEX": lambda: (number("AWS_BATCH_JOB_ARRAY_INDEX"), number("AWS_BATCH_JOB_ARRAY_SIZE")),
        "JOB_COMPLETION_INDEX": lambda: (number("JOB_COMPLETION_INDEX"), number("JOB_COMPLETIONS")),
        "RANK": lambda: (number("RANK"), number("WORLD_SIZE")),
        "SLURM_PROCID": lambda: (number("SLURM_PROCID"), number("SLURM_NTASKS")),
    }
    for name, read in known.items():
        if name in environment:
            index, count = read()
            if not 0 <= index < count:
                raise UsageError(f"`shard` auto: {name} says share {index} of {count}.", "Give `shard` I/N.")
            return Shard(index, count)
    raise UsageError("`shard` auto: no scheduler says which share this is.", f"Known: {_SCHEDULERS}. Or give I/N.")
