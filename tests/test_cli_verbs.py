"""detect, degrade, compare and train through the real executable."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from PIL import Image

from irtool.degradation import IDS


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_detect_says_what_is_wrong_with_each(cli, using, photo, tmp_path):
    for name in ("a.png", "b.jpg"):
        photo(tmp_path / name)
    (tmp_path / "c.png").write_bytes(b"no picture")
    done = cli("detect", tmp_path, "--json", env=using("rain"))
    assert done.returncode == 1 and "c.png" in done.stderr
    *images, summary = lines(done.stdout)
    assert [r["status"] for r in images] == ["degraded", "degraded", "failed"]
    assert images[0]["diagnosis"]["present"] == ["rain"] and set(images[0]["diagnosis"]["scores"]) == {*IDS, "clean"}
    assert summary["degraded"] == 2 and summary["failed"] == 1


def test_detect_says_clean_and_shows_all_scores_on_request(cli, using, photo, tmp_path):
    photo(tmp_path / "a.png")
    done = cli("detect", "a.png", cwd=tmp_path, env=using("clean"))
    assert done.returncode == 0 and done.stdout == "a.png: clean\n" and done.stderr == ""
    told = cli("detect", "-", "-v", stdin=(tmp_path / "a.png").open("rb"), env=using("rain")).stdout
    assert told.startswith("stdin: rain") and all(i in told for i in IDS)


def test_degrade_is_seeded_and_lossless_by_default(cli, photo, tmp_path):
    photo(tmp_path / "a.jpg")
    before = (tmp_path / "a.jpg").read_bytes()
    for seed, name in ((3, "x.png"), (3, "y.png"), (4, "z.png")):
        done = cli("degrade", "a.jpg", "noise(30)|jpeg(q=20)", "-o", name, "--seed", seed, cwd=tmp_path)
        assert done.returncode == 0 and "jpeg(q=20)" in done.stdout
    x, y, z = (np.asarray(Image.open(tmp_path / n)) for n in ("x.png", "y.png", "z.png"))
    assert np.array_equal(x, y) and not np.array_equal(x, z)
    record = lines(cli("degrade", "a.jpg", "haze", "--json", cwd=tmp_path).stdout)[0]
    assert record["output"] == "a.degraded.png" and (tmp_path / "a.degraded.png").exists()
    assert (tmp_path / "a.jpg").read_bytes() == before


def test_degrade_does_not_overwrite(cli, photo, tmp_path):
    photo(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    same = cli("degrade", "a.png", "haze", "-o", "a.png", "--existing", "overwrite", cwd=tmp_path)
    assert same.returncode == 2 and "never written to" in same.stderr
    photo(tmp_path / "b.png")
    assert cli("degrade", "a.png", "haze", "-o", "b.png", cwd=tmp_path).returncode == 2
    assert (tmp_path / "a.png").read_bytes() == before


@pytest.mark.parametrize(("chain", "told"), [("rian", "rain"), ("rain(densty=1)", "density"), ("noise(900)", "0..200")])
def test_degrade_names_what_is_wrong_in_a_string(cli, photo, tmp_path, chain, told):
    done = cli("degrade", photo(tmp_path / "a.png"), chain)
    assert done.returncode == 2 and told in done.stderr and len(list(tmp_path.iterdir())) == 1


def test_degrade_lists_and_draws_all(cli, photo, tmp_path):
    listed = lines(cli("degrade", "--list", "--json").stdout)
    assert {r["id"] for r in listed} >= set(IDS) and all(r["parameters"] for r in listed)
    done = cli("degrade", photo(tmp_path / "a.png"), "--sheet", "-o", tmp_path / "sheet.jpg")
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "sheet.jpg").width > 200


def test_compare(cli, tmp_path):
    gray = np.full((32, 48, 3), 100, np.uint8)
    for name, level in (("clean", 0), ("before", 10), ("after", 1)):
        Image.fromarray(gray + np.uint8(level)).save(tmp_path / f"{name}.png")
    done = cli("compare", "before.png", "after.png", "--truth", "clean.png", "-o", "x.png", "--json", cwd=tmp_path)
    record = json.loads(done.stdout)
    assert record["before_to_truth"]["psnr"] == pytest.approx(20 * math.log10(255 / 10), abs=1e-3)
    assert record["after_to_truth"]["psnr"] == pytest.approx(20 * math.log10(255), abs=1e-3)
    assert record["psnr_gain"] == pytest.approx(20, abs=1e-3) and 0 < record["after_to_truth"]["ssim"] <= 1
    assert Image.open(tmp_path / "x.png").width > 96
    alone = cli("compare", "before.png", "after.png", cwd=tmp_path).stdout
    assert f"PSNR {20 * math.log10(255 / 9):.2f} dB" in alone and "SSIM" in alone
    equal = json.loads(cli("compare", "before.png", "before.png", "--json", cwd=tmp_path).stdout)
    assert equal["psnr"] is None and equal["ssim"] == 1


def test_compare_names_pictures_that_differ_in_size_and_keeps_its_inputs(cli, photo, tmp_path):
    photo(tmp_path / "a.png", size=(8, 9))
    photo(tmp_path / "b.png", size=(9, 9))
    done = cli("compare", "a.png", "b.png", cwd=tmp_path)
    assert done.returncode == 1
    for part in ("a.png is 9x8", "b.png is 9x9"):
        assert part in done.stderr
    assert cli("compare", "a.png", "a.png", "-o", "a.png", cwd=tmp_path).returncode == 2
    small = cli("compare", "a.png", "a.png", cwd=tmp_path)
    assert small.returncode == 0 and "too small for SSIM" in small.stdout


def test_train_shows_its_plan(cli):
    arguments = ("train", "--recipe", "default", "--dry-run", "--json", "minutes=0", "steps=7", "model.width=8")
    recipe = json.loads(cli(*arguments).stdout)
    assert (
        recipe["type"] == "recipe" and recipe["steps"] == 7 and recipe["minutes"] == 0 and recipe["model"]["width"] == 8
    )
    wrong = cli("train", "--recipe", "default", "--dry-run", "stepps=7", "kind=nothing")
    assert wrong.returncode == 2 and "did you mean 'steps'" in wrong.stderr and "nothing" in wrong.stderr


def test_a_model_is_trained_exported_and_used(cli, using, photo, tmp_path):
    photo(tmp_path / "data" / "clean" / "a.png", size=(48, 48))
    changes = [
        "minutes=0",
        "steps=2",
        "report_every=1",
        "precision=fp32",
        'data=["clean"]',
        "region=32",
        "phases=[{until=1.0, crop=16, batch=2}]",
        "weights={noise=1.0}",
        "model={width=8, encoder=[1], decoder=[1], middle=1, rank=1, hidden=8}",
    ]
    arguments = ("--recipe", "default", "--data", "data", "--out", "run", "--device", "cpu", *changes)
    done = cli("train", *arguments, cwd=tmp_path, env={"HF_ASSETS_CACHE": str(tmp_path / "cache")})
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("checkpoint.pt") and "step 2" in done.stderr
    done = cli("train", "export", "run/checkpoint.pt", "tiny.safetensors", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    used = cli(
        "restore",
        "data/clean/a.png",
        "--task",
        "denoise",
        "--model",
        "local:tiny.safetensors",
        "-o",
        "x.png",
        cwd=tmp_path,
    )
    assert used.returncode == 0, used.stderr
    assert Image.open(tmp_path / "x.png").size == (48, 48)
    wrong = cli("train", "export", "data/clean/a.png", "other.safetensors", cwd=tmp_path)
    assert wrong.returncode == 2 and "no checkpoint" in wrong.stderr
