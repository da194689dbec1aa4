"""irtool restore through the real executable, with tiny models."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
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
    assert made == ["a.jpg", "b.png", str(Path("sub", "ü.png"))]

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


def test_stdin_to_stdout(cli, using, photo, tmp_path):
    source = photo(tmp_path / "a.png")
    options = {"capture_output": True, "text": False}
    with source.open("rb") as stdin:
        clean = cli("restore", "-", stdin=stdin, env=using("clean"), **options)
    assert clean.returncode == 0 and clean.stdout == source.read_bytes()
    assert b"clean" in clean.stderr
    done = cli("restore", source, "-o", "-", "--format", "jpg", env=using("rain"), **options)
    assert done.returncode == 0 and done.stdout[:3] == b"\xff\xd8\xff"
    assert b"undid rain" in done.stderr


def test_tasks_strength_and_before_after(cli, using, photo, tmp_path):
    source = photo(tmp_path / "a.png")
    arguments = ("--task", "denoise,rain", "--task", "fog", "--strength", "0.5", "--side-by-side", "--threads", 1, "-v")
    done = cli("restore", source, *arguments, env=using("clean"))
    assert done.returncode == 0, done.stderr
    assert "undid noise, rain, haze at strength 0.5" in done.stdout and "peak memory" in done.stderr
    beside = pixels(tmp_path / "a.restored.side-by-side.jpg")
    assert beside.shape[1] > 2 * pixels(source).shape[1]


def test_existing_results_are_not_lost(cli, using, photo, tmp_path):
    source = photo(tmp_path / "a.png")
    kept = photo(tmp_path / "a.restored.png", seed=1).read_bytes()
    done = cli("restore", source, env=using("rain"))
    assert done.returncode == 2 and "--existing" in done.stderr
    assert (tmp_path / "a.restored.png").read_bytes() == kept
    done = cli("restore", source, "--existing", "rename", "-q", env=using("rain"))
    assert done.returncode == 0 and done.stdout == "" and done.stderr == ""
    assert (tmp_path / "a.restored-2.png").exists() and (tmp_path / "a.restored.png").read_bytes() == kept


def test_a_run_with_nothing_left_to_do_says_so(cli, photo, tmp_path):
    photo(tmp_path / "a.png")
    photo(tmp_path / "a.restored.png")
    done = cli("restore", tmp_path)  # no model is needed for this
    assert done.returncode == 0 and "1 skipped" in done.stderr


@pytest.mark.parametrize("plain", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {}])
def test_a_terminal_gets_progress_unless_it_wants_none(cli, using, photo, tmp_path, plain):
    pty = pytest.importorskip("pty")
    photo(tmp_path / "a.png")
    ours, theirs = pty.openpty()
    done = cli("detect", "a.png", cwd=tmp_path, capture_output=False, stdout=theirs, stderr=theirs,
               env=using("rain") | {"TERM": "xterm"} | plain)  # fmt: skip
    os.close(theirs)
    told = b""
    with contextlib.suppress(OSError):  # how Linux ends a terminal whose other side is closed
        while piece := os.read(ours, 1 << 16):
            told += piece
    os.close(ours)
    assert done.returncode == 0 and b"rain" in told
    assert (b"\x1b" in told) == (not plain)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_whole_files_and_goes_on(environment, cli, using, photo, tmp_path, number):
    photos = tmp_path / "in"
    for i in range(30):
        photo(photos / f"{i:02}{'_' * 120}.png", seed=i)
    command = [sys.executable, "-m", "irtool", "restore", str(photos), "-o", str(tmp_path / "out")]
    # A pipe that holds some ten lines: whoever reads one and no more stops the run before it has done them all.
    run = subprocess.Popen(
        command, env=environment | using("rain"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        pipesize=4096,
    )  # fmt: skip
    run.stdout.readline()  # the first picture is done
    run.send_signal(number)
    _, errors = run.communicate(timeout=600)
    assert run.returncode == 130
    assert "interrupted" in errors and "--existing skip" in errors and "Traceback" not in errors
    made = sorted((tmp_path / "out").iterdir())
    assert 1 <= len(made) < 30
    for path in made:
        assert path.suffix == ".png" and pixels(path).shape == (40, 56, 3)
    if number == signal.SIGINT:
        done = lines(cli(*command[3:], "--json", env=using("rain")).stdout)
        assert done[-1]["skipped"] == len(made) and done[-1]["restored"] == 30 - len(made)


def test_odd_pictures_and_odd_names(cli, using, photo, tmp_path):
    """1x1, thin, grey, alpha, 16 bit, and a name that is neither ASCII nor short of brackets."""
    odd = tmp_path / "in"
    photo(odd / "[red]ü 写真.png", size=(1, 1))
    photo(odd / "thin.png", size=(3, 700))
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (20, 30), dtype=np.uint8)).save(odd / "grey.png")
    Image.fromarray(rng.integers(0, 255, (20, 30, 4), dtype=np.uint8)).save(odd / "alpha.png")
    Image.fromarray(rng.integers(0, 65535, (20, 30), dtype=np.uint16)).save(odd / "deep.png")
    done = cli("restore", odd, "-o", tmp_path / "out", env=using("rain"))
    assert done.returncode == 0, done.stderr
    for name, mode, size in (
        ("[red]ü 写真.png", "RGB", (1, 1)),
        ("thin.png", "RGB", (700, 3)),
        ("grey.png", "L", (30, 20)),
        ("alpha.png", "RGBA", (30, 20)),
        ("deep.png", "I;16", (30, 20)),
    ):
        image = Image.open(tmp_path / "out" / name)
        assert (image.mode, image.size) == (mode, size)
    before, after = (np.asarray(Image.open(f / "alpha.png")) for f in (odd, tmp_path / "out"))
    assert np.array_equal(before[..., 3], after[..., 3])


def test_a_mask_fills_what_it_marks(cli, using, photo, tmp_path):
    source, mask = photo(tmp_path / "a.png"), tmp_path / "mask.png"
    holes = np.zeros(pixels(source).shape[:2], bool)
    holes[3:9, 4:20] = True
    Image.fromarray(holes.astype(np.uint8) * 255).save(mask)
    done = cli("restore", source, "--mask", mask, env=using("clean"))
    assert done.returncode == 0, done.stderr
    changed = (pixels(tmp_path / "a.restored.png") != pixels(source)).any(2)
    assert changed[holes].any() and not changed[~holes].any()


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--mask", "nowhere.png"], "nowhere.png is not a file"),
        (["--mask", "a.png", "--auto"], "Leave --auto"),
        (["--mask", "a.png", "--task", "derain"], "needs --task missing"),
    ],
)
def test_a_mask_that_is_of_no_use_is_refused_at_once(cli, using, photo, tmp_path, arguments, said):
    source = photo(tmp_path / "a.png")
    done = cli("restore", source, *(str(tmp_path / a) if a == "a.png" else a for a in arguments), env=using("clean"))
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "a.restored.png").exists()


def test_a_mask_of_another_size_is_named(cli, using, photo, tmp_path):
    source = photo(tmp_path / "a.png")
    Image.new("L", (5, 4)).save(tmp_path / "mask.png")
    done = cli("restore", source, "--mask", tmp_path / "mask.png", env=using("clean"))
    assert done.returncode in (1, 2) and "mask.png has 5x4 pixels" in done.stderr
    assert not (tmp_path / "a.restored.png").exists()


def test_empty_files_that_a_power_cut_left_are_done_again(cli, using, photo, tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        photo(tmp_path / "in" / name)
    command = ("restore", tmp_path / "in", "-o", tmp_path / "out", "--task", "denoise", "--json")
    assert cli(*command, env=using("clean")).returncode == 0
    whole = (tmp_path / "out/a.png").read_bytes()
    (tmp_path / "out/a.png").write_bytes(b"")
    (tmp_path / "out/b.png").write_bytes(b"something else")
    done = cli(*command, env=using("clean"))
    assert done.returncode == 0 and json.loads(done.stdout.splitlines()[-1])["skipped"] == 2, done.stderr
    assert (tmp_path / "out/a.png").read_bytes() == whole
    assert (tmp_path / "out/b.png").read_bytes() == b"something else"
