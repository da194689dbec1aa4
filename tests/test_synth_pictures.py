"""What the degradations do to pictures: shapes, determinism, and the statistics each promises."""

from __future__ import annotations

import io
import math
import random

import numpy as np
import pytest
import torch
from PIL import Image

from irtool.synth import TABLE, parse, random_chain
from irtool.synth.blur import kernels_along, trajectories
from irtool.synth.haze import airlight_color, transmission
from irtool.synth.missing import hole_mask
from irtool.synth.ops import convolve, gaussian_blur, pad_reflect, to_linear, to_srgb
from irtool.synth.shadow import shadow_mask

EVERY = sorted(TABLE)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def scene(n=2, h=96, w=128, seed=0):
    """A smooth picture with some edges, values well inside [0,1]."""
    coarse = torch.rand(n, 3, 6, 8, generator=seeded(seed))
    smooth = torch.nn.functional.interpolate(coarse, size=(h, w), mode="bilinear")
    blocks = torch.nn.functional.interpolate(coarse.flip(0), size=(h, w), mode="nearest")
    return (0.15 + 0.5 * smooth + 0.2 * blocks).contiguous()


def gray(level, n=1, h=128, w=128):
    return torch.full((n, 3, h, w), float(level))


@pytest.mark.parametrize("id", EVERY)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 3), (16, 16), (33, 47), (130, 21)])
def test_any_size_gives_a_finite_picture_in_range(id, size):
    images = torch.rand(2, 3, *size, generator=seeded())
    for chain in (parse(id), random_chain(id, seeded(1))):
        result = chain.apply(images, seeded(2))
        assert result.shape == images.shape
        assert result.isfinite().all()
        assert result.min() >= 0 and result.max() <= 1


@pytest.mark.parametrize("id", EVERY)
def test_extreme_parameters_stay_finite(id):
    images = torch.cat([gray(0, h=40, w=52), gray(1, h=40, w=52), scene(1, 40, 52)])
    for end in ("low", "high"):
        given = {p.name: getattr(p, end) for p in TABLE[id].parameters if not p.choices}
        for name in {"length", "size"} & set(given):
            given[name] = min(given[name], 20)  # keeps the test quick
        text = f"{id}({', '.join(f'{k}={v}' for k, v in given.items())})"
        result = parse(text).apply(images, seeded())
        assert result.isfinite().all() and result.min() >= 0 and result.max() <= 1


@pytest.mark.parametrize("id", EVERY)
def test_the_seed_decides_and_nothing_else_is_touched(id):
    images = scene()
    before = images.clone()
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    chain = parse(id)
    first = chain.apply(images, seeded(3))
    assert torch.equal(first, chain.apply(images, seeded(3)))
    if id != "jpeg":  # draws nothing
        assert not torch.equal(first, chain.apply(images, seeded(4)))
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert random.getstate() == state[1]
    assert (np.random.get_state()[1] == state[2]).all()


@pytest.mark.parametrize("id", [id for id in EVERY if id != "jpeg"])
def test_samples_of_a_batch_differ(id):
    images = scene(1).expand(4, -1, -1, -1)
    result = parse(id).apply(images, seeded(3))
    assert any(not torch.equal(result[0], result[k]) for k in range(1, 4))


@pytest.mark.parametrize("id", EVERY)
def test_input_types(id):
    result = parse(id).apply(scene(1).half(), seeded())
    assert result.dtype == torch.float16
    assert parse(id).apply(torch.zeros(0, 3, 8, 8), seeded()).shape == (0, 3, 8, 8)


def test_wrong_shape_is_refused():
    with pytest.raises(ValueError, match="N,3,H,W"):
        parse("noise").apply(torch.zeros(3, 8, 8), seeded())


def test_steps_run_in_order():
    images = scene(1)
    generator = seeded(1)
    chained = parse("noise(20)|jpeg(30)").apply(images, seeded(1))
    by_hand = parse("jpeg(30)").apply(parse("noise(20)").apply(images, generator), generator)
    assert torch.equal(chained, by_hand)


# noise


def test_gaussian_noise_is_exact():
    images = scene(2)
    expected = images + (25 / 255) * torch.randn(images.shape, generator=seeded(7))
    assert torch.equal(parse("noise(25)").apply(images, seeded(7)), expected.clamp(0, 1))


@pytest.mark.parametrize("kind", ["gaussian", "poisson", "camera"])
@pytest.mark.parametrize("sigma", [3, 12, 25])
def test_noise_has_its_sigma_at_mid_gray(kind, sigma):
    images = gray(0.5, n=4, h=200, w=200)
    error = parse(f"noise({sigma}, kind={kind})").apply(images, seeded()) - images
    # The tone curve bends the strong noise of a camera, so there sigma is met less closely.
    assert float(error.std()) * 255 == pytest.approx(sigma, rel=0.15 if kind == "camera" else 0.05)
    if kind != "camera":
        assert abs(float(error.mean())) * 255 < 0.05 * sigma


