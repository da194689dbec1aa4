"""From tensors to a network, and from a file to a model.

A file of irtool's own describes itself: its header names the architecture and its hyperparameters. A published file has
tensors only; the architecture it belongs to and its sizes are then read off the names and shapes of those tensors.
What they do not tell is asked for, or assumed and said. Nothing in either kind of file is executed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from ..errors import IrtoolError, UnavailableError
from ..fileio import atomic_write
from .architectures import ARCHITECTURES, Architecture, Shapes, get, names
from .architectures import resolve as _resolve
from .base import Model
from .bounded import Uninitialized, bounded
from .header import aliases, config_of, guess, look, settings_of

NEAREST = 3
"""Architectures that are named where none fits."""

__all__ = ["ARCHITECTURES", "Architecture", "describe", "from_tensors", "load", "read", "recognize", "save", "wrap"]


def save(
    net: nn.Module, path: Path, *, architecture: str, config: Mapping[str, Any], notes: Mapping[str, str] | None = None
) -> None:
    """Write a network as float16 safetensors with its architecture and configuration in the header.

    Args:
        net: its floating-point weights must fit float16.
        path: target, replaced atomically.
        architecture: its name (`irtool.models.architectures`).
        config: keyword arguments that build the network again.
        notes: further header entries, such as a licence.
    """
    weights: dict[str, Tensor] = {}
    same_as: dict[str, str] = {}
    first: dict[tuple[int, torch.Size], str] = {}
    for name, value in net.state_dict().items():
        same = first.setdefault((value.data_ptr(), value.shape), name)
        if same != name and value.numel():  # a module that is registered twice is written once
            same_as[name] = same
        else:
            weights[name] = value.detach().cpu().half().contiguous() if value.is_floating_point() else value.cpu()
    header = {"architecture": architecture, "config": json.dumps(config, default=list), **(notes or {})}
    if same_as:
        header["aliases"] = json.dumps(same_as)
    atomic_write(path, serialise(weights, metadata=header))


def describe(path: Path, **hyperparameters: Any) -> tuple[str, dict[str, Any], dict[str, str]]:
    """What network a file holds, from its header and the shapes of its tensors alone.

    Args:
        path: safetensors.
        hyperparameters: what the caller knows; they go before what is found.

    Returns:
        The architecture (one of `architectures.names`), its hyperparameters, and the header. Of what was assumed the
        header tells under "assumed" (JSON, a list of "name=value").

    Raises:
        UnavailableError: the file is absent, no safetensors, or holds no network that irtool knows; or tensors do not
            tell a hyperparameter, and nothing else does.
    """
    header, shapes = look(path)
    return _identify(shapes, header, hyperparameters, str(header.get("source", path)), path)


def _identify(
    shapes: Shapes, header: dict[str, str], hyperparameters: Mapping[str, Any], label: str, path: object
) -> tuple[str, dict[str, Any], dict[str, str]]:
    named = header.get("architecture", "")
    if named and named not in names():
        raise UnavailableError(
            f"{label} holds no network that irtool knows: its header names '{named}'.",
            f"Known architectures: {', '.join(names())}.",
        )
    if "config" in header and named:
        return named, config_of(header, path) | dict(hyperparameters), header
    found = recognize(shapes, [named] if named else None)
    if found is None:
        raise UnavailableError(f"{label} holds no network that irtool knows.", _no_match(shapes, named))
    name, config = found
    header_settings = settings_of(header, path)
    assumed = []
    for key in get(name).untold:
        if key in hyperparameters or key not in config:
            continue
        if key in header_settings:
            config[key] = header_settings[key]
        elif config[key] is None:
            raise UnavailableError(
                f"The tensors of {label} ({name}) do not tell '{key}'.", f"irtool.load_model(..., {key}=...) says it."
            )
        else:
            assumed.append(f"{key}={config[key]}")
    if assumed:
        header["assumed"] = json.dumps(assumed)
    return name, config | dict(hyperparameters), header


def recognize(shapes: Shapes, among: Iterable[str] | None = None) -> tuple[str, dict[str, Any]] | None:
    """The architecture and hyperparameters that tensors of these names and shapes belong to; None where none fits.

    Args:
        shapes: of the tensors.
        among: the architectures that may be meant; None for all.
    """
    for name in names() if among is None else among:
        architecture = get(name)
        if architecture.recognize and all(key in shapes for key in architecture.keys):
            config = guess(_resolve(architecture.recognize), shapes)
            if config is not None:
                return name, config
    return None


def read(path: Path, **hyperparameters: Any) -> tuple[nn.Module, dict[str, str]]:
    """Build the network a file holds, load its weights strictly, and return it with the header.

    The network is on the CPU, in float32, in evaluation mode. Its header has at least "architecture" and "config"
    (JSON), also where the file had none.

    Args:
        path: safetensors.
        hyperparameters: as of `describe`.

    Raises:
        UnavailableError: the file is absent, no safetensors, of an unknown architecture, or its weights do not fit.
    """
    architecture, config, header = describe(path, **hyperparameters)
    if not get(architecture).network:
        raise UnavailableError(f"{path} holds a {architecture}, not a restorer.")
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        # One module under two names is stored once.
        tensors |= {alias: tensors[key] for alias, key in aliases(header, path).items()}
    except (ValueError, KeyError, OSError, SafetensorError) as error:
        message = _first_line(error)
        raise UnavailableError(f"{path} does not fit its own description ({architecture}): {message}.") from error
    return _build(architecture, config, header, tensors, f"{path} does not fit its own description")


def from_tensors(
    tensors: Mapping[str, Tensor], header: Mapping[str, str] | None = None, **hyperparameters: Any
) -> tuple[nn.Module, dict[str, str]]:
    """As `read`, from a state dict in memory.

    Args:
        tensors: published names -> tensors; they are not changed.
        header: what is known beside them, such as {"architecture": "ipt"}.
        hyperparameters: as of `describe`.

    Raises:
        UnavailableError: as `read`.
    """
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    name, config, header_settings = _identify(
        shapes, dict(header or {}), hyperparameters, "The state dict", "The state dict"
    )
    own = {key: value.detach().cpu().clone() for key, value in tensors.items()}
    return _build(name, config, header_settings, own, "The tensors do not fit the architecture")


def _build(
    architecture: str, config: dict[str, Any], header: dict[str, str], tensors: dict[str, Tensor], wrong: str
) -> tuple[nn.Module, dict[str, str]]:
    tensors = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    try:
        with torch.device("meta"), Uninitialized(), bounded():
            net: nn.Module = _resolve(get(architecture).network)(**config)
        net.load_state_dict(tensors, strict=True, assign=True)
    except IrtoolError:
        raise
    except Exception as error:  # whatever a network makes of hyperparameters that are none
        raise UnavailableError(f"{wrong} ({architecture}): {_first_line(error)}.") from error
    header |= {"architecture": architecture, "config": json.dumps(config, default=list)}
    return net.eval().requires_grad_(False), header


def _first_line(error: Exception) -> str:
    """torch lists every tensor that does not fit; the first lines tell what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:2])
    return (text if len(text) <= 400 else text[:400] + " ...") or type(error).__name__


