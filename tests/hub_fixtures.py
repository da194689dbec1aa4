"""What the tests of downloads share: a server on the loopback interface, records of its files, a home of their own."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hubserver import HubServer
from huggingface_hub import constants

from irtool import cli
from irtool.weights import files, registry
from irtool.weights.registry import File, Record

REPO = "acme/nets"


def pickled(weights: Any, **options: Any) -> bytes:
    """A torch file."""
    buffer = io.BytesIO()
    torch.save(weights, buffer, **options)
    return buffer.getvalue()


def state(scale: float = 1.0, size: int = 4) -> dict[str, torch.Tensor]:
    """Some tensors."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"fc1.weight": (size, 384), "fc1.bias": (size,), "fc2.weight": (7, size), "fc2.bias": (7,)}
    return {name: scale * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def network(scale: float = 1.0) -> dict[str, torch.Tensor]:
    """Tensors of a family that irtool recognises."""
    from irtool.models.latent_unet import LatentUNet

    torch.manual_seed(0)
    return {k: scale * v for k, v in LatentUNet(ch=8, ch_mult=(1,), embed_dim=2).state_dict().items()}


def record(data: bytes, source: str = f"hf-hub:{REPO}@main:net.pth", **options: Any) -> Record:
    """A record of a published file with these bytes."""
    file = File(source, len(data), hashlib.sha256(data).hexdigest())
    return Record("net.v1", "compact", (file,), "MIT", "test", **options)


@pytest.fixture
def server() -> Iterator[HubServer]:
    running = HubServer()
    yield running
    running.close()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hugging Face home of its own, and the client pointed at the server."""
    for name in ("HF_HUB_CACHE", "HF_ASSETS_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN", "IRTOOL_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    # The client reads its variables when it is imported, which has happened.
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    # Pieces that a small file has several of: what is written of a file is whole pieces.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "home" / "token"))
    return tmp_path / "home"


@pytest.fixture
def environment_of(home: Path, server: HubServer) -> dict[str, str]:
    """The same for a process of its own, by the client's variables."""
    return {"HF_HOME": str(home), "HF_ENDPOINT": server.address, "NO_PROXY": "127.0.0.1,localhost"}


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Makes irtool know these records and no others."""

    def know(*known: Record) -> None:
        monkeypatch.setattr(registry, "records", lambda: known)
        for module in (sys.modules["irtool.cli.download"], sys.modules["irtool.cli.models"]):
            monkeypatch.setattr(module, "records", lambda: known)

    cli.main(["--version"])  # imports the verbs
    yield know
    files.verify.cache_clear()
