"""Does it help to adapt weights per task? Small networks, five tasks, shared photographs, several seeds.

    python benchmarks/lora.py compare --data DATA --out docs/pictures --seeds 3 --steps 700
    python benchmarks/lora.py sensitivity --data DATA --seeds 3 --steps 200 --crops 100
    python benchmarks/lora.py ranks --data DATA --out docs/pictures --seeds 3 --steps 200 --crops 100
    python benchmarks/lora.py diffusion --data DATA --seeds 1 --steps 900 --batch 32 --crops 6000

Every method has about the same number of parameters in all (the table says how many), sees the same samples and takes
the same number of steps of the same batch size; whatever must be learned in stages shares those steps out. The task is
told to all methods but "none". Numbers are PSNR in dB over the pixels of held-out crops, means and standard deviations
over seeds.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import lora_diffusion
import lora_study as study
import numpy as np
import torch
import torch.nn.functional as F
from lora_diffusion import told
from lora_nets import TASKS, Net
from torch import Tensor, nn

from irtool import picture, synth
from irtool.models import lora as m

CROP, REGION = 48, 96
BUDGET = 72_000


@dataclass
class Data:
    """Crops by task: (tasks, N, 3, S, S) degraded and clean, uint8."""

    degraded: Tensor
    clean: Tensor


def make(folders: Sequence[Path], count: int, seed: int, pictures: int, side: int) -> Data:
    """Degrade `count` regions per task, and keep their middles."""
    g = torch.Generator().manual_seed(seed)
    found = picture.find(folders, recursive=True)
    order = torch.randperm(len(found), generator=g).tolist()[:pictures]
    loaded = [torch.from_numpy(picture.read(found[i].path).pixels).permute(2, 0, 1) for i in order]
    loaded = [F.avg_pool2d(p[None], 2)[0] if min(p.shape[1:]) > 4 * REGION else p for p in loaded]
    degraded, clean = [], []
    for task in TASKS:
        rows = []
        for first in range(0, count, 4):
            region = []
            for _ in range(min(4, count - first)):
                p = loaded[int(torch.randint(len(loaded), (1,), generator=g))]
                top, left = (int(torch.randint(s - REGION + 1, (1,), generator=g)) for s in p.shape[1:])
                region.append(p[:, top : top + REGION, left : left + REGION])
            good = torch.stack(region)
            rows.append((synth.random_chain(task, g).apply(good, g), good))
        edge = (REGION - side) // 2
        middle = (..., slice(edge, edge + side), slice(edge, edge + side))
        bad, good = (torch.cat(part)[middle] for part in zip(*rows, strict=True))
        degraded.append((bad.clamp(0, 1) * 255).round().byte())
        clean.append((good * 255).round().byte())
    return Data(torch.stack(degraded), torch.stack(clean))


Batch = tuple[Tensor, Tensor, Tensor]


def draw(data: Data, g: torch.Generator, tasks: Sequence[int], size: int) -> Batch:
    """`size` crops shared out evenly over tasks: degraded, clean in [0, 1] and mixtures."""
    t = torch.tensor([tasks[i % len(tasks)] for i in range(size)])
    i = torch.randint(data.clean.shape[1], (size,), generator=g)
    extra = data.clean.shape[-1] - CROP
    top, left = (int(torch.randint(extra + 1, (1,), generator=g)) // 2 * 2 for _ in range(2))
    window = (..., slice(top, top + CROP), slice(left, left + CROP))
    pair = (x[t, i][window].float() / 255 for x in (data.degraded, data.clean))
    return (*pair, F.one_hot(t, len(TASKS)).float())


@dataclass
class Setting:
    """What all runs share."""

    train: Data
    held_out: Data
    batch: int
    rate: float


Model = tuple[nn.Module, "m.Mixture | None"]


def run(model: Model, task_weights: Tensor, x: Tensor) -> Tensor:
    net, shared = model
    if shared is None:
        return net(x, task_weights)
    with m.task_weights_as(shared, task_weights):
        return net(x, task_weights)


def fit(
    model: Model,
    learn: Sequence[nn.Parameter],
    setting: Setting,
    steps: int,
    seed: int,
    *,
    tasks: Sequence[int] = range(len(TASKS)),
    rate: float | None = None,
) -> None:
    """Train some parameters of a model for some steps; cosine rate, L1 loss."""
    g = torch.Generator().manual_seed(seed)
    for p in model[0].parameters():
        p.requires_grad_(False)
    for p in learn:
        p.requires_grad_(True)
    rate = rate or setting.rate
    optimizer = torch.optim.Adam(learn, lr=rate, betas=(0.9, 0.99))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 30) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        x, y, task_weights = draw(setting.train, g, tasks, setting.batch)
        loss = (run(model, task_weights, x) - y).abs().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(learn, 1.0)
        optimizer.step()


@torch.inference_mode()
def psnr(model: Model | Sequence[Model], held_out: Data) -> list[float]:
    """Mean PSNR per task."""
    found = []
    for t in range(len(TASKS)):
        one = model[t] if isinstance(model, list) else model
        x, y = held_out.degraded[t].float() / 255, held_out.clean[t].float() / 255
        task_weights = F.one_hot(torch.full((len(x),), t), len(TASKS)).float()
        out = run(one, task_weights, x).clamp(0, 1)
        found.append(float((-10 * (out - y).square().mean(dim=(1, 2, 3)).clamp_min(1e-6).log10()).mean()))
    return found


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def sized(build: Callable[[int], nn.Module], budget: float = BUDGET) -> int:
    """The width whose network comes closest to the budget."""
    return min(range(8, 96), key=lambda w: abs(count(build(w)) - budget))


def low_rank(width: int, rank: int) -> Model:
    net = Net(width)
    shared = m.add_adapters(net, lambda name, layer, mix: m.LoRALayer(layer, mix, len(TASKS), rank))
    return net, shared


def common_first(model: Model, setting: Setting, steps: int, seed: int) -> None:
    """The common weights alone, on all tasks, without being told which."""
    net, shared = model
    if shared is None:
        fit(model, list(net.parameters()), setting, steps, seed)
        return
    with_none = _Blind(net)
    fit((with_none, None), m.parameters(net)[0], setting, steps, seed)


class _Blind(nn.Module):
    """A modulated network whose offsets sleep."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, task_weights: Tensor) -> Tensor:
        return self.net(x, task_weights)


