"""The page of a run, `restore --review`: all pictures, in one file that loads nothing and stays small."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from irtool import account
from irtool.page import review
from irtool.shard import Shard


def data(page: Path) -> dict[str, Any]:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page.read_text(encoding="utf-8"))
    assert found is not None
    return dict(json.loads(found[1]))


def rows(page: Path) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in data(page)["rows"]}


def decoded(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.removeprefix("data:image/jpeg;base64,"))))


@pytest.fixture
def folder(photo: Callable[..., Path], tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    slope = Image.linear_gradient("L")
    smooth = Image.merge("RGB", (slope, slope.rotate(90), slope.rotate(180))).resize((56, 40))
    smooth.save(tmp_path / "in" / "a.png")
    photo(tmp_path / "in" / "sub" / "b <b>&amp; %41.jpg", seed=1)
    (tmp_path / "in" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    return tmp_path / "in"


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_the_page_says_what_became_of_every_picture(cli, using, folder, tmp_path, jobs):
    out = tmp_path / "out"
    done = cli("restore", folder, "-r", "-o", out, "--review", "--jobs", jobs, env=using("rain"))
    assert done.returncode == 1 and f"review: {out / 'review.html'}" in done.stderr
    found = rows(out / "review.html")
    assert set(found) == {"a.png", "sub/b <b>&amp; %41.jpg", "broken.png"}
    row = found["a.png"]
    assert row["status"] == "restored" and row["undone"] == ["rain"] and row["found"][0][0] == "rain"
    assert row["change"] > 0 and row["href"] == "a.png" and row["why"] == ""
    before, after, thumb = (decoded(row[kind]) for kind in ("before", "after", "thumb"))
    assert before.size == after.size == thumb.size == (56, 40)
    source, result = (np.asarray(Image.open(p / "a.png").convert("RGB"), float) for p in (folder, out))
    assert np.abs(np.asarray(before, float) - source).mean() < 4
    assert np.abs(np.asarray(after, float) - result).mean() < 7 < np.abs(source - result).mean()
    assert found["sub/b <b>&amp; %41.jpg"]["href"] == "sub/b%20%3Cb%3E%26amp%3B%20%2541.jpg"
    broken = found["broken.png"]
    assert broken["status"] == "failed" and broken["error"].startswith("broken.png: damaged") and "thumb" not in broken
    changes = [row["change"] for row in data(out / "review.html")["rows"]]
    assert changes == sorted(changes, reverse=True)


def test_the_page_loads_nothing_and_runs_only_its_own_script(cli, using, folder, tmp_path):
    cli("restore", folder, "-r", "-o", tmp_path / "out", "--review", env=using("rain"))
    page = (tmp_path / "out" / "review.html").read_text(encoding="utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None and policy[1].startswith("default-src 'none'; img-src data:; ")
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", page) and "://" not in page
    assert "<b>&amp;" not in page  # names come as data


def test_a_resumed_run_keeps_what_was_there(cli, using, folder, photo, tmp_path):
    out = tmp_path / "out"
    cli("restore", folder, "-o", out, "--review", env=using("rain"))
    photo(folder / "c.png", seed=2)
    done = cli("restore", folder, "-o", out, "--review", env=using("clean"))
    assert "1 skipped" in done.stderr
    found = rows(out / "review.html")
    assert set(found) == {"a.png", "broken.png", "c.png"} and found["a.png"]["before"]
    assert found["c.png"]["status"] == "clean" and "before" not in found["c.png"] and found["c.png"]["thumb"]
    (folder / "broken.png").unlink()
    done = cli("restore", folder, "-o", out, "--review", env=using("rain"))
    assert done.returncode == 0 and "review:" in done.stderr
    assert cli("restore", out / "review.html", env=using("rain")).returncode == 1


def test_where_there_is_no_account_it_is_said(cli, using, folder, tmp_path):
    (folder / "broken.png").unlink()
    cli("restore", folder, "-o", tmp_path / "out", env=using("rain"))
    done = cli("restore", folder, "-o", tmp_path / "out", "--review", env=using("rain"))
    assert done.returncode == 0 and "no review: " in done.stderr


def test_it_needs_an_output_folder_and_replaces_no_page_of_others(cli, using, folder, tmp_path):
    alone = cli("restore", folder, "--review", env=using("rain"))
    assert alone.returncode == 2 and alone.stderr.startswith("error: --review goes into an output folder.")
    single = cli("restore", folder / "a.png", "-o", tmp_path / "x.png", "--review", env=using("rain"))
    assert single.returncode == 2 and not (tmp_path / "x.png").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "review.html").write_text("mine")
    done = cli("restore", folder, "-o", tmp_path / "out", "--review", env=using("rain"))
    assert done.returncode == 2 and "was not made by irtool" in done.stderr
    assert (tmp_path / "out" / "review.html").read_text() == "mine"
    assert not (tmp_path / "out" / "a.png").exists()


def test_a_named_file_goes_into_a_folder_with_its_review(cli, using, folder, tmp_path):
    done = cli("restore", folder / "a.png", "-o", f"{tmp_path / 'out'}/", "--review", env=using("rain"))
    assert done.returncode == 0 and set(rows(tmp_path / "out" / "review.html")) == {"a.png"}


def test_the_page_of_thousands_stays_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(review, "MOST_PAIRS", 5)
    monkeypatch.setattr(review, "MOST_THUMBNAILS", 20)
    place = tmp_path / account.FOLDER / review.FOLDER
    place.mkdir(parents=True)
    lines = [{"type": "run", "time": 0.0}]
    for i in range(3000):
        path, target = f"/pictures/{i}.png", tmp_path / f"{i}.png"
        target.touch()
        plan = {"steps": [{"mixture": {"rain": 1.0}, "model": "m"}], "reason": "found rain 0.99"}
        lines.append({"type": "image", "time": 1.0 + i, "path": path, "relative": target.name, "status": "restored",
                      "plan": plan, "change": float(i)})  # fmt: skip
        for kind in ("thumb", "before", "after"):
            (place / f"{review._key(path)}.{kind}.jpg").write_bytes(bytes(1000))
    (tmp_path / account.FOLDER / "all.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = review.write(tmp_path)
    found = data(page)["rows"]
    assert [row["name"] for row in found[:2]] == ["2999.png", "2998.png"] and len(found) == 3000
    assert sum("before" in row for row in found) == 5 and sum("thumb" in row for row in found) == 20
    assert page.stat().st_size < 3000 * 500 + 40 * 1400


def test_the_shards_of_a_run_share_one_page(cli, using, photo, tmp_path):
    names = {f"{letter}.png" for letter in "abcd"}
    assert {Shard(0, 2).takes(name) for name in names} == {True, False}
    for i, name in enumerate(sorted(names)):
        photo(tmp_path / "in" / name, seed=i)
    for shard in ("1/2", "2/2"):
        done = cli("restore", tmp_path / "in", "-o", tmp_path / "out", "--review", "--shard", shard, env=using("rain"))
        assert done.returncode == 0 and "review:" in done.stderr, done.stderr
    found = rows(tmp_path / "out" / "review.html")
    assert set(found) == names
    assert all(row["status"] == "restored" and row["before"] and row["after"] for row in found.values())
