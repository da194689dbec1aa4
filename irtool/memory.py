"""Memory: what this process holds, what there is, and the budget that one picture's whole way is held to.

All figures are resident memory of the process, loaded libraries included, in bytes: what `ps`, a container's limit and
the kernel's out-of-memory killer count.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from .errors import PictureError

FLOOR, DETECTING = 387 << 20, 96 << 20
"""What a process holds, apart from the picture, that restores with a shipped network in the least tiles: interpreter,
torch for the CPU (builds for CUDA add more), weights, compiled layers; and more where a detector looks (measured)."""

LOOKED_AT, RESTORED, BESIDE, AS_AVIF, ENLARGED = 40, 44, 32, 20, 28
"""What a picture's way holds for each pixel, decoded, worked on and encoded: to be diagnosed; to be restored, tiles
left out; more where a page with the picture before is drawn, or AVIF is written; and for each pixel of the result to
be enlarged (measured: docs/security.md)."""


def per_pixel(scale: int = 1) -> int:
    """Bytes for each pixel of a picture that is restored, and enlarged `scale` times."""
    return RESTORED if scale == 1 else max(RESTORED, ENLARGED * scale**2)


def resident_bytes() -> int:
    """Memory this process holds now; 0 where the system does not say."""
    return _statm(1)


def peak_resident_bytes() -> int | None:
    """The most memory this process has held; None where the system does not say."""
    try:
        # Linux's ru_maxrss also remembers the parent that a process was forked from; this does not.
        with open("/proc/self/status", encoding="ascii") as file:  # noqa: PTH123 (a kernel file, not a path of ours)
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def give_back() -> None:
    """Return to the system what has been freed and the C library keeps for later (glibc); it counts as held."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def keep_to(limit: int) -> None:
    """Make what is freed no longer count as held, as far as `limit` bytes ask for it; for a process of irtool's own,
    before torch computes.

    Without this the C library (glibc) keeps freed blocks of up to 32 MB, in pieces that the next tiles do not fit into,
    and oneDNN up to 1024 compiled layers: 100 to 300 MB, more or less from one run to the next. It costs time, for
    pages that are taken from the system again and again.
    """
    import ctypes

    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "0")
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        # Some 15 blocks of the largest size that is kept lie idle (measured): a hundredth or two of the limit.
        mallopt(_M_MMAP_THRESHOLD, min(max(limit >> 10, 128 << 10), 32 << 20))
        mallopt(_M_TRIM_THRESHOLD, 1 << 20)
        mallopt(_M_ARENA_MAX, 1)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of <malloc.h>


def available_bytes() -> int:
    """Memory that can be taken now without harming others: what the machine has free, less where a container
    (cgroup v2 or v1) or a resource limit of the process (``ulimit -v``, ``ulimit -d``) leaves less."""
    return max(0, min(_free_in_machine(), _free_in_cgroup(), _free_in_limits()))


class Budget:
    """A bound on the memory of the process, handed from decoding through restoration to encoding.

    Args:
        limit: bytes the process may hold; None: what it holds now and half of what is available.
        per_pixel: what the work between decoding and encoding will hold for each pixel, decoded picture included.
        floor: what the process will hold at least, apart from the picture: what it holds before everything is loaded
            and compiled tells too little. For a budget with a limit.
    """

    def __init__(self, limit: int | None = None, *, per_pixel: float = 0.0, floor: int = 0) -> None:
        self.limit, self.per_pixel, self.floor = limit, per_pixel, floor

    def room(self) -> int:
        """Bytes that can still be taken."""
        return available_bytes() // 2 if self.limit is None else self.limit - resident_bytes()

    def require(self, name: str, size: tuple[int, int], per_pixel: float, file_bytes: int = 0) -> None:
        """Refuse a picture that will not fit, before it is decoded.

        Args:
            name: what messages call it.
            size: width and height.
            per_pixel: bytes the decoder holds for each pixel.
            file_bytes: length of what is decoded, where it is not in memory yet.

        Raises:
            PictureError: the budget does not hold it.
        """
        pixels = size[0] * size[1]
        need = int(pixels * max(per_pixel, self.per_pixel)) + file_bytes
        if self.limit is None:
            most = self.room()
        else:
            need, most = need + max(resident_bytes(), self.floor), self.limit
        if need > most:
            allowed = f"{most / 1e6:.0f} MB" if self.limit is not None else f"the {most / 1e6:.0f} MB free"
            raise PictureError(
                f"{name}: {size[0]} x {size[1]} ({pixels / 1e6:.1f} megapixels) needs about {need / 1e6:.0f} MB of "
                f"memory, more than {allowed}",
                "Allow more memory, close other programs, or reduce the picture first.",
            )


def _statm(field: int) -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            return int(file.read().split()[field]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _free_in_machine() -> int:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return 4 << 30  # Windows without a further library: what any machine that runs torch has


_CGROUPS = (  # version 2, version 1: limit, use, statistics and which of them is cache that is given up when needed
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)
_UNLIMITED = 1 << 62


def _free_in_cgroup() -> int:
    root = Path("/sys/fs/cgroup")
    for limit, used, statistics, cache in _CGROUPS:
        try:
            allowed = (root / limit).read_text(encoding="ascii").strip()
            if allowed == "max" or int(allowed) >= _UNLIMITED:
                return _UNLIMITED
            lines = (line.split() for line in (root / statistics).read_text(encoding="ascii").splitlines())
            cached = sum(int(value) for name, value in lines if name == cache)
            return int(allowed) - int((root / used).read_text(encoding="ascii")) + cached
        except (OSError, ValueError):
            continue
    return _UNLIMITED


def _free_in_limits() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return _UNLIMITED
    free = _UNLIMITED
    for limit, field in ((resource.RLIMIT_AS, 0), (resource.RLIMIT_DATA, 5)):
        allowed = resource.getrlimit(limit)[0]
        if allowed != resource.RLIM_INFINITY:
            free = min(free, allowed - _statm(field))
    return free
