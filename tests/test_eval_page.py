"""The page of a run, opened in a browser without a window: no word on its console, and it sorts, finds and slides."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from irtool.data import between, get_protocol
from irtool.evaluation import EvalRequest, evaluate, header, summarize
from irtool.evaluation.published import rows_of
from irtool.evaluation.report import Report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# What a reader does, and what the page shows then.
READER = """
<script>
const names = () => [...document.querySelectorAll("#rows tr")].map(r => r.dataset.name || "broken").join(" ");
const clips = () => Object.fromEntries([...document.querySelectorAll("#viewer .layer")].map(l => [l.dataset.kind, l.style.clipPath]));
const sorted = key => { document.querySelector(`th[data-key=${key}] button`).click(); return names(); };
const told = { first: names(), name: sorted("name"), back: sorted("name"), before: clips() };
const frame = document.getElementById("viewer"), box = frame.getBoundingClientRect();
const point = (type, share) => frame.dispatchEvent(new PointerEvent(type, { bubbles: true, buttons: 1, clientX: box.left + share * box.width, clientY: box.top + 9 }));
point("pointerdown", 0.32); point("pointermove", 0.1);
told.after = clips();
const search = document.querySelector("input[type=search]");
search.value = "2"; search.dispatchEvent(new Event("input"));
told.found = names();
document.querySelectorAll(".thumbs button")[0].click();
told.shown = document.querySelector("#viewer img").alt;
told.measured = document.querySelector("tr.measured").textContent;
told.cite = document.getElementById("cite").textContent;
document.body.append(Object.assign(document.createElement("pre"), { id: "told", textContent: JSON.stringify(told) }));
</script>
"""  # noqa: E501


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_the_page_in_a_browser(tmp_path: Path, photo: Callable[..., Path]) -> None:
    for i in range(3):
        photo(tmp_path / "low" / f"{i}.png", seed=i)
        photo(tmp_path / "high" / f"{i}.png", seed=i + 1 if i else 0)
    photo(tmp_path / "low" / "3.png")
    found = between(tmp_path / "low", [tmp_path / "high"])
    request = EvalRequest(found, get_protocol("canonical"), "none", dataset="lol")
    page = Report(tmp_path / "out", header(request))
    records = list(evaluate(replace(request, keep=page.keep)))
    for record in records:
        page.add(record)
    summary = summarize(records)
    path = page.finish(records, summary, title="LOL, none", notes=["3 is broken"], rows=rows_of("lol"))
    path.write_text(path.read_text(encoding="utf-8").replace("</body>", READER + "</body>"), encoding="utf-8")
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=1200,2400")
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = [BROWSER, *options, profile, "--virtual-time-budget=2000", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)  # type: ignore[arg-type]
    assert "CONSOLE" not in done.stderr
    match = re.search('<pre id="told">(.*?)</pre>', done.stdout)
    assert match, done.stderr
    told = json.loads(unescape(match[1]))
    by_psnr = sorted((r for r in records if "error" not in r), key=lambda r: r["output"]["psnr"] or 999)
    assert told["first"] == " ".join(["broken", *(r["name"] for r in by_psnr)])
    assert (told["name"], told["back"]) == ("broken 0 1 2", "broken 2 1 0")
    assert "33.3" in told["before"]["after"] and told["before"]["truth"] != told["before"]["before"]
    assert told["after"]["before"] == "inset(0px 90% 0px 0%)"
    assert told["after"]["truth"] == told["before"]["truth"]
    assert told["found"] == "2"
    assert told["shown"].endswith(f": {by_psnr[0]['name']}")
    assert "none" in told["measured"] and "measured here on 3 of 4 pairs" in told["measured"]
    assert re.search(r"LOL, none: PSNR [\d.]+ dB, SSIM [\d.]+ \(3 of 4 pairs, protocol canonical, files", told["cite"])
