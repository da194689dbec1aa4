"""The server of the page: who is let in, what is taken, one queue, and results by the rules of `irtool restore`."""

from __future__ import annotations

import io
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the page needs irtool[page]")
pytest.importorskip("uvicorn", reason="the page needs irtool[page]")
from page_samples import TOKEN, Served, page_of, slowed
from starlette.testclient import TestClient

import irtool
from irtool import api
from irtool.page import worker as workers
from irtool.page.app import SECURITY, create_app
from irtool.page.session import shown_name


@pytest.fixture
def serve(models_dir: Path, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    clients = []

    def make(
        folder: Path | None = None, output: Path | None = None, detector: str = "rain", host: str = "127.0.0.1",
        **limits: int,
    ) -> Served:  # fmt: skip
        scratch = tmp_path / f"scratch-{len(clients)}"
        page = page_of(models_dir, scratch, "folder", folder, output, detector, **limits)
        client = TestClient(create_app(page, TOKEN, host), base_url="http://127.0.0.1:8000")
        clients.append(client.__enter__())
        return Served(client, page.session)

    yield make
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def png(photo: Callable[..., Path], tmp_path: Path) -> bytes:
    return photo(tmp_path / "made" / "a.png").read_bytes()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """A restoration of a thousand tiles, until the event is set."""
    return slowed(monkeypatch, 1000, 0.01)


AUTO = {"auto": True}


def test_nothing_is_answered_without_the_token(serve):
    client = serve().client
    for path in ("/", "/wrong/", "/wrong/api/state", f"/{TOKEN[:-1]}/", f"//{TOKEN}/", "/%00"):
        answer = client.get(path)
        assert answer.status_code == 404 and "irtool serve has printed it" in answer.text, path
    for path in ("", "page.js", "page.css", "panel.js", "viewer.js", "api/state"):
        assert client.get(f"/{TOKEN}/{path}").status_code == 200
    for path in ("app.py", "..%2fapp.py", "static/page.js", "api/pictures/x/y"):
        assert client.get(f"/{TOKEN}/{path}").status_code == 404


def test_another_host_name_or_page_is_refused(serve):
    served = serve()
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "192.168.1.5:8000"):
        assert served.get("api/state", headers={"host": host}).status_code == 421, host
    for host in ("localhost:9", "127.0.0.1", "[::1]:8000"):
        assert served.get("api/state", headers={"host": host}).status_code == 200, host
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1:8000"):
        assert served.post("cancel-all", headers={"origin": origin}).status_code == 403, origin
    assert served.post("cancel-all", headers={"origin": "http://127.0.0.1:8000"}).status_code == 200


def test_listening_to_a_network_takes_addresses_and_no_foreign_names(serve):
    served = serve(host="0.0.0.0")
    assert served.get("api/state", headers={"host": "192.168.1.5:8000"}).status_code == 200
    assert served.get("api/state", headers={"host": "[fe80::1]:8000"}).status_code == 200
    assert served.get("api/state", headers={"host": "evil.example:8000"}).status_code == 421


def test_every_answer_forbids_loading_from_elsewhere(serve):
    served = serve()
    answers = [served.get(""), served.get("api/state"), served.client.get("/"), served.post("pictures/none/look")]
    for answer in [*answers, served.get("api/state", headers={"host": "evil.example"})]:
        for name, value in SECURITY.items():
            assert answer.headers[name] == value
    for name in ("", "page.js", "page.css", "panel.js", "viewer.js"):
        text = served.get(name).text
        assert "http://" not in text and "https://" not in text and "innerHTML" not in text
        assert not re.search(r"<script>|<style>|\son\w+=|\sstyle=", text)


def test_a_dropped_picture_is_looked_at_restored_and_downloaded(serve, png, models_dir, tmp_path):
    served = serve()
    id = served.ready(png, "holiday.png")
    picture = served.picture(id)
    assert (picture["width"], picture["height"], picture["name"]) == (56, 40, "holiday.png")
    assert list(picture["found"]) == ["rain"] and picture["where"] == ["rain"] and not picture["folder"]
    assert picture["suggestion"] == {"tasks": [["rain", 1.0]]}
    for kind in ("thumb.jpg", "before.jpg", "where-rain.png"):
        assert Image.open(io.BytesIO(served.get(f"api/pictures/{id}/{kind}").content)).size
    assert served.get(f"api/pictures/{id}/result").status_code == 404
    assert served.post(f"pictures/{id}/restore", AUTO).status_code == 202
    done = served.wait(id, "done", "failed")
    assert done["state"] == "done" and done["progress"] is None
    (tmp_path / "same.png").write_bytes(png)
    expected = irtool.restore(
        tmp_path / "same.png", model=f"local:{models_dir}/restorer.safetensors", device="cpu",
        detector=f"local:{models_dir}/rain.safetensors",
    )  # fmt: skip
    answer = served.get(f"api/pictures/{id}/result")
    assert answer.content == expected.encode() and answer.content != png
    assert answer.headers["content-disposition"] == 'attachment; filename="holiday.restored.png"'
    assert done["result"]["steps"] == [str(step) for step in expected.plan.steps]
    assert Image.open(io.BytesIO(served.get(f"api/pictures/{id}/after.jpg").content)).size == (56, 40)


