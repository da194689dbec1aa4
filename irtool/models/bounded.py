"""Networks that are made from numbers in a file: bounded before anything is made of them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.modules import module as hooks

LARGEST = 20_000
"""Modules and parameters that a network may have; the largest published one here has some 3,000."""


class TooLargeError(ValueError):
    """A network has more parts than it may."""


@contextlib.contextmanager
def bounded(parts: int = LARGEST) -> Iterator[None]:
    """While this is open, a network that gets more modules and parameters than `parts` in this thread raises.

    Made on the meta device a network takes no memory for its weights; ten million blocks would still take minutes and
    gigabytes.

    Raises:
        TooLargeError: from the constructor of the network.
    """
    own, allocations = threading.get_ident(), 0

    def count(parent: nn.Module, name: str, part: Any) -> None:
        nonlocal allocations
        if threading.get_ident() == own:
            allocations += 1
            if allocations > parts:
                raise TooLargeError(f"it would have more than {parts} parts")

    handles = (
        hooks.register_module_parameter_registration_hook(count),
        hooks.register_module_module_registration_hook(count),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
