"""Recipes, samples, and a loop that resumes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from irtool import models
from irtool.degradation import IDS, INDEX
from irtool.detect import load as load_detector
from irtool.errors import UsageError
from irtool.training import data, export, loop, recipe

CPU = torch.device("cpu")
TINY = {
    "model": {"width": 8, "encoder": [1], "middle": 1, "decoder": [1], "rank": 1, "hidden": 8},
    "data": ["clean"],
    "minutes": 0.0,
    "steps": 6,
    "region": 48,
    "precision": "fp32",
    "save_every": 3,
    "report_every": 2,
    "warmup": 1,
    "phases": [{"until": 0.5, "crop": 16, "batch": 8}, {"until": 1.0, "crop": 32, "batch": 4}],
    "weights": {"noise": 1.0, "jpeg": 1.0, "mixed": 0.5, "clean": 0.5},
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three small pictures, one broken file and one too small."""
    root = tmp_path_factory.mktemp("data")
    (root / "clean").mkdir()
    draw = np.random.default_rng(0)
    for i in range(3):
        coarse = draw.integers(0, 255, (6, 9, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((90, 60), Image.Resampling.BICUBIC).save(root / "clean" / f"{i}.png")
    (root / "clean" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    Image.new("RGB", (20, 20)).save(root / "clean" / "small.png")
    return root


def test_built_in_recipes_are_sound() -> None:
    names = sorted(p.stem for p in recipe.BUILT_IN.glob("*.toml"))
    assert {"default", "detector", "pretrain"} <= set(names)
    for name in names:
        made = recipe.load(recipe.find(name))
        assert loop.network(made) is not None
        assert all(data.POOL % phase.batch == 0 for phase in made.phases)


def test_every_mistake_of_a_recipe_is_named_at_once() -> None:
    wrong = {
        "rote": 0.1,
        "seed": "one",
        "precision": "fp8",
        "weights": {"nose": 1.0},
        "phases": [{"until": 0.5, "crop": 20, "batch": 8}],
    }
    with pytest.raises(UsageError) as caught:
        recipe.build(wrong, "my.toml")
    for said in (
        "my.toml",
        "'rote'",
        "did you mean 'rate'",
        "seed: expected int",
        "fp8",
        "did you mean 'noise'",
        "end at 1.0",
        "multiple of 16",
    ):
        assert said in caught.value.message


def test_unknown_recipes_and_bad_toml(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        recipe.find("defalt")
    assert "default" in caught.value.hint
    bad = tmp_path / "bad.toml"
    bad.write_text("steps = = 3")
    with pytest.raises(UsageError, match="not valid TOML"):
        recipe.load(recipe.find(str(bad)))


def test_unusable_pictures_are_listed_and_no_picture_is_an_error(photos: Path, tmp_path: Path) -> None:
    pictures, skipped = data.load_clean(photos, ("clean",), 48)
    assert len(pictures) == 3
    assert len(skipped) == 2
    assert any("broken.png" in s for s in skipped)
    assert any("small.png" in s for s in skipped)
    (tmp_path / "clean").mkdir()
    with pytest.raises(UsageError, match="No usable picture"):
        data.load_clean(tmp_path, ("clean",), 48)
    with pytest.raises(UsageError, match="not a folder"):
        data.load_clean(tmp_path, ("none",), 48)


def test_a_pool_is_its_index_and_seed(photos: Path) -> None:
    made = recipe.build({**TINY, "weights": {"noise": 1.0, "real": 1.0, "clean": 1.0, "mixed": 1.0}}, "tiny")
    pools = data.Pools(data.load_clean(photos, made.data, made.region)[0], made)
    first, again, other = pools[5], pools[5], pools[6]
    assert torch.equal(first.degraded, again.degraded)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.degraded, other.degraded)
    assert first.degraded.shape == first.clean.shape == (data.POOL, 3, 48, 48)
    assert torch.allclose(first.degraded * 255, (first.degraded * 255).round(), atol=1e-4)
    untouched = (first.degraded - first.clean).abs().amax(dim=(1, 2, 3)) < 1.01 / 255
    assert (untouched | (first.labels.sum(1) > 0)).all()
    real = first.labels[:, [INDEX[i] for i in ("blur", "noise", "jpeg")]].sum(1)
    assert first.labels.shape == (data.POOL, len(IDS))
    assert real.max() <= 3


def test_a_low_light_sample_comes_from_a_bright_picture(photos: Path) -> None:
    made = recipe.build({**TINY, "weights": {"lowlight": 1.0}}, "tiny")
    pools = data.Pools([np.full((60, 90, 3), 10, np.uint8), np.full((60, 90, 3), 200, np.uint8)], made)
    assert pools[0].clean.mean(dim=(1, 2, 3)).gt(0.3).float().mean() > 0.9


def test_an_interrupted_run_equals_one_that_was_not(photos: Path, tmp_path: Path) -> None:
    made = recipe.build(TINY, "tiny")
    torch.set_num_threads(1)
    whole = torch.load(loop.train(made, photos, tmp_path / "a", device=CPU), weights_only=True)

    class Interrupted(Exception):
        pass

    def stop(line: dict[str, object]) -> None:
        if line.get("step") == 4:
            raise Interrupted

    with pytest.raises(Interrupted):
        loop.train(made, photos, tmp_path / "b", device=CPU, report=stop)
    halfway = torch.load(tmp_path / "b" / "checkpoint.pt", weights_only=True)
    assert halfway["step"] == 3
    resumed = torch.load(loop.train(made, photos, tmp_path / "b", device=CPU), weights_only=True)
    assert resumed["step"] == whole["step"] == 6
    for part in ("net", "ema"):
        for name, value in whole[part].items():
            assert torch.equal(value, resumed[part][name]), name


def test_a_run_learns(photos: Path, tmp_path: Path) -> None:
    made = recipe.build({**TINY, "steps": 60, "rate": 5e-3, "weights": {"lowlight": 1.0}, "report_every": 20}, "tiny")
    losses: list[float] = []
    loop.train(
        made, photos, tmp_path, device=CPU, report=lambda line: losses.append(line["loss"]) if "loss" in line else None
    )
    assert losses[-1] < losses[0] - 0.2
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged] == [20, 40, 60]


def test_a_run_starts_from_another(photos: Path, tmp_path: Path) -> None:
    made = recipe.build(TINY, "tiny")
    first = loop.train(made, photos, tmp_path / "a", device=CPU)
    state = loop.State(made, CPU)
    state.begin_from(first)
    held = torch.load(first, weights_only=True)
    assert state.step == 0
    assert all(torch.equal(v, held["ema"][k]) for k, v in state.net.state_dict().items())


def test_a_run_starts_from_an_exported_file(photos: Path, tmp_path: Path) -> None:
    made = recipe.build(TINY, "tiny")
    exported = export.export(loop.train(made, photos, tmp_path / "a", device=CPU), tmp_path / "a.safetensors")
    state = loop.State(made, CPU)
    state.begin_from(exported)
    held = torch.load(tmp_path / "a" / "checkpoint.pt", weights_only=True)["ema"]
    assert all(torch.allclose(v, held[k], atol=1e-3) for k, v in state.net.state_dict().items())
    wider = recipe.build({**TINY, "model": {**TINY["model"], "width": 16}}, "tiny")
    with pytest.raises(UsageError, match="does not fit the network"):
        loop.State(wider, CPU).begin_from(exported)


def test_exports_of_both_kinds_load(photos: Path, tmp_path: Path) -> None:
    made = recipe.build(TINY, "tiny")
    target = export.export(
        loop.train(made, photos, tmp_path / "a", device=CPU), tmp_path / "r.safetensors", {"licence": "Apache-2.0"}
    )
    expert = models.load(target).specialise({"noise": 1.0})
    assert expert(torch.rand(1, 3, 16, 16), expert.context(torch.rand(3, 16, 16))).shape == (1, 3, 16, 16)
    tiny = {
        **TINY,
        "kind": "detector",
        "model": {"widths": [16, 16], "hidden": 8},
        "phases": [{"until": 1.0, "crop": 48, "batch": 8}],
    }
    made = recipe.build(tiny, "tiny")
    target = export.export(
        loop.train(made, photos, tmp_path / "d", device=CPU),
        tmp_path / "d.safetensors",
        {"thresholds": '{"noise": 0.7}'},
    )
    detector = load_detector(target, CPU)
    assert detector.thresholds["noise"] == 0.7
    assert detector.thresholds["rain"] == 0.5
    scores = detector.diagnose(torch.rand(3, 70, 50)).scores
    assert list(scores) == list(IDS)
    with pytest.raises(UsageError, match="no checkpoint"):
        export.export(target, tmp_path / "x.safetensors")


def test_nan_stops_the_run_and_keeps_the_last_checkpoint(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe.build(TINY, "tiny")
    real = loop.loss_of

    def bad(net, batch, recipe, g):
        loss, figure = real(net, batch, recipe, g)
        return (loss * float("nan") if seen.append(1) or len(seen) == 5 else loss), figure

    seen: list[int] = []
    monkeypatch.setattr(loop, "loss_of", bad)
    from irtool.errors import IrtoolError

    with pytest.raises(IrtoolError, match="at step 4"):
        loop.train(made, photos, tmp_path, device=CPU)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 3


def test_thresholds_keep_false_findings_rare() -> None:
    from irtool.training import calibrate

    draw = np.random.default_rng(0)
    labels = np.zeros((2000, 10))
    labels[np.arange(1500), draw.integers(0, 10, 1500)] = 1  # the last 500 are clean
    scores = np.clip(0.15 + 0.6 * labels + 0.1 * draw.standard_normal(labels.shape), 0, 1)
    scores[1500:, 3] = draw.uniform(0, 0.85, 500)  # one that sees itself in clean pictures
    chosen = calibrate.thresholds(scores, labels)
    clean = labels.sum(1) == 0
    for i, name in enumerate(IDS):
        assert (scores[clean, i] >= chosen[name]).mean() <= calibrate.CLEAN_RATE
    assert chosen[IDS[3]] > 0.8
    assert all(chosen[name] < 0.5 for name in IDS if name != IDS[3])
    scores[:, 5] = draw.uniform(0, 0.9, 2000)  # one that sees nothing at all
    assert calibrate.thresholds(scores, labels)[IDS[5]] == 1.0
    bins = calibrate.reliability(np.array([0.1, 0.1, 0.95]), np.array([0, 1, 1]))
    assert [(b[0], b[2], b[3]) for b in bins] == [(0.0, 0.5, 2), (0.8, 1.0, 1)]
