"""Diffusion processes and their samplers, as pure functions that read like the papers. Nothing here knows a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .likelihood import log_likelihood

__all__ = ["log_likelihood"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: settings of samplers live here too, and reading those needs no torch.
    if name == "log_likelihood":
        from .likelihood import log_likelihood

        return log_likelihood
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
