"""Speed, memory and samplers of the universal diffusion restorer, printed as markdown.

    python benchmarks/diffusion.py [--device cpu|cuda] [--threads N] [--out benchmarks/diffusion.md]

Weights are random and of full size: they decide what is computed and how fast, not how good it looks. Both sides have
the same weights and run in one process, alternating; times are of the process (on a CPU: seconds of processor time,
which other programs lengthen less than the clock's, and how many of them the system takes to hand out memory). The
yardstick, benchmarks/plain_irsde.py, re-states the published inference. PSNR is against the truth, with a predictor
that knows it.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from plain_irsde import PlainUNet
from publish import publish
from torch import Tensor

from irtool import engine, picture
from irtool.diffusion import irsde
from irtool.diffusion.schedules import process, times
from irtool.models.cuda_graphs import CudaGraphCache
from irtool.models.irsde_unet import ContextUNet
from irtool.models.macs import gmacs_per_megapixel

PHOTO = Path(__file__).resolve().parent.parent / "tests" / "pictures" / "kodak23.png"
COUNTS = (100, 50, 20, 10, 5)


def network() -> ContextUNet:
    """The universal net with weights drawn, those too that start at zero."""
    torch.manual_seed(0)
    net = ContextUNet().eval().requires_grad_(False)
    for name, p in net.named_parameters():
        if "proj_out" in name:
            torch.nn.init.normal_(p, std=0.02)
    return net


def inputs(side: int, device: torch.device) -> tuple[Tensor, Tensor, float, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    x, mu = (torch.rand(1, 3, side, side, generator=g).to(device) for _ in range(2))
    degradation, content = (torch.randn(1, 512, generator=g).to(device) for _ in range(2))
    return x, mu, 50.0, degradation, content


def entries(device: torch.device, side: int, which: tuple[str, ...]) -> dict[str, Callable[[], Tensor]]:
    """One evaluation of the network, on each side."""
    x, mu, t, degradation, content = inputs(side, device)
    when = torch.full((1,), t, device=device)
    net = network().to(device)
    plain = PlainUNet(net.state_dict())
    by_name: dict[str, Callable[[], Tensor]] = {}
    if "plain" in which:
        by_name["plain, fp32"] = lambda: plain(x, mu, t, degradation, content)
    for name, kind in engine.device.DTYPES.items():
        if name in which:
            ours = network().to(device, kind, memory_format=torch.channels_last)
            embeddings = (degradation.to(kind), content.to(kind))
            run: Callable[..., Tensor] = CudaGraphCache(ours) if device.type == "cuda" else ours
            by_name[f"irtool, {name}"] = lambda run=run, told=embeddings: run(x, mu, when, *told).float()  # type: ignore[misc]
    return by_name


def seconds(call: Callable[[], Tensor], device: torch.device) -> tuple[float, Tensor]:
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    with torch.inference_mode():
        out = call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start, out


class Step(NamedTuple):
    """Seconds of an evaluation: median, least, the system's median share. And its output."""

    median: float
    least: float
    system: float
    output: Tensor


def steps(device: torch.device, side: int, which: tuple[str, ...], rounds: int) -> dict[str, Step]:
    by_name = entries(device, side, which)
    elapsed: dict[str, list[float]] = {name: [] for name in by_name}
    system: dict[str, list[float]] = {name: [] for name in by_name}
    outputs = {}
    for count in range(rounds + 1):
        for name, call in by_name.items():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_stime
            spent, outputs[name] = seconds(call, device)
            if count or rounds == 1:  # the first round warms up
                elapsed[name].append(spent)
                system[name].append(resource.getrusage(resource.RUSAGE_SELF).ru_stime - before)
    return {
        name: Step(statistics.median(t), min(t), statistics.median(system[name]), outputs[name].cpu())
        for name, t in elapsed.items()
    }