def test_a_clean_picture_comes_back_byte_for_byte(serve, png):
    served = serve(detector="clean")
    id = served.ready(png)
    assert served.picture(id)["found"] == {}
    served.post(f"pictures/{id}/restore", AUTO)
    assert served.wait(id, "done")["result"]["untouched"]
    assert served.get(f"api/pictures/{id}/result").content == png


def test_switches_and_strengths_are_carried_out(serve, png):
    served = serve()
    id = served.ready(png)
    served.post(f"pictures/{id}/restore", {"tasks": [["noise", 0.5], ["snow", 0.5]]})
    assert served.wait(id, "done")["result"]["steps"] == ["noise, snow at strength 0.5"]
    served.post(f"pictures/{id}/restore", {"tasks": [["snow", 1], ["noise", 0.5]], "ordered": True})
    end = time.monotonic() + 120
    while time.monotonic() < end and served.picture(id)["result"]["steps"][0] != "snow":
        time.sleep(0.01)
    assert served.wait(id, "done")["result"]["steps"] == ["snow", "noise at strength 0.5"]


def test_a_picture_is_enlarged(serve, png):
    served = serve()
    id = served.ready(png)
    served.post(f"pictures/{id}/restore", {"tasks": [], "scale": 2})
    done = served.wait(id, "done", "failed")
    assert done["state"] == "done" and (done["result"]["width"], done["result"]["height"]) == (112, 80)
    assert Image.open(io.BytesIO(served.get(f"api/pictures/{id}/result").content)).size == (112, 80)


def test_only_what_was_brushed_is_filled(serve, png):
    served = serve()
    id = served.ready(png)
    mask = np.zeros((20, 28), np.uint8)
    mask[4:10, 6:20] = 255
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, "PNG")
    answer = served.client.put(f"/{TOKEN}/api/pictures/{id}/mask", content=stream.getvalue())
    assert answer.json() == {"masked": True}
    served.post(f"pictures/{id}/restore", {"tasks": [["missing", 1]]})
    assert served.wait(id, "done", "failed")["state"] == "done"
    result = np.asarray(Image.open(io.BytesIO(served.get(f"api/pictures/{id}/result").content)).convert("RGB"))
    changed = (result != np.asarray(Image.open(io.BytesIO(png)))).any(axis=2)
    whole = np.kron(mask, np.ones((2, 2))) > 0
    assert changed.any() and not changed[~whole].any()
    assert served.client.put(f"/{TOKEN}/api/pictures/{id}/mask", content=b"").json() == {"masked": False}
    assert served.client.put(f"/{TOKEN}/api/pictures/{id}/mask", content=b"no").status_code == 400
    assert served.client.put(f"/{TOKEN}/api/pictures/{id}/mask", content=bytes(9 << 20)).status_code == 413


