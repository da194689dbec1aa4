"""Sampling, sweeping and steering: what holds of any weights. Published numbers are in test_golden_diffusion."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

import irtool
from irtool import engine
from irtool.cli import main as irtool_main
from irtool.degradation import IDS
from irtool.diffusion import denoising, irsde
from irtool.diffusion.sampling import STEPS, Sampling
from irtool.diffusion.schedules import process, thetas, times
from irtool.engine.tiling import Tiler, blend_weights, grid
from irtool.models import loading
from irtool.models.base import Condition, ModelInfo
from irtool.models.cuda_graphs import CudaGraphCache
from irtool.models.diffusion import DiffusionModel, noise_level
from irtool.models.irsde_unet import ConditionalUNet, ContextUNet
from irtool.models.latent_unet import LatentUNet
from irtool.models.nafnet import NAFNet
from irtool.models.refusion_nafnet import ConditionalNAFNet

CPU = torch.device("cpu")
PIXELS = torch.rand(3, 45, 70, generator=torch.Generator().manual_seed(1))
LARGER = torch.rand(3, 101, 142, generator=torch.Generator().manual_seed(1))


def drawn(net: torch.nn.Module, seed: int = 0) -> Any:
    """A network with every weight drawn, those too that start at zero."""
    g = torch.Generator().manual_seed(seed)
    for p in net.parameters():
        with torch.no_grad():
            p.copy_(torch.randn(p.shape, generator=g) * (0.5 / max(1, p[0].numel()) ** 0.5 if p.ndim > 1 else 0.2))
    return net.eval().requires_grad_(False)


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * (a - b).square().mean().clamp_min(1e-20).log10())


# ---- the process


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_a_long_step_is_the_sum_of_short_ones(schedule: str) -> None:
    """The posterior of a long step has the mean and the variance that chained short steps have."""
    p = process(schedule, 40)
    x0, mu, x = (torch.full((1, 1, 1, 1), v, dtype=torch.float32) for v in (0.2, 0.7, 0.9))
    far, variance = x, 0.0
    for t in range(30, 12, -1):
        # x_{t-1} is linear in x_t with this factor, so variances of earlier draws shrink by its square.
        slope = irsde.posterior_mean(p, far + 1, x0, mu, t, t - 1) - irsde.posterior_mean(p, far, x0, mu, t, t - 1)
        variance = float(slope) ** 2 * variance + float(irsde.posterior_std(p, t, t - 1)) ** 2
        far = irsde.posterior_mean(p, far, x0, mu, t, t - 1)
    assert torch.allclose(irsde.posterior_mean(p, x, x0, mu, 30, 12), far, atol=1e-5)
    assert float(irsde.posterior_std(p, 30, 12)) ** 2 == pytest.approx(variance, rel=1e-4)


@pytest.mark.parametrize("steps", [100, 20, 5, 1])
def test_posterior_sampling_is_exact_where_the_noise_is(steps: int) -> None:
    g = torch.Generator().manual_seed(0)
    p, x0, mu = process(), torch.rand(1, 3, 16, 16, generator=g), torch.rand(1, 3, 16, 16, generator=g)

    def oracle(x: Tensor, mu: Tensor, t: float) -> Tensor:
        return irsde.noise_in(p, x, x0, mu, round(t))

    def sampled(name: str) -> Tensor:
        draw = lambda: torch.randn(mu.shape, generator=g)  # noqa: E731
        return irsde.sample(p, oracle, mu, times(p.T, steps), name, draw)

    assert psnr(sampled("posterior"), x0) > 90
    if steps == 100:
        # As measured with the published code: 48.9 and 51.4 dB.
        assert 46 < psnr(sampled("sde"), x0) < 52
        assert 48 < psnr(sampled("ode"), x0) < 56


def test_times() -> None:
    assert times(100, 4) == [100, 75, 50, 25, 0]
    assert times(100, 100) == list(range(100, -1, -1))
    assert all(a > b for n in range(1, 101) for a, b in zip(times(100, n), times(100, n)[1:], strict=False))
    with pytest.raises(ValueError, match="1 to 100"):
        times(100, 101)
    with pytest.raises(ValueError, match="no schedule"):
        thetas("cubic", 10)


def test_a_noisy_picture_is_a_state_of_the_denoising_process() -> None:
    g = torch.Generator().manual_seed(0)
    p, x0 = denoising.process_of(), torch.rand(1, 3, 24, 24, generator=g)
    t = denoising.optimum_time(p, 25)
    assert float(irsde.std(p, t)) == pytest.approx(25 / 255, abs=0.003)
    noisy = x0 + irsde.std(p, t) * torch.randn(x0.shape, generator=g)

    def restored(sampler: str, steps: int) -> float:
        def net(x: torch.Tensor, _: torch.Tensor, k: float) -> torch.Tensor:
            return (x - x0) / irsde.std(p, round(k))

        def draw() -> torch.Tensor:
            return torch.randn(x0.shape, generator=g)

        return psnr(denoising.sample(p, net, noisy, times(t, steps), sampler, draw), x0)

    assert restored("posterior", 3) > 90
    # Euler steps are as good as they are short.
    for sampler in ("sde", "ode"):
        assert psnr(noisy, x0) + 3 < restored(sampler, 5) < restored(sampler, t)


@pytest.mark.parametrize("sigma", [5, 25, 50])
def test_noise_level(sigma: int) -> None:
    g = torch.Generator().manual_seed(sigma)
    ramp = torch.linspace(0.2, 0.8, 96).expand(1, 3, 80, 96)
    assert noise_level(ramp + torch.randn(ramp.shape, generator=g) * sigma / 255) == pytest.approx(
        sigma / 255, rel=0.05
    )
    assert noise_level(ramp) < 1e-6 and noise_level(ramp[..., :2, :2]) == 0


# ---- sweeping


@pytest.mark.parametrize(("height", "width", "pixels"), [(45, 70, 40 * 40), (100, 33, 48 * 40), (16, 200, 16 * 64)])
def test_weights_of_tiles_sum_to_one(height: int, width: int, pixels: int) -> None:
    padded = [-(-s // 8) * 8 for s in (height, width)]
    tiles = grid(*padded, multiple=8, overlap=8, pixels=pixels)
    assert len(tiles) > 1
    total = torch.zeros(height, width)
    for tile, weight in zip(tiles, blend_weights(tiles, height, width), strict=True):
        assert float(weight.min()) >= 0
        total[tile.top : min(tile.bottom, height), tile.left : min(tile.right, width)] += weight
    assert torch.allclose(total, torch.ones_like(total), atol=1e-6)


def _info(multiple: int, overlap: int) -> ModelInfo:
    return ModelInfo("test", IDS, multiple, overlap, 1, 1.0, 100, tiling="blended")


def test_sweep_equals_the_whole_for_a_local_network() -> None:
    kernel = torch.randn(3, 6, 5, 5, generator=torch.Generator().manual_seed(0)) / 12

    def net(a: Tensor, b: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(torch.cat([a, b], 1), kernel, padding=2)

    a, b = PIXELS[None], PIXELS.flip(0)[None]
    sweep = Tiler(_info(8, 16), 40 * 48)
    got, inner = sweep(net, a, b), (..., slice(2, -2), slice(2, -2))
    assert sweep.tiles > 3
    # At the seams each tile sees its own padding, where the weight has fallen towards zero but is not zero.
    assert psnr(got[inner], net(a, b)[inner]) > 35
    whole = Tiler(_info(8, 16), 1 << 20)
    assert torch.equal(whole(net, a, b), net(a, b)) and whole.tiles == 1


def test_sweep_halves_its_tiles_where_memory_ends() -> None:
    seen: list[int] = []

    def net(x: Tensor) -> Tensor:
        seen.append(x.shape[-1] * x.shape[-2])
        if seen[-1] > 1500:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory")
        return x

    sweep = Tiler(_info(8, 8), 1 << 20)
    assert torch.allclose(sweep(net, PIXELS[None]), PIXELS[None], atol=1e-6)
    assert sweep.tiles > 1 and seen[0] == 45 * 70
    with pytest.raises(RuntimeError, match="something else"):
        sweep(lambda x: (_ for _ in ()).throw(RuntimeError("something else")), PIXELS[None])


# ---- restorers


NETS: dict[str, Callable[[], Any]] = {
    "irsde-unet": lambda: ConditionalUNet(nf=8, depth=2),
    "denoising-unet": lambda: ConditionalUNet(nf=8, depth=2, conditional=False),
    "refusion-nafnet": lambda: ConditionalNAFNet(width=8, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1]),
}


@pytest.mark.parametrize("family", NETS)
def test_the_seed_decides_and_tiles_share_the_noise(family: str) -> None:
    net = drawn(NETS[family]())
    restorer = DiffusionModel(net, {"architecture": family})
    assert restorer.info.gmacs_per_megapixel > 0.1

    def run(seed: int, tile: str = "off", dtype: str = "fp32", sampler: str = "posterior") -> Tensor:
        expert = restorer.bind(Condition({"noise": 1.0}, sampling=Sampling(4, sampler, seed)))
        return engine.run(expert, LARGER, device=CPU, dtype=dtype, tile=tile).pixels

    first = run(0)
    assert first.shape == LARGER.shape and torch.equal(first, run(0))
    if family != "denoising-unet":
        assert not torch.equal(first, run(1))
        assert not torch.equal(run(0, sampler="sde"), run(0, sampler="ode"))
    # Random weights leave noise in the picture; were it drawn per tile, tiled and whole would not agree at all.
    assert psnr(run(0, tile="32"), first) > psnr(run(1), first) + 6 or family == "denoising-unet"
    assert psnr(run(0, dtype="bf16"), first) > 25


def test_numbers_that_overflow_are_computed_again_in_full() -> None:
    net = drawn(ConditionalUNet(nf=8, depth=2))
    restorer = DiffusionModel(net, {})
    expert = restorer.bind(Condition({"noise": 1.0}, sampling=Sampling(3)))
    expected = engine.run(expert, PIXELS, device=CPU, dtype="fp32").pixels
    expert.to(CPU, torch.bfloat16)
    with torch.no_grad():
        expert.placed.net.final_conv.weight.fill_(torch.inf)
    # The reduced copy is broken, not the network: the answer is that of float32.
    assert torch.equal(engine.run(expert, PIXELS, device=CPU, dtype="bf16").pixels, expected)
    assert expert.placed.dtype == torch.float32


def test_damaged_weights_are_said() -> None:
    net = drawn(ConditionalUNet(nf=8, depth=2))
    net.final_conv.weight.fill_(torch.nan)
    expert = DiffusionModel(net, {}).bind(Condition({"noise": 1.0}, sampling=Sampling(2)))
    with pytest.raises(irtool.UnavailableError, match="damaged"):
        engine.run(expert, PIXELS, device=CPU, dtype="fp32")


def test_memory_bounds_the_tiles_and_too_little_is_said() -> None:
    restorer = DiffusionModel(drawn(ConditionalUNet(nf=8, depth=2)), {})
    expert = restorer.bind(Condition({"noise": 1.0}, sampling=Sampling(1)))
    done: list[tuple[int, int]] = []
    outcome = engine.run(
        expert, LARGER, device=CPU, dtype="fp32", tile="32", on_progress=lambda a, b: done.append((a, b))
    )
    assert outcome.tiles > 1 and done[0] == (0, 1) and done[-1] == (1, 1)
    with pytest.raises(irtool.PictureError, match="too small"):
        engine.run(expert, PIXELS, device=CPU, dtype="fp32", max_memory=1000)


def test_wishes_that_do_not_fit() -> None:
    restorer = DiffusionModel(drawn(ConditionalUNet(nf=8, depth=2)), {"tasks": '["rain"]'})
    with pytest.raises(irtool.UsageError, match="no task 'noise'"):
        restorer.bind(Condition({"noise": 1.0}))
    with pytest.raises(irtool.UsageError, match="at most 100"):
        restorer.bind(Condition({"rain": 1.0}, sampling=Sampling(101)))
    for wrong in ({"sampler": "heun"}, {"steps": -1}, {"seed": -1}):
        with pytest.raises(irtool.UsageError):
            Sampling(**wrong)  # type: ignore[arg-type]
    assert Sampling().count == STEPS["posterior"] and Sampling(7).count == 7


def test_a_local_nafnet_agrees_with_itself_in_tiles(tmp_path: Path) -> None:
    config = {"width": 8, "middle_blk_num": 1, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]}
    path = tmp_path / "nafnet.safetensors"
    loading.save(drawn(NAFNet(**config)), path, architecture="nafnet", config=config,
                 notes={"settings": json.dumps({"train_size": 32})})  # fmt: skip
    expert = loading.load(path).bind(Condition({"noise": 1.0}))
    pixels = torch.rand(3, 200, 232, generator=torch.Generator().manual_seed(0))
    whole = engine.run(expert, pixels, device=CPU, dtype="fp32", tile="off").pixels
    tiled = engine.run(expert, pixels, device=CPU, dtype="fp32", tile="64")
    assert tiled.tiles > 1 and (tiled.pixels - whole).abs().max() < 1 / 255


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_replayed_evaluations_are_those_of_the_network() -> None:
    net = drawn(ConditionalUNet(nf=8, depth=2)).to("cuda")
    recorded = CudaGraphCache(net)
    g = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for size in ((32, 48), (16, 16), (32, 48)):
            for t in (1.0, 50.0):
                x, mu = torch.rand(2, 1, 3, *size, generator=g).to("cuda")
                time = torch.full((1,), t, device="cuda")
                assert torch.allclose(recorded(x, mu, time), net(x, mu, time), atol=1e-5)
    assert len(recorded.recordings) == 2 and not recorded.disabled


# ---- with a controller, through the command line


@pytest.fixture(scope="module")
def steered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny files: controller.safetensors and the networks it steers, universal, wild and nafnet-daclip."""
    from irtool.models.daclip import DaCLIP
    from irtool.models.nafnet_daclip import ContextNAFNet

    folder = tmp_path_factory.mktemp("steered")
    clip: dict[str, Any] = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
    }
    torch.manual_seed(0)
    controller = drawn(DaCLIP(**clip))
    aliases = {f"visual.{k}": f"clip.visual.{k}" for k in controller.visual.state_dict()}
    state = {k: v.contiguous() for k, v in controller.state_dict().items() if k not in aliases}
    save_file(state, folder / "controller.safetensors", metadata={"aliases": json.dumps(aliases)})
    unet: Mapping[str, Any] = {"nf": 32, "ch_mult": [1], "context_dim": 24}
    nets = {
        "universal": ContextUNet(**unet),
        "wild": ContextUNet(**unet, scale=0.5, use_degra_context=False),
        "nafnet-daclip": ContextNAFNet(
            width=16, middle_blk_num=1, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1], context_dim=24
        ),
    }
    for name, net in nets.items():
        save_file({k: v.contiguous() for k, v in drawn(net).state_dict().items()}, folder / f"{name}.safetensors")
    return folder


