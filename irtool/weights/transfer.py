"""What a server sends, bounded and compared: sizes, speed, names and hashes."""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..fileio import sha256
from .registry import File

PLAIN: Mapping[str, str] = {"Accept-Encoding": "identity"}
"""Headers that ask for bytes as they are: of compressed ones nobody knows how many there will be."""
SLOWEST = 1024
"""Bytes a second, over `PATIENCE` seconds, below which a server is given up."""
PATIENCE = 60.0
TRIES = 5
"""Attempts in a row that bring nothing, after which an address is given up."""
PIECE = 1 << 20

# Headers that the client of the hub makes names of files from.
_NAMES = {
    "etag": r'(?:W/)?"?[A-Za-z0-9_-][A-Za-z0-9_.:-]{0,199}"?',
    "x-linked-etag": r'(?:W/)?"?[A-Za-z0-9_-][A-Za-z0-9_.-]{0,199}"?',
    "x-repo-commit": r"[0-9a-f]{40}",
    "x-xet-hash": r"[0-9a-f]{64}",
}


class RefusedError(OSError):
    """A server sends what is not taken."""


class DifferentError(RefusedError):
    """A server announces another file than the one that is wanted; the message says how they differ."""


@dataclass
class Announced:
    """What a server has said of the file it sends.

    Attributes:
        limit: bytes that are taken.
        expected: size of the file that is wanted; None where it is not known.
        etag: the file's sha256, or its sha1 as git computes it, where the hub has it; empty where nothing was said.
        size: in bytes; None where nothing was said.
    """

    limit: int
    expected: int | None = None
    etag: str = ""
    size: int | None = None

    def differs(self, path: Path) -> str:
        """How a file differs from what was announced; empty where it does not, or nothing was announced."""
        size = path.stat().st_size
        if self.size is not None and size != self.size:
            return f"{size:,} bytes, announced {self.size:,}"
        if re.fullmatch(r"[0-9a-f]{64}", self.etag):
            found = sha256(path)
        elif re.fullmatch(r"[0-9a-f]{40}", self.etag) and size < PIECE * 64:
            found = hashlib.sha1(b"blob %d\0" % size + path.read_bytes()).hexdigest()
        else:
            return ""
        return "" if found == self.etag else f"hash {found[:12]}..., announced {self.etag[:12]}..."


_announced: ContextVar[Announced | None] = ContextVar("irtool_announced", default=None)


@contextlib.contextmanager
def guarded(limit: int, expected: int | None = None) -> Iterator[Announced]:
    """While this is open, every answer to the hub's client is checked in this thread.

    Args:
        limit: bytes that a body may have, unless the server announces fewer.
        expected: size of the file that is wanted, where it is known.

    Yields:
        What the server announces, as it becomes known.
    """
    from huggingface_hub import get_session

    client = get_session()
    hooks = client.event_hooks
    if _check not in hooks["response"]:
        client.event_hooks = {**hooks, "response": [*hooks["response"], _check]}
    announced = Announced(limit, expected)
    token = _announced.set(announced)
    try:
        yield announced
    finally:
        _announced.reset(token)


def _check(response: Any) -> None:
    """Refuse an answer whose headers would lead astray, and bound its body."""
    announced = _announced.get()
    if announced is None:
        return
    headers = response.headers
    for name, value in headers.items():  # the client prints some: a server's warning, the name of a file
        if re.search(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]", value):
            raise RefusedError(f"the server sends control characters in its header {name[:60]!r}")
    if response.request.method == "HEAD":
        _note(announced, headers, is_redirect=response.is_redirect)
        return
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise RefusedError("the server sends it compressed, which was not asked for")
    most = announced.limit if announced.size is None else announced.size
    length = headers.get("content-length", "")
    if response.is_success and length.isdecimal() and (len(length) > 15 or int(length) > most):
        raise RefusedError(f"the server sends {length[:15]} bytes, where at most {most:,} are taken")
    if not response.is_success:
        most = min(most, PIECE)  # the text of an error
    response.stream = _bounded(response.stream, most)