def test_uploads_are_bounded(serve, png):
    served = serve(file_bytes=len(png), total_bytes=2 * len(png), pixels=56 * 40)
    assert served.add(png).status_code == 201
    too_long = served.add(png + b"x")
    assert too_long.status_code == 413 and "larger than" in too_long.json()["error"]
    chunked = served.client.post(f"/{TOKEN}/api/pictures", params={"name": "a.png"}, content=iter([png, b"x"]))
    assert chunked.status_code == 413
    stream = io.BytesIO()
    Image.new("L", (56, 41)).save(stream, "PNG")
    too_many = served.add(stream.getvalue(), "b.png")
    assert too_many.status_code == 400 and "b.png: 56 x 41 is more than" in too_many.json()["error"]
    assert served.add(b"no picture", "c.png").json()["error"].startswith("c.png is not a picture of a known kind")
    assert served.add(b"", "d.png").json()["error"] == "d.png: the file is empty (zero bytes)."
    assert served.add(png).status_code == 201
    assert served.add(png).status_code == 413  # in all
    assert len(served.pictures()) == 2
    sources = list(served.session.scratch.glob("*.source"))
    assert len(sources) == 2  # nothing is left of what was refused
    first = served.pictures()[0]["id"]
    served.wait(first, "ready")
    assert served.client.delete(f"/{TOKEN}/api/pictures/{first}").status_code == 200
    assert not list(served.session.scratch.glob(f"{first}*"))
    assert served.add(png).status_code == 201


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd.png", "passwd.png"),
        ("C:\\temp\\a.png", "a.png"),
        ("<img src=x onerror=alert(1)>.png", "<img src=x onerror=alert(1)>.png"),
        ("a\u202egnp.exe\r\nSet-Cookie: x.png", "agnp.exeSet-Cookie: x.png"),
        ("", "picture"),
        ("\x00\x1b[2J", "[2J"),
        ("ünïcødé 写真.png", "ünïcødé 写真.png"),
        ("n" * 300 + ".png", "n" * 196 + ".png"),
    ],
)
def test_hostile_names_are_only_shown(serve, png, name, shown, tmp_path):
    served = serve()
    before = {path for path in tmp_path.rglob("*") if "scratch" not in path.parts[len(tmp_path.parts)]}
    id = served.ready(png, name)
    assert served.picture(id)["name"] == shown
    served.post(f"pictures/{id}/restore", AUTO)
    assert served.wait(id, "done")["result"]["name"] == f"{Path(shown).stem}.restored{Path(shown).suffix or '.png'}"
    header = served.get(f"api/pictures/{id}/result").headers["content-disposition"]
    assert header.startswith("attachment; ") and "\n" not in header and "/" not in header.replace("%2F", "")
    assert before == {path for path in tmp_path.rglob("*") if "scratch" not in path.parts[len(tmp_path.parts)]}
    assert all(re.fullmatch(r"[0-9a-f]{16}\.[a-z.-]+", path.name) for path in served.session.scratch.iterdir())


def test_a_name_that_is_no_unicode_can_be_shown():
    assert shown_name(os.fsdecode(b"caf\xe9.png")) == "caf\\udce9.png"


def test_jobs_wait_their_turn_are_cancelled_and_begun_again(serve, png, slow):
    served = serve()
    first, second, third = (served.ready(png, f"{i}.png") for i in range(3))
    for id in (first, second, third):
        served.post(f"pictures/{id}/restore", AUTO)
    served.wait(first, "working")
    state = served.get("api/state").json()
    assert state["queue"] == {"waiting": 2, "current": first}
    assert served.picture(second)["state"] == "queued" and served.picture(second)["restoring"]
    again = served.post(f"pictures/{first}/restore", AUTO)
    assert again.status_code == 400 and again.json()["hint"] == "Cancel that first."
    served.post(f"pictures/{third}/cancel")
    assert served.picture(third)["state"] == "ready"
    served.post(f"pictures/{first}/cancel")
    assert served.wait(first, "ready")["progress"] is None
    served.wait(second, "working")
    fourth = served.add(png, "4.png").json()["id"]
    assert served.picture(fourth)["state"] == "queued"
    served.post("cancel-all")
    assert served.wait(second, "ready") and served.picture(fourth)["state"] == "new"
    assert served.get("api/state").json()["queue"]["waiting"] == 0
    slow.set()
    served.post(f"pictures/{fourth}/look")
    served.wait(fourth, "ready")
    served.post(f"pictures/{first}/restore", AUTO)
    assert served.wait(first, "done")["result"]


def test_what_a_tab_waits_to_see_is_looked_at_before_others_are_restored(serve, png, slow):
    served = serve()
    first, second = (served.ready(png, f"{i}.png") for i in range(2))
    for id in (first, second):
        served.post(f"pictures/{id}/restore", AUTO)
    served.wait(first, "working")
    third = served.add(png, "3.png").json()["id"]
    served.post(f"pictures/{first}/cancel")
    served.wait(third, "ready")
    assert served.picture(second)["state"] in ("queued", "working") and "result" not in served.picture(second)


def test_progress_rises_over_the_steps(serve, png, slow):
    served = serve()
    id = served.ready(png)
    served.post(f"pictures/{id}/restore", AUTO)
    seen = []
    end = time.monotonic() + 120
    while len(set(seen)) < 4 and time.monotonic() < end:
        progress = served.picture(id).get("progress")
        seen += [] if progress is None else [progress]
        time.sleep(0.02)
    assert len(set(seen)) >= 4 and seen == sorted(seen) and all(0 <= p <= 1 for p in seen)


