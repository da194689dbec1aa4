"""Networks that are made from numbers in a file: bounded before anything is made of them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode

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


class Uninitialized(TorchFunctionMode):
    """While this is open, random initial weights are not drawn.

    On the meta device there is nothing to draw, and the attempt imports the compiler of torch: as long again as torch.
    """

    _RANDOM = frozenset(
        f"{prefix}{kind}_" for kind in ("uniform", "normal") for prefix in ("", "trunc_", "kaiming_", "xavier_")
    )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in self._RANDOM:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
