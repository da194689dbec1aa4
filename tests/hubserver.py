"""A hub on the loopback interface that speaks the routes the real client uses, with the faults real ones have.

Large files are redirected to a store under another host name, as on the hub; the store honours ranges.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_right"
PIECE = 1 << 16


@dataclass
class Request:
    """What a client asked for."""

    method: str
    path: str
    range: str | None
    token: str | None


Content = bytes | Path


@dataclass
class Repository:
    """One repository: paths and bytes (or files of this disk), and whether a token must be shown for it."""

    files: dict[str, Content]
    gated: bool = False


def size_of(content: Content) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


@lru_cache
def digest_of(content: Content) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        digest = hashlib.sha256()
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def pieces_of(content: Content, start: int, end: int, piece: int = PIECE) -> Iterator[bytes]:
    """The bytes from `start` to `end`, some at a time."""
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        file.seek(start)
        for at in range(start, end, piece):
            yield file.read(min(piece, end - at))


@dataclass
class Faults:
    """What the store does wrong.

    Attributes:
        cuts: bytes after which a download is cut off, one entry per request; then it goes well.
        ignores_range: sends the whole file whatever part is asked for.
        pause: seconds between pieces of 64 KiB.
        stall_after: bytes after which it says nothing more, for ever.
        piece: bytes sent at once.
        etag, commit: said in place of the true ones.
        size: said of a file, in place of the true one.
        flip: one bit of the first byte is another.
        encoding: the body is compressed and said to be.
        length: "none" leaves the length of a body out, "endless" besides never ends it.
        headers: further ones, of every answer.
        listing: the body of a listing, in place of the true one.
        elsewhere: address that files are redirected to, in place of the store.
    """

    cuts: list[int] = field(default_factory=list)
    ignores_range: bool = False
    pause: float = 0.0
    stall_after: int | None = None
    piece: int = PIECE
    etag: str | None = None
    commit: str | None = None
    size: int | None = None
    flip: bool = False
    encoding: str = ""
    length: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    listing: bytes | None = None
    elsewhere: str = ""


class HubServer:
    """A running server. `repositories` and `faults` may be changed at any time; `requests` tells what was asked."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.raw: dict[str, Content] = {}
        self.faults = Faults()
        self.requests: list[Request] = []
        self.stopping = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()

    def downloads(self) -> list[Request]:
        """The requests for bytes."""
        return [r for r in self.requests if r.method == "GET" and r.path.startswith(("/store/", "/raw/"))]


class _Handler(BaseHTTPRequestHandler):
    """Answers for `hub`, which a subclass names."""

    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.hub.requests.append(Request(self.command, path, self.headers.get("Range"), token))
        if path.startswith("/store/"):
            held = {digest_of(b): b for r in self.hub.repositories.values() for b in r.files.values()}
            return self._bytes(held.get(path.removeprefix("/store/")))
        if path.startswith("/raw/"):
            return self._bytes(self.hub.raw.get(path.removeprefix("/raw/")))
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            return self._tree(match[1])
        if match := re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._resolve(match[1], match[2], match[3], token)
        return self._plain(404, {})

    def _resolve(self, repo: str, revision: str, path: str, token: str | None) -> None:
        faults = self.hub.faults
        about = {"X-Repo-Commit": COMMIT if faults.commit is None else faults.commit}
        held = self.hub.repositories.get(repo)
        if held is None:
            return self._plain(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository Not Found"})
        if held.gated and token != TOKEN:
            return self._plain(403 if token else 401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"})
        if revision not in ("main", COMMIT):
            return self._plain(404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
        if path not in held.files:
            return self._plain(404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "not found", **about})
        content = held.files[path]
        digest = digest_of(content)
        size = size_of(content) if faults.size is None else faults.size
        tag = f'"{digest}"' if faults.etag is None else faults.etag
        about |= {"X-Linked-Etag": tag, "X-Linked-Size": str(size)}
        place = faults.elsewhere or f"http://localhost:{self.hub.port}/store/{digest}"
        return self._plain(302, {**about, "Location": place})

    def _tree(self, repo: str) -> None:
        held = self.hub.repositories.get(repo)
        if held is None:
            return self._plain(404, {"X-Error-Code": "RepoNotFound"})
        listed = [{"type": "file", "path": p, "size": size_of(b), "oid": "0" * 40} for p, b in held.files.items()]
        body = json.dumps(listed).encode() if self.hub.faults.listing is None else self.hub.faults.listing
        return self._plain(200, {"Content-Type": "application/json"}, body)

    def _plain(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**headers, **self.hub.faults.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _bytes(self, content: Content | None) -> None:
        if content is None:
            return self._plain(404, {})
        faults, size = self.hub.faults, size_of(content)
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if asked and not faults.ignores_range:
            start = int(asked[1])
            if start >= size:
                return self._plain(416, {"Content-Range": f"bytes */{size}"})
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        if faults.encoding:
            content = gzip.compress(content if isinstance(content, bytes) else content.read_bytes())
            size = len(content)
            self.send_header("Content-Encoding", faults.encoding)
        if faults.length:
            self.close_connection = True
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(size - start))
        for name, value in faults.headers.items():
            self.send_header(name, value)
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if self.command == "HEAD":
            return None
        cut = faults.cuts.pop(0) if faults.cuts else None
        self.close_connection = self.close_connection or cut is not None
        with contextlib.suppress(OSError):  # the client may have gone
            self._send(content, start, size if cut is None else min(start + cut, size))
        return None

    def _send(self, content: Content, start: int, end: int) -> None:
        faults, sent = self.hub.faults, 0
        for piece in pieces_of(content, start, end, faults.piece):
            flipped = faults.flip and not start and not sent
            self.wfile.write(bytes([piece[0] ^ 1]) + piece[1:] if flipped else piece)
            self.wfile.flush()
            sent += len(piece)
            if faults.stall_after is not None and sent >= faults.stall_after:
                self.hub.stopping.wait()
            time.sleep(faults.pause)
        while faults.length == "endless" and not self.hub.stopping.is_set():
            self.wfile.write(bytes(PIECE))
