"""irtool doctor: what there is to work with, for people and for bug reports."""

from __future__ import annotations

import json as jsonlib
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import __version__, cores, settings
from ..errors import EXIT_OK, EXIT_UNAVAILABLE, IrtoolError
from ..fileio import exists
from ..weights import Record, records, state, verify
from ..weights.hub import hub_cache
from . import options

PACKAGES = (
    "torch",
    "numpy",
    "pillow",
    "scikit-image",
    "safetensors",
    "huggingface-hub",
    "platformdirs",
    "open-clip-torch",
    "typer",
    "rich",
)
EXTRAS = {
    "heif": "pillow-heif",
    "raw": "rawpy",
    "mat": "h5py",
    "remote": "fsspec",
    "ray": "ray",
    "watch": "watchfiles",
}
VARIABLES = ("HF_HOME", "HF_HUB_CACHE", "HF_ASSETS_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT")


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    tune: Annotated[
        bool, typer.Option("--tune", help="Measure again which number type this CPU is faster in (--dtype auto).")
    ] = False,
    bench: Annotated[
        bool,
        typer.Option("--bench", help="Also time the network that ships: MP/s, share of the peak, where time goes."),
    ] = False,
) -> int:
    """Check the installation.

    Shows versions, devices, threads, the cache and whether the models are intact.

    Exits with 3 where torch or a model that ships is missing.
    """
    report: dict[str, Any] = {
        "irtool": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "extras": {extra: _version(package) for extra, package in EXTRAS.items()},
        "torch": _torch(tune),
        "cores": os.cpu_count(),
        "usable_cores": cores.usable(),
        "free_cores": cores.free(),
        "cache": str(hub_cache()),
        "settings": _settings(),
        "environment": {k: v for k, v in sorted(os.environ.items()) if k in VARIABLES or k.startswith("IRTOOL_")},
        "models": {r.id: _state(r) for r in records() if r.kind == "asset" or state(r) == "here"},
    }
    ok = "error" not in report["torch"] and all(found == "verified" for found in report["models"].values())
    report["healthy"] = ok
    if bench:
        from .bench import bench as measured

        options.set_threads(None)
        figures = measured()
        shares = figures.pop("time")
        report |= {"bench": figures, "bench_time": shares}
    unused = report["torch"].get("unused_cuda_bytes", 0)
    if json:
        print(jsonlib.dumps(report))
    else:
        _print(report)
        if not ok:
            print("hint: Install irtool again; or irtool download MODEL for one that did not ship.", file=sys.stderr)
        if unused:
            print(
                f"hint: {unused / 1e9:.1f} GB of CUDA libraries lie here, and torch finds no GPU. Its build for CPUs "
                "takes 0.3 GB: uv pip install --reinstall torch --torch-backend cpu",
                file=sys.stderr,
            )
    return EXIT_OK if ok else EXIT_UNAVAILABLE


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _torch(tune: bool) -> dict[str, Any]:
    try:
        import torch

        from ..engine import pick_device, pick_dtype
    except Exception as error:  # a broken install can raise anything, and finding that out is the purpose here
        return {"error": f"{type(error).__name__}: {error}"}
    devices = ["cpu"]
    if torch.cuda.is_available():
        devices += [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    device = pick_device("auto")
    report: dict[str, Any] = {
        "devices": devices,
        "default_device": str(device),
        "default_dtype": str(pick_dtype("auto", device, probe=True)).removeprefix("torch."),
        "threads": torch.get_num_threads(),
    }
    if tune:
        from ..engine.device import measure

        report["tuned"] = ", ".join(f"{name} {value}" for name, value in measure().items())
        report["default_dtype"] = str(pick_dtype("auto", device, probe=True)).removeprefix("torch.")
    if torch.version.cuda is not None and not torch.cuda.is_available():
        report["unused_cuda_bytes"] = _cuda_bytes(Path(torch.__file__).parent)
    return report


def _settings() -> dict[str, Any]:
    """Where options come from, and what the user's configuration sets."""
    path = settings.configuration_file()
    report: dict[str, Any] = {"precedence": " > ".join(settings.PRECEDENCE), "configuration": str(path)}
    try:
        kept = settings.configuration()
    except IrtoolError as error:
        return report | {"error": error.message}
    report["configuration"] += "" if exists(path) else " (not there)"
    chosen = {"preset": kept.preset} if kept.preset else {}
    return report | {key.replace("_", "-"): str(value) for key, value in (chosen | kept.to_dict()).items()}


def _cuda_bytes(torch_folder: Path) -> int:
    """The size of what only a GPU needs: the packages of NVIDIA beside torch, and torch's own CUDA libraries."""
    found = [*(torch_folder.parent / "nvidia").rglob("*.so*"), *(torch_folder / "lib").glob("*cuda*")]
    return sum(path.stat().st_size for path in found if path.is_file())


def _state(record: Record) -> str:
    try:
        verify(record)
    except IrtoolError as error:
        return error.message
    return "verified"


def _print(report: dict[str, Any]) -> None:
    for key, value in report.items():
        if isinstance(value, dict):
            print(f"{key}:")
            for name, item in value.items():
                text = ", ".join(item) if isinstance(item, list) else "not installed" if item is None else item
                print(f"  {name:<22}{text}")
        else:
            print(f"{key + ':':<24}{value}")