def peak(device: str, side: int, which: str) -> float:
    """Peak memory in GiB of a fresh process that does nothing but one step."""
    done = subprocess.run(
        [sys.executable, __file__, "--peak", which, "--side", str(side), "--device", device],
        stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    return float(json.loads(done.stdout)) / 2**30


def step_tables(options: argparse.Namespace, device: torch.device) -> list[str]:
    types = ("fp32", "bf16")
    small = steps(device, 256, ("plain", *types), options.rounds)
    large = steps(device, 1024, types, 1)
    base, reference = small["plain, fp32"].median, small["plain, fp32"].output
    lines = [
        "| one evaluation, 256x256 | seconds, median (least) | of them the system's | times as fast | peak GiB "
        "| largest, mean difference |",
        "|---|---|---|---|---|---|",
    ]
    for name, step in small.items():
        memory = peak(options.device, 256, name.split()[-1] if "irtool" in name else "plain")
        off = (step.output - reference).abs()
        difference = "" if name == "plain, fp32" else f"{off.max():.1e}, {off.mean():.1e}"
        lines.append(
            f"| {name} | {step.median:.2f} ({step.least:.2f}) | {step.system:.2f} | {base / step.median:.2f} "
            f"| {memory:.2f} | {difference} |"
        )
    lines += ["", on_a_gpu(small["irtool, bf16"].median, device) if device.type == "cuda" else on_a_cpu(small, device)]
    lines += [
        "",
        f"The output has a standard deviation of {reference.std():.2f}.",
        "",
        "| one evaluation, 1024x1024, whole | seconds | peak GiB |",
        "|---|---|---|",
        f"| plain, fp32 | not run | over {16 * 16384**2 * 4 / 2**30:.0f}: one map of 16384 x 16384 tokens, 16 heads |",
    ]
    for name, step in large.items():
        lines.append(f"| {name} | {step.median:.1f} | {peak(options.device, 1024, name.split()[-1]):.2f} |")
    lines += [
        "",
        "A picture of 256x256, from the seconds of an evaluation (the published way is 100 Euler-Maruyama steps; the "
        "work beside the network is under one percent):",
        "",
        "| | steps | seconds | times as fast |",
        "|---|---|---|---|",
        f"| plain, fp32 | 100 | {100 * base:.0f} | 1 |",
    ]
    for name in list(small)[1:]:
        for count in (20, 10):
            whole = count * small[name].median
            lines.append(f"| {name} | {count} | {whole:.0f} | {100 * base / whole:.0f} |")
    return lines


def on_a_cpu(elapsed: Mapping[str, Step], device: torch.device) -> str:
    """Where the seconds go: to memory handed out, and to products at the rate of the most frequent convolution."""
    x, weight = torch.randn(1, 64, 256, 256).contiguous(memory_format=torch.channels_last), torch.randn(64, 64, 3, 3)
    spent = min(seconds(lambda: F.conv2d(x, weight, padding=1), device)[0] for _ in range(10))
    rate = 9 * 64**2 * 256**2 / 1e9 / spent
    whole = gmacs_per_megapixel(network()) * 256**2 / 1e6
    theirs, ours = (elapsed[name].median - elapsed[name].system for name in ("plain, fp32", "irtool, fp32"))
    return (
        "The system's seconds go into handing out memory, which an allocator that keeps it would save; without them "
        f"float32 is {theirs / ours:.2f} times as fast. The network is {whole:.0f} GMAC as published: at the rate of "
        f"its most frequent convolution in float32, {rate:.0f} GMAC/s, that alone takes {whole / rate:.2f} s."
    )


def on_a_gpu(spent: float, device: torch.device) -> str:
    """Steps a second, and the share of what bfloat16 reaches at best: a large matrix product, measured here."""
    side = 8192
    a, b = torch.randn(2, side, side, device=device, dtype=torch.bfloat16)
    best = 2 * side**3 / min(seconds(lambda: a @ b, device)[0] for _ in range(10)) / 1e12
    rate = 2e9 * gmacs_per_megapixel(network()) * 256**2 / 1e6 / spent / 1e12
    return (
        f"bf16: {1 / spent:.1f} steps a second, {rate:.1f} TFLOP/s, {100 * rate / best:.0f} % of the {best:.0f} "
        f"TFLOP/s of a product of {side}x{side} matrices."
    )


def samplers() -> list[str]:
    """What fewer steps cost each sampler, with predictors that know the picture, exactly or up to a blur."""
    x0 = torch.from_numpy(picture.read(PHOTO).pixels).permute(2, 0, 1)[None, :, 100:356, 200:456].contiguous()
    mu = (x0 * 0.35 + 0.4 + 0.1 * torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    blurred = F.avg_pool2d(F.pad(x0, (1, 1, 1, 1), mode="replicate"), 3, 1)
    p = process()

    def run(known: Tensor, sampler: str, count: int, seed: int = 0) -> Tensor:
        g = torch.Generator().manual_seed(seed)
        return irsde.sample(
            p, lambda x, mu, t: irsde.noise_in(p, x, known, mu, round(t)), mu, times(p.T, count), sampler,
            lambda: torch.randn(mu.shape, generator=g),
        )  # fmt: skip

    def psnr(a: Tensor, b: Tensor) -> float:
        return float(-10 * (a - b).square().mean().clamp_min(1e-16).log10())

    lines = ["| steps | " + " | ".join(f"{s}: exact" for s in ("posterior", "sde", "ode")) + " | "]
    lines[0] += " | ".join(f"{s}: agrees with 100 posterior steps" for s in ("posterior", "sde", "ode")) + " |"
    lines.append("|---" * 7 + "|")
    reference = run(blurred, "posterior", 100)
    for count in COUNTS:
        exact = [f"{psnr(run(x0, s, count), x0):.1f}" for s in ("posterior", "sde", "ode")]
        agree = [f"{psnr(run(blurred, s, count, 1), reference):.1f}" for s in ("posterior", "sde", "ode")]
        lines.append(f"| {count} | " + " | ".join(exact + agree) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    parser.add_argument("--side", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = engine.pick_device(args.device)
    if args.peak:
        for call in entries(device, args.side, (args.peak,)).values():
            seconds(call, device)
        print(engine.device.peak_bytes(device))
        return
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    lines = [
        "# Diffusion restorers: speed, memory, samplers",
        "",
        f"Printed by `python benchmarks/diffusion.py --device {args.device} --threads {args.threads}`; {where}, "
        f"torch {torch.__version__}. Random weights of the universal net's size, 49.0 M parameters. The yardstick "
        "re-states the published inference in plain PyTorch (`benchmarks/plain_irsde.py`). "
        "On a CPU, seconds are processor time.",
        "",
        *step_tables(args, device),
        "",
        "Samplers on a 256x256 cut of a Kodak photograph, PSNR in dB. *Exact*: the predictor knows the true noise, and "
        "the truth is the picture. *Agrees*: it knows the picture up to a 3x3 blur, the noise is drawn anew, and the "
        "reference is what 100 posterior steps give.",
        "",
        *samplers(),
    ]
    publish(lines, args.out)


if __name__ == "__main__":
    main()
