"""irtool serve: a page on the user's own machine, to look and decide."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import EXIT_OK, UnavailableError, UsageError, reason
from ..weights.registry import DEFAULT_DETECTOR, DEFAULT_RESTORER
from . import options

if TYPE_CHECKING:
    from ..targets import Item


def serve(
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="Pictures to show; more can be dropped on the page.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Where to save; else beside the originals.")
    ] = None,
    recursive: options.Recursive = False,
    port: Annotated[int, typer.Option("--port", metavar="N", min=0, max=65535, help="0: any that is free.")] = 0,
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = True,
    max_megapixels: Annotated[
        float, typer.Option("--max-megapixels", metavar="N", min=0.01, max=300, help="Largest picture to take.")
    ] = 120,
    device: options.Device = "auto",
    threads: options.Threads = None,
    offline: options.Offline = False,
    model: options.Model = DEFAULT_RESTORER,
    detector: options.Detector = DEFAULT_DETECTOR,
) -> int:
    """Open a page to look at pictures, and to restore them.

    irtool serve photos/

    The page runs on this machine, and nothing leaves it. It shows what was found and where, before and after; each task
    can be switched off or weakened. Ctrl-C ends it. It needs the extra irtool[page].
    """
    options.check_device(device)
    try:
        import uvicorn

        from ..page.app import Page, create_app
        from ..page.session import Limits, Session
        from ..page.worker import Worker
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("starlette", "uvicorn"):
            raise
        raise UnavailableError("The page needs optional packages.", "pip install 'irtool[page]'") from None
    items = _items(folder, output, recursive)
    listening = _listen(host, port)
    token = secrets.token_urlsafe(16)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listening.getsockname()[1]}/{token}/"
    with tempfile.TemporaryDirectory(prefix="irtool-page-") as scratch, listening:
        session = Session(Path(scratch), Limits(pixels=round(max_megapixels * 1e6)), items)
        worker = Worker(session, {"detector": detector, "device": device}, options.thread_count(threads))
        page = Page(session, worker, _models(model), "" if folder is None else folder.resolve().name)
        config = uvicorn.Config(
            create_app(page, token, host), log_level="warning", access_log=False, server_header=False, ws="none",
            timeout_graceful_shutdown=2,
        )  # fmt: skip
        print(address, flush=True)
        print("Ctrl-C ends it.", file=sys.stderr)
        if open_ and _has_screen():
            import webbrowser

            webbrowser.open(address)
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])
    return EXIT_OK


def _items(folder: Path | None, output: Path | None, recursive: bool) -> list[Item]:
    """The pictures of the folder, with the outputs that `irtool restore` would give them."""
    from ..targets import make_items

    if folder is None:
        if output is not None:
            raise UsageError("--output is for the pictures of a folder.", "Name the folder, or leave --output out.")
        return []
    if not folder.exists():
        raise UsageError(f"{folder} does not exist.")
    to = None if output is None else f"{output}{os.sep}"
    return make_items([str(folder)], output=to, recursive=recursive, format=None)


def _models(first: str) -> list[str]:
    """The restorers that are here, `first` first."""
    from ..degradation import IDS
    from ..models.architectures import get
    from ..weights import records, state

    here = [
        record.id
        for record in records()
        if set(record.tasks) & set(IDS) and get(record.family).restorer and state(record) == "here"
    ]
    return list(dict.fromkeys([first, *here]))


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UsageError(
            f"Port {port} of {host} cannot be listened on: {reason(error)}.", "Try another --port."
        ) from error


def _has_screen() -> bool:
    """Whether a browser would open in a window; in a terminal it would take that over."""
    return not sys.platform.startswith("linux") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
