"""GDP, the spatial entropy loss and LM4LV against cases recorded from the published code (goldens/README.md)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from test_golden_diffusion import Case, read
from torch import Tensor

from irtool.diffusion import guidance
from irtool.diffusion.gaussian import GaussianDiffusion, gaussian_diffusion
from irtool.models import loading
from irtool.models.adm_unet import ADMUNet


def test_adm_unet_is_recognised_and_equal(shared: Path, tmp_path: Path) -> None:
    case = read(shared, "gdp_unet_a")
    found = loading.recognise({k: tuple(v.shape) for k, v in case.weights.items()})
    assert found is not None and found[0] == "adm-unet"
    published = ADMUNet(**case.settings)
    published.load_state_dict(case.weights, strict=True)
    path = tmp_path / "published.safetensors"
    save_file(case.weights, path)
    stored, header = loading.read(path)
    assert header["architecture"] == "adm-unet"
    for net in (published, stored):
        case.check("model_output", net(case.given["x"], case.given["t"]))


def process_of(case: Case) -> GaussianDiffusion:
    s = case.settings
    return gaussian_diffusion(s["noise_schedule"], s["diffusion_steps"], s["timestep_respacing"])


def block_mean(x: Tensor) -> Tensor:
    return F.interpolate(F.avg_pool2d(x, 4), scale_factor=4, mode="nearest")


@pytest.mark.parametrize("name", ["gdp_guidance_inpainting", "gdp_guidance_sr4"])
def test_gdp_with_a_known_operator(shared: Path, name: str) -> None:
    case = read(shared, name)
    p, given, scale = process_of(case), case.given, case.settings["img_guidance_scale"]
    operator = block_mean if "sr4" in name else lambda x: x * given["keep_mask"]
    fed: list[int] = []
    states, predictions = torch.zeros(2, p.steps, *given["x_start"].shape)

    def net(x: Tensor, t: int) -> Tensor:
        fed.append(t)
        return given["model_output_table"][p.times.index(t)]

    def seen(i: int, x: Tensor, x0: Tensor) -> None:
        states[i], predictions[i] = x, x0

    draw = given["step_noise"].__getitem__
    final = guidance.gdp(p, net, given["x_start"], given["observed"], operator, scale, draw, seen=seen)
    case.check("final", final)
    case.check("states", states)
    case.check("pred_x0", predictions)
    case.check("time_fed", torch.tensor(fed))
    case.check("betas", p.betas)
    case.check("alphas_cumprod", p.alpha_bar)
    case.check("posterior_log_variance_clipped", p.posterior_log_variance)
    case.check("gradient_probe", guidance.gradient(operator, 0.9 * given["clean"], given["observed"], scale))


@pytest.mark.parametrize("name", ["gdp_guidance_low_light", "gdp_guidance_low_light_one_patch"])
def test_gdp_learns_the_light_in_patches(shared: Path, name: str) -> None:
    case = read(shared, name)
    p, given, s = process_of(case), case.given, case.settings
    height, width, patch = s["height"], s["width"], s["patch_size"]
    grid = guidance.corners(height, width, patch, s["patch_stride"])
    assert [list(corner) for corner in grid] == s["corners"]
    calls = iter(grid * p.steps)
    out: dict[str, list[Tensor]] = {"states": [], "pred_x0": [], "light_factor": [], "light_mask": []}

    def net(x: Tensor, t: int) -> Tensor:
        row, column = next(calls)
        return given["model_output_table"][p.times.index(t)][..., row : row + patch, column : column + patch]

    def seen(i: int, x: Tensor, x0: Tensor, operators: list[guidance.Light]) -> None:
        for key, value in zip(out, (x, x0, operators[0].factor, operators[0].offset), strict=True):
            out[key].insert(0, value)

    start = guidance.Light(given["light_factor_start"], given["light_mask_start"])
    guidance.gdp_unknown(
        p, net, given["x_start"], [given["observed"]], [start], s["img_guidance_scale"],
        given["step_noise"].__getitem__, patch, s["patch_stride"], seen=seen,
    )  # fmt: skip
    for key, values in out.items():
        case.check(key, torch.stack(values))