@pytest.mark.parametrize("name", ["universal", "wild", "nafnet-daclip"])
def test_restore(steered: Path, tmp_path: Path, name: str, photo: Callable[..., Path]) -> None:
    """Files without a header, as published: recognised, steered, restored; the picture decides, the seed too."""
    source = photo(tmp_path / "in.png", (50, 66))
    sampled = {"sampling": Sampling(3, seed=1)} if name != "nafnet-daclip" else {}
    asked: dict[str, Any] = {
        "tasks": "denoise", "model": f"local:{steered / name}.safetensors", "dtype": "fp32",
        "controller": f"local:{steered / 'controller.safetensors'}",
    }  # fmt: skip
    first = irtool.restore(source, **asked, **sampled)
    with pytest.raises(irtool.UsageError, match="no self-ensemble"):
        irtool.restore(source, **asked, **sampled, ensemble=True)
    assert first.picture.pixels.shape == (50, 66, 3) and not first.untouched
    assert np.array_equal(first.picture.pixels, irtool.restore(source, **asked, **sampled).picture.pixels)
    assert irtool.Plan.from_dict(json.loads(json.dumps(first.plan.to_dict()))) == first.plan
    if sampled:
        other = irtool.restore(source, **asked, sampling=Sampling(3, seed=2))
        assert not np.array_equal(first.picture.pixels, other.picture.pixels)