def load(
    path: Path,
    companions: Sequence[Path] = (),
    *,
    companions_of: Callable[[str, Mapping[str, str]], Sequence[Path]] | None = None,
    **hyperparameters: Any,
) -> Model:
    """Load a model on the CPU in float32.

    Args:
        path: its file, safetensors.
        companions: files of the networks it needs beside it, in the order of its record (`irtool.weights.needs`).
        companions_of: ``(architecture, header) -> companions``, where they depend on what the file holds.
        hyperparameters: as of `describe`.

    Raises:
        UnavailableError: see `read`; or the file holds something that restores nothing, such as a detector. What no
            architecture fits, the package spandrel is asked about, where it is installed.
    """
    try:
        net, header = read(path, **hyperparameters)
    except UnavailableError as error:
        if not path.is_file() or look(path)[0].get("architecture") or error.hint.startswith("irtool.load_model"):
            raise
        from . import spandrel

        return spandrel.load(path, error)
    if companions_of is not None:
        companions = companions_of(header["architecture"], header)
    return wrap(net, header, [read(companion)[0] for companion in companions], str(path))


def wrap(net: nn.Module, header: Mapping[str, str], companions: Sequence[nn.Module] = (), label: str = "It") -> Model:
    """The model of a loaded network.

    Raises:
        UnavailableError: it restores nothing, or needs a companion that is not there.
    """
    place = get(header["architecture"]).restorer
    if not place:
        raise UnavailableError(f"{label} holds a {header['architecture']}, not a restorer.")
    try:
        model: Model = _resolve(place)(net, header, *companions)
    except IrtoolError:
        raise
    except Exception as error:  # a header whose settings are none, or companions of another kind
        message = f"{label} cannot be used as a {header['architecture']}: {_first_line(error)}."
        raise UnavailableError(message) from error
    return model


def _no_match(shapes: Shapes, named: str) -> str:
    """For a person: the architectures that come closest, what they lack, and some of what is there."""
    known = {name: get(name).keys for name in names() if get(name).keys and named in ("", name)}
    near = sorted(known, key=lambda name: -sum(key in shapes for key in known[name]) / len(known[name]))[:NEAREST]
    missing = [f"{name} lacks {', '.join([key for key in known[name] if key not in shapes][:2])}" for name in near]
    tensor_names = ", ".join(name[:80] for name in list(shapes)[:4]) or "no tensors"
    more = f" of {len(shapes)}" if len(shapes) > 4 else ""
    return f"Neither its header nor its tensors ({tensor_names}{more}) tell. The nearest: {'; '.join(missing)}."
