"""Parameters of JAX networks: the official .npz checkpoints, and TensorFlow.js graphs in which they were frozen.

Both give the names of the flax tree joined by "/" and the layouts of flax. Both hold numbers and names only; the graph
is read, not run.
"""

from __future__ import annotations

import base64
import json
import re
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UnavailableError, reason

Arrays = dict[str, NDArray[np.float32]]
LARGEST = 1 << 29  # bytes of one member of an archive
MOST = 16
"""How many times its bytes an archive may hold: numbers compress little."""
SMALL = 64 << 20  # bytes that any archive may hold
TARGET = "opt/target/"  # before the parameters of a training checkpoint; the rest is the state of its optimizer
MODULE = re.compile(
    r"stage_\d+_.*|UpSampleRatio_\d+|UNetEncoderBlock_\d+|Conv(Transpose)?_\d+|Dense_\d+|.*[Ll]ayer[Nn]orm.*|conv[12]|"
    r"(in|out)_project.*|input_proj|channel_.*|.*Gmlp.*|.*Gating.*|cross_gating_block"
)


def read_checkpoint(path: Path) -> Arrays:
    """The parameters of a flat .npz checkpoint; those below `TARGET` where it has such, else all.

    Raises:
        UnavailableError: it is damaged, or holds anything but arrays.
    """
    try:
        _require_own_bytes(path)
        with np.load(path, allow_pickle=False) as file:
            names = [name for name in file.files if name.startswith(TARGET)] or file.files
            arrays = {name.removeprefix(TARGET): np.asarray(file[name], np.float32) for name in names}
    except Exception as error:  # whatever a damaged archive makes of it
        raise UnavailableError(f"{path} is damaged or no .npz checkpoint ({type(error).__name__}).") from error
    if not arrays:
        raise UnavailableError(f"{path} holds no parameters.")
    return arrays


def read_graph(path: Path) -> Arrays:
    """The parameters of MAXIM in an archive (.tgz) with a TensorFlow.js graph model that jax2tf has made.

    Every parameter is a constant that one operation takes. The name of that operation has the place in the flax tree;
    its kind tells which parameter it is and how its axes lie. Published by the npm packages @upscalerjs/maxim-*.

    Raises:
        UnavailableError: it is damaged, or no such archive.
    """
    try:
        nodes, constants = _graph(path)
        users: defaultdict[str, list[tuple[Mapping[str, Any], int]]] = defaultdict(list)
        for node in nodes:
            for slot, source in enumerate(node.get("input", ())):
                users[re.sub(r"^\^|:\d+$", "", source)].append((node, slot))
        arrays: Arrays = {}
        for name, value in constants.items():
            if value.dtype == np.float32 and value.size > 1:
                ((node, slot),) = users[name]
                key, parameter = _parameter(node, value)
                if slot != 1 or key in arrays:
                    raise ValueError(f"{name} is no parameter")
                arrays[key] = np.ascontiguousarray(parameter)
    except Exception as error:  # whatever a damaged archive makes of it
        raise UnavailableError(f"{path} is damaged or holds no MAXIM graph: {reason(error)}.") from error
    if not arrays:
        raise UnavailableError(f"{path} holds no MAXIM graph.")
    return arrays


def _require_own_bytes(path: Path) -> None:
    """Refuse an archive whose arrays are much larger than itself, in their headers or unpacked.

    Raises:
        ValueError: they are.
    """
    most = max(MOST * path.stat().st_size, SMALL)
    with zipfile.ZipFile(path) as packed:
        if sum(member.file_size for member in packed.infolist()) > most:
            raise ValueError("it holds more than it does")
        for member in packed.infolist():
            with packed.open(member) as file:
                one = np.lib.format.read_magic(file) == (1, 0)
                header = np.lib.format.read_array_header_1_0 if one else np.lib.format.read_array_header_2_0
                shape, _, kind = header(file)
                most -= int(np.prod(shape, dtype=object)) * kind.itemsize
        if most < 0:
            raise ValueError("it holds more than it does")


def _members(archive: tarfile.TarFile, left: int) -> dict[str, tarfile.TarInfo]:
    members = {}
    for member in archive:
        left -= member.size
        if left < 0:  # before it is unpacked to get at the next one
            raise ValueError("it holds more than it does")
        if member.isfile():
            members[member.name] = member
    return members


def _graph(path: Path) -> tuple[list[Mapping[str, Any]], dict[str, NDArray[Any]]]:
    """The nodes and the constants of the graph model in an archive."""
    with tarfile.open(path, "r:gz") as archive:
        members = _members(archive, max(MOST * path.stat().st_size, SMALL))

        def read(name: str) -> bytes:
            if members[name].size > LARGEST:
                raise ValueError(f"{name} is too large")
            file = archive.extractfile(members[name])
            if file is None:
                raise ValueError(f"{name} is no file")
            return file.read()

        root = next((name for name in members if name.endswith("/model.json")), None)
        if root is None:
            raise ValueError("there is no model.json in it")
        model = json.loads(read(root))
        constants: dict[str, NDArray[Any]] = {}
        for group in model["weightsManifest"]:
            data, start = b"".join(read(f"{root.rpartition('/')[0]}/{part}") for part in group["paths"]), 0
            for entry in group["weights"]:
                if "quantization" in entry:
                    raise ValueError(f"{entry['name']} is quantized")
                kind = np.dtype({"bool": "?"}.get(entry["dtype"], entry["dtype"])).newbyteorder("<")
                size = int(np.prod(entry["shape"], dtype=np.int64))
                constants[entry["name"]] = np.frombuffer(data, kind, size, start).reshape(entry["shape"])
                start += size * kind.itemsize
    return model["modelTopology"]["node"], constants


def _parameter(node: Mapping[str, Any], value: NDArray[Any]) -> tuple[str, NDArray[Any]]:
    """The flax name of the constant that a node takes, and it in the layout of flax."""
    path = node["name"].split("/backbone/", 1)[1].split("/")
    while path and not MODULE.fullmatch(path[-1]):
        path.pop()
    operation, place = node["op"], "/".join(path)
    if operation == "Conv2D":
        return f"{place}/kernel", value
    if operation == "Conv2DBackpropInput":  # (kh, kw, out, in), mirrored
        return f"{place}/kernel", value[::-1, ::-1].transpose(0, 1, 3, 2)
    if operation == "Einsum":
        left, _, out = base64.b64decode(node["attr"]["equation"]["s"]).decode().partition("->")
        a, b = list(left.split(",")[1])
        if a in out or b not in out:
            raise ValueError(f"{place} contracts another axis")
        return f"{place}/kernel", value
    if operation in ("Mul", "AddV2"):
        return f"{place}/{'scale' if operation == 'Mul' else 'bias'}", value.reshape(-1)
    raise ValueError(f"{operation} takes no parameter")
