"""Tiny models, pictures and the real executable, for the tests of the command line and the API."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forkserver import AVAILABLE, ForkServer

from irtool.degradation import IDS

ROOT = Path(__file__).resolve().parents[1]
if "PYTEST_XDIST_WORKER" in os.environ:  # pytest -n: the workers share the cores, and torch reads this when imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")
NO_CONFIGURATION = str(Path(tempfile.gettempdir()) / "irtool-without-configuration")
os.environ["IRTOOL_CONFIG"] = NO_CONFIGURATION  # a user's presets and configuration must not decide what a test finds


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with data/, goldens/ and peers/ that IRTOOL_SHARED names; what needs it is skipped without it."""
    named = os.environ.get("IRTOOL_SHARED")
    if not named:
        pytest.skip("IRTOOL_SHARED names no folder with data/, goldens/ and peers/")
    return Path(named)


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny models: restorer.safetensors, which changes what it is given, and detectors NAME.safetensors
    whose thresholds make them find always the same: clean, rain, mixed (rain, noise, jpeg, haze).
    """
    import torch

    from irtool.detection.network import DetectorNet
    from irtool.models import loading
    from irtool.models.compact import CompactNet

    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    config: Mapping[str, object] = {"width": 8, "encoder": [1], "middle": 1, "decoder": [1], "rank": 2, "hidden": 8}
    net = CompactNet(**config)  # type: ignore[arg-type]
    torch.nn.init.normal_(net.head.weight, std=0.02)
    torch.nn.init.constant_(net.head.bias, 0.05)
    loading.save(net, folder / "restorer.safetensors", architecture="compact", config=config)
    small: Mapping[str, object] = {"widths": [16, 16], "depths": [1, 1], "hidden": 8}
    detector = DetectorNet(**small)  # type: ignore[arg-type]
    for name, found in {"clean": (), "rain": ("rain",), "mixed": ("rain", "noise", "jpeg", "haze")}.items():
        thresholds = {i: 0.0 if i in found else 2.0 for i in IDS}
        loading.save(
            detector,
            folder / f"{name}.safetensors",
            architecture="detector",
            config=small,
            notes={"thresholds": json.dumps(thresholds)},
        )
    return folder


@pytest.fixture
def photo() -> Callable[..., Path]:
    """Writes a photograph-like picture: ``photo(path, size=(h, w), seed=0)``."""

    def make(path: Path, size: tuple[int, int] = (40, 56), seed: int = 0) -> Path:
        from PIL import Image

        noise = np.random.default_rng(seed).integers(0, 60, (*size, 3))
        ramp = np.linspace(40, 180, size[1])[None, :, None]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((noise + ramp).astype(np.uint8)).save(path)
        return path

    return make


Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """An environment without irtool's own variables and without a user's preferences."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("IRTOOL_") and k not in ("NO_COLOR", "FORCE_COLOR")}
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
    return kept | own | {"IRTOOL_CONFIG": NO_CONFIGURATION}


@pytest.fixture(scope="session")
def cli(environment: dict[str, str]) -> Iterator[Cli]:
    """Runs irtool as a user does, in a process of its own: ``cli("restore", path, cwd=..., env={...})``.

    The process is forked from one that has imported torch and irtool, where the system can (see forkserver.py); tests
    of the start itself begin theirs from nothing.
    """
    server = ForkServer(environment) if AVAILABLE else None

    def run(*arguments: object, env: Mapping[str, str] | None = None, **options: Any) -> object:
        variables = environment | dict(env or {})
        command = [str(a) for a in arguments]
        if server is None or set(options) - {"cwd", "stdin", "stdout", "stderr", "text", "capture_output", "timeout"}:
            options = {"capture_output": True, "timeout": 600, "text": True} | options
            return subprocess.run([sys.executable, "-m", "irtool", *command], env=variables, check=False, **options)
        text, cwd = options.get("text", True), options.get("cwd")
        with contextlib.ExitStack() as stack:
            captured = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(2)]
            streams = [options.get("stdin", subprocess.DEVNULL), *(options.get(n) for n in ("stdout", "stderr"))]
            for i, stream in enumerate(streams):
                if stream is None:
                    streams[i] = captured[i - 1].fileno()
                elif stream == subprocess.DEVNULL:
                    streams[i] = stack.enter_context(Path(os.devnull).open("r+b")).fileno()
                elif not isinstance(stream, int):
                    streams[i] = stream.fileno()
            where, limit = None if cwd is None else str(cwd), float(options.get("timeout", 600))
            code = server.run(command, variables, where, streams[0], streams[1], streams[2], limit)
            out: list[Any] = []
            for file in captured:
                file.seek(0)
                out.append(file.read().decode().replace("\r\n", "\n") if text else file.read())
        return subprocess.CompletedProcess(command, code, *out)

    yield run
    if server is not None:
        server.close()


@pytest.fixture(scope="session")
def using(models_dir: Path) -> Callable[[str], dict[str, str]]:
    """Environment variables that name the tiny models: ``env=using("rain")``."""

    def variables(detector: str) -> dict[str, str]:
        return {
            "IRTOOL_MODEL": f"local:{models_dir / 'restorer.safetensors'}",
            "IRTOOL_DETECTOR": f"local:{models_dir / detector}.safetensors",
        }

    return variables


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data to train on: in clean/ ten small pictures, one broken file and one too small; a manifest with licences."""
    from PIL import Image

    root = tmp_path_factory.mktemp("photos")
    (root / "clean").mkdir()
    draw = np.random.default_rng(0)
    rows = ["file\tlicence"]
    for i in range(10):
        coarse = draw.integers(0, 255, (6, 9, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((90, 60), Image.Resampling.BICUBIC).save(root / "clean" / f"{i}.png")
        rows.append(f"clean/{i}.png\tCC0")
    # One of them without a licence.
    (root / "manifest.tsv").write_text("\n".join(rows[:-1]) + "\n")
    (root / "clean" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    Image.new("RGB", (20, 20)).save(root / "clean" / "small.png")
    return root


@pytest.fixture(scope="session")
def decoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where tests of training keep decoded pictures, instead of the user's cache."""
    return tmp_path_factory.mktemp("decoded")
