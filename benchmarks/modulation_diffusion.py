"""Offsets per condition on the noise predictor of a diffusion: inpainting and outpainting as two tasks.

`python benchmarks/modulation.py diffusion` runs this. The network is IR-SDE's U-Net, small; the process is the
published one (cosine, 100 steps, lambda 50/255). A condition is a picture in which strokes (inpainting) or all around a
window (outpainting) is white. Every method has about the same number of parameters, the same samples and the same
number of steps with half a batch of each condition; the network itself is told nothing but the picture.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from irtool import picture
from irtool.diffusion import irsde
from irtool.diffusion.schedules import process, times
from irtool.models import modulation as m
from irtool.models.irsde_unet import ConditionalUNet
from irtool.picture.sheet import sheet
from irtool.synth.missing import hole_mask

CONDITIONS = ("inpainting", "outpainting")
SIDE, DEPTH, BUDGET, RANK = 16, 2, 210_000, 4
PROCESS = process("cosine", 100, 50, 0.005)
SAMPLING, HELD = 20, 64


@dataclass
class Crops:
    """Clean crops (N, 3, S, S) in [0, 1], and a hole (2, N, 1, S, S), 1 where white, of each condition."""

    clean: Tensor
    holes: Tensor

    def masked(self, condition: int) -> Tensor:
        return torch.where(self.holes[condition] > 0, 1.0, self.clean)


def crops(folder: Path, count: int, seed: int) -> Crops:
    """Crops of pictures at an eighth of their size, so that one shows a thing and not a texture."""
    g, dice = torch.Generator().manual_seed(seed), random.Random(seed)
    found = picture.find([folder], recursive=True)
    order = torch.randperm(len(found), generator=g).tolist()[:60]
    loaded = [torch.from_numpy(picture.read(found[i].path).pixels).permute(2, 0, 1) for i in order]
    loaded = [F.avg_pool2d(p[None], 8)[0] for p in loaded if min(p.shape[1:]) >= 8 * SIDE]
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
    return Crops(torch.stack(clean), torch.stack(holes, dim=1))


Predict = Callable[[Tensor, Tensor, "Tensor | float", int], Tensor]
"""``(x_t, mu, t, condition) -> noise``."""


@dataclass
class Method:
    """A noise predictor, its parameters in all, what learns, and what learns instead in the last 40 % of the steps."""

    predict: Predict
    parameters: int
    first: list[nn.Parameter]
    second: list[nn.Parameter] = field(default_factory=list)


def count(*nets: nn.Module) -> int:
    return sum(p.numel() for net in nets for p in net.parameters())


def sized(build: Callable[[int], list[nn.Module]]) -> list[nn.Module]:
    """The networks whose parameters come closest to the budget, by width."""
    with torch.device("meta"):
        width = min(range(4, 33, 2), key=lambda w: abs(count(*build(w)) - BUDGET))
    return build(width)


def adapted(width: int, convolutions: bool) -> m.Adapted:
    """The U-Net with offsets on its linear layers and 1x1 convolutions, or on all convolutions too."""
    net = ConditionalUNet(nf=width, depth=DEPTH)
    layers = {n: layer for n, layer in net.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))}
    linear = [f"{n}.weight" for n, x in layers.items() if convolutions or x.weight[0, 0].numel() == 1]
    return m.Adapted(net, linear, RANK, tasks=len(CONDITIONS), frozen=False)


def blind() -> Method:
    (net,) = sized(lambda w: [ConditionalUNet(nf=w, depth=DEPTH)])
    return Method(lambda x, mu, t, c: net(x, mu, t), count(net), list(net.parameters()))


def offsets(convolutions: bool, staged: bool) -> Method:
    (net,) = sized(lambda w: [adapted(w, convolutions)])
    own = [*net.down, *net.up]
    common = list(net.net.parameters())
    # Offsets begin at zero: until they learn, every condition has the common weights.
    first, second = (common, own) if staged else ([*common, *own], [])
    return Method(lambda x, mu, t, c: net(x, mu, t, task=c), count(net), first, second)


def separate() -> Method:
    nets = sized(lambda w: [ConditionalUNet(nf=w, depth=DEPTH) for _ in CONDITIONS])
    learn = [p for net in nets for p in net.parameters()]
    return Method(lambda x, mu, t, c: nets[c](x, mu, t), count(*nets), learn)


METHODS: dict[str, Callable[[], Method]] = {
    "one network, not told": blind,
    "offsets, linear layers, synchronous": lambda: offsets(False, False),
    "offsets, all layers, synchronous": lambda: offsets(True, False),
    "offsets, all layers, two-stage": lambda: offsets(True, True),
    "separate networks": separate,
}


def fit(method: Method, data: Crops, steps: int, batch: int, rate: float, seed: int) -> None:
    """Learn the noise of random times, half a batch of each condition; maximum-likelihood objective, L1."""
    g = torch.Generator().manual_seed(seed)
    cut = round(0.6 * steps) if method.second else steps
    for learn, part in ((method.first, range(cut)), (method.second, range(cut, steps))):
        if not part:
            continue
        for p in {*method.first, *method.second}:
            p.requires_grad_(False)
        for p in learn:
            p.requires_grad_(True)
        optimizer = torch.optim.Adam(learn, lr=rate, betas=(0.9, 0.99))
        for step in part:
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1, (step + 1) / 30) * (0.02 + 0.49 * (1 + np.cos(np.pi * step / steps)))
            for c in range(len(CONDITIONS)):
                i = torch.randint(len(data.clean), (batch // len(CONDITIONS),), generator=g)
                x0, mu = data.clean[i], data.masked(c)[i]
                t = torch.randint(1, PROCESS.T + 1, (len(i),), generator=g)
                x = irsde.diffuse(PROCESS, x0, mu, t, torch.randn(mu.shape, generator=g))
                predicted = method.predict(x, mu, t, c)
                (irsde.likelihood_loss(PROCESS, predicted, x, x0, mu, t, "l1") / len(CONDITIONS)).backward()
            nn.utils.clip_grad_norm_(learn, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


@torch.inference_mode()
def restored(method: Method, held: Crops, condition: int) -> Tensor:
    """The crops with their holes filled; what is not missing is taken from the picture."""
    g = torch.Generator().manual_seed(condition)
    mu = held.masked(condition)
    out = irsde.sample(
        PROCESS, lambda x, mu, t: method.predict(x, mu, t, condition), mu, times(PROCESS.T, SAMPLING), "posterior",
        lambda: torch.randn(mu.shape, generator=g),
    )  # fmt: skip
    return torch.where(held.holes[condition] > 0, out.clamp(0, 1), held.clean)


def psnr(out: Tensor, held: Crops, condition: int) -> float:
    """PSNR in dB over the missing pixels, mean over crops."""
    holes = held.holes[condition]
    error = ((out - held.clean).square() * holes).sum(dim=(1, 2, 3)) / (3 * holes.sum(dim=(1, 2, 3)))
    return float((-10 * error.clamp_min(1e-6).log10()).mean())


def flat(held: Crops, condition: int) -> Tensor:
    """The crops with their holes filled with the mean colour of what is seen: what learning must beat."""
    seen = 1 - held.holes[condition]
    mean = (held.clean * seen).sum(dim=(2, 3), keepdim=True) / seen.sum(dim=(2, 3), keepdim=True)
    return torch.where(seen > 0, held.clean, mean)


def run(
    data: Path, out: Path | None, seeds: int, steps: int, batch: int, number: int, only: Sequence[str] = ()
) -> None:
    """Print the table; draw some held-out crops of the first seed."""
    begun = time.monotonic()
    train, held = crops(data / "train_clean", number, 1), crops(data / "test" / "clean_kodak", HELD, 2)
    print(f"| method | parameters | {' | '.join(CONDITIONS)} | mean | minutes |\n|---|---|---|---|---|---|")
    for name, fill in (("white, as given", held.masked), ("mean colour of what is seen", lambda c: flat(held, c))):
        found = [psnr(fill(c), held, c) for c in range(2)]
        print(f"| {name} | | {found[0]:.2f} | {found[1]:.2f} | {np.mean(found):.2f} | |", flush=True)
    shown = [held.masked(c)[i] for c in range(2) for i in range(4)]
    columns = [("given", shown)]
    for name, build in METHODS.items():
        if only and not any(word in name for word in only):
            continue
        started, rows = time.monotonic(), []
        for seed in range(seeds):
            torch.manual_seed(seed)
            method = build()
            fit(method, train, steps, batch, 2e-3, 1000 * (seed + 1))
            results = [restored(method, held, c) for c in range(2)]
            found = [psnr(r, held, c) for c, r in enumerate(results)]
            rows.append([*found, float(np.mean(found))])
            if seed == 0:
                columns.append((name, [r[i] for r in results for i in range(4)]))
        table = np.array(rows)
        spread = table.std(axis=0, ddof=1) if seeds > 1 else np.zeros(3)
        cells = " | ".join(f"{a:.2f} ± {b:.2f}" for a, b in zip(table.mean(axis=0), spread, strict=True))
        minutes = (time.monotonic() - started) / 60
        print(f"| {name} | {method.parameters:,} | {cells} | {minutes:.1f} |", flush=True)
    samples = f"{steps} steps of {batch} crops of {SIDE} pixels out of {number}, {HELD} held out (Kodak)"
    taken = f"torch {torch.__version__}, {(time.monotonic() - begun) / 60:.1f} minutes in all"
    print(f"\n{samples}, {SAMPLING} sampling steps, {seeds} seed(s), {taken}.")
    if out is not None:
        columns.append(("truth", [held.clean[i] for _ in range(2) for i in range(4)]))
        large = [[np.kron(c[i].permute(1, 2, 0).numpy(), np.ones((7, 7, 1))) for _, c in columns] for i in range(8)]
        page = sheet(large, [name.replace("offsets, ", "") for name, _ in columns])
        out.mkdir(parents=True, exist_ok=True)
        picture.write(picture.Picture(page.astype(np.float32) / 255), out / "modulation-diffusion.jpg")
