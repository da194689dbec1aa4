"""Quality of the shipped models, printed as markdown.

    python benchmarks/quality.py --data DATA [--model FILE] [--detector FILE] [--ensemble] [--out benchmarks/quality.md]

DATA holds the test pairs (`test/...`). Protocol: 8-bit RGB (clipped and rounded, input and output), no crop, sorted
names, each synthetic degradation seeded from (kind, file name); PSNR and SSIM by irtool.metrics, mean over pictures.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from publish import publish
from torch import Tensor

import irtool
from irtool import engine, metrics, models, picture, synth, weights
from irtool.degradation import CLEAN, IDS
from irtool.detection import gate
from irtool.detection import load as load_detector
from irtool.models.base import Condition
from irtool.picture.jpeg_bounds import project_to_jpeg_bounds
from irtool.plan import passes, plan_auto

# Name, the task asked for, degraded folder, folders of truths.
PAIRS = (
    ("CC15 real noise", "noise", "noise_cc15/noisy", ("noise_cc15/gt",)),
    ("LOL eval15", "lowlight", "lowlight_lol_eval15/low", ("lowlight_lol_eval15/high",)),
    ("SOTS indoor (7 scenes x 2)", "haze", "haze_sots_indoor/hazy", ("haze_sots_indoor/gt",)),
    ("SOTS outdoor (1)", "haze", "haze_sots_outdoor/hazy", ("haze_sots_outdoor/gt",)),
    ("Rain100H (24 of 100)", "rain", "rain_rain100h/rain", ("rain_rain100h/gt",)),
    ("Rain100L (1)", "rain", "rain_rain100l/rain", ("rain_rain100l/gt",)),
    ("Rain800-like (2)", "rain", "rain_rain800like/rain", ("rain_rain800like/gt",)),
    ("RainDrop (2)", "raindrop", "raindrop_deraindrop/drop", ("raindrop_deraindrop/gt",)),
    ("GoPro (1)", "blur", "blur_gopro/blur", ("blur_gopro/sharp",)),
    ("ISTD (1 true + 6 pseudo)", "shadow", "shadow_istd/shadow", ("shadow_istd/gt", "shadow_istd/pseudo_gt")),
)
SINGLE = (
    ("noise", "noise(15)"),
    ("noise", "noise(25)"),
    ("noise", "noise(50)"),
    ("jpeg", "jpeg(10)"),
    ("jpeg", "jpeg(20)"),
    *((i, i) for i in ("blur", "haze", "lowlight", "raindrop", "rain", "shadow", "snow", "missing")),
)
# What a row is asked to reach at least with the task given: a PSNR, or a gain over the input (a leading +), in dB.
ASKED = {
    "`noise(25)`": "31.0",
    "`noise(50)`": "27.8",
    "CC15 real noise": "35.5",
    "`jpeg(10)`": "+1.3",
    "LOL eval15": "19.5",
    "SOTS indoor (7 scenes x 2)": "21",
    "SOTS outdoor (1)": "+0",
    "Rain100H (24 of 100)": "22.5",
    "RainDrop (2)": "+0",
    "ISTD (1 true + 6 pseudo)": "+0",
    "GoPro (1)": "+0",
    "missing, public masks, white": "26",
    **{f"`{kind}`": "+2" for kind in ("blur", "snow", "raindrop", "rain", "shadow", "haze", "lowlight")},
}
QUALITIES = (10, 30, 50, 75, 90)
MIXED = (
    "lowlight(ev=4)|noise(10)",
    "rain|haze(beta=0.8)",
    "blur|noise(10)",
    "noise(15)|jpeg(30)",
    "snow|haze(beta=0.8)",
)


def seeded(*words: str) -> torch.Generator:
    """A generator whose seed is derived from words, alike on every machine."""
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256("|".join(words).encode()).digest()[:6], "big"))


def load(path: Path) -> Tensor:
    """(3, H, W) in [0, 1]."""
    return torch.from_numpy(picture.read(path).pixels).permute(2, 0, 1).contiguous()


def eight(pixels: Tensor) -> np.ndarray:
    """(H, W, 3) uint8."""
    return metrics.to_8bit(pixels.permute(1, 2, 0).numpy())


def rounded(pixels: Tensor) -> Tensor:
    """In 8-bit steps, as a file would hold it."""
    return (pixels.clamp(0, 1) * 255).round() / 255


def pairs(root: Path, low: str, highs: tuple[str, ...]) -> Iterator[tuple[str, Path, Path]]:
    """(name, degraded, truth); the truth has the same stem, or the part before the first '_' or '-'."""
    references = {p.stem: p for high in highs for p in sorted((root / high).iterdir())}
    for path in sorted((root / low).iterdir()):
        stem = path.stem if path.stem in references else path.stem.replace("-", "_").split("_")[0]
        yield path.name, path, references[stem]


class Bench:
    """The models under test and what they are asked."""

    def __init__(self, model: Path, detector: Path | None, device: torch.device, dtype: str, ensemble: bool) -> None:
        self.files = (model, detector)
        self.restorer = models.load(model)
        self.detector = load_detector(detector, device) if detector is not None and detector.exists() else None
        self.device, self.dtype, self.ensemble = device, dtype, ensemble
        self.experts: dict[tuple[str, ...], models.Expert] = {}
        self.losses: list[str] = []
        self.short: list[str] = []

    def restore(self, pixels: Tensor, ids: tuple[str, ...]) -> Tensor:
        return rounded(self.carry_out(pixels, passes(ids)))

    def auto(self, pixels: Tensor) -> tuple[Tensor, tuple[str, ...]]:
        """The result, and what was undone."""
        if self.detector is None:
            return pixels, ()
        result = irtool.restore(
            pixels, model=f"local:{self.files[0]}", detector=f"local:{self.files[1]}", device=str(self.device),
            dtype=self.dtype, ensemble=self.ensemble,
        )  # fmt: skip
        undone = tuple(kind for step in result.plan.steps for kind in step.task_weights)
        return rounded(torch.from_numpy(result.picture.pixels).permute(2, 0, 1)), undone

    def vain(self, pixels: Tensor, kind: str) -> tuple[Tensor, float]:
        """The result where one degradation is taken to be present, and the share of it that the check left."""
        assert self.detector is not None
        found = replace(self.detector.diagnose(pixels), present=(kind,), uncertain=())
        (step,) = plan_auto(found).steps
        result = torch.lerp(pixels, self.carry_out(pixels, [(kind,)]), step.strength)
        kept, share, _, _ = gate.check(pixels, result, found, self.detector.diagnose, (kind,))
        return rounded(kept), share

    def carry_out(self, pixels: Tensor, groups: Sequence[tuple[str, ...]]) -> Tensor:
        """A pass for each group of degradations."""
        for group in groups:
            if group not in self.experts:
                self.experts[group] = self.restorer.bind(Condition(dict.fromkeys(group, 1.0)))
            outcome = engine.run(
                self.experts[group], pixels, device=self.device, dtype=self.dtype, ensemble=self.ensemble
            )
            pixels = outcome.pixels
        return pixels


def row(bench: Bench, name: str, cases: list[tuple[Tensor, Tensor]], ids: tuple[str, ...]) -> str:
    """One line of a table: input, output when the task is given, output when it is found."""
    figures = []
    for degraded, reference in cases:
        target = eight(reference)
        for result in (degraded, bench.restore(degraded, ids), bench.auto(degraded)[0]):
            figures.append((metrics.psnr(target, eight(result)), metrics.ssim(target, eight(result))))
    table = np.array(figures).reshape(len(cases), 3, 2).mean(axis=0)
    (p0, s0), (p1, s1), (p2, s2) = table
    print(f"{name}: {p0:.2f} -> {p1:.2f} (auto {p2:.2f})", file=sys.stderr, flush=True)
    bench.losses += [f"{name}, {way} ({p - p0:+.2f} dB)" for way, p in (("task given", p1), ("auto", p2)) if p < p0]
    asked = ASKED.get(name, "-inf")
    if (p1 - p0 if asked.startswith("+") else p1) < float(asked):
        bench.short.append(f"{name} {p1:.2f} dB ({p1 - p0:+.2f}) where {asked} is asked")
    return (
        f"| {name} | {len(cases)} | {p0:.2f} / {s0:.3f} | {p1:.2f} / {s1:.3f} | {p1 - p0:+.2f} | {p2:.2f} / {s2:.3f} |"
    )


def degrade(clean: Tensor, chain: str, name: str) -> Tensor:
    return rounded(synth.parse(chain).apply(clean[None], seeded(chain, name))[0])


def files(bench: Bench, kodak: dict[str, Tensor]) -> Iterator[str]:
    """A line for each quality of JPEG files (4:2:0), whose own tables say how far from the truth they can be."""
    for quality in QUALITIES:
        figures = []
        for x in kodak.values():
            buffer = BytesIO()
            Image.fromarray(eight(x)).save(buffer, "JPEG", quality=quality)
            saved = picture.read(buffer.getvalue())
            assert saved.jpeg is not None
            decoded = torch.from_numpy(saved.pixels).permute(2, 0, 1).contiguous()
            free = bench.carry_out(decoded, [("jpeg",)])
            bounded = torch.from_numpy(project_to_jpeg_bounds(free.numpy(), decoded.numpy(), saved.jpeg))
            figures.append([metrics.psnr(eight(x), eight(y)) for y in (decoded, free, bounded)])
        given, free_mean, held_mean = np.mean(figures, axis=0)
        worst = min(after - before for before, _, after in figures)
        yield (
            f"| {quality} | {given:.2f} | {free_mean:.2f} ({free_mean - given:+.2f}) "
            f"| {held_mean:.2f} ({held_mean - given:+.2f}) | {worst:+.2f} |"
        )


def confusion(bench: Bench, root: Path, kodak: dict[str, Tensor]) -> Iterator[str]:
    """The strongest finding against the truth: single degradations at the strengths of the table above, draws from
    the training ranges (weaker and stronger), and real pairs."""
    assert bench.detector is not None
    kinds = (*IDS, CLEAN)

    def counted(shown: list[tuple[str, Tensor]]) -> dict[str, dict[str, int]]:
        matrix = {kind: dict.fromkeys(kinds, 0) for kind in kinds}
        for kind, pixels in shown:
            matrix[kind][(*bench.detector.diagnose(pixels).present, CLEAN)[0]] += 1
        return matrix

    def lines(matrix: dict[str, dict[str, int]]) -> Iterator[str]:
        yield from ("| truth | " + " | ".join(kinds) + " | right |", "|---" * (len(kinds) + 2) + "|")
        rights = []
        for kind in kinds:
            total = sum(matrix[kind].values())
            if total:
                rights.append((kind, matrix[kind][kind] / total))
                yield (
                    f"| {kind} | "
                    + " | ".join(str(n or "") for n in matrix[kind].values())
                    + f" | {rights[-1][1]:.0%} |"
                )
        mean = np.mean([right for kind, right in rights if kind != CLEAN])
        yield from ("", f"Right, mean over the degradations: {mean:.1%}.")

    fixed = [(kind, degrade(x, chain, n)) for kind, chain in SINGLE for n, x in kodak.items()]
    fixed += [(CLEAN, x) for x in kodak.values()]
    drawn = []
    for kind in IDS:
        for name, x in kodak.items():
            for draw in range(3):
                g = seeded("detector", kind, name, str(draw))
                drawn.append((kind, rounded(synth.random_chain(kind, g).apply(x[None], g)[0])))
    listed = [(task, low, high) for _, task, folder, highs in PAIRS for _, low, high in pairs(root, folder, highs)]
    real = [(task, load(low)) for task, low, _ in listed]
    real += [(CLEAN, load(high)) for high in sorted({high for _, _, high in listed})]
    yield from ("", "## Detector: strongest finding, single degradations of the table above, and clean photographs", "")
    yield from lines(counted(fixed))
    yield from ("", "The same for three seeded draws from the training ranges per photograph:", "")
    yield from lines(counted(drawn))
    yield from (
        "",
        "And for the pairs, their truths as clean (some of them are not: real haze, dim rooms, shadows):",
        "",
    )
    yield from lines(counted(real))


def tables(bench: Bench, root: Path) -> Iterator[str]:
    """The lines of the report."""
    head = ["| set | pictures | input PSNR / SSIM | task given | gain, dB | auto |", "|---|---|---|---|---|---|"]
    yield from ("## Pairs", "", *head)
    for name, task, low, highs in PAIRS:
        yield row(bench, name, [(load(a), load(b)) for _, a, b in pairs(root, low, highs)], (task,))
    kodak = {p.name: load(p) for p in sorted((root / "clean_kodak").iterdir())}
    yield from ("", "## Synthetic, seeded, on 12 Kodak photographs", "", *head)
    for task, chain in SINGLE:
        yield row(bench, f"`{chain}`", [(degrade(x, chain, n), x) for n, x in kodak.items()], (task,))
    masks = sorted((root / "inpainting_masks").iterdir())
    cases = []
    for i, x in enumerate(kodak.values()):
        keep = torch.nn.functional.interpolate(load(masks[i % len(masks)])[None], x.shape[-2:], mode="nearest")[
            0
        ].round()
        cases.append((keep * x + (1 - keep), x))
    yield row(bench, "missing, public masks, white", cases, ("missing",))
    single = []
    for chain in MIXED:
        ids = tuple(step.id for step in synth.parse(chain).steps)
        cases = [(degrade(x, chain, n), x) for n, x in kodak.items()]
        yield row(bench, f"`{chain}`", cases, ids)
        alone = [np.mean([metrics.psnr(eight(y), eight(bench.restore(x, (i,)))) for x, y in cases]) for i in ids]
        single.append(f"`{chain}` {max(alone):.2f} ({ids[int(np.argmax(alone))]})")
    yield from ("", f"The best of the single tasks on these mixtures: {', '.join(single)}.")
    yield from ("", f"**Not improved, but made worse:** {'; '.join(bench.losses) or 'nothing'}.")
    yield from ("", f"**Below what was asked, task given:** {'; '.join(bench.short) or 'nothing'}.")
    yield from ("", "## JPEG files, task given: the file's quantisation tables bound what may change", "")
    yield from ("| quality | input | unbounded | bounded | least gain of a picture |", "|---|---|---|---|---|")
    yield from files(bench, kodak)
    if bench.detector is None:
        return
    yield from confusion(bench, root, kodak)
    yield from ("", "## Clean photographs through `--auto`", "")
    worst, untouched = np.inf, 0
    for x in kodak.values():
        result, ids = bench.auto(x)
        untouched += not ids
        worst = min(worst, metrics.psnr(eight(x), eight(result))) if ids else worst
    yield f"{untouched} of {len(kodak)} untouched" + (
        "." if untouched == len(kodak) else f"; the worst of the others at {worst:.2f} dB."
    )


def arguments(description: str | None) -> argparse.ArgumentParser:
    """What all benchmarks of restorer and detector take."""
    assets = Path(models.__file__).parent.parent / "assets"
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds test/")
    parser.add_argument("--model", type=Path, default=assets / f"{weights.DEFAULT_RESTORER}.safetensors")
    parser.add_argument("--detector", type=Path, default=assets / f"{weights.DEFAULT_DETECTOR}.safetensors")
    parser.add_argument("--out", type=Path)
    return parser


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--ensemble", action="store_true", help="as irtool restore --ensemble")
    args = parser.parse_args()
    device = engine.pick_device(args.device)
    start = time.monotonic()
    bench = Bench(args.model, args.detector, device, args.dtype, args.ensemble)
    dtype = str(engine.pick_dtype(args.dtype, device, probe=bench.restorer.info.bears_bf16)).removeprefix("torch.")
    sha = hashlib.sha256(args.model.read_bytes()).hexdigest()[:16]
    lines = [
        "# Quality",
        "",
        "Printed by `python benchmarks/quality.py --data DATA --out benchmarks/quality.md`.",
        "Protocol: 8-bit RGB, no crop, sorted names, seeds from names; PSNR in dB and SSIM, mean over pictures.",
        "Task given: the degradation is named. Auto: the detector names it.",
        "",
        f"Model {args.model.name} (sha256 {sha}...), torch {torch.__version__}, {device.type}, {dtype}"
        + (", --ensemble." if args.ensemble else "."),
        "",
        *tables(bench, args.data / "test"),
    ]
    publish(lines, args.out)
    print(f"{time.monotonic() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