RANK = 2


def method_none(setting: Setting, steps: int, seed: int) -> tuple[Model, int]:
    net = Net(sized(Net))
    fit((net, None), list(net.parameters()), setting, steps, seed)
    return (net, None), count(net)


def method_synchronous(setting: Setting, steps: int, seed: int) -> tuple[Model, int]:
    model = low_rank(sized(lambda w: low_rank(w, RANK)[0]), RANK)
    fit(model, list(model[0].parameters()), setting, steps, seed)
    return model, count(model[0])


def method_two_stage(setting: Setting, steps: int, seed: int) -> tuple[Model, int]:
    model = low_rank(sized(lambda w: low_rank(w, RANK)[0]), RANK)
    first = round(0.6 * steps)
    common_first(model, setting, first, seed)
    fit(model, m.parameters(model[0])[1], setting, steps - first, seed + 1000)
    return model, count(model[0])


def method_film(setting: Setting, steps: int, seed: int) -> tuple[Model, int]:
    def build(w: int) -> Net:
        return Net(w, film=len(TASKS))

    net = build(sized(build))
    fit((net, None), list(net.parameters()), setting, steps, seed)
    return (net, None), count(net)


def method_prompts(setting: Setting, steps: int, seed: int) -> tuple[Model, int]:
    def build(w: int) -> Net:
        return Net(w, prompt=8)

    net = build(sized(build))
    fit((net, None), list(net.parameters()), setting, steps, seed)
    return (net, None), count(net)


