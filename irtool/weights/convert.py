"""A published file into safetensors, once.

Pickles are opened by torch's restricted loader and nothing else: tensors, plain containers, and the short lists below.
A training checkpoint is mapped, not read: only its weights are touched, so that the state of the optimiser costs
neither time nor memory. What was written is read again and compared, tensor by tensor, before it gets its name.
"""

from __future__ import annotations

import _codecs
import argparse
import hashlib
import json
import os
import pickle
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import UnavailableError
from .foreign import read_caffe, read_matconvnet
from .jax import read_checkpoint, read_graph
from .registry import File

# Training checkpoints hold their best score as a numpy scalar: a type and the bytes of the number. The function that
# joins the two has moved within numpy; files name its old place.
_SCALAR = np.float64(0).__reduce__()[0]
SAFE: tuple[Any, ...] = (
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    np.dtypes.Float64DType,
    np.dtypes.Float32DType,
    np.dtypes.Int64DType,
    _codecs.encode,
)
# Classes that a record may allow beside them: what the options of a training run were kept in.
ON_REQUEST: dict[str, Any] = {"argparse.Namespace": argparse.Namespace}
# Where training code puts the weights, in the order of preference (averaged weights come first), and what wrapping
# modules put before every name.
WRAPPERS = ("params_ema", "params", "model_state_dict", "state_dict", "model", "net", "generator")
PREFIXES = ("module.", "netG.", "net.")


def convert(
    parts: Sequence[tuple[Path, File]], target: Path, header: Mapping[str, str], allow: Sequence[str] = ()
) -> None:
    """Write the weights of published files as one safetensors file, atomically.

    Tensors that are one and the same under two names are written once; the header's "aliases" (JSON) says which.
    Its "content" is the sha256 over names, types, shapes and bytes of all tensors (see `content`).

    Args:
        parts: the files, each with what its record says of it.
        target: the file to write.
        header: further entries, such as the licence.
        allow: classes the pickles may name, keys of `ON_REQUEST`.

    Raises:
        UnavailableError: a file cannot be opened safely, holds no weights, or what was written differs.
    """
    tensors: dict[str, Tensor] = {}
    for path, part in parts:
        tensors |= {part.prefix + name: tensor for name, tensor in read_published(path, part.state, allow).items()}
    tensors, aliases = _without_aliases(tensors)
    about = {**header, "content": content(tensors.items()), **({"aliases": json.dumps(aliases)} if aliases else {})}
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        save_file(tensors, partial, metadata=about)
        if not is_intact(partial):
            raise UnavailableError(f"{target} was not written as it should be.", "Is the disk in order?")
        partial.replace(target)
    except OSError as error:
        raise UnavailableError(f"{target} cannot be written: {error.strerror or error}.") from error
    finally:
        partial.unlink(missing_ok=True)


def read_published(path: Path, state: str = "", allow: Sequence[str] = ()) -> dict[str, Tensor]:
    """The weights in a published file, by name.

    Args:
        path: a torch file, new or old; a .mat of MatConvNet; a .caffemodel; a flat .npz checkpoint of JAX; a .tgz with
            a TensorFlow.js graph of MAXIM; or safetensors.
        state: place of the weights inside a torch file; empty to find them.
        allow: see `convert`.

    Raises:
        UnavailableError: see `convert`.
    """
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"\x89HDF") or b"MATLAB 7.3" in start:
        return {name: torch.from_numpy(array) for name, array in read_matconvnet(path).items()}
    if path.suffix == ".caffemodel":
        return {name: torch.from_numpy(array) for name, array in read_caffe(path).items()}
    if path.suffix == ".npz":
        return {name: torch.from_numpy(array) for name, array in read_checkpoint(path).items()}
    if start.startswith(b"\x1f\x8b"):
        return {name: torch.from_numpy(array.copy()) for name, array in read_graph(path).items()}
    if start[8:9] == b"{":
        return dict(_stored(path))
    return _weights(_unpickle(path, allow, mapped=start.startswith(b"PK")), state, path)


def content(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """sha256 over the name, type, shape and bytes of every tensor, in the order of the names."""
    lines = []
    for name, tensor in tensors:
        flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        lines.append(f"{name} {tensor.dtype} {tuple(tensor.shape)} {hashlib.sha256(flat.numpy().data).hexdigest()}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def is_intact(path: Path) -> bool:
    """Whether the tensors of a converted file are those that its header was written for."""
    try:
        with safe_open(str(path), framework="pt") as file:
            told = dict(file.metadata() or {}).get("content")
        return told == content(_stored(path))
    except (SafetensorError, OSError, UnavailableError):
        return False


def _stored(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        with safe_open(str(path), framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                yield name, file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise UnavailableError(f"{path} is not a readable safetensors file: {error}.") from error


def _unpickle(path: Path, allow: Sequence[str], mapped: bool) -> Any:
    """What a torch file holds, opened by the restricted loader; only the zip format of torch 1.6 can be mapped."""
    try:
        allowed = torch.serialization.safe_globals([*SAFE, *(ON_REQUEST[name] for name in allow)])
        with warnings.catch_warnings(), allowed:
            warnings.simplefilter("ignore")  # what torch remarks on a file is for those who write one
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"names {named[1]}, which no weights need" if named else "is damaged or no torch file"
        raise UnavailableError(
            f"{path} {what}; it was not opened.",
            "Only tensors and plain containers are read; nothing in a file is run.",
        ) from error
    except (RuntimeError, ValueError, KeyError, EOFError, OSError, AttributeError, TypeError, IndexError) as error:
        # Not in torch's words, which go on to say how to open anything.
        if "TorchScript" in str(error):
            raise UnavailableError(f"{path} holds a program (TorchScript), not weights; it was not opened.") from error
        raise UnavailableError(f"{path} is damaged or no torch file ({type(error).__name__}).") from error


def _weights(held: Any, state: str, path: Path) -> dict[str, Tensor]:
    """The tensors among what a torch file holds, without what wrapping modules put before their names."""
    found = held
    for key in state.split(".") if state else ():
        found = found.get(key) if isinstance(found, Mapping) else None
    for _ in range(0 if state else 3):
        if isinstance(found, Mapping) and not _is_state(found):
            found = next((found[key] for key in WRAPPERS if isinstance(found.get(key), Mapping)), None)
    if not isinstance(found, Mapping) or not _is_state(found):
        inside = ", ".join(map(str, list(held)[:8])) if isinstance(held, Mapping) else type(held).__name__
        looked = state or ", ".join(WRAPPERS)
        raise UnavailableError(f"{path} holds no weights: irtool looked for {looked} and found {inside or 'nothing'}.")
    tensors = {str(name): tensor.detach() for name, tensor in found.items()}
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _is_state(held: Mapping[Any, Any]) -> bool:
    """Whether all that is held are plain tensors, neither sparse nor quantised."""
    plain = (isinstance(v, Tensor) and v.layout is torch.strided and not v.is_quantized for v in held.values())
    return bool(held) and all(plain)


def _without_aliases(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors, contiguous and in memory of their own; and alias -> name for those that were the same tensor."""
    first: dict[Any, str] = {}
    kept: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        start = tensor.untyped_storage().data_ptr()
        same = (start, tensor.storage_offset(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and same in first:
            aliases[name] = first[same]
            continue
        first[same] = name
        # Two views of one storage that are not the same tensor cannot be written as they are.
        kept[name] = tensor.clone() if start in storages else tensor.contiguous()
        storages.add(start)
    return kept, aliases
