"""DA-CLIP, IR-SDE, Refusion and NAFNet against cases recorded from the published code (see the README beside them)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from irtool.diffusion import denoising, irsde
from irtool.diffusion.schedules import process, times
from irtool.models import loading
from irtool.models.irsde_unet import ConditionalUNet, ContextUNet
from irtool.models.latent_unet import LatentUNet
from irtool.models.nafnet import NAFNet
from irtool.models.refusion_nafnet import ConditionalNAFNet

Call = Callable[[Any, Mapping[str, Tensor]], dict[str, Tensor]]


@dataclass
class Case:
    """One recorded case."""

    settings: dict[str, Any]
    tolerance: dict[str, dict[str, float]]
    weights: dict[str, Tensor]
    given: dict[str, Tensor]
    want: dict[str, Tensor]

    def check(self, name: str, got: Tensor | float) -> None:
        got, want, atol = torch.as_tensor(got).detach().float(), self.want[name], self.tolerance[name]["atol"]
        assert got.shape == want.shape, f"{name}: {tuple(got.shape)}, recorded {tuple(want.shape)}"
        worst = (got - want).abs().max().item() if want.numel() else 0.0
        assert worst <= atol, f"{name}: off by {worst:.2e}, allowed {atol:.0e}"


def read(shared: Path, name: str) -> Case:
    with safe_open(str(shared / "goldens" / f"{name}.safetensors"), framework="pt") as file:
        about = file.metadata()
        parts: dict[str, dict[str, Tensor]] = {"weights": {}, "in": {}, "out": {}}
        for key in file.keys():  # noqa: SIM118
            part, _, rest = key.partition("/")
            parts[part][rest] = file.get_tensor(key)
    return Case(
        json.loads(about["hyperparameters"]), json.loads(about["tolerance_per_output"]), parts["weights"], parts["in"],
        parts["out"],
    )  # fmt: skip


def noise(net: nn.Module, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    embeddings = [given.get(k) for k in ("text_context", "image_context")]
    more = embeddings if isinstance(net, ContextUNet) else []
    return {"noise": net(given["xt"], given["cond"], given["time"], *more)}


def restored(net: nn.Module, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {"restored": net(given["image"])}


def latent(net: LatentUNet, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    image = given["image"]
    z, hidden = net.encode(image)
    size = (image.shape[-2], image.shape[-1])
    decoded = {"decoded": net.decode(z, hidden, size), "decoded_other": net.decode(given["other_latent"], hidden, size)}
    return {"latent": z, **decoded, **{f"hidden.{i}": h for i, h in enumerate(hidden)}}


NETWORKS: dict[str, tuple[str, type[nn.Module], Call]] = {
    "irsde_unet_b": ("irsde-unet", ConditionalUNet, noise),
    "universal_unet_a": ("universal-unet", ContextUNet, noise),
    "universal_unet_b": ("universal-unet", ContextUNet, noise),
    "wild_unet_b": ("wild-unet", ContextUNet, noise),
    "refusion_nafnet_a": ("refusion-nafnet", ConditionalNAFNet, noise),
    "refusion_nafnet_b": ("refusion-nafnet", ConditionalNAFNet, noise),
    "refusion_latent_nafnet_a": ("latent-nafnet", ConditionalNAFNet, noise),
    "refusion_latent_unet_a": ("latent-unet", LatentUNet, latent),
    "refusion_latent_unet_b": ("latent-unet", LatentUNet, latent),
    "nafnet_a": ("nafnet", NAFNet, restored),
    "nafnet_b": ("nafnet", NAFNet, restored),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_network(shared: Path, name: str, tmp_path: Path) -> None:
    """Recognised by its tensors, loaded strictly, equal; so it is through a safetensors file, and while it learns."""
    family, kind, call = NETWORKS[name]
    case = read(shared, name)
    found = loading.recognize({k: tuple(v.shape) for k, v in case.weights.items()})
    assert found is not None and found[0] == family
    net = kind(**found[1])
    net.load_state_dict(case.weights, strict=True)
    path = tmp_path / "published.safetensors"
    save_file(case.weights, path)
    stored, header = loading.read(path)
    assert header["architecture"] == family
    for each, mode in ((net.eval(), torch.inference_mode), (stored, torch.inference_mode), (net, torch.enable_grad)):
        with mode():
            got = call(each, case.given)
        assert set(got) == set(case.want)
        for output, value in got.items():
            case.check(output, value)


@pytest.mark.parametrize(("name", "fast"), [("nafnet_local_a", False), ("nafnet_local_fast_a", True)])
def test_local_pooling(shared: Path, name: str, fast: bool) -> None:
    case = read(shared, name)
    found = loading.recognize({k: tuple(v.shape) for k, v in case.weights.items()})
    assert found is not None
    net = NAFNet(**found[1], train_size=case.settings["train_size"][-2:], fast_imp=fast).eval()
    net.load_state_dict(case.weights, strict=True)
    with torch.inference_mode():
        case.check("restored", net(case.given["image"]))


@pytest.mark.parametrize("name", ["daclip_tiny_a", "daclip_tiny_b"])
def test_controller(shared: Path, name: str, tmp_path: Path) -> None:
    from irtool.models.daclip import DaCLIP

    case = read(shared, name)
    net = DaCLIP(**case.settings)
    net.load_state_dict(case.weights, strict=True)
    path = tmp_path / "controller.safetensors"
    # As a download is converted: the tower that is there twice is stored once.
    aliases = {k: f"clip.{k}" for k in case.weights if k.startswith("visual.")}
    header = {"architecture": "daclip", "config": json.dumps(case.settings), "aliases": json.dumps(aliases)}
    save_file({k: v for k, v in case.weights.items() if k not in aliases}, path, metadata=header)
    stored, _ = loading.read(path)
    image, tokens = case.given["image"], case.given["tokens"]
    for each in (net.eval(), stored):
        assert isinstance(each, DaCLIP)
        with torch.inference_mode():
            content, degradation = each.encode_image(image, control=True)
            got = {
                "image_features": content,
                "degra_features": degradation,
                "image_features_plain": each.encode_image(image),
                "text_features": each.encode_text(tokens.chunk(2, dim=-1)[0]),
                **{f"forward.{k}": v for k, v in each(image, tokens).items()},
            }
        assert set(got) == set(case.want)
        for output, value in got.items():
            case.check(output, value)  # type: ignore[arg-type]


def test_schedules(shared: Path) -> None:
    case = read(shared, "irsde_schedules_a")
    checked = set()
    for settings in case.settings["cases"]:
        p = process(**settings)
        t = torch.arange(1, p.T + 1)
        group = f"{settings['schedule']}.T{p.T}.sigma{settings['max_sigma']}.eps{settings['eps']}"
        got: dict[str, Tensor | float] = {
            "thetas": p.theta, "thetas_cumsum": p.cs, "dt": p.dt, "max_sigma": p.lam,
            "sigmas": p.lam * (2 * p.theta).sqrt(), "sigma_bars": irsde.std(p, torch.arange(p.T + 1)).flatten(),
            "posterior_std": irsde.posterior_std(p, t, t - 1).flatten(), "loss_weights": p.decay(t).flatten(),
        }  # fmt: skip
        for output, value in got.items():
            case.check(f"{group}.{output}", value)
            checked.add(f"{group}.{output}")
    assert checked == set(case.want)


@pytest.mark.parametrize("name", ["constant_T20", "cosine_T20", "linear_T20", "cosine_T100", "sampleT20_of_T100"])
def test_trajectory(shared: Path, name: str) -> None:
    """Every sampler, state by state, with the recorded noise in place of a network."""
    case = read(shared, f"irsde_trajectory_{name}")
    s, coarse = case.settings, case.settings["sample_T"] > 0
    p = process(
        s["schedule"], s["sample_T"] if coarse else s["T"], s["max_sigma"], s["eps"], s["T"] if coarse else None
    )
    T, x0, mu, z = p.T, case.given["x0"], case.given["mu"], case.given["z"]
    table, brownian = case.given["noise_table"], case.given["brownian"]
    for sampler in ("sde", "ode", "posterior"):
        fed: list[float] = []
        states: dict[int, Tensor] = {}
        drawn = iter([z, *brownian.flip(0)])

        def net(x: Tensor, mu: Tensor, t: float, fed: list[float] = fed) -> Tensor:
            fed.append(t)
            return table[T - len(fed)]

        def seen(t: int, x: Tensor, states: dict[int, Tensor] = states) -> None:
            states[t + 1] = x

        final = irsde.sample(p, net, mu, times(T, T), sampler, lambda drawn=drawn: next(drawn), seen)  # type: ignore[misc]
        case.check(f"{sampler}.final", final)
        case.check(f"{sampler}.states", torch.stack([states[t] for t in s["stored_states_t"]]))
        assert torch.allclose(torch.tensor(fed), case.want["time_fed"])
    t = s["mid_points_t"][2]
    x = irsde.diffuse(p, x0, mu, t, z)
    case.check("mean", torch.stack([irsde.mean(p, x0, mu, k) for k in s["mid_points_t"]]))
    case.check("sigma_bar", torch.stack([irsde.std(p, k) for k in s["mid_points_t"]]))
    case.check("state_mid", x)
    case.check("init_state_mid", irsde.clean_of(p, x, mu, table[0], t))
    case.check("optimum_std_mid", irsde.posterior_std(p, t, t - 1))
    case.check("optimum_step_mid", irsde.posterior_mean(p, x, x0, mu, t, t - 1))
    case.check("real_noise_mid", irsde.noise_in(p, x, x0, mu, t))
    case.check("real_score_mid", irsde.score(p, irsde.noise_in(p, x, x0, mu, t), t))
    x = irsde.start(p, mu, z)
    for t in range(T, 0, -1):
        x = irsde.posterior_mean(p, x, x0, mu, t, t - 1)
    case.check("optimal_reverse.final", x)


def test_training_objective(shared: Path) -> None:
    case = read(shared, "irsde_loss_a")
    p = process(**case.settings)
    x0, mu, t = case.given["x0"], case.given["mu"], case.given["timesteps"].flatten()
    x = irsde.diffuse(p, x0, mu, t, case.given["noise"])
    predicted = case.given["prediction"].clone().requires_grad_()
    case.check("state", x)
    case.check("score", irsde.score(p, predicted, t))
    case.check("expectation", irsde.reverse_mean(p, x, mu, predicted, t, t - 1))
    case.check("optimum", irsde.posterior_mean(p, x, x0, mu, t, t - 1))
    for kind in ("l1", "l2"):
        loss = irsde.likelihood_loss(p, predicted, x, x0, mu, t, kind)
        case.check(f"loss_{kind}", loss)
        case.check(f"grad_{kind}", torch.autograd.grad(loss, predicted)[0])
        case.check(f"loss_{kind}_weighted", irsde.likelihood_loss(p, predicted, x, x0, mu, t, kind, weighted=True))


def test_denoising_process(shared: Path) -> None:
    case = read(shared, "denoising_sde_a")
    s = case.settings
    p = denoising.process_of(s["schedule"], s["T"], s["max_sigma"])
    T, t = p.T, p.T // 2
    x0, start, table = case.given["x0"], case.given["xt"], case.given["noise_table"]

    def run(first: int, ode: bool) -> Tensor:
        x = start
        for k in range(first, 0, -1):
            if ode:
                x = denoising.reverse_ode(p, x, table[k - 1], k, k - 1)
            else:
                x = denoising.reverse_sde(p, x, table[k - 1], k, k - 1, case.given["brownian"][k - 1])
        return x

    best = [denoising.optimum_time(p, sigma) for sigma in s["sigmas_asked"]]
    steps = torch.arange(1, T + 1)
    got: dict[str, Tensor | float] = {
        "thetas": p.theta, "thetas_cumsum": p.cs, "dt": p.dt, "sigmas": p.lam * (2 * p.theta).sqrt(),
        "sigma_bars": irsde.std(p, torch.arange(T + 1)).flatten(), "sde.final": run(T, False),
        "ode.final": run(T, True), "ode_from_optimal.final": run(best[1], True),
        "optimal_timesteps": torch.tensor(best), "init_state_mid": denoising.clean_of(p, start, table[0], t),
        "optimum_step_mid": denoising.posterior_mean(p, start, x0, t, t - 1),
        "weights": 2 * p.lam**2 * p.theta[steps],
    }  # fmt: skip
    assert set(got) == set(case.want)
    for output, value in got.items():
        case.check(output, value)
