"""The weights that ship: they are what weights.toml says, help, do no harm, and tile without seams."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import irtool
from irtool import engine, metrics, models, picture, synth
from irtool.degradation import IDS
from irtool.detection.detector import load as load_detector
from irtool.models.base import Condition
from irtool.weights import DEFAULT_DETECTOR, DEFAULT_RESTORER, locate

SAMPLES = Path(__file__).parents[1] / "docs" / "samples"
CPU = torch.device("cpu")
TRUTH = Path(__file__).parent / "pictures" / "kodak23.png"


@pytest.fixture(scope="module", params=[DEFAULT_RESTORER, "irtool-nano.v1"])
def restorer(request: pytest.FixtureRequest) -> models.Model:
    return models.load(locate(request.param))


@pytest.fixture(scope="module")
def truth() -> torch.Tensor:
    return torch.from_numpy(picture.read(TRUTH).pixels).permute(2, 0, 1).contiguous()


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    first, second = (metrics.to_8bit(x.permute(1, 2, 0).numpy()) for x in (a, b))
    return metrics.psnr(first, second)


def test_all_tasks_are_there_in_under_20_mb(restorer: models.Model) -> None:
    assert restorer.info.tasks == IDS
    assert sum(locate(name).stat().st_size for name in (DEFAULT_RESTORER, DEFAULT_DETECTOR)) < 20e6
    assert locate(DEFAULT_DETECTOR).stat().st_size < 10e6


@pytest.mark.parametrize(
    ("task", "chain", "gain"),
    [("noise", "noise(50)", 7), ("noise", "noise(25)", 5), ("jpeg", "jpeg(10)", 0.3), ("lowlight", "lowlight", 4)],
)
def test_what_was_done_is_undone(
    restorer: models.Model, truth: torch.Tensor, task: str, chain: str, gain: float
) -> None:
    degraded = synth.parse(chain).apply(truth[None], torch.Generator().manual_seed(0))[0]
    degraded = (degraded * 255).round() / 255
    restored = engine.run(restorer.bind(Condition({task: 1.0})), degraded, device=CPU).pixels
    assert psnr(truth, restored) > psnr(truth, degraded) + gain


@pytest.mark.parametrize("task", ["noise", "lowlight", "haze", "shadow", "missing"])
def test_tiled_and_whole_agree(restorer: models.Model, truth: torch.Tensor, task: str) -> None:
    expert = restorer.bind(Condition({task: 1.0}))
    pixels = truth[:, :307, :461]
    whole = engine.run(expert, pixels, device=CPU, dtype="fp32", tile="off")
    tiled = engine.run(expert, pixels, device=CPU, dtype="fp32", tile="64")
    assert whole.tiles == 1
    assert tiled.tiles > 1
    assert (whole.pixels - tiled.pixels).abs().max() < 0.02 / 255


def test_the_detector_tells_them_apart(truth: torch.Tensor) -> None:
    detector = load_detector(locate(DEFAULT_DETECTOR), CPU)
    assert detector.diagnose(truth).is_clean
    g = torch.Generator().manual_seed(0)
    for task, chain in (("noise", "noise(50)"), ("jpeg", "jpeg(10)"), ("lowlight", "lowlight"), ("missing", "missing")):
        shown = synth.parse(chain).apply(truth[None], g)[0]
        assert detector.diagnose(shown).present[:1] == (task,)


def test_a_clean_photograph_comes_back_byte_for_byte() -> None:
    result = irtool.restore(TRUTH.read_bytes())
    assert result.untouched
    assert result.encode() == TRUTH.read_bytes()


def test_readme_sample_is_improved() -> None:
    result = irtool.restore(SAMPLES / "rain.jpg")
    assert "rain" in result.diagnosis.present
    assert not result.untouched
