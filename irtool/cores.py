"""Processor cores and GPUs: how many this process may use, and how many of the cores are free."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

_CGROUPS = (  # version 2: "QUOTA PERIOD" in one file; version 1: a file each
    ("/sys/fs/cgroup/cpu.max",),
    ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
)


def usable() -> int:
    """Cores this process may use: its affinity, less where a container's quota (cgroup v2 or v1) allows less."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return cores if quota is None else max(1, min(cores, round(quota)))


def free() -> int:
    """Usable cores that nobody computes on now, and at least half of them, or two: some must be taken.

    Counted is what runs at this moment, the least of three looks; an average over minutes would count the run of irtool
    that ended just before this one.
    """
    cores = usable()
    busy = min(_running() for _ in range(3)) - 1  # without this process
    return max(min(cores, max(2, cores // 2)), cores - max(0, busy))


def gpus(device: str) -> int:
    """CUDA devices that a run on `device` may share out; torch is asked only where a driver shows some."""
    if not device.startswith(("auto", "cuda")) or ":" in device or not any(Path("/dev").glob("nvidia[0-9]*")):
        return 0
    import torch

    return torch.cuda.device_count()


def device_of(name: str, number: int | None) -> str:
    """The device of the process with this number, which take turns on the GPUs; None: of the only one."""
    count = 0 if number is None else gpus(name)
    return f"cuda:{(number or 0) % count}" if count else name


def _quota() -> float | None:
    for files in _CGROUPS:
        with contextlib.suppress(OSError, ValueError):
            quota, period = " ".join(Path(file).read_text(encoding="ascii") for file in files).split()
            return float(quota) / float(period) if quota not in ("max", "-1") else None
    return None


def _running() -> int:
    """Threads of the whole machine that run or wait for a core; 1 where the system does not say."""
    time.sleep(0.001)
    try:
        return int(Path("/proc/loadavg").read_text(encoding="ascii").split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        return 1
