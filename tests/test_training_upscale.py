"""Training of the networks that enlarge, in float and as integers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from training_samples import tiny

from irtool.errors import IrtoolError
from irtool.models import etds, loading
from irtool.models.etds import ETDS, DualStreamETDS
from irtool.models.etds_int8 import QuantizedETDS, kept, rounded, rounded_weight
from irtool.training import loop, recipe
from irtool.training.export import export
from irtool.training.tasks import Shard
from irtool.training.upscale import SmallCopies, UpscaleTask, luma

CPU = torch.device("cpu")
NET = {"scale": 2, "blocks": 1, "width": 8}


@pytest.fixture(autouse=True)
def cache(decoded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ASSETS_CACHE", str(decoded))


def own(**changes: object) -> recipe.Recipe:
    plain = {
        "kind": "upscale", "model": NET, "settings": {}, "weights": {"clean": 1.0}, "precision": "fp32",
        "region": 48, "phases": [{"until": 1.0, "crop": 32, "batch": 4}],
    }  # fmt: skip
    return tiny(**{**plain, **changes})


def train(photos: Path, out: Path, start: Path | None = None, **changes: object) -> Path:
    torch.set_num_threads(1)
    return loop.train(own(**changes), photos, out, device=CPU, start=start)


def test_it_learns_to_enlarge_exports_one_stream_and_goes_on_as_integers(photos, tmp_path):
    last = train(photos, tmp_path / "x2", steps=60, rate=5e-3, settings={"alone": 0.1}, preview_every=30)
    log = [line for line in (tmp_path / "x2" / "log.jsonl").read_text().splitlines() if "held_out/psnr" in line]
    import json

    first, end = json.loads(log[0]), json.loads(log[-1])
    assert end["held_out/psnr"] > first["held_out/psnr"] + 0.2
    path = export(last, tmp_path / "x2.safetensors")
    net, header = loading.read(path)
    assert header["architecture"] == "etds" and isinstance(net, ETDS)
    assert loading.wrap(net, header).info.scale == 2

    as_integers = {"kind": "upscale-int8", "steps": 40, "rate": 1e-3, "preview_every": 40}
    last = train(photos, tmp_path / "int8", path, settings={"teacher": f"local:{path}"}, **as_integers)
    quantized, header = loading.read(export(last, tmp_path / "int8.safetensors"))
    assert header["architecture"] == "etds-int8" and isinstance(quantized, QuantizedETDS)
    image = torch.rand(1, 3, 20, 24)
    assert (quantized(image) - net(image)).abs().mean() < 0.05
    # Integers hand the picture from layer to layer as it is, after training too.
    assert all(kept(layer.weight)[-3:].all() and not layer.bias[-3:].any() for layer in quantized.layers()[:-1])
    codes, x = (image * 255).round(), rounded(image, torch.ones(()))
    for layer in quantized.layers()[:-1]:
        x = rounded(torch.nn.functional.conv2d(x, rounded_weight(layer.weight), layer.bias, padding=1), torch.ones(()))
    assert torch.equal((x[:, -3:] * 255).round(), codes)
    # The loss is that of rounding alone: far below the difference from the pictures.
    losses = [json.loads(line)["loss"] for line in (tmp_path / "int8" / "log.jsonl").read_text().splitlines()]
    assert 0 < losses[-1] < 1e-3
    with pytest.raises(IrtoolError, match="no ETDS that enlarges 4 times"):
        wrong = {"model": {**NET, "scale": 4}, "settings": {"teacher": f"local:{path}"}}
        train(photos, tmp_path / "wrong", path, **as_integers, **wrong)


def test_training_takes_up_a_fused_network_and_the_body_of_another_scale(photos, tmp_path):
    fused = etds.fused(DualStreamETDS(3, 1, 8))
    loading.save(fused, tmp_path / "x3.safetensors", architecture="etds", config={"scale": 3, "blocks": 1, "width": 8})
    last = train(photos, tmp_path / "run", start=tmp_path / "x3.safetensors", steps=1, rate=1e-9)
    state = torch.load(last, weights_only=True)["net"]
    body = fused.backbone_convs[0].weight[:5, :5].half().float()
    assert torch.allclose(state["backbone_convs.0.weight"], body, atol=1e-6)
    assert state["conv_last.weight"].shape[0] == 12


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_crops_of_small_and_large_pictures_show_the_same_place(scale: int) -> None:
    task, g = UpscaleTask(), torch.Generator().manual_seed(0)
    at = torch.arange(48.0).expand(4, 3, 48, 48) / 48
    small = at[..., scale // 2 :: scale, scale // 2 :: scale]
    from irtool.training.data import Sample

    pool = Sample(small, at, torch.zeros(4, 0), torch.zeros(4, 10), torch.zeros(4, 10))
    batch = task.batch(pool, 1, 2, 4 * scale, g)
    assert batch.degraded.shape == (2, 3, 4, 4) and batch.clean.shape == (2, 3, 4 * scale, 4 * scale)
    assert torch.equal(batch.degraded[0, 0, 0], batch.clean[0, 0, 0, scale // 2 :: scale])


def test_small_copies_can_be_compressed_and_degraded(photos, tmp_path):
    def pool(**changes: object):
        made = own(**changes)
        source = UpscaleTask().dataset(made, photos, Shard(0, 1, CPU))
        assert isinstance(source.pools, SmallCopies)
        return source.pools[0]

    plain = pool()
    assert plain.degraded.shape[-1] == 24 and torch.allclose(plain.degraded * 255, (plain.degraded * 255).round())
    compressed = pool(settings={"compressed": 1.0})
    assert torch.equal(plain.clean[0], compressed.clean[0]) and not torch.equal(plain.degraded, compressed.degraded)
    noisy = pool(weights={"noise": 1.0})
    assert noisy.names()[0] == "noise" and noisy.degraded.shape == plain.degraded.shape


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model": {**NET, "scale": 5}}, "scale is 2, 3 or 4"),
        ({"model": {**NET, "scale": 3}}, "must be a multiple of the scale, 3"),
        ({"settings": {"compressed": 2}}, "compressed lies from 0 to 1"),
        ({"settings": {"alone": "much"}}, "alone lies from 0"),
        ({"kind": "upscale-int8", "settings": {"alone": 0.1}}, "alone must be 0"),
        ({"kind": "upscale-int8", "settings": {"teacher": 1}}, "teacher is the name of a model"),
        ({"model": {**NET, "residual": 9}}, "cannot be built"),
    ],
)
def test_mistakes_of_a_recipe_are_named(changes, problem):
    with pytest.raises(Exception, match=problem):
        own(**changes)


def test_luma_is_that_of_bt601():
    white = torch.ones(1, 3, 1, 1)
    assert float(luma(white)) == pytest.approx(219 / 255, abs=1e-4)
    assert np.isclose(float(luma(white * torch.tensor([0.0, 1.0, 0.0])[:, None, None])), 128.553 / 255)
