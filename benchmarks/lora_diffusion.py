"""Offsets per condition on the network of a diffusion: inpainting and outpainting as two tasks.

`python benchmarks/lora.py diffusion` runs this. The network is IR-SDE's U-Net, small, with one attention head in
place of four. The condition mu is a picture in which strokes (inpainting) or all around a window (outpainting) is
missing and filled smoothly from its surroundings, as the shipped restorer does first; the network sees where, and gives
what is to be added there. The process is the published one but for its noise. Every method has about the same number
of parameters, the same samples and the same number of steps with half a batch of each condition.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from irtool import picture
from irtool.diffusion import irsde
from irtool.diffusion.schedules import process, times
from irtool.models import lora as m
from irtool.models.inpaint import fill_holes
from irtool.models.irsde_unet import ConditionalUNet
from irtool.models.unet_blocks import LinearAttention, PreNorm
from irtool.picture.sheet import sheet
from irtool.synth.missing import hole_mask

CONDITIONS = ("inpainting", "outpainting")
SIDE, SHRUNK, DEPTH, BUDGET, RANK = 16, 4, 2, 170_000, 4
# What is left to draw in the holes has a deviation of about 20/255; the published 50/255 would drown it.
PROCESS = process("cosine", 100, 20, 0.005)
SAMPLING = (1, 4, 20)
HELD, PICTURES = 96, 90


@dataclass
class Crops:
    """Clean crops (N, 3, S, S) in [0, 1]; by condition, holes (2, N, 1, S, S) and the crops with these filled."""

    clean: Tensor
    holes: Tensor
    filled: Tensor


def crops(folder: Path, count: int, seed: int) -> Crops:
    """Crops of pictures at a quarter of their size, so that one shows a part of a thing and not a texture."""
    g, dice = torch.Generator().manual_seed(seed), random.Random(seed)
    found = picture.find([folder], recursive=True)
    order = torch.randperm(len(found), generator=g).tolist()[:PICTURES]
    loaded = [torch.from_numpy(picture.read(found[i].path).pixels).permute(2, 0, 1) for i in order]
    loaded = [F.avg_pool2d(p[None], SHRUNK)[0] for p in loaded if min(p.shape[1:]) >= SHRUNK * SIDE]
    clean, holes = [], []
    for _ in range(count):
        p = loaded[int(torch.randint(len(loaded), (1,), generator=g))]
        top, left = (int(torch.randint(s - SIDE + 1, (1,), generator=g)) for s in p.shape[1:])
        clean.append(p[:, top : top + SIDE, left : left + SIDE])
        strokes = torch.ones(SIDE, SIDE)
        while strokes.float().mean() > 0.5:  # on so small a crop one stroke can be too much
            strokes = torch.from_numpy(hole_mask(SIDE, SIDE, "thick", dice.uniform(0.15, 0.35), dice))
        around = torch.ones(SIDE, SIDE, dtype=torch.bool)
        side = round(SIDE * dice.uniform(0.6, 0.8))
        y, x = (dice.randint(0, SIDE - side) for _ in range(2))
        around[y : y + side, x : x + side] = False
        holes.append(torch.stack([strokes, around])[:, None].float())
    whole, missing = torch.stack(clean), torch.stack(holes, dim=1)
    return Crops(whole, missing, torch.stack([fill_holes(whole, each) for each in missing]))


Network = Callable[[Tensor, Tensor, Tensor, "Tensor | float", int], Tensor]
"""``(x_t, mu, holes, t, condition) -> what the clean picture has more than mu``."""


@dataclass
class Method:
    """A network of a kind, and what learns."""

    network: Network
    learn: list[nn.Parameter]

    def clean(self, x: Tensor, mu: Tensor, holes: Tensor, t: Tensor | float, condition: int) -> Tensor:
        """The clean picture that a state is from; mu, where the network is untrained."""
        return mu + holes * self.network(x, mu, holes, t, condition)

    def noise(self, x: Tensor, mu: Tensor, holes: Tensor, t: int, condition: int) -> Tensor:
        """The noise in a state, as the process asks for it.

        A network that gives the noise itself must first learn to give back x - mu divided by its deviation, and what
        it lacks in that grows while sampling, to 1 / eps times its size at worst. Here that part is exact from the
        start, as in the preconditioning of Karras et al. (NeurIPS 2022).
        """
        return irsde.noise_in(PROCESS, x, self.clean(x, mu, holes, t, condition), mu, t)


def unet(width: int) -> ConditionalUNet:
    """IR-SDE's U-Net for pictures with their holes as a fourth channel."""
    net = ConditionalUNet(in_nc=4, out_nc=3, nf=width, depth=DEPTH)
    for norm in [x for x in net.modules() if isinstance(x, PreNorm)]:
        # Four heads, 128 channels wide, would be most of the cost of a network whose features have a dozen.
        norm.fn = LinearAttention(norm.fn.to_out[0].out_channels, heads=1)
    nn.init.zeros_(net.final_conv.weight)
    nn.init.zeros_(net.final_conv.bias)
    return net