def test_a_tab_asks_only_for_what_is_new(serve, png):
    served = serve()
    id = served.ready(png)
    state = served.get("api/state").json()
    assert "about" in state
    later = served.get(f"api/state?since={state['version']}").json()
    assert later["pictures"] == [] and later["removed"] == [] and "about" not in later
    served.client.delete(f"/{TOKEN}/api/pictures/{id}")
    assert served.get(f"api/state?since={state['version']}").json()["removed"] == [id]
    assert served.get("api/state?since=x").status_code == 200
    for path in ("look", "restore", "cancel", "words", "save"):
        answer = served.post(f"pictures/{id}/{path}")
        assert answer.status_code == 404 and "no longer on the page" in answer.json()["error"]


def test_a_large_picture_is_shown_reduced_while_it_is_computed(serve, png, monkeypatch, tmp_path):
    monkeypatch.setattr(workers, "PREVIEW_PIXELS", 1000)
    monkeypatch.setattr(workers, "PREVIEW_SIDE", 28)
    served = serve()
    id = served.ready(png)
    whole = threading.Event()
    real = api.restore

    def restore(image: Any, **options: Any) -> Any:
        if not isinstance(image, np.ndarray):
            whole.wait(120)
        return real(image, **options)

    monkeypatch.setattr(api, "restore", restore)
    served.post(f"pictures/{id}/restore", {"tasks": [["noise", 1]], "scale": 2})
    end = time.monotonic() + 120
    while not served.picture(id).get("preview") and time.monotonic() < end:
        time.sleep(0.01)
    preview = Image.open(io.BytesIO(served.get(f"api/pictures/{id}/preview.jpg").content))
    assert preview.size == (28, 20) and "result" not in served.picture(id)
    whole.set()
    assert served.wait(id, "done")["preview"] is None


def test_results_go_beside_the_originals_as_restore_writes_them(serve, photo, tmp_path):
    source = photo(tmp_path / "in" / "a.png")
    content = source.read_bytes()
    served = serve(tmp_path / "in")
    (picture,) = served.pictures()
    id = picture["id"]
    assert picture["name"] == "a.png" and picture["folder"] and picture["state"] == "new"
    assert served.get(f"api/pictures/{id}/thumb.jpg").headers["content-type"] == "image/jpeg"
    assert served.post(f"pictures/{id}/save").json()["error"] == "a.png has no result yet."
    served.post(f"pictures/{id}/restore", AUTO)  # looked at on the way
    served.wait(id, "done")
    assert served.post(f"pictures/{id}/save").json() == {"name": "a.restored.png"}
    result = served.get(f"api/pictures/{id}/result").content
    assert (tmp_path / "in" / "a.restored.png").read_bytes() == result
    taken = served.post(f"pictures/{id}/save")
    assert taken.status_code == 409 and "exists already" in taken.json()["error"]
    assert served.post(f"pictures/{id}/save", {"existing": "rename"}).json() == {"name": "a.restored-2.png"}
    (tmp_path / "in" / "a.restored.png").write_bytes(b"other")
    assert served.post(f"pictures/{id}/save", {"existing": "overwrite"}).status_code == 200
    assert (tmp_path / "in" / "a.restored.png").read_bytes() == result
    assert served.post(f"pictures/{id}/save", {"existing": "x"}).status_code == 400
    assert source.read_bytes() == content
    assert served.client.delete(f"/{TOKEN}/api/pictures/{id}").status_code == 200 and source.exists()


def test_all_are_restored_into_the_output_folder_but_those_that_are_there(serve, photo, tmp_path):
    for name in ("a.png", "sub/b.png", "c.png"):
        photo(tmp_path / "in" / name)
    (tmp_path / "in" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "c.png").write_bytes(b"earlier")
    served = serve(tmp_path / "in", tmp_path / "out")
    assert served.post("restore-all", {"auto": True, "save": True}).json() == {"count": 3}
    ids = {p["name"]: p["id"] for p in served.pictures()}
    assert served.wait(ids["a.png"], "done")["saved"] == "a.png"
    assert served.wait(ids["sub/b.png"], "done")["saved"] == "b.png"
    failed = served.wait(ids["broken.png"], "failed")
    assert failed["error"]["error"].startswith("broken.png: damaged or incomplete PNG file")
    assert served.get(f"api/pictures/{ids['broken.png']}/thumb.jpg").headers["content-type"].startswith("image/svg")
    assert served.picture(ids["c.png"])["state"] == "new" and served.picture(ids["c.png"])["saved"] == "c.png"
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.png")) == [
        "a.png", "c.png", "sub/b.png",
    ]  # fmt: skip
    assert (tmp_path / "out" / "c.png").read_bytes() == b"earlier"


