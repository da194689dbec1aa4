"""The detector: what its network looks at, what it is trained on, and how its findings become probabilities."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_motion import photograph, shaken
from training_samples import CPU, tiny

from irtool.degradation import IDS, INDEX
from irtool.detect import detector
from irtool.detect.detector import Detector
from irtool.detect.network import FINE, GRID, LOCAL, DetectorNet, views, where
from irtool.training import calibrate
from irtool.training.data import held_out, join
from irtool.training.detector_data import CHANGE, SHAPES, DetectorPools
from irtool.training.jobs import Share, job
from irtool.training.pictures import gather

SMALL = {"widths": [16, 16], "depths": [1, 1], "hidden": 8}


@pytest.fixture
def pools(tmp_path: Path, decoded: Path, monkeypatch: pytest.MonkeyPatch) -> DetectorPools:
    monkeypatch.setenv("HF_ASSETS_CACHE", str(decoded))
    (tmp_path / "clean").mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        soft = Image.fromarray(rng.integers(90, 250, (12, 16, 3), dtype=np.uint8)).resize((160, 120), Image.BICUBIC)
        soft.save(tmp_path / "clean" / f"{number}.png")
    made = tiny(kind="detector", model=SMALL, pool=8, group=2, hold=0, phases=[{"until": 1.0, "crop": 48, "batch": 8}])
    made = dataclasses.replace(
        made, weights={"shadow": 1.0, "missing": 1.0, "noise": 1.0, "lowlight": 0.5, "clean": 1.0}
    )
    return DetectorPools(gather(made, tmp_path), made)


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (20, 900), (96, 96), (500, 700)])
def test_any_size_is_seen_whole_and_at_its_own_resolution(size: tuple[int, int]) -> None:
    pixels = torch.rand(2, 3, *size)
    fine, coarse = views(pixels)
    assert fine.shape == (2, GRID * GRID, 3, FINE, FINE)
    assert coarse.shape[-2] * coarse.shape[-1] <= 1.1 * 256 * 256
    assert torch.equal(fine[:, 0, :, : min(FINE, size[0]), : min(FINE, size[1])], pixels[..., :FINE, :FINE])
    if min(size) >= FINE:
        assert torch.equal(fine[:, -1], pixels[..., -FINE:, -FINE:])
    assert DetectorNet(**SMALL)(pixels).shape == (2, len(IDS))


def test_the_maps_are_told_the_cells_that_changed() -> None:
    change = torch.zeros(1, len(LOCAL), 128, 192)
    change[0, 2, :64, :96] = 0.5
    change[0, 1] = 0.01
    near, far = where(change, torch.empty(1, GRID * GRID, len(LOCAL), 12, 12), torch.empty(1, len(LOCAL), 16, 24))
    assert torch.equal(far[0, 2], torch.nn.functional.pad(torch.ones(8, 12), (0, 12, 0, 8)))
    assert near[0, 0, 2, :8].eq(1).all() and near[0, -1, 2].eq(0).all()
    assert far[0, [0, 1, 3, 4]].eq(0).all()


def test_pools_are_the_same_however_many_make_them(pools: DetectorPools) -> None:
    whole = pools[3]
    halves = [DetectorPools(pools.pictures, pools.recipe, Share(rank, 2, CPU))[3] for rank in range(2)]
    assert torch.equal(join(halves).degraded, whole.degraded)
    assert torch.equal(join(halves).extras[CHANGE], whole.extras[CHANGE])
    assert not torch.equal(pools[4].degraded[:1, :, :48, :48], whole.degraded[:1, :, :48, :48])
    sizes = {tuple(pools[i].degraded.shape[-2:]) for i in range(12)}
    assert len(sizes) > 3 and len(sizes) <= len(SHAPES)


def test_what_changed_is_what_the_damage_changed(pools: DetectorPools) -> None:
    seen = set()
    for index in range(6):
        pool = pools[index]
        for row, name in enumerate(pool.names()):
            seen.add(name)
            change = pool.extras[CHANGE][row].float()
            if name in LOCAL:
                real = (pool.degraded[row] - pool.clean[row]).abs().mean(0)
                # What the picture's own softness and JPEG changed besides is small, and no map's business.
                assert (change[LOCAL.index(name)] - real).abs().mean() < 0.02 < change[LOCAL.index(name)].max()
                assert real.max() > 0.03
            assert all(change[i].eq(0).all() for i, kind in enumerate(LOCAL) if kind != name)
            assert pool.labels[row].sum() == (0 if name == "clean" else 1)
    assert {"shadow", "missing", "noise", "clean"} <= seen
    held = held_out(pools)
    assert held.degraded.shape[-2:] == (48, 48) and held.labels[:, INDEX["shadow"]].sum() == 2


def test_the_loss_reaches_every_weight(pools: DetectorPools) -> None:
    work = job("detector")
    net = work.build(pools.recipe)
    batch = work.batch(pools[0], 0, 1, 48, torch.Generator())
    loss, figures = work.loss(net, batch, pools.recipe, torch.Generator(), 0)
    loss.backward()
    assert len(figures["right"]) == len(batch)
    # What a block mixes begins at zero, so what it spreads hears of the loss from the second step on.
    silent = [n for n, p in net.named_parameters() if p.grad is None or (p.grad.eq(0).all() and ".spread." not in n)]
    assert not silent


def test_probabilities_are_stretched_back() -> None:
    g = torch.Generator().manual_seed(0)
    honest = 3 * torch.randn(4000, len(IDS), generator=g)
    labels = (torch.rand(honest.shape, generator=g) < honest.sigmoid()).float()
    stretch, shift = calibrate.platt(2.5 * honest + 1, labels)
    assert torch.allclose(stretch, torch.full_like(stretch, 0.4), atol=0.05)
    assert torch.allclose(shift, torch.full_like(shift, -0.4), atol=0.15)
    net, x = DetectorNet(**SMALL).eval(), torch.rand(2, 3, 100, 100)
    before = net(x)
    calibrate.fold(net, stretch, shift)
    assert torch.allclose(net(x), before * stretch + shift, atol=1e-5)


def test_thresholds_follow_their_rule() -> None:
    labels = np.zeros((400, len(IDS)))
    labels[200:300, 0] = labels[300:, 2] = 1
    scores = np.full(labels.shape, 0.01)
    scores[200:300, 0] = np.linspace(0.3, 1, 100)
    scores[:6, 0] = (0.9, 0.8, 0.7, 0.655, 0.645, 0.635)  # six clean ones of 200 look damaged; three may
    scores[:100, 1] = scores[300:, 2] = 0.99  # one kind never right, one always
    chosen = calibrate.thresholds(scores, labels)
    assert (chosen[IDS[0]], chosen[IDS[1]], chosen[IDS[2]]) == (0.66, 1.0, calibrate.LEAST[IDS[2]])
    scores[300:305, 0] = 0.755  # five of the hundred that have something else; four may
    assert calibrate.thresholds(scores, labels)[IDS[0]] == 0.76


def test_some_kinds_have_to_be_surer_than_others_and_some_less() -> None:
    labels = np.zeros((400, len(IDS)))
    for start, name in ((100, "shadow"), (200, "rain"), (300, "noise")):
        labels[start : start + 100, INDEX[name]] = 1
    chosen = calibrate.thresholds(np.where(labels == 1, 0.99, 0.01), labels)
    assert chosen["shadow"] == calibrate.LEAST["shadow"] > chosen["rain"] == calibrate.LOWEST
    assert chosen["noise"] == calibrate.LEAST["noise"] < calibrate.LOWEST


def test_what_is_likely_but_not_sure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.full((1, len(IDS)), 0.1)
    for name, score in {"rain": 0.9, "shadow": 0.6, "snow": 0.7, "blur": 0.8}.items():
        scores[0, INDEX[name]] = score
    monkeypatch.setattr(detector, "both_ways", lambda net, pixels: scores.logit())
    found = Detector(DetectorNet(**SMALL), {"shadow": 0.9, "snow": 0.75, "blur": 1.0}, CPU).diagnose(
        torch.rand(3, 9, 9)
    )
    assert found.present == ("rain",) and found.perhaps == ("snow", "shadow")  # of blur nothing is known
    assert found.to_dict()["perhaps"] == ["snow", "shadow"]


def test_a_suspicion_of_blur_is_followed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.full((1, len(IDS)), 0.001)
    monkeypatch.setattr(detector, "both_ways", lambda net, pixels: scores.logit())
    found = Detector(DetectorNet(**SMALL), {"blur": 0.6}, CPU)
    sharp = photograph()
    shaky = shaken(sharp, seed=2)[0]
    scores[0, INDEX["blur"]] = 0.1
    assert found.diagnose(shaky[0]).present == ("blur",)
    assert found.diagnose(shaky[0]).scores["blur"] == 0.6
    assert found.diagnose(sharp[0]).is_clean and found.diagnose(sharp[0, :, :20, :20]).is_clean

    def never(pixels: torch.Tensor) -> None:
        raise AssertionError("a path was looked for")

    monkeypatch.setattr(detector.motion, "estimate", never)
    scores[0, INDEX["rain"]] = 0.9
    assert found.diagnose(shaky[0]).present == ("rain",)  # rain would mislead
    scores[0, INDEX["rain"]] = scores[0, INDEX["blur"]] = 0.001
    assert found.diagnose(shaky[0]).is_clean  # it takes seconds
    scores[0, INDEX["blur"]] = 0.3
    assert Detector(DetectorNet(**SMALL), {"blur": 1.0}, CPU).diagnose(shaky[0]).is_clean  # its scores mean nothing


def landscape(seed: int = 0) -> torch.Tensor:
    """(3, 120, 160): strong colours and deep shade, in patches."""
    g = torch.Generator().manual_seed(seed)
    return torch.nn.functional.interpolate(0.7 * torch.rand(1, 3, 12, 16, generator=g), (120, 160))[0]


def test_a_suspicion_of_haze_is_followed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.full((1, len(IDS)), 0.001)
    monkeypatch.setattr(detector, "both_ways", lambda net, pixels: scores.logit())
    found = Detector(DetectorNet(**SMALL), {"haze": 0.6}, CPU)
    clear = landscape()
    far = torch.linspace(2.5, 0.5, 120)[None, :, None]  # further up is further away
    hazy, even = ((clear * t + 0.8 * (1 - t)) for t in (torch.exp(-far), torch.tensor(0.2)))
    assert found.diagnose(hazy).is_clean  # nothing is suspected
    scores[0, INDEX["haze"]] = 0.1
    assert found.diagnose(hazy).present == ("haze",) and found.diagnose(hazy).scores["haze"] == 0.6
    large = torch.nn.functional.interpolate(hazy[None], scale_factor=6)[0]
    assert found.diagnose(large).present == ("haze",) and found.diagnose(hazy[:, :1, :1]).is_clean
    assert found.diagnose(clear).is_clean
    assert found.diagnose(even).is_clean  # a wall
    assert found.diagnose(hazy.flip(1)).is_clean  # a floor
    assert found.diagnose((hazy + 0.4).clamp(max=1)).is_clean  # paper
    assert found.diagnose(hazy * torch.tensor([1.0, 0.8, 0.5])[:, None, None]).is_clean  # dusk
    scores[0, INDEX["rain"]] = 0.9
    assert found.diagnose(hazy).present == ("rain",)
    scores[0, INDEX["rain"]] = 0.001
    assert Detector(DetectorNet(**SMALL), {"haze": 1.0}, CPU).diagnose(hazy).is_clean  # its scores mean nothing


def test_a_picture_and_its_mirror_image_are_diagnosed_alike() -> None:
    found = Detector(DetectorNet(**SMALL).eval(), {}, CPU)
    picture = torch.rand(3, 90, 130, generator=torch.Generator().manual_seed(0))
    there, back = found.diagnose(picture).scores, found.diagnose(picture.flip(-1)).scores
    assert there == pytest.approx(back, abs=1e-5)
    one = found.net(picture[None]).sigmoid()[0].tolist()
    assert [there[i] for i in IDS] != pytest.approx(one, abs=1e-6)


def test_what_is_half_bright_is_never_too_dark() -> None:
    found = Detector(DetectorNet(**SMALL).eval(), dict.fromkeys(IDS, 1e-6), CPU)
    dark = 0.3 * torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(0))
    half = dark.clone()
    half[:, :21] += 0.6
    assert "lowlight" in found.diagnose(dark).present
    assert "lowlight" not in found.diagnose(half).present
    assert len(found.diagnose(half).present) == len(IDS) - 1


def test_a_page_has_no_holes() -> None:
    found = Detector(DetectorNet(**SMALL).eval(), dict.fromkeys(IDS, 1e-6), CPU)
    picture = torch.rand(3, 120, 200, generator=torch.Generator().manual_seed(0))
    holed = picture.clone()
    holed[:, :60, 40:90] = 1  # also at the edge
    page = torch.nn.functional.pad(picture, (9, 9, 9, 9), value=1.0)
    lined = torch.nn.functional.pad(holed, (1, 1, 1, 1))  # a scan's black line
    assert "missing" in found.diagnose(holed).present
    assert "missing" in found.diagnose(lined).present
    assert "missing" not in found.diagnose(page).present
    for size in ((1, 1), (3, 2)):
        found.diagnose(torch.rand(3, *size))