def with_holes(x: Tensor, mu: Tensor, holes: Tensor) -> tuple[Tensor, Tensor]:
    """x and mu (N, 4, S, S) as the network takes them: of its two inputs, x - mu and mu, the first has the holes."""
    return torch.cat([x, holes], dim=1), torch.cat([mu, torch.zeros_like(holes)], dim=1)


def count(*nets: nn.Module) -> int:
    return sum(p.numel() for net in nets for p in net.parameters())


def sized(build: Callable[[int], list[nn.Module]]) -> list[nn.Module]:
    """The networks whose parameters come closest to the budget, by width."""
    with torch.device("meta"):
        width = min(range(4, 33, 2), key=lambda w: abs(count(*build(w)) - BUDGET))
    return build(width)


def adapted(width: int, convolutions: bool) -> m.LoRAModel:
    """The U-Net with offsets on its linear layers and 1x1 convolutions, or on all convolutions too."""
    net = unet(width)
    layers = {n: layer for n, layer in net.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))}
    chosen = [f"{n}.weight" for n, x in layers.items() if convolutions or x.weight[0, 0].numel() == 1]
    return m.LoRAModel(net, chosen, RANK, tasks=len(CONDITIONS), frozen=False)


def blind() -> Method:
    (net,) = sized(lambda w: [unet(w)])
    return Method(lambda x, mu, holes, t, c: net(*with_holes(x, mu, holes), t), list(net.parameters()))


def offsets(convolutions: bool) -> Method:
    (net,) = sized(lambda w: [adapted(w, convolutions)])
    # Offsets begin at zero: until they learn, every condition has the common weights.
    return Method(lambda x, mu, holes, t, c: net(*with_holes(x, mu, holes), t, task=c), list(net.parameters()))


def separate() -> Method:
    nets = sized(lambda w: [unet(w) for _ in CONDITIONS])
    learn = [p for net in nets for p in net.parameters()]
    return Method(lambda x, mu, holes, t, c: nets[c](*with_holes(x, mu, holes), t), learn)


METHODS: dict[str, Callable[[], Method]] = {
    "one network, not told": blind,
    "offsets, linear layers": lambda: offsets(convolutions=False),
    "offsets, all layers": lambda: offsets(convolutions=True),
    "separate networks": separate,
}


