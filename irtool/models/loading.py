"""Networks as safetensors files that describe themselves.

The header of such a file names the architecture and its configuration; nothing in it is executed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import nn

from ..errors import UnavailableError
from .compact import CompactNet, CompactRestorer


def _detector(**config: Any) -> nn.Module:
    from ..detect.network import DetectorNet

    return DetectorNet(**config)


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {"compact": CompactNet, "detector": _detector}


def save(
    net: nn.Module, path: Path, *, architecture: str, config: Mapping[str, Any], notes: Mapping[str, str] | None = None
) -> None:
    """Write a network as float16 safetensors with its architecture and configuration in the header.

    Args:
        net: its floating-point weights must fit float16.
        path: target, replaced atomically.
        architecture: a key of `ARCHITECTURES`.
        config: keyword arguments that build the network again.
        notes: further header entries, such as a licence.
    """
    weights = {
        k: v.detach().cpu().half().contiguous() if v.is_floating_point() else v.cpu()
        for k, v in net.state_dict().items()
    }
    partial = path.with_suffix(".partial")
    header = {"architecture": architecture, "config": json.dumps(config, default=list), **(notes or {})}
    partial.write_bytes(serialise(weights, metadata=header))
    partial.replace(path)


def read(path: Path) -> tuple[nn.Module, dict[str, str]]:
    """Build the network a file describes, load its weights strictly, and return it with the header.

    Raises:
        UnavailableError: the file is absent, no safetensors, of an unknown architecture, or its weights
            do not fit.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            header = dict(file.metadata() or {})
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError as error:
        raise UnavailableError(f"{path} does not exist.", "Give the path of a .safetensors file.") from error
    except (SafetensorError, OSError) as error:
        raise UnavailableError(f"{path} is not a readable safetensors file: {error}.") from error
    architecture = header.get("architecture", "")
    if architecture not in ARCHITECTURES:
        looked = f"'architecture' in its header, one of: {', '.join(ARCHITECTURES)}"
        raise UnavailableError(
            f"{path} holds no network that irtool knows.", f"irtool looked for {looked}; it found '{architecture}'."
        )
    try:
        with torch.device("meta"):
            net = ARCHITECTURES[architecture](**json.loads(header.get("config", "{}")))
        weights = {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}
        net.load_state_dict(weights, strict=True, assign=True)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UnavailableError(f"{path} does not fit its own description ({architecture}): {error}.") from error
    return net.eval().requires_grad_(False), header


def load(path: Path) -> CompactRestorer:
    """Load a restorer on the CPU in float32.

    Raises:
        UnavailableError: see `read`; or the file holds a detector.
    """
    net, header = read(path)
    if not isinstance(net, CompactNet):
        raise UnavailableError(f"{path} holds a {header['architecture']}, not a restorer.")
    return CompactRestorer(net)
