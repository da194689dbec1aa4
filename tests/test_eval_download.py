"""Data sets that a program may fetch: from a hub on the loopback interface to the pairs that eval finds."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hubserver import COMMIT, HubServer, Repository

from irtool.data import Dataset, get_dataset
from irtool.data.fetch import home, obtain, unpack
from irtool.data.sources import find
from irtool.errors import UnavailableError
from irtool.weights import File

REPO = "datasets/acme/GOPRO"


def packed(*more: str) -> bytes:
    """A zip file laid out as GoPro's is, with two pairs in its test part, and further files of these names."""
    from PIL import Image

    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for part, kind in (("test", "blur"), ("test", "sharp"), ("test", "blur_gamma"), ("train", "blur")):
            for i in (1, 2):
                drawn = np.random.default_rng(i).integers(0, 256, (16, 20, 3), dtype=np.uint8)
                picture = io.BytesIO()
                Image.fromarray(drawn // (2 if kind == "blur" else 1)).save(picture, "PNG")
                archive.writestr(f"{part}/GOPR1/{kind}/00{i}.png", picture.getvalue())
        for name in more:
            archive.writestr(name, b"x")
    return data.getvalue()


@pytest.fixture
def server() -> Iterator[HubServer]:
    running = HubServer()
    yield running
    running.close()


@pytest.fixture
def pointed(server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """The hub's client, in this process, pointed at the server, with a home of its own."""
    from huggingface_hub import constants

    for name in ("HF_HUB_CACHE", "HF_ASSETS_CACHE", "HF_HUB_OFFLINE", "IRTOOL_OFFLINE", "IRTOOL_DATASETS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    return server


def known(data: bytes) -> Dataset:
    """GoPro, as if these bytes were its archive."""
    source = f"hf-dataset:acme/GOPRO@{COMMIT}:GOPRO_Large.zip"
    return replace(get_dataset("gopro"), archive=File(source, None, hashlib.sha256(data).hexdigest()))


def test_a_set_comes_from_the_hub_and_eval_finds_it(pointed: HubServer) -> None:
    data = packed()
    pointed.repositories[REPO] = Repository({"GOPRO_Large.zip": data})
    place = obtain(known(data))
    assert place == home("gopro")
    assert sorted(p.relative_to(place).as_posix() for p in place.rglob("*.png")) == [
        f"test/GOPR1/{kind}/00{i}.png" for kind in ("blur", "sharp") for i in (1, 2)
    ]
    _, found = find("gopro")
    assert [pair.name for pair in found.pairs] == ["GOPR1/001", "GOPR1/002"]
    assert not found.broken
    asked = len(pointed.requests)
    obtain(known(data))  # it is here
    assert len(pointed.requests) == asked


def test_another_archive_than_the_registered_one_is_not_taken(pointed: HubServer, tmp_path: Path) -> None:
    data = packed()
    pointed.repositories[REPO] = Repository({"GOPRO_Large.zip": data[:-1] + b"?"})
    with pytest.raises(UnavailableError, match="sha256"):
        obtain(known(data))
    assert not home("gopro").exists()
    by_hand = tmp_path / "mine.zip"
    by_hand.write_bytes(data)
    assert obtain(known(data), by_hand) == home("gopro")
    assert pointed.downloads()[1:] == []


def test_a_set_that_nobody_may_spread_says_where_it_is_from(pointed: HubServer) -> None:
    with pytest.raises(UnavailableError) as caught:
        obtain(get_dataset("rain100h"))
    assert "icst.pku.edu.cn" in caught.value.hint and "norain" in caught.value.hint
    assert pointed.requests == []


def test_nothing_leaves_its_folder(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(packed("../outside/blur/x.png", "/outside/blur/y.png"))
    unpack(archive, tmp_path / "deep" / "set", ("*blur/*",))
    assert not (tmp_path / "outside").exists()
    assert (tmp_path / "deep/set/outside/blur/x.png").is_file()
    assert (tmp_path / "deep/set/outside/blur/y.png").is_file()
    for bad in (b"no zip file", packed()[:300]):
        archive.write_bytes(bad)
        with pytest.raises(UnavailableError, match="could not be unpacked"):
            unpack(archive, tmp_path / "other", ("*",))
        assert not (tmp_path / "other").exists() and not list(tmp_path.glob(".irtool-unpacking*"))


def test_unpacking_removes_no_folder_but_its_own(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(packed())
    (tmp_path / "set.partial").mkdir()
    (tmp_path / "set.partial/mine.png").write_bytes(b"mine")
    (tmp_path / ".irtool-unpacking-set-killed").mkdir()
    unpack(archive, tmp_path / "set", ("*blur/*",))
    assert (tmp_path / "set.partial/mine.png").read_bytes() == b"mine"
    assert not list(tmp_path.glob(".irtool-unpacking*")) and (tmp_path / "set/test/GOPR1/blur/001.png").is_file()
    assert (tmp_path / "set").stat().st_mode & 0o077 == (tmp_path / "set.partial").stat().st_mode & 0o077


def test_the_command(environment: dict[str, str], server: HubServer, tmp_path: Path) -> None:
    """irtool download of a set as a user runs it, and eval after it without --root."""
    data = packed()
    server.repositories[REPO] = Repository({"GOPRO_Large.zip": data})
    code = (
        "import sys\n"
        "from dataclasses import replace\n"
        "import irtool.data as data\n"
        "from irtool.data import registry\n"
        "from irtool.weights import File\n"
        "from irtool.cli import main\n"
        f"archive = File('hf-dataset:acme/GOPRO@{COMMIT}:GOPRO_Large.zip',"
        f" None, '{hashlib.sha256(data).hexdigest()}')\n"
        "changed = tuple(replace(d, archive=archive) if d.archive else d for d in registry.datasets())\n"
        "registry.datasets = data.datasets = lambda: changed\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    own = environment | {
        "HF_HOME": str(tmp_path / "home"),
        "HF_ENDPOINT": server.address,
        "NO_PROXY": "127.0.0.1,localhost",
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=own, check=False)

    done = run("download", "gopro")
    assert done.returncode == 0, done.stderr
    assert "gopro is here (CC-BY-4.0)" in done.stdout
    done = run("eval", "--dataset", "gopro", "--model", "none", "--json")
    assert done.returncode == 0, done.stderr
    assert "a part of the set: 2 of 1111" in json.loads(done.stdout.splitlines()[-1])["notes"][0]
    done = run("download", "rain100h", "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout.splitlines()[0])["state"] == "failed"