def test_words_become_switches(serve, png):
    served = serve(detector="mixed")
    id = served.ready(png)
    said = served.post(f"pictures/{id}/words", {"text": "remove the rain, keep the grain"}).json()
    assert said == {"tasks": [["rain", 1.0]], "keep": ["noise"], "ordered": False, "scale": None, "answer": ""}
    assert served.post(f"pictures/{id}/words", {"text": "make it twice as large"}).json()["scale"] == 2
    asked = served.post(f"pictures/{id}/words", {"text": "Is there rain?"}).json()
    assert asked["answer"].startswith("rain: yes") and asked["tasks"] == []
    refused = served.post(f"pictures/{id}/words", {"text": "make me look younger"})
    assert refused.status_code == 400 and refused.json()["error"] and refused.json()["hint"]
    assert served.post(f"pictures/{id}/words", {"text": " "}).json()["error"] == "Nothing was said."


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "Nothing is switched on."),
        ({"tasks": [["rainbow", 1]]}, "Unknown degradation or task 'rainbow'."),
        ({"tasks": [["rain", 0]]}, "A strength lies above 0 and up to 1, not 0."),
        ({"tasks": [["rain", float("inf")]]}, "A strength lies above 0"),
        ({"tasks": 3}, "These are no tasks with strengths."),
        ({"tasks": [["rain"]]}, "These are no tasks with strengths."),
        ({"auto": True, "model": "local:/etc/passwd"}, "The model 'local:/etc/passwd' was not offered."),
        ({"auto": True, "scale": 5}, "A picture is enlarged 2, 3 or 4 times."),
        ({"auto": True, "scale": [2]}, "A picture is enlarged 2, 3 or 4 times."),
        ([], "The request is no JSON object."),
    ],
)
def test_wrong_requests_say_what_is_wrong(serve, png, data, message):
    served = serve()
    id = served.ready(png)
    answer = served.client.post(f"/{TOKEN}/api/pictures/{id}/restore", content=json.dumps(data))
    assert answer.status_code == 400 and answer.json()["error"].startswith(message)
    assert served.picture(id)["state"] == "ready"


def test_requests_that_are_no_json_or_too_long_are_refused(serve, png):
    served = serve()
    id = served.ready(png)
    path = f"/{TOKEN}/api/pictures/{id}/restore"
    assert served.client.post(path, content=b"{").json()["error"] == "The request is no JSON."
    assert served.client.post(path, content=b"[" * 60000).json()["error"] == "The request is no JSON."
    assert served.client.post(path, content=b" " * (65 << 10)).status_code == 413


def test_a_failure_is_said_and_the_queue_goes_on(serve, png, monkeypatch, capsys):
    served = serve()
    first, second = served.ready(png), served.ready(png)
    real = api.restore

    def restore(image: Any, **options: Any) -> Any:
        monkeypatch.setattr(api, "restore", real)
        raise ZeroDivisionError("odd")

    monkeypatch.setattr(api, "restore", restore)
    for id in (first, second):
        served.post(f"pictures/{id}/restore", AUTO)
    assert served.wait(first, "failed")["error"]["error"] == "A bug in irtool (ZeroDivisionError: odd)."
    assert served.wait(second, "done")
    assert "ZeroDivisionError" in capsys.readouterr().err
    served.post(f"pictures/{first}/restore", AUTO)
    assert served.wait(first, "done")["error"] is None


@pytest.mark.slow
def test_40_megapixels_are_restored_whole(serve):
    rows, columns = (np.linspace(0, 255, n, dtype=np.uint8) for n in (5400, 7500))
    stream = io.BytesIO()
    Image.fromarray(rows[:, None] // 2 + columns[None] // 2).save(stream, "JPEG", quality=80)
    served = serve()
    answer = served.add(stream.getvalue(), "large.jpg")
    served.post(f"pictures/{answer.json()['id']}/restore", AUTO)
    end = time.monotonic() + 1800
    while time.monotonic() < end and served.picture(answer.json()["id"])["state"] not in ("done", "failed"):
        time.sleep(0.2)
    picture = served.picture(answer.json()["id"])
    assert picture["state"] == "done", picture.get("error")
    for kind in ("result", "after.jpg"):
        found = Image.open(io.BytesIO(served.get(f"api/pictures/{picture['id']}/{kind}").content))
        assert found.size == (7500, 5400), kind
