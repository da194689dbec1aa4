"""`irtool download` against a server on the loopback interface."""

from __future__ import annotations

import hashlib
import json
import os

import numpy as np
import pytest
import torch
from hub_fixtures import REPO, environment_of, home, network, pickled, record, registered, server, state  # noqa: F401
from hubserver import COMMIT, Repository
from safetensors.torch import load_file

from irtool import cli, provenance, weights
from irtool.errors import UnavailableError
from irtool.picture import read
from irtool.weights.registry import File, Record


def test_the_command_fetches_what_a_model_needs_with_it(server, registered, capsys):
    first, second = pickled(network()), pickled(network(2))
    server.repositories[REPO] = Repository({"a.pth": first, "b.pth": second})
    a = Record("a.v1", "latent-unet", record(first, f"hf-hub:{REPO}@main:a.pth").files, "MIT", "test")
    b = Record("b.v1", "latent-unet", record(second, f"hf-hub:{REPO}@main:b.pth").files, "MIT", "test", needs=("a.v1",))
    registered(a, b)
    assert cli.main(["download", "b", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "a.v1: " in told and "b.v1: " in told and "to download" in told and server.requests == []
    assert cli.main(["download", "b", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("id") for line in lines] == ["a.v1", "b.v1", None]
    assert lines[0]["compared"] and lines[0]["family"] == "latent-unet"
    assert cli.main(["models"]) == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()[1:3]] == [
        ["a.v1", "here"],
        ["b.v1", "here"],
    ]
    # Damage on the disk is found, and mended.
    damaged = weights.converted(b)
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    assert cli.main(["download", "--all"]) == 0
    assert "a.v1 is here and intact" in (told := capsys.readouterr().out) and "b.v1 is here now" in told


def test_what_a_person_fetched_is_taken_from_a_file(server, registered, tmp_path, capsys):
    data = pickled({"state_dict": {"module." + k: v for k, v in network().items()}})
    registered(
        Record("hand.v1", "latent-unet", (File("manual:hand.pth"),), "MIT", "test", page="https://example.org/x")
    )
    with pytest.raises(UnavailableError, match=r"by hand: hand\.pth from https://example\.org/x") as raised:
        weights.locate("hand.v1")
    assert raised.value.hint == "irtool download hand.v1 --from hand.pth"
    assert cli.main(["download", "hand.v1"]) == 3
    fetched = tmp_path / "whatever it is called.pth"
    fetched.write_bytes(pickled({"weights": {"unknown": torch.zeros(2)}, "epoch": 3}))
    assert cli.main(["download", "hand.v1", "--from", str(fetched)]) == 3
    assert "holds no weights" in capsys.readouterr().err
    fetched.write_bytes(pickled({"unknown.weight": torch.zeros(2)}))
    assert cli.main(["download", "hand.v1", "--from", str(fetched)]) == 3
    assert weights.state(weights.get("hand.v1")) == "by hand"
    fetched.write_bytes(data)
    assert cli.main(["download", "hand.v1", "--from", str(fetched)]) == 0
    assert "no sha256 of hand.pth is known" in capsys.readouterr().err
    assert weights.locate("hand.v1").name.startswith("hand.v1-")


def test_several_files_make_one_network(server, registered, tmp_path):
    parts = {"a.pth": pickled({"state_dict": {"net_a": state()}}), "b.pth": pickled({"x": state(2), "y": state(3)})}
    files_ = tuple(
        File(f"{server.address}/raw/{name}", len(parts[name]), hashlib.sha256(parts[name]).hexdigest(), place, prefix)
        for name, place, prefix in (("a.pth", "state_dict.net_a", "A."), ("b.pth", "x", "B."), ("b.pth", "y", "C."))
    )
    server.raw |= parts
    wanted = Record("three.v1", "latent-unet", files_, "MIT", "test")
    assert wanted.bytes == len(parts["a.pth"]) + len(parts["b.pth"])
    held = load_file(weights.obtain(wanted))
    assert len(held) == 12 and torch.equal(held["C.fc1.weight"], state(3)["fc1.weight"])
    assert len(server.downloads()) == 2
    # The same from a folder; one file is not enough.
    for name, data in parts.items():
        (tmp_path / name).write_bytes(data)
    weights.obtain(wanted, tmp_path)
    registered(wanted)
    assert cli.main(["download", "three.v1", "--from", str(tmp_path / "a.pth")]) == 2


@pytest.mark.parametrize(
    "arguments",
    [[], ["--all", "net.v1"], ["nett.v1"], ["net.v1", "--from", "absent.pth"], ["--all", "--from", "."], ["ours.v1"]],
)
def test_a_request_that_fits_nothing_is_a_usage_error(registered, arguments):
    registered(record(b"x"), Record("ours.v1", "compact", (File("asset:x.safetensors", 1, "0" * 64),), "MIT", "test"))
    assert cli.main(["download", *arguments]) == 2


def test_some_fail_and_the_others_come(server, registered, capsys):
    data = pickled(network())
    server.repositories[REPO] = Repository({"net.pth": data})
    good = Record("good.v1", "latent-unet", record(data).files, "MIT", "test")
    bad = Record("bad.v1", "latent-unet", record(data, f"hf-hub:{REPO}@main:absent.pth").files, "MIT", "test")
    registered(bad, good)
    assert cli.main(["download", "--all"]) == 3
    shown = capsys.readouterr()
    assert "no file absent.pth" in shown.err and "good.v1 is here now" in shown.out


def test_a_restorer_from_the_hub_restores_a_photograph(cli, server, models_dir, photo, tmp_path, environment_of):
    data = (models_dir / "restorer.safetensors").read_bytes()
    server.repositories[REPO] = Repository({"restorer.safetensors": data})
    source = photo(tmp_path / "in.png")
    arguments = ("restore", source, "--task", "denoise", "--model", f"hf-hub:{REPO}@{COMMIT}", "-o")
    offline = cli(*arguments, tmp_path / "none.png", "--offline", env=environment_of)
    assert offline.returncode == 3 and "offline" in offline.stderr and not (tmp_path / "none.png").exists()
    done = cli(*arguments, tmp_path / "hub.png", env=environment_of)
    assert done.returncode == 0, done.stderr
    ours = cli(
        "restore", source, "--task", "denoise", "--model", f"local:{models_dir / 'restorer.safetensors'}",
        "-o", tmp_path / "local.png",
    )  # fmt: skip
    assert ours.returncode == 0
    hub, local = (read(tmp_path / name) for name in ("hub.png", "local.png"))
    assert np.array_equal(hub.pixels, local.pixels)
    # Each says where its model came from, and both that it was the same.
    (there,), (here,) = (provenance.read(picture.xmp).models.items() for picture in (hub, local))
    assert there[0].startswith("hf-hub:") and here[0] == "local:restorer.safetensors" and there[1] == here[1]
    assert "HTTP_PROXY" not in os.environ
