"""Motion blur undone by its cause: the path found, divided out, and shown to the network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from blur_samples import photograph, shaken
from compact_samples import CONFIG, random_net

from irtool import engine
from irtool.models import blind_deblur
from irtool.models.base import Condition
from irtool.models.compact import CompactModel, CompactNet
from irtool.models.global_stats import CONTEXT_SIZE
from irtool.training.data import perturbed_kernels


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * (a - b).square().mean().log10())


def alike(a: torch.Tensor, b: torch.Tensor) -> float:
    """The correlation of two kernels, wherever they lie: 1 where they are the same."""
    spectra = [torch.fft.rfft2(k, s=(96, 96)) for k in (a, b)]
    return float(torch.fft.irfft2(spectra[0] * spectra[1].conj(), s=(96, 96)).max() / (a.norm() * b.norm()))


def test_a_known_path_is_divided_out() -> None:
    x = photograph()
    y, kernel = shaken(x)
    assert psnr(blind_deblur.deconvolve(y, kernel), x) > psnr(y, x) + 4
    noisy = (y + 0.04 * torch.randn(y.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    assert psnr(blind_deblur.deconvolve(noisy, kernel), x) > psnr(noisy, x) + 1  # and the noise is not blown up


def test_pictures_of_a_batch_have_paths_of_their_own() -> None:
    x = photograph(96, 96)
    (a, first), (b, second) = shaken(x, 0, 9), shaken(x, 1, 9)
    size = max(first.shape[-1], second.shape[-1])
    kernels = torch.cat([torch.nn.functional.pad(k, ((size - k.shape[-1]) // 2,) * 4) for k in (first, second)])
    both = blind_deblur.deconvolve(torch.cat([a, b]), kernels)
    torch.testing.assert_close(both[:1], blind_deblur.deconvolve(a, kernels[:1]))
    torch.testing.assert_close(both[1:], blind_deblur.deconvolve(b, kernels[1:]))


@pytest.mark.parametrize("sigma", [0.0, 2 / 255, 10 / 255, 40 / 255])
def test_how_much_noise_there_is(sigma: float) -> None:
    y, _ = shaken(photograph(247, 319))
    noisy = y + sigma * torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    assert float(blind_deblur.noise_std(noisy)) == pytest.approx(sigma, rel=0.2, abs=1.5 / 255)


@pytest.mark.parametrize("sigma", [0.0, 5 / 255])
def test_a_path_is_found_in_what_it_has_blurred(sigma: float) -> None:
    x = photograph()
    y, kernel = shaken(x, seed=2)
    y = (y + sigma * torch.randn(y.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    found = blind_deblur.estimate_kernel(y[0])
    assert found is not None
    assert found.shape == (blind_deblur.SIZE, blind_deblur.SIZE) and float(found.sum()) == pytest.approx(1, abs=1e-5)
    assert (found >= 0).all()
    assert alike(found, kernel[0]) > (0.65 if sigma else 0.8)
    place = torch.arange(blind_deblur.SIZE) - blind_deblur.SIZE // 2
    assert abs(float((found.sum(0) * place).sum())) < 0.2
    assert abs(float((found.sum(1) * place).sum())) < 0.2
    added = torch.zeros_like(y[0])
    assert blind_deblur.add_deblurred(y[0], added) and psnr(y + added, x) > psnr(y, x) + 1.5


def test_a_wrong_path_gives_itself_away() -> None:
    y, kernel = shaken(photograph())
    light, smoothness = blind_deblur.to_linear(y), blind_deblur._smoothness(y)
    wrong = blind_deblur._out_of_range(light, kernel.transpose(1, 2).flip(1), smoothness)
    assert wrong > 3 * blind_deblur._out_of_range(light, kernel, smoothness)


def test_no_guess_where_no_path_explains_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    small, added = photograph(40, 300)[0], torch.zeros(3, 40, 300)
    assert not blind_deblur.add_deblurred(small, added)  # too small to tell
    monkeypatch.setattr(blind_deblur, "MAX_OUT_OF_RANGE", 0.0)
    y, _ = shaken(photograph(128, 128), length=9)
    assert not blind_deblur.add_deblurred(y[0], y[0])


def test_flat_and_tiny_pictures_do_no_harm() -> None:
    for picture in (torch.full((3, 80, 90), 0.5), torch.zeros(3, 70, 64), torch.ones(3, 65, 67)):
        added = torch.zeros_like(picture)
        blind_deblur.add_deblurred(picture, added)
        assert float(added.abs().max()) < 1e-3
    assert not blind_deblur.add_deblurred(torch.rand(3, 5, 900), torch.zeros(3, 5, 900))


def test_tiles_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    y, kernel = shaken(photograph(), length=9)
    kernel = torch.nn.functional.pad(kernel[0], ((blind_deblur.SIZE - kernel.shape[-1]) // 2,) * 4)
    monkeypatch.setattr(blind_deblur, "estimate_kernel", lambda pixels: kernel)
    whole, tiled = torch.zeros(2, *y[0].shape)
    assert blind_deblur.add_deblurred(y[0], whole) and whole.any()
    monkeypatch.setattr(blind_deblur, "_TILE", 100)
    assert blind_deblur.add_deblurred(y[0], tiled)
    # What a picture goes on like beyond its border is felt far inside of it, but less and less.
    assert float((whole - tiled).abs().mean()) < 2e-3


def test_of_a_large_picture_the_busiest_part_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blind_deblur, "WINDOW", 300 * 300)
    large = torch.full((3, 900, 700), 0.5)
    large[:, 500:800, 300:600] = torch.rand(3, 300, 300, generator=torch.Generator().manual_seed(0))
    part = blind_deblur._most_textured_window(large)
    assert part.shape[-2] * part.shape[-1] <= 300 * 300
    assert float((part != 0.5).float().mean()) > 0.5


def test_estimated_kernels_are_imitated() -> None:
    _, kernel = shaken(photograph(64, 64))
    g = torch.Generator().manual_seed(2)
    likeness = []
    for _ in range(20):
        other = perturbed_kernels(kernel.repeat(3, 1, 1), g)
        torch.testing.assert_close(other.sum((1, 2)), torch.ones(3))
        assert (other >= 0).all() and other.shape[-1] % 2 == 1
        likeness += [alike(one, kernel[0]) for one in other]
    assert 0.7 < np.mean(likeness) < 0.95 and np.std(likeness) > 0.02


def guessing_net() -> CompactNet:
    return CompactNet(**CONFIG, guess=True).eval().requires_grad_(False)


def test_a_fresh_net_takes_a_guess_and_without_one_does_as_before() -> None:
    x, context, mixture = torch.rand(2, 3, 32, 48), torch.rand(2, CONTEXT_SIZE), torch.eye(10)[:2]
    guess, holes = torch.rand_like(x), torch.zeros(2, 1, 32, 48)
    net = guessing_net()
    torch.testing.assert_close(net(torch.cat([x, holes, guess - x], 1), context, mixture), guess, rtol=1e-4, atol=1e-5)
    net.load_state_dict(net.grow_from(random_net().state_dict()))
    seen = torch.cat([x, holes], 1)
    torch.testing.assert_close(net(seen, context, mixture), random_net()(seen, context, mixture))
    none = torch.cat([seen, torch.zeros_like(x)], 1)
    torch.testing.assert_close(net(none, context, mixture), net(seen, context, mixture), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("task, asked", [("blur", True), ("noise", False)])
def test_a_guess_is_made_for_blur_alone(monkeypatch: pytest.MonkeyPatch, task: str, asked: bool) -> None:
    x = photograph(80, 96)[0]
    monkeypatch.setattr(blind_deblur, "add_deblurred", lambda pixels, added: added.copy_(1 - 2 * pixels).any())
    outcome = engine.run(CompactModel(guessing_net()).bind(Condition({task: 1.0})), x, device=torch.device("cpu"))
    torch.testing.assert_close(outcome.pixels, 1 - x if asked else x, rtol=1e-4, atol=1e-4)
