"""irtool's default beside published networks with their own weights: one run, one protocol; printed as markdown.

    python benchmarks/peers.py --shared SHARED [--model ID] [--set NAME ...] [--most N] [--again] [--out FILE]

SHARED holds data/test/ and peers/, the published files, which are compared with weights.toml and converted once. Every
network gets a process of its own, one thread and float32, so that seconds and memory are its own. Every picture is
restored once and scored under each protocol of its table.

What is measured is kept in peers.json beside this file, by model, and ours by its sha256 too: what is there is not
measured again, so that a new default takes a few minutes and a run that was stopped goes on. --again measures all.
Peers whose files are neither in SHARED/peers nor fetched already (`irtool download experts`) are left out, and named.
--most N takes the first N pictures of every set, which the tables say.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Bench:
    """One set and who is measured on it.

    Attributes:
        name: in --set.
        title: for people, with the part of the published set that it is.
        task: what irtool's default is told.
        lq, gt: folders under SHARED/data/test; lq is empty where degraded pictures are made.
        models: peers.
        protocols: the first is the one that is compared under.
        degrade: how degraded pictures are made.
        eligible: the figures go to weights.toml (--record), for --model best to go by; False: as those of a set unlike
            photographs, by which no model is taken; None: they stay here.
    """

    name: str
    title: str
    task: str
    lq: str
    gt: str
    models: tuple[str, ...]
    protocols: tuple[str, ...] = ("canonical",)
    degrade: str = ""
    eligible: bool | None = None


LOW = (
    "maxim-lol.s-2",
    "flol.all",
    "iat.lol-v1",
    "uretinex.lol",
    "pairlie.lol",
    "ruas.lol",
    "zerodce.epoch99",
    "sci.medium",
)
RAIN = ("maxim-rain13k.s-2", "prenet.rain100h", "prenet.rain100l", "prenet.rain1400", "jorder.heavy", "jorder.light")
INDOOR = ("maxim-sots-indoor.s-2", "lkdnet-s.its", "lkdnet-t.its", "gcanet.dehaze", "aodnet.official", "aodnet.pytorch")
OUTDOOR = (
    "maxim-sots-outdoor.s-2",
    "lkdnet-s.ots",
    "lkdnet-t.ots",
    "gcanet.dehaze",
    "aodnet.official",
    "aodnet.pytorch",
)
BLUR = ("maxim-gopro.s-3", "dmphn.1-2-4", "dmphn.1-2-4-8")
DROPS = ("a2net.raindrop",)
REAL_NOISE = ("maxim-sidd.s-3", "dncnn.color-blind")
NOISE = ("dncnn.color-blind",)
Y = ("canonical", "rain-y-floor")
BENCHES = (
    Bench("lol", "LOL eval15 (complete, 15)", "lowlight", "lowlight_lol_eval15/low", "lowlight_lol_eval15/high", LOW,
          ("canonical", "canonical-floor"), eligible=True),
    Bench("rain100h", "Rain100H (24 of 100)", "rain", "rain_rain100h/rain", "rain_rain100h/gt", RAIN, Y, eligible=True),
    Bench("rain100l", "Rain100L (1 of 100)", "rain", "rain_rain100l/rain", "rain_rain100l/gt", RAIN, Y),
    Bench("rain800", "Rain800-like (2)", "rain", "rain_rain800like/rain", "rain_rain800like/gt", RAIN, Y),
    Bench("sots-indoor", "SOTS indoor (14 of 500, 7 scenes)", "haze", "haze_sots_indoor/hazy", "haze_sots_indoor/gt",
          INDOOR, eligible=False),
    Bench("sots-outdoor", "SOTS outdoor (1 of 500)", "haze", "haze_sots_outdoor/hazy", "haze_sots_outdoor/gt",
          OUTDOOR, eligible=True),
    Bench("gopro", "GoPro (1 of 1111)", "blur", "blur_gopro/blur", "blur_gopro/sharp", BLUR, eligible=True),
    Bench("raindrop", "RainDrop (2 pairs)", "raindrop", "raindrop_deraindrop/drop", "raindrop_deraindrop/gt", DROPS,
          eligible=True),
    Bench("cc15", "CC15 real noise (complete, 15)", "noise", "noise_cc15/noisy", "noise_cc15/gt", REAL_NOISE,
          eligible=True),
    *(Bench(f"kodak-{s}", f"Gaussian noise {s}, 8 bit, 12 Kodak photographs", "noise", "", "clean_kodak", NOISE,
            degrade=f"noise({s})", eligible=False) for s in (15, 25, 50)),
    *(Bench(f"kodak-awgn-{s}", f"Gaussian noise {s}, neither clipped nor rounded, 12 Kodak photographs", "noise", "",
            "clean_kodak", NOISE, ("awgn",), f"noise({s})") for s in (15, 25, 50)),
)  # fmt: skip

KEPT = Path(__file__).with_suffix(".json")

# The file or folder under SHARED/peers that a record is made of.
FILES = {
    "prenet.rain100l": "prenet/prenet6_rain100l.pth",
    "prenet.rain100h": "prenet/prenet6_rain100h.pth",
    "prenet.rain1400": "prenet/prenet6_rain1400.pth",
    "gcanet.dehaze": "gcanet/gcanet_dehaze.pth",
    "aodnet.official": "aod_net/aod_net_official.caffemodel",
    "aodnet.pytorch": "aod_net/aod_net_pytorch.pth",
    "uretinex.lol": "uretinex_net",
    "zerodce.epoch99": "zero_dce/zero_dce_epoch99.pth",
    "iat.lol-v1": "iat/iat_lol_v1.pth",
    "ruas.lol": "ruas/ruas_lol.pt",
    "sci.medium": "sci/sci_medium.pt",
    "pairlie.lol": "pairlie/pairlie.pth",
    "dncnn.color-blind": "dncnn/cdncnn_blind_color.mat",
    "lkdnet-s.its": "lkdnet/lkd_s_its.pth",
    "lkdnet-t.its": "lkdnet/lkd_t_its.pth",
    "lkdnet-t.ots": "lkdnet/lkd_t_ots.pth",
    "flol.all": "flol/flolv2_all.pt",
    "a2net.raindrop": "a2net/a2net_raindrop.pth",
}

# Figures on the complete LOL eval15 as their papers or READMEs print them, and the protocol of their test code.
PUBLISHED = {
    "iat.lol-v1": (23.38, 0.809, "canonical"),
    "uretinex.lol": (19.842, 0.826, "canonical-floor"),
    "pairlie.lol": (19.51, 0.736, "canonical-floor"),
    "ruas.lol": (16.405, 0.500, "canonical-floor"),
    "zerodce.epoch99": (14.86, 0.56, "canonical"),
    "sci.medium": (14.784, 0.522, "canonical-floor"),
}
RATIO = "uretinex.lol, ratio from the truth"
RATIO_PUBLISHED = (21.328, 0.835, "canonical-floor")


def reachable(model: str, shared: Path) -> bool:
    """Whether the file of a peer is here, or its conversion."""
    from irtool.weights import get, state

    record = get(model)
    given = FILES.get(record.id)
    return (
        record.kind == "asset" or state(record) == "here" or (given is not None and (shared / "peers" / given).exists())
    )


def measure(
    bench: Bench, model: str, shared: Path, truth_ratio: bool = False, most: int | None = None
) -> dict[str, object]:
    """Restore and score one set with one model in this process."""
    import torch

    from irtool import api, engine
    from irtool.data import between, clean, get_protocol
    from irtool.evaluation.degrade import Degrader
    from irtool.evaluation.score import read_stored, score
    from irtool.picture import Picture
    from irtool.plan import plan_tasks
    from irtool.synth import parse
    from irtool.weights import get, obtain, state

    torch.set_num_threads(1)
    record = get(model)
    if record.kind != "asset" and state(record) != "here":
        obtain(record, shared / "peers" / FILES[record.id])
    root = shared / "data" / "test"
    found = between(root / bench.lq, [root / bench.gt]) if bench.lq else clean([root / bench.gt])
    rules = [get_protocol(name) for name in bench.protocols]
    degrader = Degrader(parse(bench.degrade), rules[0]) if bench.degrade else None
    api.prepare([model], device="cpu")
    plan = plan_tasks([bench.task], 1.0, model)
    figures: list[list[float]] = []
    seconds = 0.0
    megapixels = 0.0
    for pair in found.pairs[:most]:
        assert pair.reference is not None
        reference = read_stored(pair.reference)
        degraded = degrader(pair.name, reference) if degrader or pair.degraded is None else read_stored(pair.degraded)
        begun = time.process_time()
        if truth_ratio:
            net = api.cached_model(model).net
            with torch.inference_mode():
                sides = [torch.from_numpy(x).permute(2, 0, 1)[None] for x in (degraded, reference)]
                restored = net(*sides)[0].permute(1, 2, 0).numpy()
        else:
            restored = api.restore(Picture(degraded), plan=plan, device="cpu", dtype="fp32").picture.pixels
        seconds += time.process_time() - begun
        megapixels += reference.shape[0] * reference.shape[1] / 1e6
        row = list(score(reference, degraded, rules[0], stored=not bench.degrade).values())
        for protocol in rules:
            row += score(reference, restored, protocol).values()
        figures.append(row)
    means = np.mean(figures, axis=0)
    return {
        "n": len(figures),
        "input": means[:2].tolist(),
        "output": {name: means[2 + 2 * i : 4 + 2 * i].tolist() for i, name in enumerate(bench.protocols)},
        "seconds": seconds / len(figures),
        "seconds_per_megapixel": seconds / megapixels,
        "peak": engine.device.peak_bytes(torch.device("cpu")),
        "parameters": api.cached_model(model).info.parameters,
    }


def apart(
    bench: Bench, model: str, shared: Path, again: bool, truth_ratio: bool = False, most: int | None = None
) -> dict[str, object]:
    """`measure` in a process of its own, unless its result is kept already."""
    from irtool.weights import get

    record = get(model)
    own = f"{bench.name} {model}" + (" truth-ratio" if truth_ratio else "") + (f" first-{most}" if most else "")
    version = f" {(record.files[0].sha256 or '')[:12]}" if record.kind == "asset" else ""  # ours changes, theirs do not
    key = own + version
    results = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    if key in results and not again:
        return dict(results[key])
    command = [sys.executable, __file__, "--shared", str(shared), "--one", bench.name, model]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command + (["--truth-ratio"] if truth_ratio else []) + (["--most", str(most)] if most else []),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{bench.name}, {model}: {done.stderr}")
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    print(f"{key}: {result}", file=sys.stderr, flush=True)
    results = {k: v for k, v in results.items() if not (version and k.startswith(f"{own} "))}  # of older weights
    KEPT.write_text(json.dumps(dict(sorted({**results, key: result}.items())), indent=1) + "\n", encoding="utf-8")
    return result


Results = dict[str, dict[str, dict[str, object]]]


def figures(result: dict[str, object], protocol: str) -> tuple[float, float]:
    psnr, ssim = result["output"][protocol]  # type: ignore[index]
    return psnr, ssim


def verdicts(benches: Sequence[Bench], results: Results, default: str) -> Iterator[str]:
    """Where a specialist is better, and where none is."""
    lost, won = [], []
    for bench in benches:
        found = results[bench.name]
        ours = figures(found[default], bench.protocols[0])[0]
        if not bench.models:
            continue
        best, theirs = max(((m, figures(found[m], bench.protocols[0])[0]) for m in bench.models), key=lambda x: x[1])
        line = f"{bench.title}: {best} {theirs:.2f} dB, {default} {ours:.2f} dB ({ours - theirs:+.2f})"
        (lost if theirs > ours else won).append(line)
    yield from ("Where a specialist beats the default:", "", *(f"- {line}" for line in lost or ["nowhere"]), "")
    yield from (
        "Where the default beats every specialist measured:",
        "",
        *(f"- {line}" for line in won or ["nowhere"]),
        "",
    )


def tables(benches: Sequence[Bench], results: Results, default: str) -> Iterator[str]:
    """One table per set."""
    for bench in benches:
        found = results[bench.name]
        low = found[default]["input"]
        yield from (f"## {bench.title}", "")
        yield f"{found[default]['n']} pictures. Input: {low[0]:.2f} dB, SSIM {low[1]:.4f}." + (
            f" Degraded by `{bench.degrade}`." if bench.degrade else ""
        )
        heads = [f"{p}: PSNR / SSIM" for p in bench.protocols]
        yield from ("", f"| model | {' | '.join(heads)} | CPU s per picture | peak MiB | parameters |")
        yield "|---" * (len(heads) + 4) + "|"
        ranked = sorted(found, key=lambda m: -figures(found[m], bench.protocols[0])[0])
        for model in ranked:
            r = found[model]
            shown = " | ".join("{:.2f} / {:.4f}".format(*figures(r, p)) for p in bench.protocols)
            name = f"**{model}**" if model == default else model
            yield f"| {name} | {shown} | {r['seconds']:.2f} | {r['peak'] / 2**20:.0f} | {r['parameters']:,} |"  # type: ignore[operator]
        yield from ("", f"    {command(bench, ranked[0] if ranked[0] != default else ranked[1])}", "")
        if bench.name == "lol" and "ratio" in results:
            yield from reproduced(results)


def record(benches: Sequence[Bench], results: Results, default: str, path: Path) -> None:
    """Write the figures of every model, and the default's on the same pictures, into its record in weights.toml."""
    rows: dict[str, list[str]] = {}
    for bench in benches:
        ours = results[bench.name][default]
        for model, r in results[bench.name].items():
            if bench.eligible is None or model == default:
                continue
            megapixels = ours["seconds"] / ours["seconds_per_megapixel"]  # type: ignore[operator]
            for protocol in bench.protocols:
                psnr, theirs = figures(r, protocol)[0], figures(ours, protocol)[0]
                rows.setdefault(model, []).append(
                    f'  {{ task = "{bench.task}", set = "{bench.title}", protocol = "{protocol}", psnr = {psnr:.2f}, '
                    f"default = {theirs:.2f}, seconds = {r['seconds'] / megapixels:.1f}"  # type: ignore[operator]
                    f"{'' if bench.eligible else ', eligible = false'} }},\n"
                )
    text = path.read_text(encoding="utf-8")
    for model, lines in rows.items():
        head, separator, rest = text.partition(f'\nid = "{model}"\n')
        body, end, after = rest.partition("\n[[")
        body = re.sub(r"scores = \[.*?\]\n(?=\w|$)", "", body, flags=re.DOTALL)
        body, tasks, other = body.partition("\ntasks = ")
        line, newline, other = other.partition("\n")
        scores = f"scores = [\n{''.join(lines)}]\n"
        text = f"{head}{separator}{body}{tasks}{line}{newline}{scores}{other}{end}{after}"
    path.write_text(text, encoding="utf-8")


