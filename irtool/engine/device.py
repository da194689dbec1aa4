"""Devices, number types and memory."""

from __future__ import annotations

import contextlib
import copy
import json
import platform
import re
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from .. import memory
from ..errors import IrtoolError, UnavailableError, UsageError
from ..fileio import atomic_write
from ..weights.hub import assets_cache

_CPU_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str = "auto") -> torch.device:
    """The device called `name`: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N".

    Raises:
        UsageError: there is no such name.
        UnavailableError: the device is not in this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    if not re.fullmatch(r"cuda(:\d+)?", name):
        raise UsageError(f"Unknown device '{name}'.", "Known: auto, cpu, cuda, cuda:N.")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(name.partition(":")[2] or 0) >= count:
        raise UnavailableError(f"There is no device '{name}' here; CUDA devices found: {count}.", "Use `device` cpu.")
    return torch.device(name)


def _cpu_has_bf16_matrices() -> bool:
    # AMX, that is. torch reports it only through a private name, which may go; without it float32 is always right.
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


def pick_dtype(name: str, device: torch.device, *, probe: bool = False) -> torch.dtype:
    """The type to compute in: "auto" takes bfloat16 where the hardware is made for it.

    Args:
        name: "auto", "fp32", "bf16" or "fp16".
        device: to compute on.
        probe: under "auto" on a CPU, take what was measured to be faster (`cpu_dtype`): for networks that bear it
            (`ModelInfo.bears_bf16`).

    Raises:
        UsageError: there is no such type, or it is of no use on the device.
    """
    if name == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
        return cpu_dtype() if probe else torch.bfloat16 if _cpu_has_bf16_matrices() else torch.float32
    if name not in DTYPES:
        raise UsageError(f"Unknown number type '{name}'.", "Known: auto, " + ", ".join(DTYPES) + ".")
    if name == "fp16" and device.type == "cpu":
        raise UsageError("fp16 is slow and unsafe on a CPU.", "Use `dtype` bf16 or fp32.")
    return DTYPES[name]


SECONDS = 0.1
GAIN = 1.15
"""How much faster bfloat16 must be to be taken on a CPU: less does not pay for its rounding."""


@lru_cache(1)
def cpu_dtype() -> torch.dtype:
    """bfloat16 where this CPU is clearly faster in it, else float32: tried once per processor and version of torch.

    Names of instruction sets do not tell: with AVX-512's bfloat16 alone one version of oneDNN is slower in it than in
    float32 and another half as fast again, on the same processor.
    """
    with contextlib.suppress(OSError, ValueError, IrtoolError):
        found = json.loads((assets_cache() / "tuned.json").read_text(encoding="utf-8"))
        if isinstance(found, dict) and found.get("machine") == _machine() and found.get("dtype") in _CPU_DTYPES:
            return _CPU_DTYPES[found["dtype"]]
    return _CPU_DTYPES[str(measure()["dtype"])]


def measure(seconds: float = SECONDS) -> dict[str, Any]:
    """Time one block of the network that ships in both types, in turns, and keep what was found.

    Returns:
        For JSON: {"dtype": "float32" or "bfloat16", "float32": seconds, "bfloat16": seconds, "machine": ...}, the
        least time of each.
    """
    from ..models.compact import Block

    generator = torch.Generator().manual_seed(0)
    block = Block(64, tasks=1, rank=1, context=64).eval().requires_grad_(False)
    image, context = torch.randn(1, 32, 128, 64, generator=generator), torch.zeros(1, 64)
    nets = {name: copy.deepcopy(block).to(dtype) for name, dtype in _CPU_DTYPES.items()}
    best = dict.fromkeys(_CPU_DTYPES, float("inf"))
    # Seconds of the processor tell the same on a busy machine, where it is counted finely enough.
    clock = time.process_time if time.get_clock_info("process_time").resolution < 1e-4 else time.perf_counter
    begun, rounds = time.perf_counter(), 0
    with torch.inference_mode():
        while rounds < 3 or time.perf_counter() - begun < seconds:
            for name, net in nets.items():
                dtype = _CPU_DTYPES[name]
                x, c = image.to(dtype), context.to(dtype)
                start = clock()
                net(x, c, torch.ones(1, 1).to(dtype))
                if rounds:  # the first one prepares kernels
                    best[name] = min(best[name], clock() - start)
            rounds += 1
    faster = best["float32"] > GAIN * best["bfloat16"]
    found: dict[str, Any] = {name: round(value, 6) for name, value in best.items()}
    found |= {"dtype": "bfloat16" if faster else "float32", "machine": _machine()}
    with contextlib.suppress(OSError, IrtoolError):  # without a cache it is measured in every process
        assets_cache().mkdir(parents=True, exist_ok=True)
        atomic_write(assets_cache() / "tuned.json", json.dumps(found))
    cpu_dtype.cache_clear()
    return found


@lru_cache(1)
def _machine() -> str:
    """The processor and the version of torch."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "CPU part"))]
        flags = [line for line in lines if line.startswith(("flags", "Features"))]
        special = [word for word in ("amx_bf16", "avx512_bf16", "bf16") if flags and word in flags[0].split()]
        name = " ".join([*names[:1], *special]) or name
    return f"{name}, torch {torch.__version__}"


def available_bytes(device: torch.device) -> int:
    """Memory that can be taken now without harming others, in bytes."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else memory.available_bytes()


def peak_bytes(device: torch.device) -> int | None:
    """The most memory held so far: of the process on a CPU (loaded libraries included), by torch on CUDA; None where
    unknown."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else memory.peak_resident_bytes()
