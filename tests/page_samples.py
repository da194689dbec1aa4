"""What the tests of the page share; they ask for starlette before they import it."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from irtool import api
from irtool.page.app import Page
from irtool.page.session import Limits, Session
from irtool.page.worker import Worker
from irtool.targets import make_items

TOKEN = "a-token-of-the-tests"


class Served:
    """A page, asked as its own script asks."""

    def __init__(self, client: TestClient, session: Session) -> None:
        self.client, self.session = client, session

    def get(self, path: str, **options: Any) -> Any:
        return self.client.get(f"/{TOKEN}/{path}", **options)

    def post(self, path: str, data: Any = None, **options: Any) -> Any:
        return self.client.post(f"/{TOKEN}/api/{path}", json={} if data is None else data, **options)

    def add(self, content: bytes, name: str = "a.png") -> Any:
        return self.client.post(f"/{TOKEN}/api/pictures", params={"name": name}, content=content)

    def pictures(self) -> list[dict[str, Any]]:
        return list(self.get("api/state").json()["pictures"])

    def picture(self, id: str) -> dict[str, Any]:
        return next(p for p in self.pictures() if p["id"] == id)

    def wait(self, id: str, *states: str) -> dict[str, Any]:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            picture = self.picture(id)
            if picture["state"] in states:
                return picture
            time.sleep(0.01)
        raise AssertionError(f"still {picture}")

    def ready(self, content: bytes, name: str = "a.png") -> str:
        """A picture that was added and looked at."""
        answer = self.add(content, name)
        assert answer.status_code == 201, answer.text
        id = str(answer.json()["id"])
        assert self.wait(id, "ready", "failed")["state"] == "ready"
        return id


def page_of(
    models_dir: Path, scratch: Path, title: str, folder: Path | None = None, output: Path | None = None,
    detector: str = "rain", **limits: int,
) -> Page:  # fmt: skip
    """A page over tiny models, with the pictures of a folder."""
    scratch.mkdir()
    to = None if output is None else f"{output}/"
    items = [] if folder is None else make_items([str(folder)], output=to, recursive=True, format=None)
    session = Session(scratch, Limits(**limits), items)
    options = {"detector": f"local:{models_dir / detector}.safetensors", "device": "cpu"}
    return Page(session, Worker(session, options, 1), [f"local:{models_dir / 'restorer.safetensors'}"], title)


def slowed(monkeypatch: pytest.MonkeyPatch, tiles: int, pause: float) -> threading.Event:
    """Make every restoration one of so many tiles, with a pause in seconds after each, until the event is set."""
    hurry = threading.Event()
    real = api.restore

    def restore(image: Any, **options: Any) -> Any:
        for i in range(tiles):
            options["on_progress"](i, tiles)
            if hurry.wait(pause):
                break
        return real(image, **options)

    monkeypatch.setattr(api, "restore", restore)
    return hurry
