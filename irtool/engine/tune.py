"""Which number type a CPU is faster in, found by trying: 0.1 s, once per machine and version of torch.

Names of instruction sets do not tell: with AVX-512's bfloat16 alone the one version of oneDNN is slower in it than in
float32 and the other half as fast again, on the same processor.
"""

from __future__ import annotations

import contextlib
import json
import platform
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from ..errors import IrtoolError
from ..fileio import atomic_write
from ..weights.hub import assets_cache

SECONDS = 0.1
GAIN = 1.15
"""How much faster bfloat16 must be to be taken: less does not pay for its rounding, and a busy machine measures so."""
DTYPES = (torch.float32, torch.bfloat16)


def cpu_dtype() -> torch.dtype:
    """bfloat16 where this CPU is clearly faster in it, else float32; measured once and kept on the disk."""
    return DTYPES[_tuned(_key())["dtype"] == _name(DTYPES[1])]


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
    nets = {dtype: (block.to(dtype) if dtype == DTYPES[0] else _copy(block, dtype)) for dtype in DTYPES}
    best = dict.fromkeys(DTYPES, float("inf"))
    # Seconds of the processor tell the same on a busy machine, where it is counted finely enough.
    clock = time.process_time if time.get_clock_info("process_time").resolution < 1e-4 else time.perf_counter
    begun, rounds = time.perf_counter(), 0
    with torch.inference_mode():
        while rounds < 3 or time.perf_counter() - begun < seconds:
            for dtype, net in nets.items():
                x, c = image.to(dtype), context.to(dtype)
                start = clock()
                net(x, c, torch.ones(1, 1).to(dtype))
                if rounds:  # the first one prepares kernels
                    best[dtype] = min(best[dtype], clock() - start)
            rounds += 1
    faster = best[DTYPES[0]] > GAIN * best[DTYPES[1]]
    found: dict[str, Any] = {_name(dtype): round(value, 6) for dtype, value in best.items()}
    found |= {"dtype": _name(DTYPES[faster]), "machine": _key()}
    _keep(found)
    return found


def _copy(block: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    import copy

    return copy.deepcopy(block).to(dtype)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _key() -> str:
    """The processor and the version of torch."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "CPU part"))]
        flags = [line for line in lines if line.startswith(("flags", "Features"))]
        special = [word for word in ("amx_bf16", "avx512_bf16", "bf16") if flags and word in flags[0].split()]
        name = " ".join([*names[:1], *special]) or name
    return f"{name}, torch {torch.__version__}"


def _file() -> Path:
    return assets_cache() / "tuned.json"


@lru_cache(1)
def _tuned(key: str) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, IrtoolError):
        found = json.loads(_file().read_text(encoding="utf-8"))
        if (
            isinstance(found, dict)
            and found.get("machine") == key
            and found.get("dtype") in [_name(dtype) for dtype in DTYPES]
        ):
            return found
    return measure()


def _keep(found: dict[str, Any]) -> None:
    with contextlib.suppress(OSError, IrtoolError):  # without a cache it is measured in every process
        _file().parent.mkdir(parents=True, exist_ok=True)
        atomic_write(_file(), json.dumps(found))
    _tuned.cache_clear()
