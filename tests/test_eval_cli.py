"""irtool eval as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irtool.cli import main
from irtool.metrics import extra

Photo = Callable[..., Path]


@pytest.fixture
def pairs(tmp_path: Path, photo: Photo) -> Path:
    for i in range(2):
        photo(tmp_path / "rain" / f"{i}.png", seed=i)
        photo(tmp_path / "norain" / f"{i}.png", seed=i + 10)
    return tmp_path


@pytest.fixture
def run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Runs irtool in this process: (exit code, stdout, stderr)."""
    monkeypatch.setenv("IRTOOL_DATASETS", str(tmp_path / "sets"))

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main([str(a) for a in arguments])
        return code, *capsys.readouterr()

    return call


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_two_folders_are_scored_by_a_model(pairs: Path, models_dir: Path, run: Callable[..., Any]) -> None:
    model = f"local:{models_dir / 'restorer.safetensors'}"
    folders = ("--lq", pairs / "rain", "--gt", pairs / "norain")
    code, out, err = run("eval", *folders, "--model", model, "--task", "derain", "--json")
    assert code == 0, err
    told = records(out)
    assert [record["type"] for record in told] == ["run", "image", "image", "summary"]
    assert told[0]["plan"]["steps"][0]["mixture"] == {"rain": 1.0}
    assert told[-1]["scored"] == 2
    assert told[-1]["output"]["psnr"]["mean"] == pytest.approx(np.mean([r["output"]["psnr"] for r in told[1:3]]))


def test_everything_a_run_writes(pairs: Path, run: Callable[..., Any]) -> None:
    out_folder = pairs / "out"
    arguments = (
        "eval", "--lq", pairs / "rain", "--gt", pairs / "norain", "--model", "none", "--metrics", "blur",
        "--report", out_folder, "--csv", pairs / "t.csv", "--save-images", pairs / "restored",
    )  # fmt: skip
    code, out, err = run(*arguments)
    assert code == 0, err
    assert "PSNR, dB" in out and "BLUR" in out and "\x1b" not in out
    assert "quote: rain, none: PSNR" in out and "protocol canonical" in out
    assert "2 pairs: rain/ against norain/; truth: the same name" in err
    assert (out_folder / "index.html").stat().st_size > 10_000
    assert len((pairs / "t.csv").read_text().splitlines()) == 3
    from PIL import Image

    restored = np.asarray(Image.open(pairs / "restored/0.png"))
    assert np.array_equal(restored, np.asarray(Image.open(pairs / "rain/0.png")))
    code, _, err = run(*arguments)
    assert code == 2 and "--resume" in err
    code, again, err = run(*arguments, "--resume")
    assert code == 0, err
    assert out.splitlines()[:6] == again.splitlines()[:6]
    data = (out_folder / "index.html").read_text()
    assert data.count("data:image/jpeg") == 6
    code, out, err = run("eval", "--compare", out_folder, out_folder)
    assert code == 0, err
    assert "pictures in both runs: 2" in out and "+0.00" in out
    run(*arguments[:6], "none", "--limit", "1", "--report", pairs / "less")
    _, out, err = run("eval", "--compare", out_folder, pairs / "less")
    assert f"in {out_folder} alone: 1" in err and "pictures in both runs: 1" in out


def test_broken_pairs_make_the_exit_code_one(pairs: Path, run: Callable[..., Any]) -> None:
    (pairs / "rain/0.png").write_bytes(b"x")
    code, _, err = run("eval", "--lq", pairs / "rain", "--gt", pairs / "norain", "--model", "none")
    assert code == 1
    assert "error: 0:" in err
    assert "1 of 2 pairs are broken and in no mean: 0" in err


def test_a_set_that_is_not_here_is_exit_three_with_its_origin(tmp_path: Path, run: Callable[..., Any]) -> None:
    for arguments in (("--root", tmp_path / "none"), (), ("--root", tmp_path)):
        code, _, err = run("eval", "--dataset", "rain100h", *arguments, "--model", "none")
        assert code == 3
        assert "icst.pku.edu.cn" in err and "norain" in err
    code, _, err = run("eval", "--dataset", "cbsd68", "--root", tmp_path, "--model", "none")
    assert code == 3 and "berkeley.edu" in err  # clean pictures, but none are there
    _, _, err = run("eval", "--dataset", "gopro", "--model", "none")
    assert "irtool download gopro" in err


