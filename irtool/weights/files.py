"""From the name of a model to a file that is known to be the right one."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from ..errors import UnavailableError
from .registry import Record, get

LOCAL = "local:"


def locate(reference: str) -> Path:
    """The file that ``ID`` or ``local:PATH`` stands for.

    A registered file is compared with its sha256 once per process. A local file is taken as it is: it is
    safetensors, which cannot run code, and loading checks that it fits the network.

    Raises:
        UsageError: there is no such id.
        UnavailableError: the file is absent, or is not the registered one.
    """
    if reference.startswith(LOCAL):
        path = Path(reference.removeprefix(LOCAL)).expanduser()
        if not path.is_file():
            raise UnavailableError(f"There is no model file '{path}'.", "Give the path of a .safetensors file.")
        return path
    record = get(reference)
    verify(record)
    return record.path


def is_present(record: Record) -> bool:
    """Whether the file is there with the registered size; quick, reads nothing."""
    try:
        return record.path.stat().st_size == record.bytes
    except OSError:
        return False


@cache
def verify(record: Record) -> None:
    """Check that a record's file is there and intact.

    Raises:
        UnavailableError: it is not.
    """
    again = "Install irtool again; or name another model with --model."
    if not record.path.is_file():
        raise UnavailableError(f"The weights of '{record.id}' are missing: {record.path}.", again)
    found = sha256_of(record.path)
    if found != record.sha256:
        told = f"sha256 {found[:12]}..., expected {record.sha256[:12]}..."
        message = f"The weights of '{record.id}' are not the registered ones ({told}): {record.path}."
        raise UnavailableError(message, again)


def sha256_of(path: Path) -> str:
    """Hash a file, reading it in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