def test_the_embeddings_steer(steered: Path) -> None:
    """Both embeddings reach the network: changing either changes what it says."""
    net, _ = loading.read(steered / "universal.safetensors")
    net.prompt.mul_(1e4)  # type: ignore[operator]
    x = PIXELS[None, :, :32, :32]
    a, b = torch.randn(2, 1, 24, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        base = net(x, x, 5, a, b)
        assert (net(x, x, 5, b, b) - base).abs().max() > 1e-4
        assert (net(x, x, 5, a, a) - base).abs().max() > 1e-4


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process, which has imported open_clip already: (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = irtool_main([str(a) for a in arguments])
        told = capsys.readouterr()
        return code, told.out, told.err

    return call


def test_command_line(steered: Path, tmp_path: Path, run: Run, photo: Callable[..., Path]) -> None:
    source, out = photo(tmp_path / "in.png", (40, 56)), tmp_path / "out.png"
    Image.open(source).convert("LA").save(source)
    model, controller = (f"local:{steered / n}.safetensors" for n in ("universal", "controller"))
    steering = ["--model", model, "--controller", controller, "--steps", 2, "--sampler", "ode", "--seed", 3]
    code, told, err = run("restore", source, "-o", out, "--task", "derain", *steering, "--json")
    assert code == 0, err
    step = json.loads(told.splitlines()[0])["plan"]["steps"][0]
    assert step["sampling"] == {"steps": 2, "sampler": "ode", "seed": 3} and step["controller"] == controller
    with Image.open(out) as made:
        assert made.size == (56, 40) and made.mode == "LA"
    code, told, err = run("detect", source, "--model", controller, "--json")
    assert code == 0, err
    scores = json.loads(told.splitlines()[0])["diagnosis"]["scores"]
    assert set(scores) == {*IDS, "clean"} and sum(scores.values()) == pytest.approx(1, abs=1e-3)
    assert all(i in run("detect", source, "--model", controller)[1] for i in IDS)


def test_the_steps_are_shown(steered: Path, tmp_path: Path, run: Run, photo: Callable[..., Path]) -> None:
    source = photo(tmp_path / "in.png", (40, 400))
    model, controller = (f"local:{steered / n}.safetensors" for n in ("universal", "controller"))
    steered_by = ["--task", "derain", "--model", model, "--controller", controller, "--steps", 12]
    code, _, err = run("restore", source, *steered_by, "--preview-steps", "--dtype", "fp32")
    assert code == 0, err
    with Image.open(tmp_path / "in.restored.steps.jpg") as page:
        assert page.width > 5 * 200 and page.height > 2 * 20  # ten states of thirteen, in two rows, at half size
        last = np.asarray(page.crop((page.width - 205, page.height - 45, page.width - 5, page.height - 25))).mean()
    with Image.open(tmp_path / "in.restored.png") as made:
        assert abs(np.asarray(made).mean() - last) < 20
    plain = ["--task", "derain", "--model", f"local:{steered / 'nafnet-daclip'}.safetensors", "--preview-steps"]
    code, _, err = run("restore", source, *plain, "--controller", controller, "-o", tmp_path / "b.png")
    assert code == 2 and "no steps to show" in err
    code, _, err = run("restore", source, *steered_by, "--preview-steps", "-o", "-")
    assert code == 2 and "--preview-steps needs an output file" in err


def test_every_state_is_seen_as_a_picture() -> None:
    latent = DiffusionModel(
        drawn(ConditionalNAFNet(img_channel=4, width=8, enc_blk_nums=[1], dec_blk_nums=[1], skip=True)), {},
        drawn(LatentUNet(ch=8, ch_mult=[1, 2], embed_dim=4)),
    )  # fmt: skip
    whole = DiffusionModel(drawn(ConditionalUNet(nf=8, depth=2, conditional=False)), {})
    for restorer in (latent, whole):
        seen: list[tuple[int, Tensor]] = []
        expert = restorer.bind(
            Condition({"noise": 1.0}, sampling=Sampling(3), callback=lambda t, x: seen.append((t, x)))  # noqa: B023
        )
        made = engine.run(expert, PIXELS, device=CPU, dtype="fp32").pixels
        times_seen = [t for t, _ in seen]
        assert times_seen == sorted(times_seen, reverse=True) and len(seen) > 1 and times_seen[-1] == 0
        assert all(x.shape == PIXELS.shape for _, x in seen)
        assert torch.equal(seen[-1][1].clamp(0, 1), made)


def test_command_line_mistakes(steered: Path, tmp_path: Path, run: Run, photo: Callable[..., Path]) -> None:
    source = photo(tmp_path / "in.png")
    model, controller = (f"local:{steered / n}.safetensors" for n in ("universal", "controller"))
    for arguments, code, told in (
        (["--steps", 5, "--model", f"local:{steered / 'nafnet-daclip'}.safetensors", "--controller", controller],
         2, "no diffusion model"),
        (["--sampler", "heun"], 2, "posterior, sde, ode"),
        (["--steps", 0], 2, "at least 1"),
        (["--controller", controller], 2, "takes no controller"),
        (["--model", controller], 3, "not a restorer"),
        (["--model", model, "--controller", model], 3, "controller"),
    ):  # fmt: skip
        got = run("restore", source, "--task", "derain", *arguments)
        assert got[0] == code and told in got[2], got[2]


def test_a_fresh_controller_changes_nothing() -> None:
    """Right after `begin` it is the frozen tower, and what it hands over is nothing."""
    from irtool.models.daclip import DaCLIP

    torch.manual_seed(0)
    net = DaCLIP(
        24,
        {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
        {"context_length": 8, "vocab_size": 20, "width": 64, "heads": 1, "layers": 1},
    ).eval()
    for p in net.clip.parameters():
        torch.nn.init.normal_(p, std=0.1)
    image = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        net.init_controller()
        content, degradation = net.embed(image)
        plain = net.clip.encode_image(image)
    assert torch.allclose(content, plain, atol=1e-5) and torch.allclose(degradation, plain, atol=1e-5)


def test_preprocessing_is_that_of_torchvision() -> None:
    from torchvision import transforms

    from irtool.models.daclip import MEAN, STD, preprocess

    published = transforms.Compose([
        transforms.Resize(224, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(224),
        transforms.ToTensor(), transforms.Normalize(MEAN, STD),
    ])  # fmt: skip
    for size in ((300, 401), (224, 224), (100, 77), (777, 333), (225, 600)):
        levels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        pixels = torch.from_numpy(levels).permute(2, 0, 1).float() / 255
        assert torch.equal(preprocess(pixels), published(Image.fromarray(levels)))


@pytest.mark.slow
def test_a_full_size_model_on_a_photograph_of_a_megapixel(tmp_path: Path, cli: Callable[..., Any]) -> None:
    """Random weights of the published size, from files to a picture, whole and within 6 GiB.

    It proves the path, not the quality: what comes out is noise.
    """
    from irtool.models.daclip import DaCLIP

    clip = {
        "embed_dim": 512,
        "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
    }
    for name, net in {"universal": ContextUNet(), "controller": DaCLIP(**clip)}.items():  # type: ignore[arg-type]
        aliases = {k: f"clip.{k}" for k in net.state_dict() if k.startswith("visual.")}
        state = {k: v.contiguous() for k, v in net.state_dict().items() if k not in aliases}
        save_file(state, tmp_path / f"{name}.safetensors", metadata={"aliases": json.dumps(aliases)})
    model, controller = (f"local:{tmp_path / n}.safetensors" for n in ("universal", "controller"))
    with Image.open(Path(__file__).parent / "pictures" / "kodak23.png") as photograph:
        photograph.resize((1024, 1024)).save(tmp_path / "in.png")
    done = cli("restore", tmp_path / "in.png", "-o", tmp_path / "out.png", "--task", "derain", "--model", model,
               "--controller", controller, "--steps", 2, "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout.splitlines()[0])
    print(f"{record['seconds']:.0f} s, {record['peak_bytes'] / 2**30:.2f} GiB, {record['tiles']} tile(s)")
    assert record["tiles"] == 1 and record["peak_bytes"] < 6 << 30
    with Image.open(tmp_path / "out.png") as made:
        assert made.size == (1024, 1024)
    found = cli("detect", tmp_path / "in.png", "--model", controller)
    assert found.returncode == 0 and all(i in found.stdout for i in IDS)
