"""The shipped restorer run by torch, ONNX Runtime and OpenVINO, and what integers cost it, printed as markdown.

    python benchmarks/engines.py --data DATA --calibrate PICTURES
        [--side 1024] [--rounds 5] [--out benchmarks/engines.md]

Needs the extra "export". Speed: one pass over SIDE x SIDE pixels, each engine in turns, the median; the largest
difference is to torch in float32, in [0, 1]. Quality: PSNR in dB on the Kodak photographs of DATA, degraded as in
quality.md and cut to a common size, since the quantized graph is static.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from publish import publish
from quality import SINGLE, degrade, eight, load, rounded
from torch import Tensor

from irtool import engine, metrics, models, weights
from irtool.exporting import export
from irtool.models.base import Condition
from irtool.weights import DEFAULT_RESTORER

Run = Callable[[Tensor], Tensor]
CUT = (480, 640)
KINDS = ("noise", "jpeg", "haze", "lowlight", "rain", "snow", "shadow", "raindrop")


def by_torch(model: models.Model, kind: str, dtype: str) -> Run:
    bound = model.bind(Condition({kind: 1.0}))
    return lambda x: engine.run(bound, x, device=torch.device("cpu"), dtype=dtype, tile="off").pixels


def by_onnx(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"image": x[None].numpy()})[0][0])


def by_openvino(path: Path, dtype: str) -> Run:
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": dtype, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    return lambda x: torch.from_numpy(np.array(next(iter(compiled(x[None].numpy()).values()))[0]))


def speeds(model: models.Model, folder: Path, calibrate: Path, side: int, rounds: int) -> list[str]:
    onnx = export(model, folder / "net.onnx", tasks={"noise": 1.0})[0]
    xml = export(model, folder / "net.xml", tasks={"noise": 1.0})[0]
    int8 = export(model, folder / "int8.onnx", tasks={"noise": 1.0}, calibrate=calibrate)[0]
    engines: dict[str, Run] = {
        "torch, float32": by_torch(model, "noise", "fp32"),
        "torch, bfloat16": by_torch(model, "noise", "bf16"),
        "ONNX Runtime, float32": by_onnx(onnx),
        "ONNX Runtime, int8": by_onnx(int8),
        "OpenVINO, float32": by_openvino(xml, "f32"),
        "OpenVINO, bfloat16": by_openvino(xml, "bf16"),
    }
    x = torch.rand(3, side, side, generator=torch.Generator().manual_seed(0))
    truth = engines["torch, float32"](x)
    times: dict[str, list[float]] = {name: [] for name in engines}
    far = {}
    for count in range(rounds + 1):
        for name, run in engines.items():
            start = time.perf_counter()
            made = run(x)
            if count:
                times[name].append(time.perf_counter() - start)
            far[name] = float((made - truth).abs().max())
    base = statistics.median(times["torch, float32"])
    lines = ["| engine | seconds, median (min to max) | MP/s | times torch in float32 | largest difference |"]
    lines += ["|---|---|---|---|---|"]
    for name, seen in times.items():
        mid = statistics.median(seen)
        spread = f"{mid:.3f} ({min(seen):.3f} to {max(seen):.3f})"
        lines.append(f"| {name} | {spread} | {side * side / 1e6 / mid:.2f} | {base / mid:.2f} | {far[name]:.1g} |")
    return lines


def losses(model: models.Model, folder: Path, calibrate: Path, kodak: list[Path]) -> list[str]:
    lines = ["| degradation | float32 | int8 | lost, dB |", "|---|---|---|---|"]
    for kind, chain in SINGLE:
        if kind not in KINDS:
            continue
        whole = by_torch(model, kind, "fp32")
        integers = by_onnx(export(model, folder / f"{kind}.onnx", tasks={kind: 1.0}, calibrate=calibrate)[0])
        scores = []
        for path in kodak:
            truth = load(path)[:, : CUT[0], : CUT[1]]
            degraded = degrade(truth, chain, path.name)
            scores.append([metrics.psnr(eight(truth), eight(rounded(run(degraded)))) for run in (whole, integers)])
        first, second = np.mean(scores, axis=0)
        lines.append(f"| `{chain}` | {first:.2f} | {second:.2f} | {first - second:.2f} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--calibrate", type=Path, required=True)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--most", type=int, default=12, help="photographs to measure quality with")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    model = models.load(weights.locate(DEFAULT_RESTORER))
    kodak = sorted((given.data / "test" / "clean_kodak").iterdir())
    wide = [p for p in kodak if load(p).shape[1] >= CUT[0] and load(p).shape[2] >= CUT[1]][: given.most]
    lines = ["# Engines and integers", "", "Printed by `python benchmarks/engines.py`; "
             f"{DEFAULT_RESTORER}, {torch.get_num_threads()} threads, torch {torch.__version__}.", ""]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        lines += speeds(model, Path(folder), given.calibrate, given.side, given.rounds)
        lines += ["", "int8: ONNX Runtime's static quantization, calibrated on photographs.", ""]
        lines += losses(model, Path(folder), given.calibrate, wide)
    publish(lines, given.out)


if __name__ == "__main__":
    main()