def test_poisson_noise_grows_with_the_light_and_camera_noise_is_smeared():
    noisy = [parse("noise(20, kind=poisson)").apply(gray(v), seeded()).std() for v in (0.1, 0.4)]
    assert float(noisy[1] / noisy[0]) == pytest.approx(2, rel=0.05)
    error = parse("noise(20, kind=camera)").apply(gray(0.5), seeded()) - 0.5
    neighbors = float((error[..., 1:] * error[..., :-1]).mean() / error.square().mean())
    assert 0.1 < neighbors < 0.9


# jpeg


@pytest.mark.parametrize(("q", "subsampling"), [(10, "420"), (75, "444")])
def test_jpeg_is_pillows_codec(q, subsampling):
    images = scene(1, 37, 53)
    pixels = (images[0].permute(1, 2, 0) * 255).round().byte().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=q, subsampling={"420": 2, "444": 0}[subsampling])
    expected = torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1).float() / 255
    result = parse(f"jpeg(q={q}, subsampling={subsampling})").apply(images, seeded())[0]
    assert torch.equal(result, expected)


# blur


def test_kernels_have_unit_sum_and_the_asked_extent():
    paths = trajectories(seeded(), 16, 21.0, 0.5, torch.zeros(1))
    extent = (paths.amax(1) - paths.amin(1)).amax(1)
    assert torch.allclose(extent, torch.full((16,), 20.0), atol=1e-3)
    kernels = kernels_along(paths)
    assert torch.allclose(kernels.sum((1, 2)), torch.ones(16), atol=1e-5)
    assert (kernels >= 0).all()


def test_fft_convolution_agrees_with_direct():
    images = scene(2, 23, 31)
    kernels = torch.rand(2, 7, 7, generator=seeded())
    padded = pad_reflect(images, 3, 3, 3, 3)
    direct = torch.stack(
        [
            torch.nn.functional.conv2d(image[:, None], kernel.flip(0, 1)[None, None])[:, 0]
            for image, kernel in zip(padded, kernels, strict=True)
        ]
    )
    assert torch.allclose(convolve(images, kernels), direct, atol=1e-4)


def test_padding_matches_torch_and_goes_beyond_it():
    images = scene(1, 9, 11)
    assert torch.equal(pad_reflect(images, 3, 4, 2, 5), torch.nn.functional.pad(images, (3, 4, 2, 5), mode="reflect"))
    assert pad_reflect(images, 40, 40, 40, 40).shape == (1, 3, 89, 91)


def test_blur_keeps_linear_light_and_flat_pictures():
    flat = gray(0.3)
    assert torch.allclose(parse("blur(15)").apply(flat, seeded()), flat, atol=1e-4)
    images = torch.zeros(1, 3, 129, 129)
    images[..., 40:89, 40:89] = 0.8
    blurred = parse("blur(15)").apply(images, seeded())
    assert float(to_linear(blurred).sum()) == pytest.approx(float(to_linear(images).sum()), rel=1e-3)
    assert torch.equal(parse("blur(length=1)").apply(images, seeded()).round(decimals=3), images.round(decimals=3))


def test_transfer_curves_are_inverse():
    x = torch.linspace(0, 1, 1001)
    assert torch.allclose(to_srgb(to_linear(x)), x, atol=1e-5)


def test_gaussian_blur_keeps_the_mean():
    assert torch.allclose(gaussian_blur(gray(0.4), 2.5), gray(0.4), atol=1e-6)


# haze


def test_haze_is_undone_by_its_own_transmission_and_airlight():
    images = scene(3)
    hazy = TABLE["haze"].function(images, seeded(9), beta=1.2, airlight=0.9, tint=0.03)
    generator = seeded(9)
    t = transmission(images, generator, 1.2)
    color = airlight_color(images, generator, 0.9, 0.03)
    assert float(t.min()) >= math.exp(-1.2) - 1e-5 and float(t.max()) <= 1
    assert torch.allclose((hazy - color * (1 - t)) / t, images, atol=1e-4)
    assert torch.allclose(parse("haze(beta=0)").apply(images, seeded()), images)


# low light


def test_low_light_ratio():
    images = gray(0.45)
    dark = parse("lowlight(ev=4, gamma=1, noise=0, tint=0)").apply(images, seeded())
    assert float(to_linear(images).mean() / to_linear(dark).mean()) == pytest.approx(16, rel=1e-3)


def test_training_low_light_covers_lol():
    """LOL's dark pictures have means of 0.01 to 0.15 where the bright ones have about 0.45: ratios of 4 to 30."""
    images = scene(1)
    images = images * (0.45 / images.mean())
    generator = seeded()
    means = torch.tensor(
        [float(random_chain("lowlight", generator).apply(images, generator).mean()) for _ in range(60)]
    )
    assert ((means > 0.03) & (means < 0.12)).float().mean() > 0.3
    assert means.min() < 0.03 and means.max() > 0.15


def test_low_light_noise_level():
    clean = parse("lowlight(ev=3, gamma=1, noise=0, tint=0)").apply(gray(0.5), seeded())
    noisy = parse("lowlight(ev=3, gamma=1, noise=4, tint=0)").apply(gray(0.5), seeded())
    assert float((noisy - clean).std()) * 255 == pytest.approx(4, rel=0.1)


