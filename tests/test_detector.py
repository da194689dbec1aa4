"""The detector: what its network looks at, what it is trained on, and how its scores become findings."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from training_samples import CPU, tiny

from irtool.degradation import CLEAN, IDS, INDEX
from irtool.detection.detector import Detector
from irtool.detection.network import (
    CELL,
    CROP,
    CROP_SIDE,
    CROPS,
    GRID,
    LOCAL,
    WHOLE_AREA,
    DetectorNet,
    cells_hit,
    fine_crops,
    middle_crops,
    reduced,
)
from irtool.errors import UsageError
from irtool.models import loading
from irtool.training import calibrate, detector_data
from irtool.training.data import join
from irtool.training.detector import held_out
from irtool.training.detector_data import (
    CHANGE,
    MAPPED,
    OFTEN_WITH,
    SEVERITY,
    SHAPES,
    WEIGHT,
    DetectorPools,
    labelled,
)
from irtool.training.detector_views import VIEWS, SeenPools
from irtool.training.pictures import gather
from irtool.training.recipe import Recipe
from irtool.training.tasks import Shard, training_task

SMALL = {"widths": [16, 16], "depths": [1, 1], "hidden": 8}


@pytest.fixture(scope="module")
def net() -> DetectorNet:
    torch.manual_seed(0)
    return DetectorNet(**SMALL).eval().requires_grad_(False)


@pytest.fixture
def data(tmp_path: Path, decoded: Path, monkeypatch: pytest.MonkeyPatch, net: DetectorNet) -> Path:
    """A data root: clean pictures, and tables of labelled ones."""
    monkeypatch.setenv("HF_ASSETS_CACHE", str(decoded))
    (tmp_path / "clean").mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        soft = Image.fromarray(rng.integers(90, 250, (12, 16, 3), dtype=np.uint8)).resize((160, 120), Image.BICUBIC)
        soft.save(tmp_path / "clean" / f"{number}.png")
    mask = np.zeros((120, 160), np.uint8)
    mask[:, :80] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    rows = [
        ("clean/0.png", "haze", ""),
        ("clean/1.png", "shadow", "mask.png"),
        ("clean/2.png", CLEAN, ""),
        ("clean/0.png", "jpeg", ""),
    ]
    for name in ("train", "held"):
        with (tmp_path / f"{name}.tsv").open("w", encoding="utf-8") as file:
            csv.writer(file, delimiter="\t").writerows([("file", "label", "mask"), *rows])
    loading.save(net, tmp_path / "start.safetensors", architecture="detector", config=SMALL)
    return tmp_path


def recipe_of(**changes: object) -> Recipe:
    settings = {
        "labelled": "train.tsv", "held": "held.tsv", "frozen": "start.safetensors", "pools": 3,
        "real": {"haze": 1.0, "shadow": 1.0, CLEAN: 1.0, "jpeg": 1.0},
    }  # fmt: skip
    made = tiny(
        kind="detector", model=SMALL, pool=8, group=2, hold=0, settings=settings,
        phases=[{"until": 1.0, "crop": 48, "batch": 8}],
    )  # fmt: skip
    weights = {"shadow": 1.0, "missing": 1.0, "noise": 1.0, "lowlight": 0.5, CLEAN: 1.0}
    return dataclasses.replace(made, weights=weights, **changes)


def pools_of(data: Path, recipe: Recipe, share: Shard | None = None) -> DetectorPools:
    return DetectorPools(gather(recipe, data), recipe, share, real=labelled(data / "train.tsv", []))


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (20, 900), (96, 96), (500, 700), (1200, 800)])
def test_a_picture_of_any_size_is_seen_whole_in_crops_and_at_its_own_resolution(
    size: tuple[int, int], net: DetectorNet
) -> None:
    pixels = torch.rand(2, 3, *size)
    fine, crops, whole = fine_crops(pixels), middle_crops(pixels), reduced(pixels, WHOLE_AREA)
    assert fine.shape == (2, GRID * GRID, 3, CROP_SIDE, CROP_SIDE)
    assert crops.shape[1] == CROPS * CROPS and max(crops.shape[-2:]) <= CROP
    assert whole.shape[-2] * whole.shape[-1] <= 1.3 * WHOLE_AREA and min(whole.shape[-2:]) >= 2 * CELL
    assert torch.equal(
        fine[:, 0, :, : min(CROP_SIDE, size[0]), : min(CROP_SIDE, size[1])], pixels[..., :CROP_SIDE, :CROP_SIDE]
    )
    found = net.features(pixels)
    assert found.kinds.shape == found.severity.shape == (2, len(IDS)) and found.clean.shape == (2,)
    assert found.whole_map.shape == (2, len(LOCAL), *(-(-side // CELL) for side in whole.shape[-2:]))
    assert net(pixels).shape == (2, len(IDS))


def test_reducing_in_two_steps_is_like_reducing_in_one() -> None:
    pixels = torch.rand(1, 3, 40, 60).repeat_interleave(50, 2).repeat_interleave(50, 3)
    size = reduced(pixels, WHOLE_AREA).shape[-2:]
    at_once = torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True)
    assert (reduced(pixels, WHOLE_AREA) - at_once).abs().mean() < 0.01


def test_fused_normalisations_give_the_same_findings(net: DetectorNet) -> None:
    torch.manual_seed(1)
    fresh = DetectorNet(**SMALL).eval()
    for module in fresh.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.normal_(module.running_mean, std=0.1)
    pixels = torch.rand(1, 3, 200, 150)
    before = fresh.features(pixels)
    after = fresh.fuse().features(pixels)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in fresh.modules())
    for one, other in zip(before, after, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_maps_are_told_the_cells_that_changed() -> None:
    change = torch.zeros(1, len(LOCAL), 128, 192)
    change[0, 2, :64, :96] = 0.5
    change[0, 1] = 0.01
    cells = cells_hit(change, torch.empty(1, len(LOCAL), 8, 12))
    assert torch.equal(cells[0, 2], torch.nn.functional.pad(torch.ones(4, 6), (0, 6, 0, 4)))
    assert cells[0, [0, 1, 3, 4]].eq(0).all()


def test_pools_are_the_same_however_many_processes_make_them(data: Path) -> None:
    recipe = recipe_of()
    pools = pools_of(data, recipe)
    whole = pools[3]
    halves = [pools_of(data, recipe, Shard(rank, 2, CPU))[3] for rank in range(2)]
    assert torch.equal(join(halves).degraded, whole.degraded)
    assert torch.equal(join(halves).extras[CHANGE], whole.extras[CHANGE])
    assert len({tuple(pools[i].degraded.shape[-2:]) for i in range(12)}) > 3 and len(SHAPES) >= 4


def test_synthetic_samples_know_what_changed_and_how_much(data: Path) -> None:
    pools = pools_of(data, recipe_of(settings={}))
    seen = set()
    for index in range(6):
        pool = pools[index]
        assert pool.extras[MAPPED].eq(1).all() and pool.extras[WEIGHT].eq(1).all()
        for row, name in enumerate(pool.names()):
            seen.add(name)
            change = pool.extras[CHANGE][row].float()
            if name in LOCAL:
                real = (pool.degraded[row] - pool.clean[row]).abs().mean(0)
                # What the picture's own softness and JPEG changed besides is small, and no map's business.
                assert (change[LOCAL.index(name)] - real).abs().mean() < 0.03 < change[LOCAL.index(name)].max()
            assert all(change[i].eq(0).all() for i, kind in enumerate(LOCAL) if kind != name)
            known = ~pool.extras[SEVERITY][row].isnan()
            assert known.tolist() == [kind == name for kind in IDS]
    assert {"shadow", "missing", "noise", CLEAN} <= seen


def test_a_third_of_the_jpeg_samples_were_saved_again(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = []
    monkeypatch.setattr(detector_data, "_encoded", lambda pixels, g: again.append(pixels.shape[-2:]) or pixels)
    pools = pools_of(data, dataclasses.replace(recipe_of(settings={}), weights={"jpeg": 1.0}))
    samples = [pools[index] for index in range(6)]
    assert 10 <= len(again) <= 22  # of 48
    assert {tuple(size) for size in again} <= {tuple(sample.degraded.shape[-2:]) for sample in samples}
    assert all(sample.degraded.shape == sample.clean.shape for sample in samples)


def test_photographs_keep_their_labels_masks_and_doubts(data: Path) -> None:
    pools = pools_of(data, recipe_of())
    g = torch.Generator().manual_seed(0)
    hazy, shady, clean = (pools.photograph(label, 64, 96, g) for label in ("haze", "shadow", CLEAN))
    assert hazy.names() == ["haze"] and hazy.degraded.shape == (1, 3, 64, 96)
    doubtful = [kind for kind, weight in zip(IDS, hazy.extras[WEIGHT][0].tolist(), strict=True) if weight < 1]
    assert sorted(doubtful) == sorted(OFTEN_WITH["haze"])
    assert clean.extras[MAPPED].eq(1).all() and hazy.extras[MAPPED].eq(0).all()
    shadow = LOCAL.index("shadow")
    assert shady.extras[MAPPED][0].tolist() == [float(i == shadow) for i in range(len(LOCAL))]
    assert 0.2 < shady.extras[CHANGE][0, shadow].float().mean() < 0.8
    assert hazy.extras[SEVERITY].isnan().all()


def test_a_table_with_an_unknown_label_is_refused(data: Path) -> None:
    (data / "bad.tsv").write_text("file\tlabel\nclean/0.png\tfoggy\n", encoding="utf-8")
    with pytest.raises(UsageError, match="foggy"):
        labelled(data / "bad.tsv", [])
    (data / "bad.tsv").write_text("picture\nclean/0.png\n", encoding="utf-8")
    with pytest.raises(UsageError, match="columns"):
        labelled(data / "bad.tsv", [])
    with pytest.raises(UsageError, match=r"none\.tsv"):
        labelled(data / "none.tsv", [])


def test_what_frozen_layers_see_is_kept_on_disk(data: Path, net: DetectorNet, tmp_path: Path) -> None:
    recipe = recipe_of()
    seen = SeenPools(pools_of(data, recipe), net, 3, tmp_path / "views")
    first = seen[1]
    (file,) = (tmp_path / "views").iterdir()
    assert set(VIEWS) <= set(load_file(file))
    again = SeenPools(pools_of(data, recipe), net, 3, tmp_path / "views")[4]  # 4 modulo 3
    assert all(torch.equal(first.extras[name], again.extras[name]) for name in VIEWS)
    assert len(list((tmp_path / "views").iterdir())) == 1


def test_the_loss_reaches_every_weight_that_is_trained(data: Path) -> None:
    recipe = recipe_of()
    work = training_task("detector")
    made = work.build(recipe)
    pools = work.dataset(recipe, data, Shard(0, 1, CPU))
    batch = work.batch(pools.pools[0], 0, 1, 48, torch.Generator())
    loss, figures = work.loss(made.train(), batch, recipe, torch.Generator(), 0)
    loss.backward()
    assert len(figures["right"]) == len(batch)
    silent = [n for n, p in made.named_parameters() if p.requires_grad and (p.grad is None or p.grad.eq(0).all())]
    assert not silent
    assert {n.split(".")[0] for n, p in made.named_parameters() if not p.requires_grad} == {"fine", "backbone"}
    figures = work.preview(made.eval(), pools.held_out, recipe).figures
    assert 0 <= figures["auc"] <= 1 and len(held_out(pools_of(data, recipe))) > 20


def test_a_recipe_without_a_table_for_its_photographs_is_refused(data: Path) -> None:
    problems = training_task("detector").problems(recipe_of(settings={"real": {"haze": 1.0}}))
    assert any("labelled" in problem for problem in problems)
    assert any(
        "settings" in problem for problem in training_task("detector").problems(recipe_of(settings={"labeled": "x"}))
    )


def test_probabilities_are_stretched_back(net: DetectorNet) -> None:
    g = torch.Generator().manual_seed(0)
    honest = 3 * torch.randn(4000, len(IDS), generator=g)
    labels = (torch.rand(honest.shape, generator=g) < honest.sigmoid()).float()
    stretch, shift = calibrate.platt(2.5 * honest + 1, labels)
    assert torch.allclose(stretch, torch.full_like(stretch, 0.4), atol=0.05)
    assert torch.allclose(shift, torch.full_like(shift, -0.4), atol=0.15)
    fresh, x = DetectorNet(**SMALL).eval(), torch.rand(2, 3, 100, 100)
    before, severity = fresh(x), fresh.features(x).severity
    calibrate.fold(fresh, stretch, shift)
    assert torch.allclose(fresh(x), before * stretch + shift, atol=1e-5)
    assert torch.equal(fresh.features(x).severity, severity)


def test_a_threshold_above_all_clean_pictures_is_not_free_of_mistakes() -> None:
    clean = np.random.default_rng(0).normal(-6, 1.5, 1000)
    at = np.array([-6.0, -4.0, clean.max() + 0.1, clean.max() + 4])
    estimated = calibrate.false_rate(clean, at)
    assert np.allclose(estimated[:2], [0.5, 0.09], atol=0.03)
    assert estimated[2] > 1e-4 > estimated[3] and (np.diff(estimated) < 0).all()


def test_thresholds_weigh_harm_against_gain() -> None:
    g = np.random.default_rng(1)
    labels, real = np.zeros((1200, len(IDS))), np.zeros(1200)
    logits = g.exponential(1.0, labels.shape) - 8
    rain, shadow, snow = INDEX["rain"], INDEX["shadow"], INDEX["snow"]
    labels[1000:1100, rain] = labels[1100:, shadow] = 1
    logits[1000:1100, rain] = np.linspace(0.1, 5, 100)
    logits[:1000, shadow] += 8  # of the clean pictures half look more like a shadow than any shadow does
    logits[1100:, shadow] = 0.1
    chosen = calibrate.thresholds(1 / (1 + np.exp(-logits)), labels, real)
    assert 0.5 <= chosen["rain"] < 0.6  # no clean picture is near
    assert chosen["shadow"] == 1.0  # nothing is gained by any threshold
    assert chosen["snow"] == 1.0 and not labels[:, snow].any()  # there is none to find
    logits[:1000, rain] += 5
    costly = calibrate.thresholds(1 / (1 + np.exp(-logits)), labels, real)["rain"]
    assert chosen["rain"] + 0.2 < costly < 1


def test_uncertain_findings_are_named_but_not_present(net: DetectorNet, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Detector(DetectorNet(**SMALL).eval(), {"shadow": 0.9, "snow": 0.75, "blur": 1.0}, CPU)
    scores = torch.full((1, len(IDS)), 0.1)
    for name, score in {"rain": 0.9, "shadow": 0.6, "snow": 0.7, "blur": 0.8}.items():
        scores[0, INDEX[name]] = score
    looked = found.net.features(torch.rand(1, 3, 40, 40))
    monkeypatch.setattr(found.net, "features", lambda pixels: looked._replace(kinds=scores.logit()))
    diagnosis = found.diagnose(torch.rand(3, 9, 9))
    assert diagnosis.present == ("rain",) and diagnosis.uncertain == ("snow", "shadow")  # of blur nothing is known
    told = diagnosis.to_dict()
    assert told["perhaps"] == ["snow", "shadow"] and set(told["severity"]) == {"rain", "snow", "shadow"}
    assert set(diagnosis.maps) == set(LOCAL)
