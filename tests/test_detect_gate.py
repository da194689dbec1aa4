"""The check after restoring, and the maps drawn over a picture."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from irtool.degradation import IDS
from irtool.detection import gate
from irtool.detection.detector import Diagnosis
from irtool.detection.network import LOCAL
from irtool.detection.overlay import overlay


def picture(seed: int = 0) -> torch.Tensor:
    """(3, 128, 160) with large and small structure."""
    g = torch.Generator().manual_seed(seed)
    coarse, fine = (torch.rand(1, 3, *size, generator=g) for size in ((8, 10), (32, 40)))
    both = [torch.nn.functional.interpolate(x, (128, 160), mode="bilinear") for x in (coarse, fine)]
    return (0.6 * both[0] + 0.4 * both[1])[0]


def diagnosis(
    kind: str, score: float, cells: torch.Tensor | None = None, features: torch.Tensor | None = None
) -> Diagnosis:
    maps = {i: torch.zeros(8, 10) for i in LOCAL}
    if cells is not None:
        maps[kind] = cells
    return Diagnosis({i: score if i == kind else 0.0 for i in IDS}, (kind,), maps=maps, features=features)


LEFT = torch.cat([torch.ones(8, 3), torch.zeros(8, 7)], dim=1)


def test_what_removes_the_damage_where_it_is_passes() -> None:
    before = picture()
    after = before.clone()
    after[:, :, :40] *= 0.9
    verdict = gate.judge(before, after, diagnosis("rain", 0.9, LEFT), diagnosis("rain", 0.1), ["rain"])
    assert verdict.passed and not verdict.reason and verdict.measured["outside"] < 0.05


def test_damage_that_is_as_visible_as_before_is_rejected() -> None:
    before = picture()
    verdict = gate.judge(before, 0.98 * before, diagnosis("haze", 0.9), diagnosis("haze", 0.88), ["haze"])
    assert not verdict.passed and "haze" in verdict.reason


def test_a_change_where_nothing_was_found_is_rejected() -> None:
    before = picture()
    after = before.clone()
    after[:, :, 80:] *= 0.8
    verdict = gate.judge(before, after, diagnosis("shadow", 0.9, LEFT), diagnosis("shadow", 0.0), ["shadow"])
    assert not verdict.passed and verdict.measured["outside"] > 0.9


def test_details_wiped_away_are_rejected() -> None:
    before = picture()
    wiped = torch.nn.functional.avg_pool2d(before, 41, 1, 20, count_include_pad=False)
    verdict = gate.judge(before, wiped, diagnosis("noise", 0.9), diagnosis("noise", 0.0), ["noise"])
    assert not verdict.passed and "details" in verdict.reason


def test_brightening_keeps_the_structure() -> None:
    bright = picture()
    dark = bright**2.2 * 0.2
    assert gate.structure(dark, bright) > 0.8
    hazy = 0.3 * bright + 0.65
    assert gate.structure(hazy, bright) > 0.8
    assert abs(gate.structure(bright, picture(1))) < 0.4
    assert gate.structure(torch.zeros(3, 9, 9), torch.zeros(3, 9, 9)) == 0  # nothing to see


def test_other_content_is_rejected() -> None:
    before, features = picture(), torch.eye(4)
    found, then = diagnosis("shadow", 0.9, torch.ones(8, 10), features[0]), diagnosis("shadow", 0.0, None, features[1])
    verdict = gate.judge(before, before * 0.95, found, then, ["shadow"])
    assert not verdict.passed and "content" in verdict.reason


def test_half_of_a_result_is_kept_where_all_of_it_fails() -> None:
    before = picture()
    after = torch.nn.functional.avg_pool2d(before, 31, 1, 15, count_include_pad=False)
    found = diagnosis("noise", 0.9)
    pixels, share, _, verdict = gate.check(before, after, found, lambda x: diagnosis("noise", 0.0), ["noise"])
    assert share == 0.5 and torch.equal(pixels, torch.lerp(before, after, 0.5)) and not verdict.passed
    pixels, share, then, _ = gate.check(before, after, found, lambda x: found, ["noise"])
    assert share == 0 and pixels is before and then is found


def test_maps_are_drawn_where_they_say() -> None:
    before = picture().permute(1, 2, 0).numpy()
    drawn = overlay(before, diagnosis("shadow", 0.9, LEFT))
    assert drawn.shape == before.shape and drawn.dtype == np.uint8
    change = np.abs(drawn / 255 - before).mean(axis=2)[20:]
    assert change[:, :30].mean() > 0.1
    assert change[:, 80:].mean() < 0.01
    Image.fromarray(drawn)
    clean = overlay(before, Diagnosis(dict.fromkeys(IDS, 0.0), ()))
    assert np.abs(clean / 255 - before).max() < 0.003


def test_a_page_or_a_frame_is_not_filled() -> None:
    holed = picture()
    holed[:, 10:60, 40:90] = 1
    filled = picture()
    found, then = diagnosis("missing", 0.9, torch.ones(8, 10)), diagnosis("missing", 0.0)
    assert gate.judge(holed, filled, found, then, ["missing"]).passed
    page = torch.nn.functional.pad(picture()[:, 8:-8, 8:-8], (8, 8, 8, 8), value=1.0)
    verdict = gate.judge(page, filled, found, then, ["missing"])
    assert not verdict.passed and "edge" in verdict.reason
    assert not gate.bordered(holed)
