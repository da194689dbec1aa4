"""A published file into safetensors, once.

Pickles are opened by torch's restricted loader and nothing else: tensors, plain containers, and the short lists below.
A training checkpoint is mapped, not read: only its weights are touched, so that the state of the optimiser costs
neither time nor memory. What was written is read again and compared, tensor by tensor, before it gets its name.
"""

from __future__ import annotations

import _codecs
import argparse
import codecs
import hashlib
import json
import os
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import FileError, UnavailableError, reason
from ..fileio import atomic_open, open_regular
from .caffe_matlab import read_caffe, read_matconvnet
from .jax import read_checkpoint, read_graph
from .registry import File

PICKLES = 8
"""In a row at the beginning of a file; torch's old format has five."""
MOST = 4
"""Times its own size that the tensors of a file may take: views of one storage are written apart."""
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
    metadata = {**header, "content": content(tensors.items()), **({"aliases": json.dumps(aliases)} if aliases else {})}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_open(target) as file:
            written = Path(file.name)
            save_file(tensors, written, metadata=metadata)
            if not is_intact(written):
                raise UnavailableError(f"{target} was not written as it should be.", "Is the disk in order?")
    except FileError as error:
        raise UnavailableError(error.message + ".", error.hint) from error
    except (OSError, SafetensorError) as error:
        raise UnavailableError(f"{target} cannot be written: {reason(error)}.", "Make room on the disk.") from error


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
    try:
        with open_regular(path) as file:
            start = file.read(16)
            size = os.fstat(file.fileno()).st_size
    except FileError as error:
        raise UnavailableError(error.message + ".", error.hint) from error
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
    require_harmless(path)
    tensors = _weights(_unpickle(path, allow, mapped=start.startswith(b"PK")), state, path)
    _require_own_bytes(tensors, path, size)
    return tensors


def require_harmless(path: Path) -> None:
    """Look at a torch file without opening it: the restricted loader runs nothing, but may be made to fill the memory.

    Raises:
        FileError: it cannot be read.
        UnavailableError: it would.
    """
    with open_regular(path) as file:
        zipped = file.read(2) == b"PK"
        size = os.fstat(file.fileno()).st_size
    if zipped:
        _require_stored(path, size)
    _require_plain_bytes(path, zipped)


def _require_stored(path: Path, size: int) -> None:
    """Torch stores and never compresses; a compressed archive may unpack to anything.

    Raises:
        UnavailableError: it is TorchScript or compressed, or its members share bytes.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            members = packed.infolist()
    except Exception as error:  # whatever a damaged archive makes of it
        raise UnavailableError(f"{path} is damaged or no torch file ({type(error).__name__}).") from error
    if any(member.filename.partition("/")[2] == "constants.pkl" for member in members):  # as torch tells them
        raise _scripted(path)  # here already, since torch compresses the code of some
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise UnavailableError(f"{path} is a compressed archive, which torch does not write; it was not opened.")
    if sum(member.file_size for member in members) > size:
        raise UnavailableError(f"{path} says it holds more than it does; it was not opened.")


def _scripted(path: Path) -> UnavailableError:
    return UnavailableError(f"{path} holds a program (TorchScript), not weights; it was not opened.")


def _require_plain_bytes(path: Path, zipped: bool) -> None:
    """Pickles of protocol 2 have bytes as `_codecs.encode(text, "latin1")`, which torch lets them call. With codecs
    that take bytes ("hex") and nested, a kilobyte of that makes gigabytes. So the strings of a pickle are looked at
    first; nothing is called.

    Raises:
        UnavailableError: the file names such a codec.
    """
    strings: set[str] = set()
    for data in _pickles(path, zipped):
        try:
            for _ in range(PICKLES):
                for _, argument, _ in pickletools.genops(data):
                    if isinstance(argument, str) and len(argument) < 100:
                        strings |= {argument, *argument.split(" ")}
        except Exception:  # the storages that follow the pickles, or damage, of which torch says what it is
            continue
    if "_codecs" in strings and any(_takes_bytes(name) for name in strings):
        raise UnavailableError(
            f"{path} names codecs that no weights need; it was not opened.",
            "Only tensors and plain containers are read; nothing in a file is run.",
        )


def _pickles(path: Path, zipped: bool) -> Iterator[BinaryIO]:
    if not zipped:
        with open_regular(path) as file:
            yield file
        return
    with zipfile.ZipFile(path) as packed:
        for member in packed.infolist():
            if member.filename.endswith(".pkl"):
                try:
                    inside = packed.read(member)
                except Exception as error:  # whatever a damaged archive makes of it
                    raise UnavailableError(f"{path} is damaged or no torch file ({type(error).__name__}).") from error
                yield BytesIO(inside)


def _takes_bytes(codec: str) -> bool:
    try:
        return not codecs.lookup(codec)._is_text_encoding
    except (LookupError, ValueError, UnicodeError):
        return False


def _require_own_bytes(tensors: Mapping[str, Tensor], path: Path, size: int) -> None:
    """Shapes and strides are free to say that a few bytes are a tensor of gigabytes.

    Raises:
        UnavailableError: they do.
    """
    own = {(t.data_ptr(), t.shape, t.stride(), t.dtype): t.numel() * t.element_size() for t in tensors.values()}
    stretched = any(t.numel() * t.element_size() > t.untyped_storage().nbytes() for t in tensors.values())
    if stretched or sum(own.values()) > MOST * size:
        raise UnavailableError(f"{path} has tensors larger than itself; it was not used.")


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
            expected = dict(file.metadata() or {}).get("content")
        return expected == content(_stored(path))
    except (SafetensorError, OSError, UnavailableError, ValueError, RuntimeError):
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
    except Exception as error:  # torch's loaders raise whatever a damaged file makes them trip over
        # Not in torch's words, which go on to say how to open anything.
        if "TorchScript" in str(error):
            raise _scripted(path) from error
        raise UnavailableError(f"{path} is damaged or no torch file ({type(error).__name__}).") from error


def _weights(content: Any, state: str, path: Path) -> dict[str, Tensor]:
    """The tensors among what a torch file holds, without what wrapping modules put before their names."""
    if isinstance(content, Mapping) and {"ema", "step", "recipe"} <= content.keys():
        raise UnavailableError(
            f"{path} is a checkpoint of irtool train.", f"irtool train export {path} FILE.safetensors"
        )
    found = content
    for key in state.split(".") if state else ():
        found = found.get(key) if isinstance(found, Mapping) else None
    for _ in range(0 if state else 3):
        if isinstance(found, Mapping) and not _is_state(found):
            found = next((found[key] for key in WRAPPERS if isinstance(found.get(key), Mapping)), None)
    if not isinstance(found, Mapping) or not _is_state(found):
        inside = ", ".join(map(str, list(content)[:8])) if isinstance(content, Mapping) else type(content).__name__
        visited = state or ", ".join(WRAPPERS)
        raise UnavailableError(f"{path} holds no weights: irtool looked for {visited} and found {inside or 'nothing'}.")
    tensors = {str(name): tensor.detach() for name, tensor in found.items()}
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _is_state(value: Mapping[Any, Any]) -> bool:
    """Whether all that is held are plain tensors, neither sparse nor quantised."""
    plain = (isinstance(v, Tensor) and v.layout is torch.strided and not v.is_quantized for v in value.values())
    return bool(value) and all(plain)


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
