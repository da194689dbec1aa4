"""ETDS against cases recorded from the published code and weights (goldens/README.md), and its two forms."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from test_golden_diffusion import read

from irtool.models import etds, loading
from irtool.models.etds import ETDS, DualStreamETDS


@pytest.mark.parametrize("name", ["etds_real_m4c32_x3", "etds_real_m5c16_x4"])
def test_published_weights_are_recognized_and_enlarge_as_recorded(shared: Path, tmp_path: Path, name: str) -> None:
    case = read(shared, name)
    found = loading.recognize({k: tuple(v.shape) for k, v in case.weights.items()})
    s = case.settings
    assert found == ("etds", {"scale": s["upscale"], "blocks": s["num_block"], "width": s["num_feat"]})
    save_file(case.weights, tmp_path / "net.safetensors")
    net, _ = loading.read(tmp_path / "net.safetensors")
    case.check("sr", net(case.given["lr"]))


def test_the_training_form_gives_both_recorded_outputs(shared: Path, tmp_path: Path) -> None:
    case = read(shared, "etds_train_form_a")
    found = loading.recognize({k: tuple(v.shape) for k, v in case.weights.items()})
    assert found == ("etds-dual-stream", {"scale": 3, "blocks": 2, "width": 16, "residual": 4})
    save_file(case.weights, tmp_path / "net.safetensors")
    net, _ = loading.read(tmp_path / "net.safetensors")
    result, alone = net.streams(case.given["lr"])
    case.check("sr", result)
    case.check("residual", alone)
    whole = etds.fused(net)
    assert (whole(case.given["lr"]) - case.want["sr"].clamp(0, 1)).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["etds_real_m4c32_x3", "etds_real_m5c16_x4"])
def test_published_weights_go_back_to_two_streams_and_on(shared: Path, name: str) -> None:
    case = read(shared, name)
    net, _ = loading.from_tensors(case.weights)
    assert isinstance(net, ETDS)
    streams = etds.unfused(net)
    case.check("sr", streams(case.given["lr"]).clamp(0, 1))
    case.check("sr", etds.fused(streams)(case.given["lr"]))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_both_forms_agree_at_every_scale_and_odd_size(scale: int) -> None:
    torch.manual_seed(scale)
    streams = DualStreamETDS(scale, 3, 12, residual=5)
    for parameter in streams.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.rand(2, 3, 7, 13)
    with torch.inference_mode():
        want = streams(x)
        whole = etds.fused(streams)
        assert want.shape == (2, 3, 7 * scale, 13 * scale)
        assert want.min() < 0 and want.max() > 1  # so that clipping shows
        assert torch.allclose(whole(x), want.clamp(0, 1), atol=1e-5)
        assert torch.allclose(etds.unfused(whole, residual=5)(x), want, atol=1e-4)


def test_before_training_it_repeats_pixels_plus_the_backbone() -> None:
    net = DualStreamETDS(2, 2, 8)
    x = torch.rand(1, 3, 5, 6)
    assert torch.allclose(net.streams(x)[1], x.repeat_interleave(2, -1).repeat_interleave(2, -2))


def test_weights_of_no_two_streams_are_turned_away() -> None:
    with pytest.raises(ValueError, match="takes something of the first"):
        etds.unfused(ETDS(2, 2, 8))
    plain = etds.fused(DualStreamETDS(2, 2, 8))
    torch.nn.init.constant_(plain.conv_clip.weight, 0.5)
    with pytest.raises(ValueError, match="do not clip"):
        etds.unfused(plain)