def _note(announced: Announced, headers: Mapping[str, str], *, is_redirect: bool) -> None:
    """Keep what a server says of a file before it sends it; refuse what would lead astray."""
    for name, pattern in _NAMES.items():
        value = headers.get(name)
        if value is not None and (not re.fullmatch(pattern, value) or ".." in value):
            raise RefusedError(f"the server sends a header {name} that is none, {value[:60]!r}")
    tag = headers.get("x-linked-etag") or headers.get("etag")
    announced.etag = announced.etag if tag is None else tag.removeprefix("W/").strip('"')
    size = headers.get("x-linked-size") or ("" if is_redirect else headers.get("content-length", ""))
    if not size.isdecimal():
        return
    announced.size = int(size[:30])
    if announced.expected is not None and announced.size not in (announced.expected, 0):
        raise DifferentError(f"{announced.size:,} bytes, expected {announced.expected:,}")
    if announced.size > announced.limit:
        raise RefusedError(
            f"the server announces {announced.size:,} bytes, where at most {announced.limit:,} are taken"
        )


def _bounded(stream: Any, most: int) -> Any:
    """A body of which at most so many bytes are read, and not more slowly than `SLOWEST`."""
    base = type(stream).__mro__[-2] if type(stream).__mro__[-1] is object else object

    class Bounded(base):  # type: ignore[misc, valid-type]  # the client wants a stream of its own kind
        def __iter__(self) -> Iterator[bytes]:
            return paced(iter(stream), most)

        def close(self) -> None:
            stream.close()

    return Bounded()


def paced(pieces: Iterator[bytes], most: int) -> Iterator[bytes]:
    """Pass on pieces of a body.

    Raises:
        RefusedError: they are more than `most` bytes, or come too slowly.
    """
    started, since, total = time.monotonic(), 0, 0
    for piece in pieces:
        total, since = total + len(piece), since + len(piece)
        if total > most:
            raise RefusedError(f"the server sends more than the {most:,} bytes that are taken")
        waited = time.monotonic() - started
        if waited > PATIENCE:
            if since < SLOWEST * waited:
                raise RefusedError(f"the server sends {since / waited:.0f} bytes a second")
            started, since = time.monotonic(), 0
        yield piece


def bring(file: File, target: Path, largest: int) -> Path:
    """Fetch a file from an address outside the hub, going on with what an earlier run has left of it.

    Args:
        file: its record; the size and the sha256 it has there are what its caller compares.
        target: where it goes.
        largest: bytes that are taken where the record has no size.

    Raises:
        RefusedError: the server sends too much, too slowly or compressed.
        OSError, or an error of the client: it cannot be had.
    """
    from filelock import FileLock
    from huggingface_hub import get_session

    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.incomplete")
    most = file.bytes or largest
    with FileLock(f"{target}.lock"), guarded(most) as announced:
        if target.exists():  # another process has brought it meanwhile
            return target
        if partial.is_symlink() or (partial.exists() and (partial.stat().st_size > most or not partial.is_file())):
            partial.unlink()
        left = TRIES
        while True:
            have = partial.stat().st_size if partial.exists() else 0
            announced.limit = most
            announced.size = None
            try:
                _go_on(get_session(), file.source, partial, have)
                break
            except RefusedError:
                raise
            except Exception as error:
                if getattr(error, "response", None) is not None:  # an answer, such as 404: no use in asking again
                    raise
                got = partial.stat().st_size if partial.exists() else 0
                left = TRIES if got > have else left - 1
                if not left:
                    raise
                time.sleep(min(1.0, 0.1 * 2 ** (TRIES - left)))
        partial.replace(target)
    return target


def _go_on(client: Any, address: str, partial: Path, have: int) -> None:
    """One request for what is missing of a file, appended to it."""
    headers = {**PLAIN, **({"Range": f"bytes={have}-"} if have else {})}
    with client.stream("GET", address, headers=headers, timeout=10.0, follow_redirects=True) as response:
        if response.status_code == 416:
            if response.headers.get("content-range") == f"bytes */{have}":
                return  # all of it is here
            partial.unlink()  # of another file
            raise OSError("what was left of an earlier download does not fit")
        response.raise_for_status()
        whole = have == 0 or response.status_code != 206  # a server that knows no ranges begins anew
        length = response.headers.get("content-length", "")
        with partial.open("wb" if whole else "ab") as out:
            for piece in response.iter_raw(1 << 16):  # an unfinished piece is lost when the connection breaks
                out.write(piece)
            if length.isdecimal() and out.tell() != int(length) + (0 if whole else have):
                raise OSError("the connection ended too early")
