"""Community networks through spandrel, which is an extra."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from irtool import engine
from irtool.errors import UnavailableError
from irtool.models import loading
from irtool.models.base import Condition


def dncnn(path: Path) -> torch.nn.Sequential:
    """A DnCNN under the names that KAIR's weights have: layers of one sequence, which no family of irtool's own has."""
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for i in range(8):
        layers += [torch.nn.Conv2d(3 if i == 0 else 8, 3 if i == 7 else 8, 3, padding=1), torch.nn.ReLU()]
    net = torch.nn.Sequential(*layers[:-1])
    save_file({f"model.{key}": value for key, value in net.state_dict().items()}, path)
    return net


def test_a_community_network_restores(tmp_path: Path) -> None:
    pytest.importorskip("spandrel")
    net = dncnn(tmp_path / "x.safetensors")
    restorer = loading.load(tmp_path / "x.safetensors")
    assert restorer.info.name == "spandrel:DnCNN"
    pixels = torch.rand(3, 37, 41)
    got = engine.run(restorer.bind(Condition({"noise": 1.0})), pixels, device=torch.device("cpu"), dtype="bf16").pixels
    with torch.inference_mode():
        expected = (pixels - net(pixels[None])[0]).clamp(0, 1)
    assert (got - expected).abs().max() < 0.02


def test_what_enlarges_is_turned_away(tmp_path: Path) -> None:
    pytest.importorskip("spandrel")
    from spandrel.architectures.Compact import Compact

    net = Compact(num_in_ch=3, num_out_ch=3, num_feat=8, num_conv=2, upscale=2)
    save_file(net.state_dict(), tmp_path / "x.safetensors")
    with pytest.raises(UnavailableError, match="enlarges 2 times"):
        loading.load(tmp_path / "x.safetensors")


def test_what_nobody_knows_stays_unknown(tmp_path: Path) -> None:
    save_file({"a.b": torch.zeros(3)}, tmp_path / "x.safetensors")
    with pytest.raises(UnavailableError, match="no network that irtool knows"):
        loading.load(tmp_path / "x.safetensors")


def test_without_the_extra_the_hint_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    dncnn(tmp_path / "x.safetensors")
    with pytest.raises(UnavailableError) as caught:
        loading.load(tmp_path / "x.safetensors")
    assert "irtool[spandrel]" in caught.value.hint
