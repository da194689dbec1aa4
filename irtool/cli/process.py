"""Settings of a process that is irtool and nothing else; importing irtool as a library makes none of them."""

from __future__ import annotations

import gc
import os

from .app import main

_WAITING = ("OMP_WAIT_POLICY", "KMP_BLOCKTIME", "KMP_LIBRARY", "GOMP_SPINCOUNT")
_OBJECTS = 100_000  # new ones between two searches for garbage: importing torch makes some 300,000 and no garbage


def run() -> int:
    """The console script: `main` in a process of its own."""
    gc.set_threshold(_OBJECTS, 20, 100)
    # Read by the OpenMP library when torch is loaded. Threads that spin while they wait take the cores of others, and
    # where those do not yield, all wait for one another.
    if not any(name in os.environ for name in _WAITING):
        os.environ["OMP_WAIT_POLICY"] = "passive"
    code = main()
    gc.freeze()  # the interpreter looks through all that is left when it ends: half a second after torch was imported
    return code
