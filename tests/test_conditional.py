"""Conditional samplers where the answer is known, and the operators they look through."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from irtool.diffusion import conditional, operators, smc
from irtool.diffusion.conditional import Prior
from irtool.diffusion.gaussian import gaussian_diffusion
from irtool.diffusion.schedules import process, times

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from gaussian_posterior import errors, problem, samples

LINEAR = {
    "identity": operators.Identity(),
    "mask": operators.Mask((torch.rand(8, 12, generator=torch.Generator().manual_seed(0)) > 0.4).float()),
    "downsample": operators.Downsample(4),
    "gray": operators.Gray(),
    "blur": operators.Blur(operators.gaussian_kernel(0.8), (8, 12)),
    "motion": operators.Blur(operators.line_kernel(4, 30), (8, 12)),
}


def pictures(count: int = 2, seed: int = 1) -> Tensor:
    return torch.rand(count, 3, 8, 12, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", LINEAR)
def test_a_decomposition_is_that_of_its_operator(name: str) -> None:
    """V is unitary, A^T A = V S^2 V^T, and A A^+ A = A."""
    A, x, v = LINEAR[name], pictures(), pictures(seed=2)
    torch.testing.assert_close(A.from_spectrum(A.spectrum(x)), x, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(A.spectrum(x).abs().square().sum(), x.square().sum())
    inner = (A.spectrum(x) * A.spectrum(v).conj() * A.singular**2).sum().real
    torch.testing.assert_close(inner, (A(x) * A(v)).sum(), atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(A(A.pinv(A(x))), A(x), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(A.observed(A(x)), A.spectrum(x) * (A.singular > 0), atol=1e-3, rtol=1e-3)


def test_jpeg_rounds_as_the_codec_does_and_lets_gradients_through() -> None:
    import io

    import numpy as np
    from PIL import Image

    # Of gray pictures, for the decoder interpolates chroma, which this one repeats; and of a color one, less closely.
    ramp = torch.linspace(0.1, 0.9, 32)
    gray = (0.5 * (ramp[None, :] + ramp[:, None]) + 0.1 * pictures().new_tensor([0.0, 1.0]).repeat(16)).expand(
        1, 3, 32, 32
    )
    x = gray * torch.tensor([1.0, 0.8, 0.6]).view(1, 3, 1, 1)
    for quality, seen, allowed in ((10, gray, 0.004), (40, gray, 0.004), (90, gray, 0.004), (40, x, 0.01)):
        stream = io.BytesIO()
        array = (seen[0] * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(array).save(stream, "JPEG", quality=quality, subsampling=2)
        real = torch.from_numpy(np.asarray(Image.open(stream)).copy()).permute(2, 0, 1) / 255
        ours = operators.Jpeg(quality)(seen)[0]
        assert (ours - real).abs().mean() < allowed, quality
    leaf = x.clone().requires_grad_(True)
    operators.Jpeg(20)(leaf).sum().backward()
    assert leaf.grad is not None and float(leaf.grad.abs().sum()) > 0


@pytest.mark.parametrize("mask", [False, True], ids=["mixing", "mask"])
@pytest.mark.parametrize("name", ["twisted", "joint"])
def test_sequential_monte_carlo_gives_the_posterior_of_a_gaussian(name: str, mask: bool) -> None:
    """Mean and covariance, within what as many draws of the posterior itself differ by (about 0.03 and 0.05)."""
    of_mean, of_covariance = errors(problem(0, mask=mask), samples(problem(0, mask=mask), name, 2000, 100))
    assert of_mean < 0.08 and of_covariance < 0.15
    biased = errors(problem(0, mask=mask), samples(problem(0, mask=mask), "ddrm", 2000, 100))
    assert biased[1] > 0.2  # an approximate sampler would not pass


def test_twisting_estimates_the_evidence() -> None:
    p, g = problem(0), torch.Generator().manual_seed(0)

    def draw() -> Tensor:
        return torch.randn(2000, 6, generator=g, dtype=torch.float64)

    found = smc.twisted(p.prior(), p.A, p.y[None], p.sigma, times(1000, 50), draw, g)
    assert found.log_evidence == pytest.approx(p.log_evidence(), abs=0.1)


@pytest.mark.parametrize("name", ["ddrm", "ddnm", "diffpir", "repaint"])
def test_what_is_seen_without_noise_is_kept(name: str) -> None:
    p = problem(1, mask=True, sigma=0.0)
    x = samples(p, name, 8, 50)
    torch.testing.assert_close(x[:, :3], p.y.expand(8, -1), atol=0.02 if name == "diffpir" else 1e-6, rtol=0)
    assert float(x[:, 3:].std(0).min()) > 0.05  # what is not seen is drawn


@pytest.mark.parametrize("name", ["ddrm", "ddnm", "dps, zeta 0.1", "diffpir"])
def test_every_sampler_comes_closer_to_the_posterior_than_the_prior(name: str) -> None:
    """Approximate as they are, they halve the error of the mean at least."""
    problems = [problem(seed) for seed in range(3)]
    guided = sum(errors(p, samples(p, name, 1000, 100))[0] for p in problems)
    assert guided < 0.5 * sum(errors(p, samples(p, "prior", 1000, 1))[0] for p in problems)


def test_jumps_go_back_as_often_as_asked() -> None:
    assert conditional.with_jumps([4, 3, 2, 1, 0], 2, 2) == [4, 3, 2, 4, 3, 2, 1, 0, 2, 1, 0]
    assert conditional.with_jumps([3, 2, 1, 0], 2, 1) == [3, 2, 1, 0]


def test_a_mean_reverting_model_is_a_prior() -> None:
    """With the true noise the clean picture comes out, whatever the state."""
    p, x0, mu = process(max_sigma=50), pictures(1), pictures(1, seed=5)

    def net(x: Tensor, mu: Tensor, t: float) -> Tensor:
        decay, std = p.decay(int(t)), p.lam * (1 - p.decay(int(t)) ** 2).sqrt()
        return (x - mu - (x0 - mu) * decay) / std

    prior = Prior.of_mean_reverting(p, net, mu)
    u = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    clean, _ = prior.denoise(u, 40)
    torch.testing.assert_close(mu + p.lam * clean, x0, atol=1e-4, rtol=1e-4)


def test_ddnm_keeps_what_barely_passes_a_blur_with_noise_out_of_the_picture() -> None:
    """Coefficients whose noise exceeds the state's must come from the prior, not grow from step to step."""
    alpha_bar = torch.cat([torch.ones(1, dtype=torch.float64), gaussian_diffusion().alpha_bar])
    spread = 0.5

    def noise(x: Tensor, t: int) -> Tensor:  # of a prior N(0, spread^2) on every pixel
        abar = float(alpha_bar[t])
        return (1 - abar) ** 0.5 * x / (abar * spread**2 + 1 - abar)

    g, A = torch.Generator().manual_seed(0), operators.Blur(operators.gaussian_kernel(1.2), (32, 32))
    x = spread * torch.randn(4, 3, 32, 32, generator=g)
    sigma = 0.08
    y = A(x) + sigma * torch.randn(x.shape, generator=g)

    def draw() -> Tensor:
        return torch.randn(x.shape, generator=g)

    found = conditional.ddnm(Prior(alpha_bar, noise), A, y, sigma, times(1000, 20), draw)
    assert float((found - x).square().mean().sqrt()) < 0.65  # 0.55; 0.78 where the noise is counted twice
    assert float(found.std()) < spread
