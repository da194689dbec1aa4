"""Parameters under the names and in the layouts of flax, for networks published as JAX checkpoints.

A flax tree joined by "/" has kernels (kh, kw, in, out), for transposed convolutions mirrored against torch's, and dense
kernels (in, out). A module that calls `use_flax_names` takes and gives such a state; its attributes are the flax names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


def to_torch(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torch's names and layouts of a flax state; names without "/" are torch's already."""
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        *path, leaf = name.split("/")
        if not path:
            found[name] = value
            continue
        turned = value
        if leaf == "kernel" and value.ndim == 4:
            transposed = path[-1].startswith("ConvTranspose")
            turned = value.flip(0, 1).permute(2, 3, 0, 1) if transposed else value.permute(3, 2, 0, 1)
        elif leaf == "kernel" and value.ndim == 2:
            turned = value.t()
        found[".".join([*path, "bias" if leaf == "bias" else "weight"])] = turned.contiguous()
    return found


def to_flax(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `to_torch`."""
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        *path, leaf = name.split(".")
        kind = leaf if leaf == "bias" else "scale" if value.ndim == 1 else "kernel"
        turned = value
        if value.ndim == 4:
            transposed = path[-1].startswith("ConvTranspose")
            turned = value.permute(2, 3, 0, 1).flip(0, 1) if transposed else value.permute(2, 3, 1, 0)
        elif value.ndim == 2:
            turned = value.t()
        found["/".join([*path, kind])] = turned.contiguous()
    return found


def use_flax_names(net: nn.Module) -> None:
    """Have `net.state_dict()` and `net.load_state_dict()` speak flax."""
    net.register_load_state_dict_pre_hook(_before_loading)
    net._register_state_dict_hook(_after_saving)


def _before_loading(net: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    translated = to_torch(state)
    state.clear()
    state.update(translated)


def _after_saving(net: nn.Module, state: dict[str, Tensor], prefix: str, metadata: Any) -> dict[str, Tensor]:
    return to_flax(state)
