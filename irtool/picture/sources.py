"""The bytes that a picture is decoded from: read once, of a bounded size, and from nothing that could wait for ever."""

from __future__ import annotations

import os
import select
import stat
import time
from io import BufferedIOBase, RawIOBase
from pathlib import Path
from typing import IO

from ..errors import PictureError
from .formats import sniff

_HEAD = 4096
_PIECE = 1 << 20
PATIENCE = 5.0
"""Seconds that a pipe may be silent."""


def reason(error: Exception) -> str:
    """What an error says, for the end of a message."""
    text = " ".join((getattr(error, "strerror", None) or str(error)).split())
    # Pillow names the in-memory stream in some messages, which says nothing to anyone.
    if not text or "BytesIO" in text:
        return type(error).__name__
    return text if len(text) <= 120 else text[:117] + "..."


def source_bytes(source: str | Path | bytes | IO[bytes], name: str, *, limit: int, room: int | None = None) -> bytes:
    """The whole of a picture file, or only its beginning if that is no picture's.

    Args:
        source: a path, bytes, or a binary stream, which is read to its end.
        name: what messages call it.
        limit: bytes that a file may have at most.
        room: bytes of memory it may take.

    Raises:
        PictureError: it cannot be read, is no regular file nor a pipe with a writer, or is too large.
    """
    try:
        if isinstance(source, (bytes, bytearray, memoryview)):
            return bytes(source)
        if isinstance(source, (str, os.PathLike)):
            return _file(Path(source), name, limit, room)
        return _stream(source, name, limit, room)
    except IsADirectoryError as error:
        raise PictureError(
            f"{name} is a folder, not a picture", "Give the pictures in it, or use a folder run."
        ) from error
    except FileNotFoundError as error:
        raise PictureError(f"{name}: no such file", "Check the spelling and the folder.") from error
    except PermissionError as error:
        raise PictureError(f"{name}: not allowed to read it", "Check its permissions.") from error
    except MemoryError as error:
        raise PictureError(f"{name}: too large to read into memory", "") from error
    except (OSError, ValueError) as error:
        raise PictureError(f"{name}: cannot be read ({reason(error)})", "Check the path and the disk.") from error


def _file(path: Path, name: str, limit: int, room: int | None) -> bytes:
    # Opening a pipe waits for its writer, unless told not to.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISDIR(kind):
        os.close(descriptor)
        raise IsADirectoryError
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 (a descriptor, not a path)
        if stat.S_ISFIFO(kind):
            return _stream(_Pipe(descriptor, name), name, limit, room)
        if not stat.S_ISREG(kind):
            raise PictureError(f"{name} is a device, not a file", "Give a picture file, or - for stdin.")
        # A look at the beginning first: what is no picture (a video) is not read into memory whole.
        head = file.read(_HEAD) or b""
        if sniff(head) is None:
            return head
        _bounded(os.fstat(descriptor).st_size, name, limit, room)
        file.seek(0)
        return file.readall()


def _stream(file: IO[bytes] | BufferedIOBase | RawIOBase | _Pipe, name: str, limit: int, room: int | None) -> bytes:
    head = _filled(file)
    if sniff(head) is None:
        return head
    pieces, size = [head], len(head)
    while piece := file.read(_PIECE):
        pieces.append(piece)
        size += len(piece)
        _bounded(2 * size, name, 2 * limit, room)  # joined, it is there twice for a moment
    return b"".join(pieces)


def _filled(file: IO[bytes] | BufferedIOBase | RawIOBase | _Pipe) -> bytes:
    """The first bytes of a stream, of which a read may give fewer than asked for."""
    head = b""
    while len(head) < _HEAD and (piece := file.read(_HEAD - len(head))):
        head += piece
    return head


def _bounded(size: int, name: str, limit: int, room: int | None) -> None:
    if size > limit:
        raise PictureError(
            f"{name}: the file is larger than any picture of the size allowed ({size / 1e9:.1f} GB)",
            "Save it anew, without what is not the picture.",
        )
    if room is not None and size > room:
        raise PictureError(
            f"{name}: the file has {size / 1e6:.0f} MB, more than the {max(0, room) / 1e6:.0f} MB of memory left",
            "Allow more memory, close other programs, or reduce the picture first.",
        )


class _Pipe:
    """Reads from a pipe that was opened without waiting; one that stays silent is given up."""

    def __init__(self, descriptor: int, name: str) -> None:
        self.descriptor, self.name = descriptor, name

    def read(self, size: int) -> bytes:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                # Nothing to read is an error (EAGAIN) while somebody holds the other end, and b"" when nobody does:
                # after the last of them has left, and before the first has come.
                ready = select.select([self.descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]
                if ready:
                    return os.read(self.descriptor, size)
            except BlockingIOError:
                pass
            if time.monotonic() >= deadline:
                raise PictureError(
                    f"{self.name} is a pipe, and nothing has come through it for {PATIENCE:.0f} s",
                    "Start what writes to it first, or use - and a pipe of the shell.",
                )