def method_separate(setting: Setting, steps: int, seed: int) -> tuple[list[Model], int]:
    """One network per task, a fifth of the budget and of the steps each."""
    width = sized(Net, BUDGET / len(TASKS))
    models: list[Model] = []
    for t in range(len(TASKS)):
        net = Net(width)
        fit((net, None), list(net.parameters()), setting, steps // len(TASKS), seed, tasks=[t])
        models.append((net, None))
    return models, sum(count(net) for net, _ in models)


def attribution(net: Net, setting: Setting, seed: int, steps: int) -> dict[str, list[Tensor]]:
    """FAIG of every task: fine-tune the common network on it, and follow the path back."""
    names = {n: p for n, p in net.named_parameters() if p.ndim >= 2}
    scores: dict[str, list[Tensor]] = {n: [] for n in names}
    for t in range(len(TASKS)):
        target = copy.deepcopy(net)
        fit((target, None), list(target.parameters()), setting, steps, seed + t, tasks=[t], rate=setting.rate / 3)
        baseline = {n: p.detach().clone() for n, p in net.named_parameters()}
        x, y, task_weights = draw(setting.train, torch.Generator().manual_seed(seed), [t], 8)

        def gradient(at: dict[str, Tensor]) -> dict[str, Tensor]:
            weights = {k: v.clone().requires_grad_(True) for k, v in at.items()}
            out = torch.func.functional_call(target, weights, (x, task_weights))  # noqa: B023 (used before the next turn)
            error = (out - y).square().sum()  # noqa: B023
            return dict(zip(weights, torch.autograd.grad(error, list(weights.values())), strict=True))

        reached = {n: p.detach().clone() for n, p in target.named_parameters()}
        for name, score in study.faig(baseline, reached, gradient, steps=20).items():
            scores[name].append(score)
    return scores


def method_sparse(setting: Setting, steps: int, seed: int) -> tuple[Model, int]:
    """ADMS: 3 % of the kernels per task, found by FAIG on a common network, then learned with it frozen."""
    width = sized(Net, BUDGET / (1 + 0.03 * len(TASKS)))
    net = Net(width)
    common, each = round(0.5 * steps), round(0.05 * steps)
    fit((net, None), list(net.parameters()), setting, common, seed)
    scores = attribution(net, setting, seed + 500, each)
    masks = {k.removesuffix(".weight"): v for k, v in study.top_kernels(scores, 0.03).items()}
    own = sum(float(v.sum()) * net.get_parameter(f"{k}.weight")[0, 0].numel() for k, v in masks.items())
    shared = m.add_adapters(net, lambda name, layer, mix: study.SparseLayer(layer, mix, masks[name]))
    model = (net, shared)
    fit(model, m.parameters(net)[1], setting, steps - common - each * len(TASKS), seed + 1000)
    return model, round(count(m.merge(copy.deepcopy(net), None)) + own)


METHODS = {
    "none (blind)": method_none,
    "low-rank offsets, synchronous": method_synchronous,
    "low-rank offsets, two-stage": method_two_stage,
    "feature modulation (FiLM)": method_film,
    "prompts": method_prompts,
    "sparse offsets (ADMS, 3 %)": method_sparse,
    "separate networks": method_separate,
}


def compare(setting: Setting, steps: int, seeds: int, only: Sequence[str]) -> None:
    """The table of all methods, or of those whose names hold one of some words."""
    nothing = [float(-10 * ((d.float() - c.float()) / 255).square().mean(dim=(1, 2, 3)).clamp_min(1e-6).log10().mean())
               for d, c in zip(setting.held_out.degraded, setting.held_out.clean, strict=True)]  # fmt: skip
    print(f"| method | parameters | {' | '.join(TASKS)} | mean | minutes |")
    print("|---" * (len(TASKS) + 4) + "|")
    print(f"| the input itself | | {' | '.join(f'{v:.2f}' for v in nothing)} | {np.mean(nothing):.2f} | |", flush=True)
    for name, method in METHODS.items():
        if only and not any(word in name for word in only):
            continue
        rows, begun = [], time.monotonic()
        for seed in range(seeds):
            torch.manual_seed(seed)
            model, size = method(setting, steps, 10_000 * (seed + 1))
            found = psnr(model, setting.held_out)
            rows.append([*found, float(np.mean(found))])
        cells = " | ".join(told(column) for column in zip(*rows, strict=True))
        print(f"| {name} | {size:,} | {cells} | {(time.monotonic() - begun) / 60:.1f} |", flush=True)


GROUPS = {
    "head": lambda n: n == "head",
    "spatial 3x3": lambda n: n.endswith("spatial"),
    "pointwise 1x1": lambda n: n.endswith("pointwise"),
    "gate (linear)": lambda n: n.endswith("gate"),
    "tail": lambda n: n == "tail",
}


def sensitivity(setting: Setting, steps: int, seeds: int) -> None:
    """Which group of weights gains most when it alone may differ per task, without a limit of rank."""
    starts = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        general = Net(sized(Net))
        fit((general, None), list(general.parameters()), setting, steps, 10_000 * (seed + 1))
        starts.append((general, float(np.mean(psnr((general, None), setting.held_out)))))
    print(f"General network: {told([before for _, before in starts])} dB.\n")
    print("| group free per task | added parameters | gain, dB | gain per 1,000 parameters | norm of offset / weight |")
    print("|---|---|---|---|---|")
    for name, chosen in GROUPS.items():
        gains, ratios = [], []
        for seed, (general, before) in enumerate(starts):
            net = copy.deepcopy(general)
            shared = m.add_adapters(
                net, lambda n, layer, mix: study.FullRankLayer(layer, mix, len(TASKS)), lambda n, _, c=chosen: c(n)
            )
            own = m.parameters(net)[1]
            fit((net, shared), own, setting, steps // 2, 10_000 * (seed + 1) + 1, rate=setting.rate / 2)
            gains.append(float(np.mean(psnr((net, shared), setting.held_out))) - before)
            norms = [layer.delta.flatten(1).norm(dim=1) / layer.weight.norm() for layer in m.layers(net).values()]
            ratios.append(float(torch.cat(norms).mean()))
        added = sum(p.numel() for p in own)
        each = np.mean(gains) / added * 1000
        print(f"| {name} | {added:,} | {told(gains, '+.2f')} | {each:+.3f} | {told(ratios)} |", flush=True)


def uneven(width: int) -> Net:
    """A network whose layers differ in their smaller sides, so that a proportional rank is not the same everywhere."""
    return Net(width, inner=(0.25, 0.5, 1, 2))


Ranks = Callable[[nn.Module], int]


def spread_out(width: int, ranks: Ranks) -> Model:
    """The uneven network with low-rank offsets, of a rank for each layer."""
    net = uneven(width)
    return net, m.add_adapters(net, lambda n, layer, mix: m.LoRALayer(layer, mix, len(TASKS), ranks(layer)))


def ranks(setting: Setting, steps: int, out: Path | None, seeds: int) -> None:
    """Energy of learned offsets by rank, per layer and task; then constant against proportional rank."""
    found: dict[str, list[Tensor]] = {}
    for seed in range(seeds):
        torch.manual_seed(seed)
        net = uneven(sized(uneven))
        fit((net, None), list(net.parameters()), setting, steps, 10_000 * (seed + 1))
        shared = m.add_adapters(net, lambda n, layer, mix: study.FullRankLayer(layer, mix, len(TASKS)))
        fit((net, shared), m.parameters(net)[1], setting, steps, 10_000 * (seed + 1) + 1, rate=setting.rate / 2)
        for name, layer in m.layers(net).items():
            found.setdefault(name, []).append(study.rank_energy(layer.delta.detach()))
    curves = {name: torch.cat(parts) for name, parts in found.items()}
    print(
        "| layer | smaller side | energy at rank 1 | 2 | 4 | 8 | rank for 90 % | of the smaller side | least .. most |"
    )
    print("|---" * 9 + "|")
    for name, e in curves.items():
        at = " | ".join(f"{float(e[:, min(r, e.shape[1]) - 1].mean()):.2f}" for r in (1, 2, 4, 8))
        needed = ((e < 0.9).sum(1) + 1).float()
        share = f"{float(needed.mean()):.1f} | {float(needed.mean()) / e.shape[1]:.0%}"
        print(f"| {name} | {e.shape[1]} | {at} | {share} | {int(needed.min())} .. {int(needed.max())} |")
    if out is not None:
        _plot(curves, out / "modulation-ranks.png")
    print("\n| offsets, synchronous | ranks | parameters | mean PSNR, dB |\n|---|---|---|---|")
    for rank in (RANK, 2 * RANK):
        base = sized(lambda w, r=rank: spread_out(w, lambda layer: r)[0])
        budget = count(spread_out(base, lambda layer, r=rank: r)[0])
        shares = np.arange(0.02, 0.5, 0.002)
        share = min(
            shares, key=lambda s: abs(count(spread_out(base, lambda layer: proportional(layer, s))[0]) - budget)
        )
        for title, chosen in (
            (f"constant rank {rank}", lambda layer, r=rank: r),
            (f"proportional, {share:.0%} of the smaller side", lambda layer, s=share: proportional(layer, s)),
        ):
            means = []
            for seed in range(seeds):
                torch.manual_seed(seed)
                model = spread_out(base, chosen)
                fit(model, list(model[0].parameters()), setting, steps, 10_000 * (seed + 1))
                means.append(float(np.mean(psnr(model, setting.held_out))))
            used = [len(layer.down[0]) for layer in m.layers(model[0]).values()]
            print(f"| {title} | {min(used)} .. {max(used)} | {count(model[0]):,} | {told(means)} |", flush=True)


def proportional(layer: nn.Module, share: float) -> int:
    """A share of the smaller side of the weights as a matrix, at least 1."""
    return max(1, round(share * min(layer.weight.flatten(1).shape)))  # type: ignore[union-attr, operator]


def _plot(curves: dict[str, Tensor], path: Path) -> None:
    """Energy over the share of ranks, one line per layer, drawn with Pillow."""
    from PIL import Image, ImageDraw

    wide, high, edge = 640, 400, 50
    image = Image.new("RGB", (wide, high), "white")
    pen = ImageDraw.Draw(image)
    pen.rectangle((edge, 20, wide - 150, high - edge), outline="black")
    span, tall = wide - 150 - edge, high - edge - 20
    most = 16
    for r in (1, 2, 4, 8, 16):
        x = edge + span * (r - 1) / (most - 1)
        pen.text((x - 4, high - edge + 6), str(r), fill="black")
    pen.text((edge + span / 2 - 20, high - 24), "rank", fill="black")
    for v in (0, 0.5, 0.9, 1):
        pen.text((12, 14 + tall * (1 - v)), f"{v:.1f}", fill="black")
        pen.line((edge, 20 + tall * (1 - v), wide - 150, 20 + tall * (1 - v)), fill="#dddddd")
    for i, (name, e) in enumerate(curves.items()):
        hue = tuple(
            int(255 * c) for c in np.clip(np.abs((i / len(curves) * 6 + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 0.85)
        )
        mean = e.mean(0)[:most].tolist()
        points = [(edge + span * k / (most - 1), 20 + tall * (1 - v)) for k, v in enumerate(mean)]
        pen.line(points, fill=hue, width=2)
        pen.text((wide - 140, 22 + 16 * i), name, fill=hue)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("compare", "sensitivity", "ranks", "diffusion"))
    parser.add_argument("--data", type=Path, required=True, help="folder with train_clean and test/clean_kodak")
    parser.add_argument("--out", type=Path, help="folder for plots")
    parser.add_argument(
        "--only", nargs="+", default=(), metavar="WORD", help="only methods with such a word in the name"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--crops", type=int, default=240, help="per task, to train on")
    parser.add_argument("--rate", type=float, default=3e-3)
    args = parser.parse_args()
    if args.what == "diffusion":
        batch = args.batch // 2 * 2
        lora_diffusion.run(args.data, args.out, args.seeds, args.steps, batch, args.crops, args.only)
        return
    begun = time.monotonic()
    train = make([args.data / "train_clean"], args.crops, 1, 60, REGION - 16)
    held_out = make([args.data / "test" / "clean_kodak"], 24, 2, 12, REGION - 16)
    setting = Setting(train, held_out, args.batch, args.rate)
    ready = time.monotonic() - begun
    if args.what == "compare":
        compare(setting, args.steps, args.seeds, args.only)
    elif args.what == "sensitivity":
        sensitivity(setting, args.steps, args.seeds)
    else:
        ranks(setting, args.steps, args.out, args.seeds)
    elapsed = time.monotonic() - begun
    print(
        f"\n{args.steps} steps of {args.batch} crops of {CROP} pixels, {args.crops} crops per task to learn from, "
        f"24 per task held out (Kodak), {args.seeds} seed(s), torch {torch.__version__}, "
        f"{torch.get_num_threads()} thread(s), {ready:.0f} s to make the samples, {elapsed / 60:.1f} minutes in all."
    )


if __name__ == "__main__":
    main()
