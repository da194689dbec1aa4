"""Every protocol against a computation that shares no line with it, benchmarks/protocols.py."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from irtool.data import PROTOCOLS, get_protocol
from irtool.errors import PictureError, UsageError
from irtool.evaluation.degrade import Degrader
from irtool.evaluation.run import enlarge
from irtool.evaluation.score import crop, quantize, read_stored, score
from irtool.metrics import luma, psnr
from irtool.synth import parse

# What `python benchmarks/protocols.py --shared SHARED` prints.
FIGURES = {
    "canonical": ((21.2930, 0.62878), (22.4551, 0.93536)),
    "canonical-floor": ((21.3662, 0.63080), (22.5684, 0.93664)),
    "daclip": ((21.2419, 0.62440), (22.4175, 0.93469)),
    "promptir": ((21.3051, 0.63016), (22.4197, 0.93734)),
    "rain-y": ((22.6311, 0.64635), (23.9442, 0.97124)),
    "rain-y-floor": ((22.7052, 0.64830), (24.0613, 0.97182)),
    "instructir": ((21.3051, 0.62900), (22.4197, 0.93512)),
    "instructir-rain": ((22.6580, 0.64774), (23.7259, 0.96713)),
    "awgn": ((21.2930, 0.62878), (22.4551, 0.93536)),
    "sr-x3": ((22.5940, 0.64306), (23.9154, 0.97097)),
}
PROMPTIR_NOISE, AWGN_NOISE = 20.3601, 20.3549


@pytest.fixture(scope="module")
def mixed(shared: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Truths, and the mean of each with its degraded picture."""
    test = shared / "data" / "test"
    named = (
        (test / "rain_rain100h/rain/1.webp", test / "rain_rain100h/gt/1.webp"),
        (test / "haze_sots_indoor/hazy/1406_2.webp", test / "haze_sots_indoor/gt/1406.webp"),
    )
    loaded = [(read_stored(low), read_stored(high)) for low, high in named]
    return [(truth, (degraded + truth) / 2) for degraded, truth in loaded]


@pytest.mark.parametrize("id", PROTOCOLS)
def test_protocol_agrees_with_the_independent_computation(id: str, mixed: list[tuple[np.ndarray, np.ndarray]]) -> None:
    protocol = get_protocol(id)
    for (truth, image), (decibels, similarity) in zip(mixed, FIGURES[id], strict=True):
        got = score(crop(truth, protocol.multiple), crop(image, protocol.multiple), protocol)
        assert got["psnr"] == pytest.approx(decibels, abs=2e-4)
        assert got["ssim"] == pytest.approx(similarity, abs=5e-5)


@pytest.mark.parametrize(("id", "expected"), [("promptir", PROMPTIR_NOISE), ("awgn", AWGN_NOISE)])
def test_noise_is_drawn_as_the_protocol_has_it(id: str, expected: float, shared: Path) -> None:
    protocol = get_protocol(id)
    degrader = Degrader(parse("noise(25)"), protocol)
    found = []
    for name in ("1", "11"):
        truth = crop(read_stored(shared / "data/test/clean_kodak" / f"{name}.webp"), protocol.multiple)
        found.append(score(truth, degrader(name, truth), protocol)["psnr"])
    assert np.mean(found) == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize(
    ("folder", "low", "high", "expected"),
    [("lowlight_lol_eval15", "low", "high", 7.77), ("noise_cc15", "noisy", "gt", 33.41)],
)
def test_input_of_complete_public_sets_is_as_published(
    folder: str, low: str, high: str, expected: float, shared: Path
) -> None:
    root = shared / "data/test" / folder
    truths = {path.stem: path for path in (root / high).iterdir()}
    found = [
        psnr(quantize(read_stored(truths[path.stem]), "round"), quantize(read_stored(path), "round"))
        for path in (root / low).iterdir()
    ]
    assert len(found) == 15
    assert round(float(np.mean(found)), 2) == expected


def test_every_protocol_is_checked() -> None:
    assert set(FIGURES) == set(PROTOCOLS)


def test_crop_is_centered() -> None:
    x = np.zeros((35, 50, 3), np.float32)
    assert crop(x, 16).shape == (32, 48, 3)
    x[1, 1] = 1
    assert crop(x, 16)[0, 0, 0] == 1  # of three rows too many one goes above and two below


def test_luma_is_matlabs() -> None:
    colors = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 0, 255]]], np.uint8)
    assert luma(colors)[0] == pytest.approx([16, 235, 81.481, 40.966])
    assert luma(colors, swapped=True)[0] == pytest.approx([16, 235, 40.966, 81.481])


def test_a_stored_picture_loses_nothing_where_levels_are_cut_off() -> None:
    levels = np.arange(256, dtype=np.float32).reshape(16, 16, 1).repeat(3, axis=2) / np.float32(255)
    floor = get_protocol("canonical-floor")
    assert score(levels, levels, floor, stored=True) == {"psnr": math.inf, "ssim": 1.0}
    assert score(levels, levels + 0.9 / 255, floor)["psnr"] > 48  # cut off, where rounding would be one level off


def test_what_cannot_be_scored_is_said() -> None:
    x = np.zeros((40, 40, 3), np.float32)
    with pytest.raises(PictureError, match="40x40 against 40x39"):
        score(x[:39], x, get_protocol("canonical"))
    with pytest.raises(PictureError, match="smaller than 19 pixels"):
        score(x[:18], x[:18], get_protocol("daclip"))


def test_an_unknown_protocol_names_the_closest() -> None:
    with pytest.raises(UsageError) as caught:
        get_protocol("promtir")
    assert "promptir" in caught.value.hint


def test_seeds_come_from_names() -> None:
    truth = np.full((24, 20, 3), 0.5, np.float32)
    canonical = get_protocol("canonical")

    def made(name: str, dataset: str = "", seed: int = 0) -> np.ndarray:
        return Degrader(parse("noise(25)"), canonical, dataset, seed)(name, truth)

    assert np.array_equal(made("a"), made("a"))
    for other in (made("b"), made("a", dataset="set"), made("a", seed=1)):
        assert not np.array_equal(made("a"), other)
    levels = made("a") * 255
    assert np.abs(levels - np.rint(levels)).max() < 1e-4
    assert 20 < levels.std() < 30


def test_a_stream_passes_over_what_is_skipped() -> None:
    truth = np.full((16, 16, 3), 0.5, np.float32)
    first, second = (Degrader(parse("noise(25)"), get_protocol("promptir")) for _ in range(2))
    first("a", truth)
    second.skip(truth.shape)
    assert np.array_equal(first("b", truth), second("b", truth))


@pytest.mark.parametrize(
    ("id", "chain"), [("instructir", "noise(25)"), ("promptir", "rain"), ("awgn", "noise(5)|jpeg(9)")]
)
def test_a_protocol_that_does_not_know_a_degradation_says_so(id: str, chain: str) -> None:
    with pytest.raises(UsageError, match=id):
        Degrader(parse(chain), get_protocol(id))


def test_low_resolution_is_enlarged_to_the_truth() -> None:
    truth = np.zeros((30, 36, 3), np.float32)
    small = np.full((10, 12, 3), 0.25, np.float32)
    assert enlarge(small, truth) == pytest.approx(np.full((30, 36, 3), 64 / 255), abs=1e-6)
