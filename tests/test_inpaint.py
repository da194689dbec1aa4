"""Missing regions: found, filled, and shown to the network."""

from __future__ import annotations

import pytest
import torch
from compact_samples import random_net

from irtool import engine, synth
from irtool.degradation import INDEX
from irtool.models.base import Condition
from irtool.models.compact import CompactModel
from irtool.models.inpaint import fill_detected_holes, fill_holes, find_holes


def scene(height: int = 60, width: int = 84, seed: int = 0) -> torch.Tensor:
    """A smooth picture (1, 3, H, W) with a little grain, so that nothing in it is flat."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 5, 6, generator=g)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
    return ((0.1 + 0.8 * smooth + 0.02 * torch.rand(smooth.shape, generator=g)).clamp(0, 0.98) * 255).round() / 255


@pytest.mark.parametrize("kind", ["thin", "thick", "box", "text"])
@pytest.mark.parametrize("fill", ["white", "black"])
def test_holes_of_one_color_are_found(kind: str, fill: str) -> None:
    x = scene(128, 160)
    g = torch.Generator().manual_seed(3)
    y = synth.parse(f"missing(kind={kind}, fill={fill}, coverage=0.2)").apply(x, g)
    truth = (y != x).any(1, keepdim=True)
    found = find_holes(y) > 0
    assert not (found & ~truth).any()
    assert (found & truth).sum() / truth.sum() > 0.95  # single pixels at the rim of a letter do not count


@pytest.mark.parametrize("quality", [75, 90, 98])
@pytest.mark.parametrize("fill", ["white", "black"])
def test_the_rim_that_jpeg_leaves_belongs_to_the_hole(fill: str, quality: int) -> None:
    x, g = scene(160, 192), torch.Generator().manual_seed(3)
    y = synth.parse(f"missing(kind=thick, fill={fill}, coverage=0.2)").apply(x, g)
    truth = (y != x).any(1, keepdim=True)
    found = find_holes(synth.parse(f"jpeg(q={quality})").apply(y, g)) > 0
    assert (found & truth).sum() / truth.sum() > 0.97
    assert (found & ~truth).sum() / truth.sum() < 0.05


@pytest.mark.parametrize("color", [(0.0, 0.0, 1.0), (128 / 255,) * 3])
def test_the_color_may_be_any(color: tuple[float, ...]) -> None:
    y = scene()
    y[:, :, 20:40, 30:50] = torch.tensor(color).view(3, 1, 1)
    expected = torch.zeros_like(y[:, :1])
    expected[:, :, 20:40, 30:50] = 1
    assert torch.equal(find_holes(y), expected)


def test_nothing_is_found_where_nothing_is_flat() -> None:
    assert not find_holes(scene()).any()
    assert not find_holes(torch.zeros(1, 3, 1, 9)).any()


def test_pictures_of_a_batch_have_holes_of_their_own() -> None:
    a, b = scene(seed=1), scene(seed=2)
    a[:, :, 5:25, 5:25] = 1
    b[:, :, 30:50, 30:70] = 0
    both = find_holes(torch.cat([a, b]))
    assert torch.equal(both[:1], find_holes(a))
    assert torch.equal(both[1:], find_holes(b))
    assert both[0].any() and both[1].any()


@pytest.mark.parametrize("size", [(60, 84), (61, 37), (1, 17), (2, 2)])
def test_what_is_known_stays_and_a_filling_lies_between_its_surroundings(size: tuple[int, int]) -> None:
    x = scene(*size)
    holes = (torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(1)) < 0.4).float()
    holes[..., 0, 0] = 0  # something is known
    y = fill_holes(x * (1 - holes) + holes, holes)
    assert torch.equal(torch.where(holes > 0, x, y), x)
    known = torch.where(holes > 0, x.new_tensor(float("nan")), x).flatten(2)
    for channel in range(3):
        values = known[0, channel][~known[0, channel].isnan()]
        assert y[0, channel].min() >= values.min() - 1e-5
        assert y[0, channel].max() <= values.max() + 1e-5


def test_a_plane_is_continued_across_a_hole() -> None:
    # A harmonic filling of a plane is the plane. A constant one is off by a quarter of what it rises across the hole.
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    holes = torch.zeros(1, 1, 64, 64)
    holes[..., 24:40, 24:40] = 1
    off = (fill_holes(ramp, holes) - ramp).abs()[..., 24:40, 24:40].mean()
    assert off < 0.25 * (ramp[0, 0, 0, 39] - ramp[0, 0, 0, 24]) / 4


def test_only_those_that_ask_are_filled() -> None:
    y = scene().repeat(2, 1, 1, 1)
    y[:, :, 20:40, 30:50] = 1
    seen = fill_detected_holes(y, torch.tensor([False, True]))
    assert seen.shape == (2, 4, 60, 84)
    assert torch.equal(seen[0, :3], y[0]) and not seen[0, 3].any()
    assert (seen[1, :3, 20:40, 30:50] < 1).all() and seen[1, 3].sum() == 400


def test_the_network_is_told_of_holes_and_tiles_agree() -> None:
    net = random_net()
    expert = CompactModel(net).bind(Condition({"missing": 1.0}))
    y = scene(200, 232)[0]
    y[:, 60:120, 40:190] = 1
    seen, context = expert.prepare(y[None])
    seen = seen[0]
    assert seen.shape == (4, 200, 232) and seen[3].any()
    padded = CompactModel(net).bind(Condition({"noise": 1.0})).prepare(y[None])[0][0]
    assert torch.equal(padded[:3], y)
    device = torch.device("cpu")
    whole = engine.run(expert, y, device=device, dtype="fp32", tile="off").pixels
    tiled = engine.run(expert, y, device=device, dtype="fp32", tile="64").pixels
    torch.testing.assert_close(tiled, whole, atol=1 / 255, rtol=0)
    mixture = torch.zeros(1, 10)
    mixture[0, INDEX["missing"]] = 1
    told = net(seen[None, :, :192, :224], context, mixture)
    untold = net(seen[None, :3, :192, :224], context, mixture)
    assert not torch.allclose(told, untold, atol=1e-4)


def test_what_was_filled_stays_so_where_nothing_else_is_undone() -> None:
    restorer = CompactModel(random_net())
    y = scene(96, 112)[0]
    y[:, 30:60, 40:80] = 1
    device = torch.device("cpu")
    results = {
        tasks: engine.run(restorer.bind(Condition(dict.fromkeys(tasks, 1.0))), y, device=device, dtype="fp32").pixels
        for tasks in (("missing",), ("missing", "noise"))
    }
    seen = restorer.bind(Condition({"missing": 1.0})).prepare(y[None])[0][0]
    inside = (seen[3:] > 0).expand(3, -1, -1)
    assert torch.equal(results["missing",][inside], seen[:3][inside].clamp(0, 1))
    # All around, and where the filling itself has what else is to be undone, the network has its say.
    assert (results["missing",] - y)[~inside].abs().max() > 0.01
    assert (results["missing", "noise"] - seen[:3])[inside].abs().max() > 0.01


@pytest.mark.parametrize("hole", [0.0, 1.0])
def test_a_color_of_the_picture_itself_is_no_hole(hole: float) -> None:
    """What JPEG makes of a dark wall: flat blocks, more of them than there is hole."""
    g = torch.Generator().manual_seed(0)
    wall = 0.3 + torch.randint(-5, 6, (1, 3, 12, 16), generator=g) / 255
    y = torch.nn.functional.interpolate(wall, scale_factor=8)
    y[..., :48] = 0.3
    assert not find_holes(y).any()
    y[:, :, 30:36, 20:120] = hole
    expected = torch.zeros_like(y[:, :1])
    expected[:, :, 30:36, 20:120] = 1
    assert torch.equal(find_holes(y), expected)