def test_a_part_of_a_set_is_told_as_one(pairs: Path, run: Callable[..., Any]) -> None:
    code, out, err = run("eval", "--dataset", "rain100l", "--root", pairs, "--model", "none", "--against", "published")
    assert code == 0, err
    assert "a part of the set: 2 of 100" in err
    assert "PReNet" in out and "37.48" in out
    assert "(2 of 100 pairs, protocol rain-y" in out and "> none" in out
    assert "protocol rain-y" in out


def test_an_altered_set_is_told_as_one(tmp_path: Path, photo: Photo, run: Callable[..., Any]) -> None:
    for i in range(15):
        photo(tmp_path / "low" / f"{i}.png", seed=i)
        photo(tmp_path / "high" / f"{i}.png", seed=i + 20)
    code, _, err = run("eval", "--dataset", "lol", "--root", tmp_path, "--model", "none")
    assert code == 0, err
    assert "other file names" in err
    assert "altered: its input gives" in err and "7.77" in err


def test_clean_sets_are_degraded(tmp_path: Path, photo: Photo, run: Callable[..., Any]) -> None:
    photo(tmp_path / "kodim01.png")
    photo(tmp_path / "kodim02.png")
    code, _, err = run("eval", "--dataset", "kodak24", "--root", tmp_path, "--model", "none")
    assert code == 2 and "noise(15)" in err
    call = ("eval", "--dataset", "kodak24", "--root", tmp_path, "--model", "none", "--degrade", "noise(25)", "--json")
    code, out, err = run(*call)
    assert code == 0, err
    assert 19 < records(out)[-1]["input"]["psnr"]["mean"] < 22
    _, limited, _ = run(*call, "--limit", "1")
    assert records(limited)[1] | {"seconds": 0} == records(out)[1] | {"seconds": 0}
    _, only, _ = run(*call, "--only", "*2", "--protocol", "canonical")
    assert [r["name"] for r in records(only) if r["type"] == "image"] == ["kodim02"]


def test_lpips_is_that_of_the_protocol(pairs: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    make = extra.make
    monkeypatch.setattr(extra, "make", lambda name, device: asked.append(name) or make("blur"))
    folders = ("--lq", pairs / "rain", "--gt", pairs / "norain")
    code, _, err = run("eval", *folders, "--model", "none", "--protocol", "daclip", "--metrics", "lpips,lpips-alex")
    assert code == 0, err
    assert asked == ["lpips-alex"]


def test_wrong_requests_are_said(pairs: Path, run: Callable[..., Any]) -> None:
    folders = ("--lq", pairs / "rain", "--gt", pairs / "norain")
    for arguments, code, said in (
        ((), 2, "Name a data set"),
        ((*folders, "--degrade", "noise(5)"), 2, "exclude each other"),
        ((*folders, "--model", "none", "--resume"), 2, "--report"),
        ((*folders, "--model", "none", "--metrics", "lpips-alx"), 2, "lpips-alex"),
        ((*folders, "--model", "none", "--protocol", "dacklip"), 2, "daclip"),
        ((*folders, "--model", "none", "--only", "z*"), 4, "z*"),
        ((*folders, "--auto", "--task", "derain"), 2, "exclude"),
        (("--dataset", "nolol"), 2, "lol"),
        (("--dataset", "lol", "--lq", pairs / "rain", "--model", "none"), 2, "--gt"),
        (("--gt", pairs / "norain", "--model", "none"), 2, "--degrade"),
    ):
        got, _, err = run("eval", *arguments)
        assert (got, said in err) == (code, True), (arguments, err)


def test_lists(run: Callable[..., Any]) -> None:
    code, out, _ = run("eval", "datasets")
    assert code == 0 and "rain100h" in out and "snow100k-l" in out
    _, out, _ = run("eval", "datasets", "--json")
    assert len(records(out)) >= 18
    for what, word in (("protocols", "instructir-rain"), ("metrics", "lpips-vgg")):
        assert word in run("eval", what)[1]


def test_listing_sets_does_without_torch(environment: dict[str, str]) -> None:
    code = "import sys; from irtool.cli import main; main(['eval', 'datasets']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
