"""InstructIR as a restorer: told by sentences, over a sentence encoder that is made up."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from irtool import engine
from irtool.errors import UnavailableError, UsageError
from irtool.models import loading
from irtool.models.base import Condition
from irtool.models.instructir import SENTENCES, InstructIR, InstructIRModel, LanguageHead

CPU = torch.device("cpu")


@pytest.fixture
def restorer(tmp_path: Path) -> InstructIRModel:
    """A tiny network that listens, with a head of the published size; both read from files."""
    torch.manual_seed(0)
    net = InstructIR(width=4, enc_blks=(1, 1), middle_blk_num=1, dec_blks=(1, 1))
    for name, value in net.named_parameters():
        if value.ndim > 1 or name.endswith(("beta", "gamma")):
            torch.nn.init.normal_(value, std=0.3)
    paths = tmp_path / "net.safetensors", tmp_path / "head.safetensors"
    for path, module in zip(paths, (net, LanguageHead()), strict=True):
        save_file(dict(module.state_dict()), path)
    loaded = loading.load(paths[0], [paths[1]])
    assert isinstance(loaded, InstructIRModel)
    return loaded


def test_what_is_asked_decides_what_is_done(restorer: InstructIRModel) -> None:
    said: list[str] = []

    def steer(texts: list[str]) -> tuple[Tensor, Tensor]:
        said.extend(texts)
        return restorer.head(torch.randn(len(texts), 384, generator=torch.Generator().manual_seed(len(texts[0]))))

    restorer.steer = steer
    pixels = torch.rand(3, 21, 30)
    rain, dark = (restorer.bind(Condition({task: 1.0})) for task in ("rain", "lowlight"))
    assert said == [SENTENCES["rain"], SENTENCES["lowlight"]]
    one, other = (engine.run(e, pixels, device=CPU, dtype="fp32").pixels for e in (rain, dark))
    assert one.shape == pixels.shape
    assert (one - other).abs().max() > 1e-3
    with torch.inference_mode():
        wanted = restorer.net(pixels[None], steer([SENTENCES["rain"]])[0])[0].clamp(0, 1)
    torch.testing.assert_close(one, wanted, atol=1e-5, rtol=0)
    restorer.bind(Condition({"rain": 1.0, "haze": 0.5}))
    assert said[-1] == f"{SENTENCES['rain']} {SENTENCES['haze']}"


def test_a_picture_is_cut_where_memory_asks_for_it(restorer: InstructIRModel) -> None:
    restorer.steer = lambda texts: restorer.head(torch.ones(1, 384))
    expert, pixels = restorer.bind(Condition({"noise": 1.0})), torch.rand(3, 900, 400)
    tiled = engine.run(expert, pixels, device=CPU, dtype="fp32", tile="256")
    assert tiled.tiles > 1
    assert tiled.pixels.isfinite().all()


def test_what_is_missing_is_said(restorer: InstructIRModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UnavailableError) as caught:
        restorer.bind(Condition({"rain": 1.0}))
    assert "irtool[text]" in caught.value.hint
    with pytest.raises(UsageError, match="snow"):
        restorer.bind(Condition({"snow": 1.0}))
    with pytest.raises(UnavailableError) as caught:
        loading.load(tmp_path / "net.safetensors")
    assert "instructir-lm.7d" in caught.value.hint


def test_the_way_from_a_record_to_the_encoder(restorer: InstructIRModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody says how sentences become embeddings, the model asks for a sentence encoder itself."""
    from irtool.models import instructir_text

    class Encoder:
        name, size = "made up", 384

        def __call__(self, texts: list[str]) -> Tensor:
            return torch.nn.functional.normalize(torch.ones(len(texts), 384), dim=-1)

    monkeypatch.setattr(instructir_text, "SentenceEncoder", Encoder)
    assert restorer.steer is None
    bound = restorer.bind(Condition({"haze": 1.0}))
    assert bound.prepare(torch.zeros(1, 3, 8, 8))[1].shape == (1, 256)
