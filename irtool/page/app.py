"""The server of the page: what it lets in, and what it answers.

Only the user's own browser is served: the address carries a random token, requests that another page makes, or that
come under another host's name (DNS rebinding), are refused, and the pages may load nothing from anywhere else.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request as HttpRequest
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..degradation import DEGRADATIONS, REPAIRS
from ..errors import FileError, IrtoolError, NothingToDoError, UsageError
from ..fileio import exists
from ..picture import SUFFIXES
from . import images
from .session import MASK_BYTES, Entry, Request, Session, heard
from .worker import Worker, described

STATIC = Path(__file__).with_name("static")
PAGES = {
    "": "index.html",
    "page.css": "page.css",
    "page.js": "page.js",
    "panel.js": "panel.js",
    "viewer.js": "viewer.js",
}
SHOWN = {"thumb.jpg", "before.jpg", "after.jpg", "preview.jpg"} | {f"where-{d.id}.png" for d in DEGRADATIONS}
JSON_BYTES = 64 << 10
NO_THUMBNAIL = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 3 2"/>'
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Turns away what does not come from the page itself, and adds the headers of `SECURITY` to every answer.

    Args:
        app: the application behind it.
        token: first part of every path.
        host: the address that is listened on.
    """

    def __init__(self, app: ASGIApp, token: str, host: str) -> None:
        self.app, self.token = app, token
        self.names = {"localhost", "127.0.0.1", "[::1]", host.lower(), f"[{host.lower()}]"}
        self.only_local = host in ("localhost", "127.0.0.1", "::1")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As the ASGI interface says."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return None

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", ()),
                    *((name.lower().encode(), value.encode()) for name, value in SECURITY.items()),
                ]
            await send(message)

        refusal = self._refusal(Headers(scope=scope), scope["path"])
        answer = self.app if refusal is None else PlainTextResponse(refusal[1], refusal[0])
        return await answer(scope, receive, secured)

    def _refusal(self, headers: Headers, path: str) -> tuple[int, str] | None:
        host = headers.get("host", "").lower()
        if not self._is_ours(host):
            return 421, "This host name is not that of irtool serve.\n"
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return 403, "Another page may not use irtool serve.\n"
        token = path.split("/", 2)[1] if path.startswith("/") else ""
        if not hmac.compare_digest(token.encode(), self.token.encode()):
            return 404, "The address of the page ends in a token; irtool serve has printed it.\n"
        return None

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header names this machine. Only names can be made to lead here, addresses cannot."""
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        if name in self.names:
            return True
        if self.only_local:
            return False
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True


class TooLargeError(IrtoolError):
    """More was sent than is taken."""


class Page:
    """The answers.

    Args:
        session, worker: what they are about.
        models: ids of the restorers that are offered, the default first.
        title: name of the folder, or an empty string.
    """

    def __init__(self, session: Session, worker: Worker, models: list[str], title: str = "") -> None:
        self.session, self.worker, self.models, self.title = session, worker, models, title
        self._drawing = threading.Lock()  # one thumbnail at a time: each decodes a picture

    def routes(self) -> list[Route]:
        """All routes, below the token."""
        picture = "/api/pictures/{id}"
        return [
            *(Route(f"/{name}", self.static, name=file) for name, file in PAGES.items()),
            Route("/api/state", self.state),
            Route("/api/pictures", self.add, methods=["POST"]),
            Route("/api/restore-all", self.restore_all, methods=["POST"]),
            Route("/api/cancel-all", self.cancel_all, methods=["POST"]),
            Route(picture, self.remove, methods=["DELETE"]),
            Route(f"{picture}/look", self.look, methods=["POST"]),
            Route(f"{picture}/words", self.words, methods=["POST"]),
            Route(f"{picture}/restore", self.restore, methods=["POST"]),
            Route(f"{picture}/cancel", self.cancel, methods=["POST"]),
            Route(f"{picture}/save", self.save, methods=["POST"]),
            Route(f"{picture}/mask", self.mask, methods=["PUT"]),
            Route(f"{picture}/result", self.result),
            Route(f"{picture}/{{kind}}", self.shown),
        ]

    def static(self, request: HttpRequest) -> Response:
        """A file of the page."""
        return FileResponse(STATIC / PAGES[request.url.path.rpartition("/")[2]])

    def state(self, request: HttpRequest) -> Response:
        """What has changed since the version that the tab has; everything for its first question."""
        asked = request.query_params.get("since", "0")
        since = int(asked) if asked.isdecimal() and len(asked) < 16 else 0
        answer = self.session.since(since) | {"queue": self.worker.counts()}
        if not since:
            limits = self.session.limits
            answer["about"] = {
                "title": self.title,
                "models": self.models,
                "tasks": [{"id": d.id, "name": d.name} for d in (*DEGRADATIONS, *REPAIRS)],
                "suffixes": sorted(SUFFIXES),
                "limits": {"bytes": limits.file_bytes, "pixels": limits.pixels},
            }
        return JSONResponse(answer)

    async def add(self, request: HttpRequest) -> Response:
        """Take in a picture: the body is the file, the query its name."""
        name = request.query_params.get("name", "")
        path = self.session.new_file()
        try:
            with path.open("xb") as file:
                async for piece in _bounded(request, self.session.room()):
                    await run_in_threadpool(file.write, piece)
            entry = await run_in_threadpool(self.session.add_upload, name, path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        self.worker.submit(entry)
        return JSONResponse({"id": entry.id}, 201)

    def remove(self, request: HttpRequest) -> Response:
        """Forget a picture."""
        entry = self._entry(request)
        self.worker.cancel(entry)
        self.session.remove(entry)
        return JSONResponse({})

    def look(self, request: HttpRequest) -> Response:
        """Diagnose a picture, before others are restored."""
        entry = self._entry(request)
        if entry.diagnosis is None:
            self.worker.submit(entry)
        return JSONResponse({})

    async def words(self, request: HttpRequest) -> Response:
        """Words to switches."""
        data, entry = await _json(request), self._entry(request)
        if entry.diagnosis is None:
            raise UsageError(f"{entry.name} is still being looked at.", "Try again in a moment.")
        answer = await run_in_threadpool(heard, str(data.get("text", ""))[:2000], entry.diagnosis, self.models[0])
        return JSONResponse(answer)

    async def restore(self, request: HttpRequest) -> Response:
        """Restore a picture."""
        self.worker.submit(self._entry(request), Request.of(await _json(request), self.models))
        return JSONResponse({}, 202)

    async def restore_all(self, request: HttpRequest) -> Response:
        """Restore all pictures that have no result yet."""
        wanted = Request.of(await _json(request), self.models)
        entries = [entry for entry in list(self.session.entries.values()) if entry.result is None]
        if wanted.save:
            entries = [entry for entry in entries if not entry.public.get("saved")]
        count = 0
        for entry in entries:
            with contextlib.suppress(UsageError):  # it is being restored
                self.worker.submit(entry, wanted)
                count += 1
        if not count:
            raise NothingToDoError("Every picture has a result.")
        return JSONResponse({"count": count}, 202)

    def cancel(self, request: HttpRequest) -> Response:
        """Cancel what is done to a picture."""
        self.worker.cancel(self._entry(request))
        return JSONResponse({})

    def cancel_all(self, request: HttpRequest) -> Response:
        """Cancel everything."""
        self.worker.cancel()
        return JSONResponse({})

    async def save(self, request: HttpRequest) -> Response:
        """Write a result beside the original, or into the output folder."""
        data, entry = await _json(request), self._entry(request)
        existing = str(data.get("existing", "error"))
        try:
            target = await run_in_threadpool(self.session.save, entry, existing)
        except UsageError as error:
            taken = entry.item is not None and entry.item.target is not None and exists(entry.item.target)
            return JSONResponse(described(error), 409 if taken and existing == "error" else 400)
        return JSONResponse({"name": target.name.encode("utf-8", "backslashreplace").decode()})

    async def mask(self, request: HttpRequest) -> Response:
        """Keep a brushed mask: the body is a PNG, white where something is missing; empty for none."""
        entry = self._entry(request)
        data = b"".join([piece async for piece in _bounded(request, MASK_BYTES)])
        await run_in_threadpool(self.session.set_mask, entry, data)
        return JSONResponse({"masked": entry.masked})

    def result(self, request: HttpRequest) -> Response:
        """The file of a result, to download."""
        entry = self._entry(request)
        if entry.result is None:
            raise NothingToDoError(f"{entry.name} has no result yet.", "Restore it first.")
        name = self.session.result_name(entry)
        return FileResponse(entry.result[0], media_type="application/octet-stream", filename=name)

    def shown(self, request: HttpRequest) -> Response:
        """A copy of a picture for the browser."""
        entry, kind = self._entry(request), request.path_params["kind"]
        path = self.session.file(entry, kind)
        if kind not in SHOWN:
            return PlainTextResponse("There is no such file.\n", 404)
        if kind == "thumb.jpg" and not path.is_file():
            try:
                with self._drawing:
                    self.session.keep(entry, kind, images.thumbnail(entry.path, self.session.limits.pixels))
            except Exception:  # whatever Pillow trips over; a picture that does not open says so when it is looked at
                return Response(NO_THUMBNAIL, media_type="image/svg+xml")
        if not path.is_file():
            return PlainTextResponse("There is no such file.\n", 404)
        return FileResponse(path)

    def _entry(self, request: HttpRequest) -> Entry:
        return self.session.get(request.path_params["id"])


def create_app(page: Page, token: str, host: str) -> ASGIApp:
    """The application; its worker lives as long as it does."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        page.worker.start()
        try:
            yield
        finally:
            await run_in_threadpool(page.worker.close)

    app = Starlette(
        routes=[Mount(f"/{token}", routes=page.routes())],
        exception_handlers={IrtoolError: _failed, Exception: _failed},
        lifespan=lifespan,
    )
    return Guard(app, token, host)  # outside of everything, errors included


async def _failed(request: HttpRequest, error: Exception) -> Response:
    """An error as the page shows it: what is wrong, and the next step."""
    code = 413 if isinstance(error, TooLargeError) else 404 if isinstance(error, NothingToDoError) else 400
    return JSONResponse(described(error), code if isinstance(error, IrtoolError) else 500)


async def _bounded(request: HttpRequest, limit: int) -> AsyncIterator[bytes]:
    """The body in pieces, as far as it may go."""
    told = request.headers.get("content-length", "0")
    received = 0
    error = TooLargeError(
        f"The file is larger than the {max(0, limit) / 1e6:.0f} MB that are taken.", "Reduce it first."
    )
    if told.isdecimal() and int(told[:20]) > limit:
        raise error
    async for piece in request.stream():
        received += len(piece)
        if received > limit:
            raise error
        yield piece


async def _json(request: HttpRequest) -> dict[str, Any]:
    """The body as a JSON object."""
    body = b"".join([piece async for piece in _bounded(request, JSON_BYTES)])
    try:
        data = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise FileError("The request is no JSON.") from error
    if not isinstance(data, dict):
        raise FileError("The request is no JSON object.")
    return data
