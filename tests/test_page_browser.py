"""The page and the review in a browser: what people do, and not a word on the console."""

from __future__ import annotations

import asyncio
import base64
import io
import re
import shutil
import socket
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
pytest.importorskip("playwright", reason="playwright is not installed")
import uvicorn
from page_samples import TOKEN, page_of, slowed
from playwright import sync_api as playwright

from irtool.page.app import create_app

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")

DROP = """async ([name, data, type]) => {
  const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  for (const kind of ["dragenter", "dragover", "drop"]) {
    document.body.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: transfer }));
  }
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


class Tab:
    """A tab, with what was written on its console."""

    def __init__(self, context: Any, address: str) -> None:
        self.page, self.words = context.new_page(), list[str]()
        self.page.set_default_timeout(120_000)
        self.page.on("console", lambda message: self.words.append(message.text))
        self.page.on("pageerror", lambda error: self.words.append(str(error)))
        self.page.on("request", self._watch)
        self.address = address
        self.page.goto(address)

    def _watch(self, request: Any) -> None:
        if not request.url.startswith((self.address.rpartition("/")[0], "data:", "blob:")):
            self.words.append(f"asks {request.url}")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.page, name)

    def drop(self, name: str, content: bytes, type: str = "image/png") -> None:
        self.page.evaluate(DROP, [name, base64.b64encode(content).decode(), type])

    def shows(self, selector: str, text: str | re.Pattern[str]) -> None:
        playwright.expect(self.page.locator(selector)).to_contain_text(text, timeout=120_000)

    def until(self, expression: str) -> None:
        """Wait; Playwright's own way would need `eval` in the page, which its policy forbids."""
        end = time.monotonic() + 120
        while not self.page.evaluate(expression):
            assert time.monotonic() < end, expression
            self.page.wait_for_timeout(20)

    def restored(self) -> None:
        self.until("document.querySelector('.after img').naturalWidth > 0")
        self.shows("#done", "Removed")

    def split(self) -> float:
        clip = str(self.page.eval_on_selector(".pane.after", "e => e.style.clipPath"))
        return float(re.findall(r"[\d.]+", clip)[-1])


