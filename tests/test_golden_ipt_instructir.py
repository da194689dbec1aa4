"""IPT and InstructIR against what the published code computes, and against the rules of tiling."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from irtool.models import instructir, ipt


class Golden:
    """A golden case: weights, inputs, wanted outputs, tolerances."""

    def __init__(self, path: Path) -> None:
        with safe_open(str(path), "pt") as file:
            self.meta = file.metadata()
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        part = lambda p: {k[len(p) :]: v for k, v in tensors.items() if k.startswith(p)}  # noqa: E731
        self.weights, self.inputs, self.outputs = part("weights/"), part("in/"), part("out/")
        self.settings = json.loads(self.meta["hyperparameters"])

    def fits(self, name: str, got: Tensor) -> None:
        atol = json.loads(self.meta["tolerance_per_output"])[name]["atol"]
        torch.testing.assert_close(got, self.outputs[name], rtol=float(self.meta["rtol"]), atol=atol)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {k: tuple(v.shape) for k, v in self.weights.items()}

    def load(self, net: nn.Module) -> nn.Module:
        net.load_state_dict(self.weights, strict=True)
        assert net.state_dict().keys() == self.weights.keys()
        return net.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def golden(shared: Path) -> Iterator:
    return lambda name: Golden(shared / "goldens" / f"{name}.safetensors")


@pytest.mark.parametrize("name", ["instructir_a", "instructir_b"])
def test_instructir(golden, name):
    case = golden(name)
    config = instructir.recognize(case.shapes())
    assert config == case.settings
    net = case.load(instructir.InstructIR(**config))
    case.fits("restored", net(case.inputs["image"], case.inputs["text_embedding"]))


@pytest.mark.parametrize("name", ["instructir_lmhead_a", "instructir_lmhead_real"])
def test_the_language_head(golden, name):
    case = golden(name)
    config = instructir.recognize_head(case.shapes())
    assert config == case.settings
    embedding, logits = case.load(instructir.LanguageHead(**config))(case.inputs["sentence_embedding"])
    case.fits("embedding", embedding)
    case.fits("logits", logits)


@pytest.mark.parametrize("name", ["ipt_multi_head", "ipt_single_scale1", "ipt_single_scale2"])
def test_ipt_on_patches(golden, name):
    case = golden(name)
    config = ipt.recognize(case.shapes())
    wanted = {k: v for k, v in case.settings.items() if k in config}
    config["num_heads"] = wanted["num_heads"]  # leaves no trace in the tensors
    assert config == wanted
    net = case.load(ipt.IPT(**config))
    for output in case.outputs:
        kind, _, task = output.partition(".task")
        if kind == "patch":
            case.fits(output, net(case.inputs["patch"], int(task)))
