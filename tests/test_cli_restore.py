"""irtool restore through the real executable, with tiny models."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_auto_restores_what_is_found_and_leaves_the_input_alone(cli, using, photo, tmp_path):
    source = photo(tmp_path / "a.png")
    before = source.read_bytes()
    done = cli("restore", source, "--auto", "--json", env=using("mixed"))
    assert done.returncode == 0, done.stderr
    image, summary = lines(done.stdout)
    target = tmp_path / "a.restored.png"
    assert image["type"] == "image" and image["status"] == "restored" and image["output"] == str(target)
    assert len(image["plan"]["steps"]) == 1 and len(image["plan"]["steps"][0]["mixture"]) == 3
    assert len(image["diagnosis"]["present"]) == 4
    assert summary["type"] == "summary" and summary["restored"] == 1 and summary["exit_code"] == 0
    assert source.read_bytes() == before
    assert pixels(target).shape == pixels(source).shape and not np.array_equal(pixels(target), pixels(source))


def test_a_clean_photo_is_passed_through_byte_for_byte(cli, using, photo, tmp_path):
    source = photo(tmp_path / "a.jpg")
    done = cli("restore", source, env=using("clean"))
    assert done.returncode == 0, done.stderr
    assert "clean" in done.stdout and done.stderr == ""
    assert (tmp_path / "a.restored.jpg").read_bytes() == source.read_bytes()


def test_a_folder_run_mirrors_the_tree_goes_on_past_broken_files_and_resumes(cli, using, photo, tmp_path):
    photos = tmp_path / "in"
    for name in ("b.png", "a.jpg", "sub/ü.png"):
        photo(photos / name)
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    (photos / "notes.txt").write_text("no picture")
    out = photos / "out"  # inside the input: must not be read as input the second time
    arguments = ("restore", photos, "-r", "-o", out, "--json")
    done = cli(*arguments, env=using("rain"))
    assert done.returncode == 1
    assert "broken.jpg" in done.stderr and "Traceback" not in done.stderr
    records = lines(done.stdout)
    assert [Path(r["input"]).name for r in records[:-1]] == ["a.jpg", "b.png", "broken.jpg", "ü.png"]
    assert records[-1]["restored"] == 3 and records[-1]["failed"] == 1
    made = sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
    assert made == ["a.jpg", "b.png", os.path.join("sub", "ü.png")]

    (out / "b.png").unlink()
    again = lines(cli(*arguments, env=using("rain")).stdout)
    assert again[-1]["restored"] == 1 and again[-1]["skipped"] == 2 and again[-1]["failed"] == 1


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_the_input_is_never_the_output(cli, photo, tmp_path, link):
    source = photo(tmp_path / "a.png")
    link(source, tmp_path / "same.png")
    for name in ("a.png", "same.png"):
        done = cli("restore", source, "-o", tmp_path / name, "--existing", "overwrite")
        assert done.returncode == 2 and "never written to" in done.stderr


def test_dry_run_says_the_plan_and_writes_nothing(cli, using, photo, tmp_path):
    source = photo(tmp_path / "a.png")
    done = cli("restore", source, "--dry-run", "-o", tmp_path / "new" / "x.png", env=using("rain"))
    assert done.returncode == 0 and "undo rain" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png"]
