"""Checkpoints of the published size and layout, with random weights, from a hub to a picture.

Random weights prove the path, not the quality.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hubserver import Faults, Repository, digest_of
from PIL import Image
from test_download import REPO, home, registered, server  # noqa: F401 (fixtures)
from test_weights_convert import training_checkpoint

from irtool import cli, weights
from irtool.degradation import IDS
from irtool.models import loading
from irtool.weights.registry import File, Record

pytestmark = pytest.mark.slow

CLIP = {
    "embed_dim": 512,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
}
# Converts one file and prints the most memory of its own (not of mapped files) that the process held, in bytes.
MEASURE = """
import sys, threading, time
import torch
from irtool import weights
from irtool.weights.convert import convert
most, done = 0, False
def own():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) * 1024
def watch():
    global most
    while not done:
        most = max(most, own())
        time.sleep(0.005)
before = own()
watcher = threading.Thread(target=watch)
watcher.start()
weights.locate("local:" + sys.argv[1])
done = True
watcher.join()
print(before, most)
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The two files of universal DA-CLIP, as large as published."""
    from irtool.models.daclip import DaCLIP
    from irtool.models.irsde_unet import ContextUNet

    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(0)
    controller = DaCLIP(**CLIP)  # type: ignore[arg-type]
    training_checkpoint(controller, folder / "daclip_ViT-B-32.pt")
    del controller
    torch.save(ContextUNet().state_dict(), folder / "universal-ir.pth")
    yield {path.name: path for path in folder.iterdir()}
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def tidy(home: Path) -> Iterator[None]:
    """Does not leave gigabytes behind."""
    yield
    shutil.rmtree(home, ignore_errors=True)


def test_the_files_are_as_large_as_the_published_ones(published):
    for id in ("daclip-vit-b-32.universal", "daclip-universal.ten-tasks"):
        file = weights.get(id).files[0]
        assert file.bytes is not None
        assert abs(published[file.name].stat().st_size - file.bytes) < 200_000


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_training_checkpoint_is_converted_without_holding_it(published, home, environment):
    path = published["daclip_ViT-B-32.pt"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)],
        env=environment | {"HF_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    before, most = map(int, done.stdout.split())
    print(
        f"own memory {before / 1e6:.0f} MB before, {most / 1e6:.0f} MB at most, for {path.stat().st_size / 1e6:.0f} MB"
    )
    assert most - before < 0.1 * path.stat().st_size


@pytest.fixture
def known(published, registered) -> None:
    """The records of universal DA-CLIP, but for what the files of this test weigh and hash to."""
    made = []
    for id in ("daclip-vit-b-32.universal", "daclip-universal.ten-tasks"):
        real = weights.get(id)
        path = published[real.files[0].name]
        file = File(f"hf-hub:{REPO}@main:{path.name}", path.stat().st_size, digest_of(path))
        made.append(
            Record(id, real.family, (file,), "MIT", "random", real.tasks, needs=real.needs, settings=real.settings)
        )
    registered(*made)


def test_universal_da_clip_from_the_hub_to_a_picture(published, server, known, tmp_path, capsys):
    server.repositories[REPO] = Repository(dict(published))
    server.faults = Faults(cuts=[100 << 20])
    assert cli.main(["download", "daclip-universal", "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("family") for line in told] == ["daclip", "universal-unet", None]
    assert server.downloads()[1].range == f"bytes={100 << 20}-"
    assert Path(told[0]["path"]).stat().st_size < 0.57 * published["daclip_ViT-B-32.pt"].stat().st_size
    family, config, _ = loading.describe(Path(told[0]["path"]))
    assert family == "daclip" and config == CLIP

    photo = tmp_path / "photo.png"
    with Image.open(Path(__file__).parent / "pictures" / "kodak23.png") as picture:
        picture.crop((200, 100, 328, 196)).save(photo)
    assert cli.main(["detect", str(photo), "--detector", "daclip-vit-b-32", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out.splitlines()[0])["diagnosis"]["scores"]
    assert sum(scores[id] for id in IDS) == pytest.approx(1, abs=5e-3)
    out = tmp_path / "out.png"
    arguments = ["--task", "derain", "--model", "daclip-universal", "--steps", "2", "--device", "cpu", "-o", str(out)]
    assert cli.main(["restore", str(photo), *arguments]) == 0
    with Image.open(out) as restored:
        assert restored.size == (128, 96) and restored.mode == "RGB"


def test_fetched_by_hand_it_restores_pictures_of_every_kind(published, server, known, tmp_path, capsys):
    for id in ("daclip-vit-b-32.universal", "daclip-universal.ten-tasks"):
        path = published[weights.get(id).files[0].name]
        assert cli.main(["download", id, "--from", str(path), "--offline"]) == 0
    assert not server.downloads()
    capsys.readouterr()
    photographs = {}
    with Image.open(Path(__file__).parent / "pictures" / "kodak23.png") as picture:
        small = picture.resize((192, 128))
        photographs["grey"] = small.convert("L")
        photographs["alpha"] = Image.merge("RGBA", (*small.split(), Image.linear_gradient("L").resize(small.size)))
        photographs["deep"] = Image.fromarray(np.asarray(small.convert("L"), dtype=np.uint16) * 257)
        photographs["megapixel"] = picture.resize((1024, 1024))
    common = ["--model", "daclip-universal", "--task", "derain", "--offline", "--device", "cpu"]
    samplers = {"grey": "posterior", "alpha": "sde", "deep": "ode", "megapixel": "posterior"}
    for name, photograph in photographs.items():
        source, out = tmp_path / f"{name}.png", tmp_path / f"{name}.out.png"
        photograph.save(source)
        more = ["--tile", "384", "--steps", "1"] if name == "megapixel" else ["--steps", "12", "--preview-steps"]
        assert cli.main(["detect", str(source), "--model", "daclip-vit-b-32", "--offline", "--json"]) == 0
        scores = json.loads(capsys.readouterr().out.splitlines()[0])["diagnosis"]["scores"]
        assert sum(scores[id] for id in IDS) == pytest.approx(1, abs=5e-3)
        asked = ["restore", str(source), *common, "--sampler", samplers[name], "-o", str(out), *more, "--json"]
        assert cli.main(asked) == 0
        record = json.loads(capsys.readouterr().out.splitlines()[0])
        with capsys.disabled():
            print(f"{name}: {record['seconds']} s, {record['peak_bytes'] / 2**30:.2f} GiB, {record['tiles']} tiles")
        with Image.open(out) as restored:
            assert restored.size == photograph.size and restored.mode == photograph.mode
            assert not np.array_equal(np.asarray(restored), np.asarray(photograph))
            if name == "alpha":
                assert np.array_equal(np.asarray(restored)[..., 3], np.asarray(photograph)[..., 3])
        if name == "megapixel":
            assert record["tiles"] > 4 and record["peak_bytes"] < 6 << 30
        else:
            with Image.open(tmp_path / f"{name}.out.steps.jpg") as page:
                assert page.width > 5 * 192 and page.height > 2 * 128