@pytest.fixture
def serve(browser: Any, models_dir: Path, tmp_path: Path) -> Iterator[Callable[..., Callable[..., Tab]]]:
    endings: list[Callable[[], None]] = []
    tabs: list[Tab] = []

    def make(folder: Path | None = None, detector: str = "rain", **limits: int) -> Callable[..., Tab]:
        page = page_of(models_dir, tmp_path / "scratch", "photos", folder, detector=detector, **limits)
        listening = socket.create_server(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/{TOKEN}/"
        server = uvicorn.Server(
            uvicorn.Config(create_app(page, TOKEN, "127.0.0.1"), log_level="error", timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
        thread.start()
        context = browser.new_context(viewport={"width": 1200, "height": 800}, accept_downloads=True)

        def end() -> None:
            context.close()
            server.should_exit = True
            thread.join(30)
            listening.close()

        endings.append(end)

        def tab() -> Tab:
            tabs.append(Tab(context, address))
            return tabs[-1]

        return tab

    yield make
    words = [word for tab in tabs for word in tab.words]
    for end in endings:
        end()
    assert words == []


@pytest.fixture
def png(photo: Callable[..., Path], tmp_path: Path) -> bytes:
    return photo(tmp_path / "made" / "a.png", (120, 180)).read_bytes()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """A restoration of hundreds of tiles, until the event is set."""
    return slowed(monkeypatch, 600, 0.02)


def test_drop_run_slide_zoom_and_download(serve, png, tmp_path):
    tab = serve()()
    tab.shows("#empty", "Drop pictures here")
    tab.drop("holiday.png", png)
    tab.shows("#verdict", "Found")
    tab.shows("#found", "rain")
    assert tab.text_content("#name") == "holiday.png" and "180 \u00d7 120" in tab.text_content("#facts")
    assert tab.is_checked("#found input[type=checkbox]")
    tab.get_by_role("button", name="Show where: rain").click()
    tab.until("document.querySelector('.where').naturalWidth > 0")
    tab.click("#restore")
    tab.restored()
    box = tab.locator(".view").bounding_box()
    start = tab.split()
    tab.mouse.move(box["x"] + start, box["y"] + 100)
    tab.mouse.down()
    tab.mouse.move(box["x"] + start - 80, box["y"] + 100, steps=4)
    tab.mouse.up()
    assert abs(tab.split() - (start - 80)) < 3
    tab.focus(".split")
    tab.keyboard.press("End")
    assert tab.input_value(".split") == "100"
    for mode, panes in (("Side by side", 2), ("Before", 1), ("After", 1), ("Slider", 2)):
        tab.get_by_role("button", name=mode, exact=True).click()
        assert tab.locator(".pane:visible").count() == panes, mode
    tab.get_by_role("button", name="100 %").click()
    width = tab.eval_on_selector(".after img", "e => e.getBoundingClientRect().width * devicePixelRatio")
    assert width == pytest.approx(180, abs=0.5)
    with tab.expect_download() as waiting:
        tab.click("#download")
    assert waiting.value.suggested_filename == "holiday.restored.png"
    assert Image.open(waiting.value.path()).size == (180, 120)
    assert not tab.is_visible("#save")  # the page knows no folder of what was dropped


def test_switches_strength_and_words(serve, png):
    tab = serve(detector="mixed")()
    tab.drop("a.png", png)
    tab.shows("#verdict", "Found")
    tab.get_by_role("switch", name="haze").uncheck()
    tab.get_by_role("slider", name="Strength: rain").fill("50")
    tab.shows("#tasks", "Back to automatic")
    tab.click("#restore")
    tab.shows("#done", "rain")
    assert "haze" not in tab.text_content("#done") and "at strength 0.5" in tab.text_content("#done")
    tab.fill("#sentence", "remove the rain, keep the grain")
    tab.keyboard.press("Enter")
    tab.shows("#heard", "Understood: remove rain; keep noise.")
    assert not tab.get_by_role("switch", name="noise").is_checked()
    tab.fill("#sentence", "make me look younger")
    tab.click("#words button")
    tab.shows("#heard.bad", "irtool does not alter people")
    tab.click("#reset")
    assert tab.get_by_role("switch", name="haze").is_checked()
    tab.words.remove("Failed to load resource: the server responded with a status of 400 (Bad Request)")


def test_brush_by_pointer_and_by_key(serve, png):
    tab = serve(detector="clean")()
    tab.drop("a.png", png)
    tab.shows("#verdict", "Nothing found")
    assert tab.is_disabled("#restore")
    tab.click("#brush")
    tab.until("document.querySelector('.before img').clientWidth > 0")  # it may not have been loaded yet
    box = tab.locator(".before img").first.bounding_box()
    tab.mouse.move(box["x"] + 40, box["y"] + 40)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 120, box["y"] + 40, steps=5)
    tab.mouse.up()
    assert tab.get_by_role("switch", name="missing regions").is_checked()
    tab.focus(".view")
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "Space"):
        tab.keyboard.press(key)
    painted = tab.evaluate(
        "() => { const c = document.querySelector('.pane canvas');"
        "return [c.width, c.height, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
        ".filter((v, i) => i % 4 === 3 && v > 127).length]; }"
    )
    assert painted[:2] == [180, 120] and painted[2] > 200
    tab.click("#restore")
    tab.restored()
    with tab.expect_download() as waiting:
        tab.click("#download")
    result = np.asarray(Image.open(waiting.value.path()).convert("RGB"), int)
    changed = (result != np.asarray(Image.open(io.BytesIO(png)), int)).any(axis=2)
    assert 0 < changed.sum() <= painted[2] + 50


def test_cancel_and_two_tabs(serve, png, slow):
    tab = serve()
    first, second = tab(), tab()
    first.drop("a.png", png)
    first.shows("#verdict", "Found")
    second.shows("#name", "a.png")  # both see the same
    first.click("#restore")
    second.bring_to_front()
    second.shows("#status", "Restoring a.png")
    second.wait_for_selector("#cancel:visible")
    second.shows("#progress-text", "%")
    second.click("#cancel")
    first.bring_to_front()
    first.wait_for_selector("#restore:visible")
    assert not first.is_visible("#result")
    slow.set()
    first.keyboard.press("Control+Enter")
    first.restored()
    first.click("#remove")
    second.bring_to_front()
    second.shows("#empty", "Drop pictures here")


def test_errors_are_said_in_words(serve, png):
    tab = serve(pixels=180 * 120, file_bytes=100_000)()
    tab.drop("notes.txt", b"hello", "text/plain")
    tab.shows("#notices", "notes.txt is not a picture of a known kind")
    stream = io.BytesIO()
    Image.new("L", (181, 120)).save(stream, "PNG")
    tab.drop("large.png", stream.getvalue())
    tab.shows("#notices", "large.png: 181 x 120 is more than the 0.0216 megapixels allowed")
    tab.drop("heavy.png", bytes(100_001))
    tab.shows("#notices", "heavy.png has 100 kB; at most 100 kB are taken")
    tab.drop("cut.png", png[:2000])
    tab.shows("#notices", "cut.png: damaged or incomplete PNG file")
    stream = io.BytesIO()
    Image.open(io.BytesIO(png)).save(stream, "JPEG")
    tab.drop("broken.jpg", stream.getvalue()[: len(stream.getvalue()) // 2], "image/jpeg")
    tab.shows("#failure", "broken.jpg: damaged or incomplete JPEG file")
    assert tab.is_disabled("#restore")
    while tab.locator("#notices button").count():
        tab.locator("#notices button").first.click()
    assert tab.text_content("#notices") == ""
    refused = "Failed to load resource: the server responded with a status of 400 (Bad Request)"
    assert tab.words == [refused] * 3
    tab.words.clear()


def test_hostile_names_stay_text(serve, photo, tmp_path):
    name = "<img src=x onerror=document.title='owned'>&lt;.png"
    photo(tmp_path / "in" / name, (60, 90))
    photo(tmp_path / "in" / "b\u202egnp.exe.png", (60, 90))
    tab = serve(tmp_path / "in")()
    tab.shows("#title", "photos")
    tab.get_by_role("button", name="onerror").click()
    tab.shows("#verdict", "Found")
    assert tab.text_content("#name") == name and tab.title() == "photos \u00b7 irtool"
    assert "\u202e" not in tab.text_content("#strip")
    tab.click("#restore")
    tab.restored()
    tab.click("#save")
    tab.shows("#save", "Saved as <img src=x")
    assert (tmp_path / "in" / name.replace(".png", ".restored.png")).is_file()
    tab.click("#restore")
    tab.wait_for_selector("#save:enabled")
    tab.click("#save")
    tab.shows("#taken", "exists already")
    tab.get_by_role("button", name="Keep both").click()
    tab.shows("#save", "Saved as <img")
    assert (tmp_path / "in" / name.replace(".png", ".restored-2.png")).is_file()
    tab.words.remove("Failed to load resource: the server responded with a status of 409 (Conflict)")


def test_all_at_once_by_keyboard_on_a_narrow_screen(serve, photo, tmp_path):
    for i in range(3):
        photo(tmp_path / "in" / f"{i}.png", (60, 90), seed=i)
    tab = serve(tmp_path / "in")()
    tab.set_viewport_size({"width": 380, "height": 740})
    tab.shows("#verdict", "Found")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 380
    tab.locator("#strip button").first.focus()
    tab.keyboard.press("ArrowRight")
    tab.shows("#name", "1.png")
    tab.check("#save-all")
    tab.focus("#restore-all")
    tab.keyboard.press("Enter")
    tab.shows("#restore-all", "All are restored")
    assert len(list((tmp_path / "in").glob("*.restored.png"))) == 3
    assert tab.evaluate("document.documentElement.scrollWidth") <= 380
    unnamed = tab.evaluate(
        "() => [...document.querySelectorAll('button, input, select, a')].filter(e => e.checkVisibility()"
        " && !(e.ariaLabel || e.textContent.trim() || e.labels?.length)).map(e => e.outerHTML)"
    )
    assert unnamed == []


@pytest.mark.parametrize(("width", "height"), [(4000, 3000), pytest.param(7500, 5400, marks=pytest.mark.slow)])
def test_a_large_picture_is_shown_previewed_and_cancelled(serve, width, height):
    rows = np.linspace(0, 255, height, dtype=np.uint8)[:, None]
    columns = np.linspace(0, 255, width, dtype=np.uint8)[None]
    stream = io.BytesIO()
    Image.fromarray(rows // 2 + columns // 2).save(stream, "JPEG", quality=80)
    tab = serve()()
    path = tab.locator("#files")
    path.set_input_files({"name": "large.jpg", "mimeType": "image/jpeg", "buffer": stream.getvalue()})
    tab.shows("#facts", f"{width} \u00d7 {height}")
    tab.until(f"document.querySelector('.before img').naturalWidth === {width}")
    tab.click("#restore")
    tab.shows(".tag.right", "preview, reduced")
    tab.until("document.querySelector('.after img').naturalWidth > 0")
    began = time.monotonic()
    tab.click("#cancel")
    tab.wait_for_selector("#restore:visible")
    assert time.monotonic() - began < 180  # the next tile; a machine may be busy


def test_the_review_in_a_browser(browser, cli, using, photo, tmp_path):
    for i in range(3):
        photo(tmp_path / "in" / f"{i} <b>.png", (60, 90), seed=i)
    (tmp_path / "in" / "broken.png").write_bytes(b"no picture")
    cli("restore", tmp_path / "in", "-o", tmp_path / "out", "--review", env=using("rain"))
    context = browser.new_context(viewport={"width": 380, "height": 740})
    tab = Tab(context, (tmp_path / "out" / "review.html").as_uri())
    tab.shows("#counts", "4 pictures: 3 restored, 0 untouched, 1 failed.")
    assert tab.locator("#pictures li").count() == 4
    assert tab.evaluate("document.documentElement.scrollWidth") <= 380
    tab.locator("#pictures button").first.click()
    tab.shows("#facts", "rain")
    tab.focus("dialog input[type=range]")
    tab.keyboard.press("Home")
    assert "0%)" in tab.eval_on_selector(".pair img + img", "e => e.style.clipPath")
    assert tab.eval_on_selector(".pair img", "e => e.naturalWidth") == 90
    tab.click("#next")
    tab.click("#close")
    tab.get_by_role("button", name="Failed 1").click()
    tab.shows("#pictures", "is not a picture")
    tab.fill("#search", "nothing like it")
    tab.shows("#none", "No picture is so.")
    assert tab.words == []
    context.close()