def command(bench: Bench, model: str) -> str:
    """What prints the first column of one row again."""
    root = "SHARED/data/test"
    data_flags = f"--lq {root}/{bench.lq} --gt {root}/{bench.gt}" if bench.lq else f"--gt {root}/{bench.gt}"
    degrade_flag = f" --degrade '{bench.degrade}'" if bench.degrade else ""
    return f"irtool eval {data_flags}{degrade_flag} --protocol {bench.protocols[0]} --model {model}"


def reproduced(results: Results) -> Iterator[str]:
    """Published rows on the complete LOL eval15, each under the protocol of its own test code."""
    yield from ("Published rows, each under the protocol of its own test code:", "")
    yield from ("| model | published | measured | protocol |", "|---|---|---|---|")
    for model, (psnr, ssim, protocol) in PUBLISHED.items():
        measured = "{:.3f} / {:.4f}".format(*figures(results["lol"][model], protocol))
        yield f"| {model} | {psnr} / {ssim} | {measured} | {protocol} |"
    if RATIO in results.get("ratio", {}):
        psnr, ssim, protocol = RATIO_PUBLISHED
        measured = "{:.3f} / {:.4f}".format(*figures(results["ratio"][RATIO], protocol))
        yield f"| {RATIO} (no blind result) | {psnr} / {ssim} | {measured} | {protocol} |"
    yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder that holds data/test/ and peers/")
    parser.add_argument("--model", default="irtool-small.v3", help="irtool's own")
    parser.add_argument("--set", action="append", choices=[b.name for b in BENCHES], help="only these")
    parser.add_argument("--most", type=int, help="only the first N pictures of every set")
    parser.add_argument("--again", action="store_true", help="measure also what is kept")
    parser.add_argument("--record", action="store_true", help="write the figures into weights.toml")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", nargs=2, metavar=("SET", "MODEL"), help=argparse.SUPPRESS)
    parser.add_argument("--truth-ratio", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        bench = next(b for b in BENCHES if b.name == args.one[0])
        print(json.dumps(measure(bench, args.one[1], args.shared, args.truth_ratio, args.most)))
        return
    import torch

    from irtool.weights import get, locate

    begun = time.monotonic()
    benches = [b for b in BENCHES if not args.set or b.name in args.set]
    away = sorted({m for b in benches for m in b.models if not reachable(m, args.shared)})
    if away:
        print(f"not here, left out: {', '.join(away)}", file=sys.stderr)
    benches = [replace(b, models=tuple(m for m in b.models if m not in away)) for b in benches]
    results: Results = {
        b.name: {m: apart(b, m, args.shared, args.again, most=args.most) for m in (args.model, *b.models)}
        for b in benches
    }
    if "lol" in results and not args.most:
        results["ratio"] = {RATIO: apart(benches[0], "uretinex.lol", args.shared, args.again, truth_ratio=True)}
    if args.record and not args.most:
        record(benches, results, args.model, Path(__file__).parents[1] / "weights.toml")
    sha = hashlib.sha256(locate(args.model).read_bytes()).hexdigest()[:16]
    lines = [
        "# Peers",
        "",
        *verdicts(benches, results, args.model),
        "Printed by `python benchmarks/peers.py --shared SHARED --out benchmarks/peers.md`: every network in a process",
        "of its own, one CPU thread, float32; every picture restored once. Sets of which only a part is here are said",
        "to be so: their figures are not those of the whole. Published weights, compared with the sha256 in",
        "weights.toml; none of them ships. The default is one network for all tasks and is told the task; the peers",
        "know one task each. CPU seconds are of the restoration alone; the peers' were measured once (peers.json).",
        "",
        "Under each table stands the command that prints one row of it again; others by their --model and --protocol.",
        "The last section brings the weights.",
        "",
        *([f"Of every set only the first {args.most} pictures (by name) were taken.", ""] if args.most else []),
        *([f"Not within reach, left out: {', '.join(away)}.", ""] if away else []),
        f"{get(args.model).id} (sha256 {sha}...), torch {torch.__version__}.",
        "",
        *tables(benches, results, args.model),
        "## Weights",
        "",
        "SHARED/peers holds the published files; without it `irtool download ID` fetches them.",
        "",
        *(f"    irtool download {model} --from SHARED/peers/{file}" for model, file in FILES.items()),
    ]
    text = "\n".join(lines).rstrip("\n") + "\n"
    print(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    print(f"{time.monotonic() - begun:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
