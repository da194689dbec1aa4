"""Networks that enlarge, side by side: PSNR, parameters and size of file, printed as markdown.

    python benchmarks/upscale.py --data DATA [--sets SETS] [--models FOLDER] [--calibrate PICTURES] [--speed]
                                 [--scales 2 3 4] [--out benchmarks/upscale.md]

Protocol "sr": the picture is cut to a multiple of the scale and reduced as MATLAB's imresize does
(`irtool.ops.downscale`; Set5 and Set14 come with their small copies), rounded to 8 bits; what comes of it is rounded to
8 bits, `scale` pixels are cut off at each border, and PSNR is taken of BT.601 luma (Y) and of RGB, the mean over the
pictures. "q85": the small copy is a JPEG of quality 85, 4:2:0. "CC15 clean": the middle 240x240 of its clean sides.

SETS is the folder data/ of github.com/jbhuang0604/SelfExSR; MODELS holds ETDS_*.pth and team00_SPAN.pth, which irtool
download fetches too. With PICTURES the integer files are compared, by ONNX Runtime (extra "export"). --speed measures
megapixels of the result a second; on a busy machine that means nothing, so it is left out by default.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from publish import publish
from torch import Tensor

from irtool import weights
from irtool.models import loading
from irtool.ops import downscale

Pair = tuple[np.ndarray, np.ndarray]  # small and large, uint8
Enlarge = Callable[[np.ndarray], np.ndarray]
LUMA = np.array([65.481, 128.553, 24.966]) / 255
FULL_HD = 1920 * 1080 / 1e6  # megapixels
MIDDLE = slice(136, 376)  # of 512 pixels
SIZES = ("M5C16", "M4C32", "M6C32", "M7C48")


def rgb(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def tensor(codes: np.ndarray) -> Tensor:
    return torch.from_numpy(codes).permute(2, 0, 1)[None].float() / 255


def codes(image: Tensor) -> np.ndarray:
    return (image[0].permute(1, 2, 0).clamp(0, 1).numpy() * 255).round().astype(np.uint8)


def jpeg(small: np.ndarray) -> np.ndarray:
    out = io.BytesIO()
    Image.fromarray(small).save(out, "JPEG", quality=85, subsampling=2)
    return np.array(Image.open(out))


def sets(data: Path, folder: Path | None, scale: int) -> Iterator[tuple[str, list[Pair]]]:
    """(name, pairs) of everything that is measured at a scale."""
    for name in ("Set5", "Set14") if folder else ():
        assert folder is not None
        large = sorted((folder / name / f"image_SRF_{scale}").glob("*_HR.png"))
        yield f"{name} ({len(large)})", [(rgb(p.with_name(p.name.replace("_HR", "_LR"))), rgb(p)) for p in large]
    kodak = [reduced(rgb(path), scale) for path in sorted((data / "test" / "clean_kodak").iterdir())]
    yield f"Kodak ({len(kodak)} of 24)", kodak
    yield f"Kodak q85 ({len(kodak)} of 24)", [(jpeg(small), large) for small, large in kodak]
    clean = [rgb(path)[MIDDLE, MIDDLE] for path in sorted((data / "test" / "noise_cc15" / "gt").iterdir())]
    yield f"CC15 clean ({len(clean)})", [reduced(picture, scale) for picture in clean]


def reduced(picture: np.ndarray, scale: int) -> Pair:
    """A picture, cut to a multiple of the scale, and its small copy, in their order in a `Pair`."""
    height, width = (side // scale * scale for side in picture.shape[:2])
    picture = picture[:height, :width]
    return codes(downscale(tensor(picture), scale)), picture


def psnr(result: np.ndarray, truth: np.ndarray, border: int) -> tuple[float, float]:
    """Of luma and of RGB, dB."""
    inside = slice(border, -border)
    error = (result[inside, inside].astype(float) - truth[inside, inside]) / 255
    return tuple(float(-10 * np.log10((e**2).mean())) for e in (error @ LUMA, error))  # type: ignore[return-value]


def by_pillow(filter: Image.Resampling, scale: int) -> Enlarge:
    def enlarge(small: np.ndarray) -> np.ndarray:
        size = small.shape[1] * scale, small.shape[0] * scale
        return np.array(Image.fromarray(small).resize(size, filter))

    return enlarge


def by_network(path: Path) -> tuple[Enlarge, int]:
    net, header = loading.read(path)
    bound = loading.wrap(net, header)

    @torch.inference_mode()
    def enlarge(small: np.ndarray) -> np.ndarray:
        return codes(bound.net(tensor(small)))  # type: ignore[attr-defined]

    return enlarge, sum(p.numel() for p in net.parameters())


def by_onnx(path: Path) -> Enlarge:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def enlarge(small: np.ndarray) -> np.ndarray:
        (large,) = session.run(None, {"image": tensor(small).numpy()})
        return codes(torch.from_numpy(large))

    return enlarge


def published(folder: Path | None, scale: int) -> Iterator[tuple[str, Path, Path]]:
    """Names of published networks that are here, their converted and their original files."""
    names = [(f"ETDS-{size}", f"ETDS_{size}_x{scale}.pth") for size in SIZES]
    names += [("SPAN (NTIRE 2026)", "team00_SPAN.pth")] if scale == 4 else []
    for name, file in names:
        if folder is not None and (folder / file).is_file():
            yield name, weights.locate(f"local:{folder / file}"), folder / file


def cells(enlarge: Enlarge, measured: dict[str, list[Pair]], scale: int) -> list[str]:
    """Y / RGB of every set."""
    found = []
    for pairs in measured.values():
        both = [psnr(enlarge(small), large, scale) for small, large in pairs]
        found.append(" / ".join(f"{statistics.mean(side):.2f}" for side in zip(*both, strict=True)))
    return found


def speed(enlarge: Enlarge, scale: int) -> str:
    """Megapixels of the result a second, the median of five."""
    small = np.random.default_rng(0).integers(0, 256, (360, 640, 3), dtype=np.uint8)
    enlarge(small)
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        enlarge(small)
        seconds.append(time.perf_counter() - begun)
    return f"{small[..., 0].size * scale**2 / 1e6 / statistics.median(seconds):.2f}"


def columns(arguments: argparse.Namespace, measured: dict[str, list[Pair]]) -> list[str]:
    return [*(["MP/s"] if arguments.speed else []), *(f"{name}, Y / RGB" for name in measured)]


def table(arguments: argparse.Namespace, scale: int) -> Iterator[str]:
    measured = dict(sets(arguments.data, arguments.sets, scale))
    head = ["", "parameters", "file, kB", *columns(arguments, measured)]
    yield f"\n## x{scale}\n"
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    rows: list[tuple[str, Enlarge, str, str]] = [
        (name, by_pillow(filter, scale), "", "")
        for name, filter in (("bicubic", Image.Resampling.BICUBIC), ("Lanczos", Image.Resampling.LANCZOS))
    ]
    ours = weights.get(f"irtool-upscale-x{scale}").id
    shipped = weights.locate(ours)
    for name, path, original in [*published(arguments.models, scale), (ours, shipped, shipped)]:
        enlarge, count = by_network(path)
        rows.append((name, enlarge, f"{count:,}", f"{original.stat().st_size / 1e3:.0f}"))
    for name, enlarge, count, size in rows:
        timed = [speed(enlarge, scale)] if arguments.speed else []
        yield "| " + " | ".join([name, count, size, *timed, *cells(enlarge, measured, scale)]) + " |"
        print(name, file=sys.stderr)


def integers(arguments: argparse.Namespace) -> Iterator[str]:
    """float32, two calibrations, and training with rounding, each as the exported file that ONNX Runtime runs."""
    from irtool.exporting import export
    from irtool.exporting.files import write_onnx
    from irtool.exporting.graphs import graph_of
    from irtool.exporting.int8 import quantized

    measured = dict(sets(arguments.data, arguments.sets, 3))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = loading.load(weights.locate("irtool-upscale-x3.v1"))
        name = weights.get("irtool-upscale-x3-int8").id
        trained = loading.load(weights.locate(name))
        files = {
            "float32": export(model, root / "float32.onnx")[0],
            "int8, calibrated and equalized": export(model, root / "ptq.onnx", calibrate=arguments.calibrate)[0],
            f"int8, trained ({name})": export(trained, root / "qat.onnx")[0],
        }
        write_onnx(graph_of(model, {}, ""), root / "plain.onnx", None)
        files["int8, ONNX Runtime's static quantization"] = quantized(root / "plain.onnx", arguments.calibrate, None)
        rate = ["Full-HD frames/s"] if arguments.speed else []
        head = ["x3, exported", "file, kB", *rate, *columns(arguments, measured)]
        yield "\n## Integers\n"
        yield "| " + " | ".join(head) + " |"
        yield "|---" * len(head) + "|"
        for name in sorted(files):
            enlarge = by_onnx(files[name])
            megapixels = speed(enlarge, 3) if arguments.speed else ""
            timed = [f"{float(megapixels) / FULL_HD:.1f}", megapixels] if arguments.speed else []
            size = f"{files[name].stat().st_size / 1e3:.0f}"
            yield "| " + " | ".join([name, size, *timed, *cells(enlarge, measured, 3)]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", type=Path)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--calibrate", type=Path)
    parser.add_argument("--scales", type=int, nargs="*", default=[2, 3, 4])
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    lines = ["# Networks that enlarge", "", "Printed by `python benchmarks/upscale.py`; the protocol is in its head."]
    for scale in arguments.scales:
        lines += table(arguments, scale)
    if arguments.calibrate is not None:
        lines += integers(arguments)
    if not arguments.speed:
        lines += ["", "No speeds: the machine was busy with other work."]
    publish(lines, arguments.out)


if __name__ == "__main__":
    main()
