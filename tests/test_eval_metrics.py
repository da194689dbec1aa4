"""LPIPS and FID through their libraries, with weights made up for the test; the libraries are extras."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from irtool import weights
from irtool.errors import UnavailableError, UsageError
from irtool.metrics import extra


def pictures(count: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.integers(0, 256, (72, 80, 3), dtype=np.uint8) for _ in range(count)]


def test_lpips_is_that_of_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lpips = pytest.importorskip("lpips")
    torch.manual_seed(0)
    backbone = __import__("torchvision").models.alexnet(weights=None)
    path = tmp_path / "alexnet.safetensors"
    save_file(backbone.state_dict(), path)
    monkeypatch.setattr(weights, "locate", lambda reference: path)
    metric = extra.make("lpips-alex")
    # The package's own way to its weights: torch's cache of downloads.
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    torch.save(backbone.state_dict(), tmp_path / "hub/checkpoints/alexnet-owt-7be5be79.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    expected = lpips.LPIPS(net="alex", verbose=False)
    truth, image, _ = pictures()
    sides = [torch.from_numpy(x).permute(2, 0, 1)[None] / 127.5 - 1 for x in (image, truth)]
    with torch.inference_mode():
        value = expected(*sides).item()
    assert value > 0.01
    assert metric.measure(truth, image) == pytest.approx(value, rel=1e-4)
    assert metric.measure(truth, truth) == 0
    assert metric.measure(truth / np.float32(255), image / np.float32(255)) == pytest.approx(value, rel=1e-4)
    assert metric.total() is None
    assert metric.weights()["published_sha256"].startswith("7be5be79")


def test_fid_is_that_of_pytorch_fid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch_fidelity")
    inception = pytest.importorskip("pytorch_fid.inception")
    torch.manual_seed(0)
    monkeypatch.setattr(inception, "load_state_dict_from_url", lambda *a, **k: state)
    from irtool.metrics.networks import inception as ours

    state = ours().state_dict()
    path = tmp_path / "inception.safetensors"
    save_file(state, path)
    theirs = inception.InceptionV3([3]).eval()
    monkeypatch.setattr(weights, "locate", lambda reference: path)
    metric = extra.make("fid")
    shown = pictures()
    for truth, image in zip(shown, shown[::-1], strict=True):
        metric.measure(truth, image)
    with torch.inference_mode():
        batch = torch.stack([torch.from_numpy(x).permute(2, 0, 1) for x in shown]) / 255
        expected = theirs(batch)[0][:, :, 0, 0]
    mine = metric.moments[0].statistics()  # type: ignore[attr-defined]
    assert mine["mu"] == pytest.approx(expected.numpy().mean(axis=0), rel=1e-3, abs=1e-4)
    assert mine["sigma"] == pytest.approx(np.cov(expected.numpy(), rowvar=False), rel=1e-2, abs=1e-4)
    assert metric.total() == pytest.approx(0, abs=1e-3)  # the same pictures in another order
    assert metric.weights()["published_sha256"].startswith("6726825d")


def test_the_distance_is_frechets() -> None:
    pytest.importorskip("torch_fidelity")
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (40, 5)), rng.normal(0.5, 1.5, (150, 5))  # fewer, and more, than are taken at once
    ca, cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca + cb - 2 * np.real(sqrtm(ca @ cb)))
    moments = extra.Moments(), extra.Moments()
    for kept, vectors in zip(moments, (a, b), strict=True):
        for vector in vectors:
            kept.add(vector)
    assert extra.distance(*moments) == pytest.approx(expected, rel=1e-6)


def test_blur_tells_a_blurred_picture() -> None:
    from scipy.ndimage import gaussian_filter

    sharp = pictures(1)[0]
    blurred = gaussian_filter(sharp, (2, 2, 0))
    metric = extra.make("blur")
    low, high = metric.measure(sharp, sharp), metric.measure(sharp, blurred)
    assert low is not None and high is not None
    assert 0 < low + 0.1 < high < 1


def test_a_missing_extra_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    for name in ("lpips-vgg", "fid"):
        with pytest.raises(UnavailableError) as caught:
            extra.make(name)
        assert "irtool[metrics]" in caught.value.hint
        assert caught.value.exit_code == 3


def test_missing_weights_offline_say_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lpips")
    for variable in ("HF_HUB_CACHE", "HF_ASSETS_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("IRTOOL_OFFLINE", "1")
    with pytest.raises(UnavailableError) as caught:
        extra.make("lpips-alex")
    assert "alexnet" in caught.value.message + caught.value.hint


def test_an_unknown_metric_is_said() -> None:
    with pytest.raises(UsageError, match="niqe"):
        extra.make("niqe")