def fit(method: Method, data: Crops, steps: int, batch: int, rate: float, seed: int) -> None:
    """Learn the clean pictures of states at random times, half a batch of each condition; squared error in the holes.

    The published objective differs by a weight that falls with time, to a thousandth: it would leave the first steps
    of sampling, on which a short sampling rests, all but untrained.
    """
    g = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(method.learn, lr=rate, betas=(0.9, 0.99))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 30) * (0.02 + 0.49 * (1 + np.cos(np.pi * step / steps)))
        for c in range(len(CONDITIONS)):
            i = torch.randint(len(data.clean), (batch // len(CONDITIONS),), generator=g)
            x0, mu, holes = data.clean[i], data.filled[c, i], data.holes[c, i]
            t = torch.randint(1, PROCESS.T + 1, (len(i),), generator=g)
            x = irsde.diffuse(PROCESS, x0, mu, t, torch.randn(mu.shape, generator=g))
            error = method.clean(x, mu, holes, t, c) - x0
            (error.square().sum() / holes.sum() / len(CONDITIONS)).backward()
        nn.utils.clip_grad_norm_(method.learn, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


@torch.inference_mode()
def restored(method: Method, held_out: Crops, condition: int, steps: int) -> Tensor:
    """The crops with their holes filled; what is not missing is taken from the picture."""
    g = torch.Generator().manual_seed(condition)
    mu, holes = held_out.filled[condition], held_out.holes[condition]
    out = irsde.sample(
        PROCESS, lambda x, mu, t: method.noise(x, mu, holes, int(t), condition), mu, times(PROCESS.T, steps),
        "posterior", lambda: torch.randn(mu.shape, generator=g),
    )  # fmt: skip
    return torch.where(holes > 0, out.clamp(0, 1), held_out.clean)


def psnr(out: Tensor, held_out: Crops, condition: int) -> float:
    """PSNR in dB over the missing pixels, mean over crops."""
    holes = held_out.holes[condition]
    error = ((out - held_out.clean).square() * holes).sum(dim=(1, 2, 3)) / (3 * holes.sum(dim=(1, 2, 3)))
    return float((-10 * error.clamp_min(1e-6).log10()).mean())


def flat(held_out: Crops, condition: int) -> Tensor:
    """The crops with their holes filled with the mean colour of what is seen: what learning must beat."""
    seen = 1 - held_out.holes[condition]
    mean = (held_out.clean * seen).sum(dim=(2, 3), keepdim=True) / seen.sum(dim=(2, 3), keepdim=True)
    return torch.where(seen > 0, held_out.clean, mean)


def told(values: Sequence[float], form: str = ".2f") -> str:
    """Mean and standard deviation over seeds, as a cell of a table."""
    spread = f" ± {np.std(values, ddof=1):{form.lstrip('+')}}" if len(values) > 1 else ""
    return f"{np.mean(values):{form}}{spread}"


def run(
    data: Path, out: Path | None, seeds: int, steps: int, batch: int, number: int, only: Sequence[str] = ()
) -> None:
    """Print the table; draw some held-out crops of the first seed."""
    begun = time.monotonic()
    train, held_out = crops(data / "train_clean", number, 1), crops(data / "test" / "clean_kodak", HELD, 2)
    titles = [f"{condition}, {n} step{'s' * (n > 1)}" for condition in CONDITIONS for n in SAMPLING]
    print(f"| method | parameters | {' | '.join(titles)} | minutes |")
    print("|---" * (len(titles) + 3) + "|")
    for name, given in (
        ("mean colour of what is seen", [flat(held_out, c) for c in range(2)]),
        ("membrane (the condition)", list(held_out.filled)),
    ):
        cells = " | ".join(f"{psnr(given[c], held_out, c):.2f}" for c in range(2) for _ in SAMPLING)
        print(f"| {name} | | {cells} | |", flush=True)
    shown = [(c, i) for c in range(2) for i in range(4)]
    columns = [
        ("given", [torch.where(held_out.holes[c, i] > 0, 1.0, held_out.clean[i]) for c, i in shown]),
        ("membrane", [held_out.filled[c, i] for c, i in shown]),
    ]
    for name, build in METHODS.items():
        if only and not any(word in name for word in only):
            continue
        started, rows = time.monotonic(), []
        for seed in range(seeds):
            torch.manual_seed(seed)
            method = build()
            fit(method, train, steps, batch, 2e-3, 1000 * (seed + 1))
            results = {(c, n): restored(method, held_out, c, n) for c in range(2) for n in SAMPLING}
            rows.append([psnr(r, held_out, c) for (c, _), r in results.items()])
            if seed == 0:
                for n in (SAMPLING[0], SAMPLING[-1]):
                    columns.append((f"{n}: {name}", [results[c, n][i] for c, i in shown]))
        cells = " | ".join(told(column) for column in zip(*rows, strict=True))
        parameters = sum(p.numel() for p in method.learn)
        print(f"| {name} | {parameters:,} | {cells} | {(time.monotonic() - started) / 60:.1f} |", flush=True)
    samples = f"{steps} steps of {batch} crops of {SIDE} pixels out of {number}, {HELD} held out (Kodak)"
    elapsed = f"torch {torch.__version__}, {(time.monotonic() - begun) / 60:.1f} minutes in all"
    print(f"\n{samples}, {seeds} seed(s), {elapsed}.")
    if out is not None:
        columns.append(("truth", [held_out.clean[i] for _, i in shown]))
        large = [[np.kron(c[i].permute(1, 2, 0).numpy(), np.ones((7, 7, 1))) for _, c in columns] for i in range(8)]
        page = sheet(large, [name for name, _ in columns])
        out.mkdir(parents=True, exist_ok=True)
        picture.write(picture.Picture(page.astype(np.float32) / 255), out / "modulation-diffusion.jpg")