# rain, snow, drops


@pytest.mark.parametrize("text", ["rain(0.5, veil=0)", "rain(0.8, directions=5, veil=0)", "snow(0.8, veil=0)"])
def test_streaks_and_flakes_only_brighten(text):
    images = scene(2)
    change = parse(text).apply(images, seeded()) - images
    assert change.min() >= -1e-6
    assert change.max() > 0.2


@pytest.mark.parametrize(
    ("low", "high"),
    [
        ("rain(0.05)", "rain(0.6)"),
        ("snow(0.1)", "snow(0.8)"),
        ("raindrop(5)", "raindrop(60)"),
        ("haze(0.5)", "haze(2)"),
        ("shadow(0.3)", "shadow(0.9)"),
        ("missing(coverage=0.05)", "missing(coverage=0.4)"),
        ("blur(5)", "blur(31)"),
        ("jpeg(50)", "jpeg(5)"),
        ("lowlight(2)", "lowlight(6)"),
        ("real(0.3)", "real(2)"),
    ],
)
def test_more_is_worse(low, high):
    images = scene(8)
    errors = [float((parse(text).apply(images, seeded(3)) - images).square().mean()) for text in (low, high)]
    assert errors[1] > 1.3 * errors[0] > 0


@pytest.mark.parametrize(
    "text",
    [
        "rain(0, veil=0)",
        "snow(0, veil=0)",
        "raindrop(0)",
        "shadow(0)",
        "shadow(coverage=0)",
        "noise(0)",
        "real(0)",
        "missing(coverage=0)",
    ],
)
def test_nothing_asked_nothing_done(text):
    images = scene(2)
    assert torch.equal(parse(text).apply(images, seeded()), images)


def test_rain_falls_along_its_angle():
    canvas = torch.zeros(1, 3, 160, 160)
    upright = parse("rain(0.1, angle=0, spread=0, veil=0, length=40)").apply(canvas, seeded())
    along = (upright[..., 1:, :] - upright[..., :-1, :]).abs().mean()
    across = (upright[..., 1:] - upright[..., :-1]).abs().mean()
    assert across > 4 * along


def test_drops_turn_the_view_over():
    """A scene bright above and dark below shows bright in the lower half of a drop that covers the middle."""
    images = torch.cat([gray(0.9, h=64, w=128), gray(0.1, h=64, w=128)], dim=2)
    result = parse("raindrop(100, size=6, softness=0.2, glow=0)").apply(images, seeded())
    assert result[:, :, :56].min() < 0.4  # dark ground seen among the bright half
    assert result[:, :, 72:].max() > 0.6


# shadow


@pytest.mark.parametrize("coverage", [0.15, 0.5, 0.8])
def test_shadow_covers_its_share(coverage):
    mask = shadow_mask(gray(0.5, n=16), seeded(), 0.01, coverage)
    assert torch.allclose(mask.mean((1, 2, 3)), torch.full((16,), coverage), atol=0.06)


def test_shadow_darkens_and_is_bluish():
    images = gray(0.6, n=4)
    result = parse("shadow(0.7, tint=0.3)").apply(images, seeded())
    assert (result <= images + 1e-5).all()
    darkest = result.flatten(2).amin(2)
    assert (darkest[:, 0] < darkest[:, 1]).all() and (darkest[:, 1] < darkest[:, 2]).all()
    kept = to_linear(result) / to_linear(images)
    assert torch.allclose(kept[:, 1].amin((1, 2)), torch.full((4,), 0.3), atol=0.02)


# missing


@pytest.mark.parametrize("kind", ["thin", "thick", "box", "text"])
@pytest.mark.parametrize("coverage", [0.05, 0.3, 0.5])
def test_hole_share(kind, coverage):
    shares = [hole_mask(256, 200, kind, coverage, random.Random(seed)).mean() for seed in range(8)]
    # One box may be a fifth of the picture, so a single mask may overshoot; the mean must not stray far.
    room = {"thin": 0.04, "text": 0.06, "thick": 0.08, "box": 0.2}[kind]
    assert coverage * 0.95 <= np.mean(shares) <= coverage + room


@pytest.mark.parametrize(("fill", "value"), [("white", 1.0), ("black", 0.0)])
def test_holes_are_filled_and_the_rest_untouched(fill, value):
    images = scene(2)
    result = parse(f"missing(thin, fill={fill}, coverage=0.2)").apply(images, seeded())
    holes = (result == value).all(1, keepdim=True).expand_as(images)
    assert torch.equal(result[~holes], images[~holes])
    assert 0.15 < holes.float().mean() < 0.3


# real


def test_real_chain_varies_but_keeps_the_scene():
    images = scene(1).expand(6, -1, -1, -1)
    result = parse("real").apply(images, seeded())
    errors = (result - images).square().mean((1, 2, 3))
    assert errors.unique().numel() == 6
    assert errors.max() < 0.02
