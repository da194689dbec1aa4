"""The Python API, with tiny models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import irtool
from irtool.errors import UsageError
from irtool.plan import Plan, Step

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@pytest.fixture
def use(models_dir):
    """Keyword arguments that name the tiny models."""
    return lambda name: {
        "model": f"local:{models_dir / 'restorer.safetensors'}",
        "detector": f"local:{models_dir / name}.safetensors",
        "dtype": "fp32",
    }


def test_importing_irtool_loads_nothing_heavy(environment):
    code = "import sys, irtool; sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'PIL', 'typer', 'rich')))"
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_the_function_detect_is_not_hidden_by_a_module_of_that_name():
    import irtool.detection.network

    assert callable(irtool.detect)


def test_every_public_name_is_there():
    for name in irtool.__all__:
        assert getattr(irtool, name) is not None
    with pytest.raises(AttributeError):
        irtool.nothing  # noqa: B018


def test_the_version_is_that_of_the_project():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert irtool.__version__ == project["project"]["version"]


def test_a_path_bytes_and_a_picture_give_the_same(use, photo, tmp_path):
    path = photo(tmp_path / "a.png")
    results = [irtool.restore(s, **use("mixed")) for s in (path, str(path), path.read_bytes())]
    assert len(results[0].plan.steps[0].task_weights) == 3 and len(results[0].diagnosis.present) == 4
    for result in results[1:]:
        assert np.array_equal(result.picture.pixels, results[0].picture.pixels)
        assert result.plan == results[0].plan


def test_a_clean_picture_comes_back_untouched(use, photo, tmp_path):
    path = photo(tmp_path / "a.jpg")
    for source in (path, path.read_bytes()):
        result = irtool.restore(source, **use("clean"))
        assert result.untouched and result.diagnosis.is_clean and result.plan.steps == ()
        assert result.save(tmp_path / "b.jpg").read_bytes() == path.read_bytes()
        # What is asked for is done, though.
        assert result.save(tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"
        assert result.save(tmp_path / "d.jpg", quality=50).stat().st_size < path.stat().st_size


def test_strength_blends_between_input_and_result(use, photo, tmp_path):
    path = photo(tmp_path / "a.png")
    none, half, full = (
        irtool.restore(path, tasks="denoise", strength=s, **use("clean")).picture.pixels for s in (0.0, 0.5, 1.0)
    )
    assert np.abs(full - none).max() > 0.01
    assert np.allclose(half, (none + full) / 2, atol=1e-6)
    from irtool.picture import read

    assert np.array_equal(none, read(path).pixels)


def test_the_same_plan_gives_the_same_result(use, photo, tmp_path):
    path = photo(tmp_path / "a.png")
    first = irtool.restore(path, **use("mixed"))
    again = irtool.restore(path, plan=Plan.from_dict(first.plan.to_dict()), dtype="fp32")
    assert again.diagnosis is None
    assert np.array_equal(first.picture.pixels, again.picture.pixels)


def test_a_cached_network_does_not_remember_the_number_type(use, photo, tmp_path):
    path = photo(tmp_path / "a.png")
    first, other, again = (
        irtool.restore(path, tasks="snow", **use("clean") | {"dtype": d}).picture.pixels
        for d in ("fp32", "bf16", "fp32")
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_steps_are_carried_out_in_turn(use, photo, tmp_path):
    path = photo(tmp_path / "a.png")
    model = use("clean")["model"]
    one, two = Plan((Step({"rain": 1}, model),)), Plan((Step({"rain": 1}, model), Step({"haze": 1}, model)))
    first = irtool.restore(path, plan=one, dtype="fp32")
    after = irtool.restore(first.picture, tasks=["haze"], **use("clean"))
    both = irtool.restore(path, plan=two, dtype="fp32")
    assert np.array_equal(both.picture.pixels, after.picture.pixels) and both.tiles == 2


def test_what_comes_to_light_after_the_steps_is_undone_too(use, photo, tmp_path):
    path, told = photo(tmp_path / "a.png"), use("rain")
    one, again = Step({"noise": 1}, told["model"]), Step({"haze": 1, "rain": 1}, told["model"], strength=0.5)
    found = irtool.restore(path, plan=Plan((one,), again=again), detector=told["detector"], dtype="fp32")
    assert [(dict(s.task_weights), s.strength) for s in found.plan.steps] == [({"noise": 1}, 1), ({"rain": 1}, 0.5)]
    assert found.plan.again is None and found.plan.reason.startswith("found afterwards rain ") and found.tiles == 2
    same = irtool.restore(path, plan=found.plan, dtype="fp32")
    assert np.array_equal(found.picture.pixels, same.picture.pixels)
    nothing = irtool.restore(path, plan=Plan((one,), again=again), detector=use("clean")["detector"], dtype="fp32")
    assert nothing.plan.steps == (one,) and nothing.tiles == 1


def test_the_input_is_not_changed(use, photo, tmp_path):
    picture = irtool.restore(photo(tmp_path / "a.png"), **use("clean")).picture
    before = picture.pixels.copy()
    result = irtool.restore(picture, tasks=["rain"], **use("clean"))
    assert np.array_equal(picture.pixels, before) and not np.array_equal(result.picture.pixels, before)


def test_the_result_is_not_saved_over_the_input(use, photo, tmp_path):
    path = photo(tmp_path / "a.png")
    before = path.read_bytes()
    for tasks in (None, "rain"):
        result = irtool.restore(path, tasks=tasks, **use("clean"))
        with pytest.raises(irtool.UsageError, match="never written"):
            result.save(path)
    assert path.read_bytes() == before


def test_detect(use, photo, tmp_path):
    path = photo(tmp_path / "a.png")
    model = use("rain")["detector"]
    diagnosis = irtool.detect(path, model=model)
    assert diagnosis.present == ("rain",) and irtool.detect(path.read_bytes(), model=model) == diagnosis


def test_progress_is_told(use, photo, tmp_path):
    told = []
    irtool.restore(
        photo(tmp_path / "a.png", size=(300, 300)),
        tasks="rain",
        tile="64",
        on_progress=lambda *a: told.append(a),
        **use("clean"),
    )
    done, total = zip(*told, strict=True)
    assert done[-1] == total[-1] > 1 and list(done) == sorted(done)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"tasks": "rain", "plan": Plan()}, irtool.UsageError),
        ({"tasks": "nothing"}, irtool.UsageError),
        ({"strength": 2.0}, irtool.UsageError),
        ({"tasks": "rain", "device": "tpu"}, irtool.UsageError),
        ({"tasks": "rain", "device": "cuda:99"}, irtool.UnavailableError),
        ({"tasks": "rain", "model": "local:/nowhere"}, irtool.UnavailableError),
        ({"tasks": "rain", "model": "irtool-smal.v1"}, irtool.UsageError),
        ({"tasks": "rain", "tile": "7.5"}, irtool.UsageError),
        ({"tasks": "rain", "max_memory": 1}, irtool.PictureError),
    ],
)
def test_what_cannot_be_done_is_an_error_of_ours(use, photo, tmp_path, wrong, error):
    with pytest.raises(error):
        irtool.restore(photo(tmp_path / "a.png"), **(use("clean") | wrong))


def test_a_detector_is_no_restorer(models_dir, photo, tmp_path):
    with pytest.raises(irtool.UnavailableError):
        irtool.restore(photo(tmp_path / "a.png"), tasks="rain", model=f"local:{models_dir / 'clean.safetensors'}")


def test_a_mask_says_what_is_missing_and_all_else_stays(use, photo, tmp_path):
    source, mask = photo(tmp_path / "a.png"), tmp_path / "mask.png"
    before = irtool.restore(source, plan=Plan(), **use("clean")).picture.pixels
    height, width = before.shape[:2]
    holes = np.zeros((height, width), np.uint8)
    holes[height // 4 : height // 2, width // 4 : width // 2] = 255
    Image.fromarray(holes).save(mask)
    result = irtool.restore(source, mask=mask, **use("clean"))
    assert [dict(step.task_weights) for step in result.plan.steps] == [{"missing": 1.0}]
    changed = (result.picture.pixels != before).any(2)
    assert changed[holes > 0].all() and not changed[holes == 0].any()
    # What lay in the hole does not matter: it is missing.
    other = np.asarray(Image.open(source).convert("RGB")).copy()
    other[holes > 0] = (255, 0, 255)
    Image.fromarray(other).save(tmp_path / "b.png")
    again = irtool.restore(tmp_path / "b.png", mask=mask, **use("clean")).picture.pixels
    # The context does see it: a tone, not a purple square.
    assert np.abs(again - result.picture.pixels)[holes > 0].mean() < 0.1


def test_a_mask_must_fit_and_be_of_use(use, photo, tmp_path):
    source, mask = photo(tmp_path / "a.png"), tmp_path / "mask.png"
    Image.new("L", (5, 4)).save(mask)
    with pytest.raises(UsageError, match=r"mask\.png has 5x4 pixels"):
        irtool.restore(source, mask=mask, **use("clean"))
    with pytest.raises(UsageError, match="not to be restored"):
        irtool.restore(source, tasks="derain", mask=source, **use("clean"))
