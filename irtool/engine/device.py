"""Devices, number types and memory."""

from __future__ import annotations

import re

import torch

from .. import memory
from ..errors import UnavailableError, UsageError

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


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The type to compute in: "auto" takes bfloat16 where the hardware is faster in it (`irtool.engine.tune`).

    Raises:
        UsageError: there is no such type, or it is of no use on the device.
    """
    if name == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
        from .tune import cpu_dtype

        return cpu_dtype()
    if name not in DTYPES:
        raise UsageError(f"Unknown number type '{name}'.", "Known: auto, " + ", ".join(DTYPES) + ".")
    if name == "fp16" and device.type == "cpu":
        raise UsageError("fp16 is slow and unsafe on a CPU.", "Use `dtype` bf16 or fp32.")
    return DTYPES[name]


def available_bytes(device: torch.device) -> int:
    """Memory that can be taken now without harming others, in bytes."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else memory.available_bytes()


def peak_bytes(device: torch.device) -> int | None:
    """The most memory held so far: of the process on a CPU (loaded libraries included), by torch on CUDA; None where
    unknown."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else memory.peak_resident_bytes()
