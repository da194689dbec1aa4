"""The hub's real client against a server on the loopback interface, and all that becomes of what it brings."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hub_fixtures import REPO, environment_of, home, network, pickled, record, registered, server, state  # noqa: F401
from hubserver import COMMIT, TOKEN, Faults, Repository
from huggingface_hub import constants, scan_cache_dir
from safetensors import safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors

from irtool import cli, weights
from irtool.errors import UnavailableError, UsageError
from irtool.weights import hub
from irtool.weights.registry import File


def test_what_the_hub_has_is_fetched_compared_converted_and_from_then_on_taken(server, home):
    data = pickled(state())
    server.repositories[REPO] = Repository({"net.pth": data})
    wanted = record(data)
    assert weights.state(wanted) == "to download"
    path = weights.obtain(wanted)
    assert path.is_relative_to(home / "assets" / "irtool") and weights.state(wanted) == "here"
    assert {k: v.tolist() for k, v in load_file(path).items()} == {k: v.tolist() for k, v in state().items()}
    with safe_open(path, "pt") as file:
        about = file.metadata()
    assert about["id"] == "net.v1" and about["architecture"] == "compact" and about["licence"] == "MIT"
    # The file lies where the hub's client and its other users find it.
    blob = home / "hub" / "models--acme--nets" / "blobs" / hashlib.sha256(data).hexdigest()
    assert blob.read_bytes() == data
    snapshot = home / "hub" / "models--acme--nets" / "snapshots" / COMMIT / "net.pth"
    assert snapshot.read_bytes() == data
    # A second time nothing is asked, also when the converted file is gone.
    asked = len(server.requests)
    path.unlink()
    weights.obtain(wanted)
    assert len(server.requests) == asked


def test_a_download_that_is_cut_off_goes_on_where_it_stopped(server):
    data = pickled(state(size=900))
    server.repositories[REPO] = Repository({"net.pth": data})
    server.faults = Faults(cuts=[200_000, 300_000])
    weights.obtain(record(data))
    assert [r.range for r in server.downloads()] == [None, f"bytes={3 << 16}-", f"bytes={7 << 16}-"]


def test_a_server_that_knows_no_ranges_is_read_from_the_start(server):
    data = pickled(state(size=400))
    server.repositories[REPO] = Repository({"net.pth": data})
    server.faults = Faults(cuts=[100_000], ignores_range=True)
    weights.obtain(record(data))
    assert len(server.downloads()) == 2


def test_a_slow_server_is_waited_for_and_a_silent_one_asked_again(server, monkeypatch):
    data = pickled(state(size=400))
    server.repositories[REPO] = Repository({"net.pth": data})
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    server.faults = Faults(pause=0.05)
    weights.obtain(record(data))
    assert len(server.downloads()) == 1
    other = pickled(state(2, size=400))
    server.repositories[REPO].files["net.pth"] = other
    server.faults = Faults(stall_after=65_536)

    def well_after_a_while(*_: object) -> None:
        server.faults = Faults()

    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", well_after_a_while)
    with pytest.raises(UnavailableError, match="not the file"):
        weights.obtain(record(other[:-1] + b"x"))  # main moved, and the cache has the old file: it is dropped
    weights.obtain(record(other))
    assert server.downloads()[-1].range == "bytes=65536-"


@pytest.mark.parametrize("kind", ["hash", "size"])
def test_a_file_that_differs_is_not_used_and_fetched_again_next_time(server, kind):
    good = pickled(state())
    bad = pickled(state(2)) if kind == "hash" else good + b"more"
    assert kind == "size" or len(bad) == len(good)
    server.repositories[REPO] = Repository({"net.pth": bad})
    with pytest.raises(UnavailableError, match=r"not the file that 'net\.v1' was registered with") as raised:
        weights.obtain(record(good))
    assert "irtool download net.v1" in raised.value.hint
    assert weights.state(record(good)) == "to download"
    server.repositories[REPO].files["net.pth"] = good
    weights.obtain(record(good))


def test_a_token_opens_a_gated_repository_and_is_not_sent_on_to_the_store(server, monkeypatch):
    data = pickled(state())
    server.repositories[REPO] = Repository({"net.pth": data}, gated=True)
    with pytest.raises(UnavailableError, match="accept its terms") as raised:
        weights.obtain(record(data))
    assert "hf auth login" in raised.value.hint
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UnavailableError, match="accept its terms"):
        weights.obtain(record(data))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    weights.obtain(record(data))
    assert {r.token for r in server.requests if "/resolve/" in r.path} >= {TOKEN}
    assert [r.token for r in server.downloads()] == [None]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("hf-hub:acme/none@main:net.pth", "no repository acme/none"),
        (f"hf-hub:{REPO}@other:net.pth", "no such revision"),
        (f"hf-hub:{REPO}@main:other.pth", "no file other.pth"),
    ],
)
def test_what_the_hub_does_not_have_is_named(server, source, told):
    data = pickled(state())
    server.repositories[REPO] = Repository({"net.pth": data})
    with pytest.raises(UnavailableError, match=told):
        weights.obtain(record(data, source))


def test_a_hub_that_cannot_be_reached_is_said(server, monkeypatch):
    server.close()
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    with pytest.raises(UnavailableError, match=r"net\.pth is not here, and the hub cannot be reached") as raised:
        weights.obtain(record(b"x"))
    assert "same command again" in raised.value.hint


@pytest.mark.parametrize("variable", ["IRTOOL_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_nothing_is_asked_and_the_command_that_helps_is_named(server, monkeypatch, variable, registered):
    data = pickled(state())
    server.repositories[REPO] = Repository({"net.pth": data})
    registered(record(data))
    monkeypatch.setenv(variable, "1")
    with pytest.raises(UnavailableError, match="not here, and irtool is offline") as raised:
        weights.locate("net.v1")
    assert raised.value.hint == "irtool download net.v1" and server.requests == []
    monkeypatch.delenv(variable)
    path = weights.locate("net")
    monkeypatch.setenv(variable, "1")
    assert weights.locate("net.v1") == path
    path.unlink()  # the published file is still there
    assert weights.locate("net.v1") == path


def test_an_address_outside_the_hub_is_fetched_the_same_way(server, monkeypatch):
    data = pickled(state(size=900))
    server.raw["0123abc/net_latest.pth"] = data
    wanted = record(data, f"{server.address}/raw/0123abc/net_latest.pth")
    server.faults = Faults(cuts=[100_000])
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    weights.obtain(wanted)
    assert [(r.range, r.token) for r in server.downloads()] == [(None, None), (f"bytes={1 << 16}-", None)]
    weights.converted(wanted).unlink()
    monkeypatch.setenv("IRTOOL_OFFLINE", "1")
    weights.obtain(wanted)
    server.raw.clear()
    monkeypatch.delenv("IRTOOL_OFFLINE")
    with pytest.raises(UnavailableError, match="no longer there"):
        weights.obtain(record(data + b"x", f"{server.address}/raw/0123abc/net_latest.pth"))


def test_a_full_disk_is_said_before_anything_is_fetched(server, monkeypatch):
    data = pickled(state())
    server.repositories[REPO] = Repository({"net.pth": data})
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 2 * len(data) - 1}))
    with pytest.raises(UnavailableError, match="are needed on the disk") as raised:
        weights.obtain(record(data))
    assert "HF_HOME" in raised.value.hint and server.requests == []
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 2 * len(data)}))
    weights.obtain(record(data)).unlink()
    # What is here already needs no second place.
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda path: type("Usage", (), {"free": len(data)}))
    weights.obtain(record(data))


def test_of_a_killed_process_an_address_goes_on_and_the_hub_begins_anew(server, home, environment, environment_of):
    data = to_safetensors({"weight": torch.zeros(1 << 20)})
    server.repositories[REPO] = Repository({"net.safetensors": data})
    server.raw["net.safetensors"] = data
    address = File(f"{server.address}/raw/net.safetensors", len(data), hashlib.sha256(data).hexdigest())
    on_hub = File(f"hf-hub:{REPO}@{COMMIT}:net.safetensors")
    for wanted, goes_on in ((address, True), (on_hub, False)):
        server.faults = Faults(stall_after=3 << 20)
        program = f"from irtool.weights import File, hub; hub.fetch({wanted!r})"
        running = subprocess.Popen([sys.executable, "-c", program], env=environment | environment_of)
        deadline = time.monotonic() + 120

        def half() -> list[Path]:
            return [p for p in home.rglob("*.incomplete") if p.stat().st_size >= (2 << 20 if goes_on else 0)]  # noqa: B023

        while not half() or not [r for r in server.downloads() if not r.range]:
            assert time.monotonic() < deadline and running.poll() is None
            time.sleep(0.02)
        running.send_signal(signal.SIGKILL)
        running.wait()
        (left,) = half()
        kept = left.stat().st_size
        server.faults = Faults()
        assert hub.fetch(wanted).read_bytes() == data
        assert server.downloads()[-1].range == (f"bytes={kept}-" if goes_on else None)
        if goes_on:
            assert not left.exists()
        else:  # which the client of the hub knows and clears away
            assert left in [file.file_path for file in scan_cache_dir(home / "hub").incomplete_files]


def everything_in(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*")}


@pytest.mark.parametrize(
    "lie",
    [
        {"etag": '"/ABSOLUTE/x"'},
        {"etag": '"../../../../ABSOLUTE"'},
        {"etag": '".."'},
        {"etag": '"a/../../b"'},
        {"etag": '"a\\b"'},
        {"etag": '"a\x1b[31m"'},
        {"etag": '""'},
        {"commit": "../../x"},
        {"commit": "/ABSOLUTE"},
        {"commit": "x" * 40},
        {"headers": {"X-Xet-Hash": "../../x", "Link": '<http://localhost/x>; rel="xet-auth"'}},
        {"headers": {"X-HF-Warning": "\x1b]0;mine\x07"}},
        {"size": 10**18},
        {"size": 3},
    ],
)
def test_a_server_names_no_place_on_this_disk(server, home, tmp_path, lie):
    outside = tmp_path / "outside"
    outside.mkdir()
    lie = {k: v.replace("ABSOLUTE", str(outside).lstrip("/")) if isinstance(v, str) else v for k, v in lie.items()}
    server.repositories[REPO] = Repository({"net.pth": pickled(state())})
    before = everything_in(tmp_path)
    server.faults = Faults(**lie)
    with pytest.raises(UnavailableError) as raised:
        weights.locate(f"hf-hub:{REPO}@main:net.pth")
    assert raised.value.hint and not list(outside.iterdir())
    assert {name for name in everything_in(tmp_path) - before if not name.startswith("home")} == set()
    assert not [p for p in home.rglob("*") if p.is_file() and {"blobs", "snapshots", ".no_exist"} & set(p.parts)]
    server.faults = Faults()
    assert weights.locate(f"hf-hub:{REPO}@main:net.pth").is_file()


@pytest.mark.parametrize("source", ["hub", "address"])
@pytest.mark.parametrize(
    ("lie", "told"),
    [
        ({"flip": True}, "not what the hub has announced|is not the file"),
        ({"encoding": "gzip"}, "compressed"),
        ({"encoding": "br"}, "compressed"),
        ({"length": "endless"}, "more than the"),
    ],
)
def test_a_body_that_is_not_the_one_announced_is_not_taken(server, home, source, lie, told):
    data = to_safetensors(state())
    server.repositories[REPO] = Repository({"net.safetensors": data})
    server.raw["net.safetensors"] = data
    server.faults = Faults(**lie)
    address = record(data, f"{server.address}/raw/net.safetensors")
    with pytest.raises(UnavailableError, match=told):
        _ = weights.locate(f"hf-hub:{REPO}@main:net.safetensors") if source == "hub" else weights.obtain(address)
    assert sum(p.stat().st_size for p in home.rglob("*") if p.is_file()) < 2 * len(data) + (1 << 17)
    server.faults = Faults(length="none")  # which is no fault
    found = weights.locate(f"hf-hub:{REPO}@main:net.safetensors") if source == "hub" else weights.obtain(address)
    assert found.is_file()


@pytest.mark.parametrize("source", ["hub", "address"])
def test_a_server_that_drips_is_given_up(server, monkeypatch, source):
    from irtool.weights import transfer

    monkeypatch.setattr(transfer, "PATIENCE", 0.5)
    data = to_safetensors(state(size=400))
    server.repositories[REPO] = Repository({"net.safetensors": data})
    server.raw["net.safetensors"] = data
    server.faults = Faults(piece=2, pause=0.02)
    begun = time.monotonic()
    with pytest.raises(UnavailableError, match="bytes a second"):
        hub.fetch(
            File(f"hf-hub:{REPO}@main:net.safetensors" if source == "hub" else f"{server.address}/raw/net.safetensors")
        )
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize(
    "listing",
    [
        b"{}", b"null", b"[1]", b'"x"', b'[{"type": "file"}]', b'[{"type": "file", "path": 3, "size": 1, "oid": "0"}]',
        b"[" * 100_000, b"not json", b"", b'{"error": "\x1b[31m"}', b"[" + b"9" * 5000 + b"]",
        *(
            json.dumps([{"type": "file", "path": name, "size": 1, "oid": "0" * 40}]).encode()
            for name in ("/x.pth", "../x.pth", "a/../../x.pth", "a\0.pth", "a\x1b[31m.pth", "a\\b.pth", "c:x.pth")
        ),
    ],
)  # fmt: skip
def test_a_listing_of_another_shape_is_one_clear_error(server, capsys, listing):
    server.repositories[REPO] = Repository({"net.pth": b"x"})
    server.faults = Faults(listing=listing)
    with pytest.raises((UnavailableError, UsageError)):
        hub.only_model(REPO, "main")
    assert cli.main(["download", f"hf-hub:{REPO}"]) in (2, 3)
    told = capsys.readouterr().err
    assert "a bug in irtool" not in told and "\x1b" not in told


def test_an_endless_listing_is_given_up(server, monkeypatch):
    monkeypatch.setattr(hub, "LARGEST_LISTING", 1000)
    server.repositories[REPO] = Repository({f"{i}.pth": b"x" for i in range(100)})
    with pytest.raises(UnavailableError, match="at most 1,000 are taken"):
        hub.only_model(REPO, "main")


def test_a_planted_link_in_place_of_a_half_file_is_not_written_through(server, tmp_path):
    data = pickled(state())
    server.raw["net.pth"] = data
    wanted = record(data, f"{server.address}/raw/net.pth").files[0]
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    place = hub._address_path(wanted)
    place.parent.mkdir(parents=True)
    place.with_name(place.name + ".incomplete").symlink_to(victim)
    assert hub.fetch(wanted).read_bytes() == data and victim.read_bytes() == b"mine"


def test_a_proxy_and_a_cache_of_its_own_are_taken_from_the_environment(server, environment, tmp_path):
    server.repositories[REPO] = Repository({"net.safetensors": to_safetensors(state())})
    variables = {
        "HF_ENDPOINT": "http://hub.invalid",  # known to the proxy alone
        "HTTP_PROXY": server.address,
        "NO_PROXY": "localhost",
        "HF_HUB_CACHE": str(tmp_path / "elsewhere"),
    }
    program = f"from irtool import weights; print(weights.locate('hf-hub:{REPO}@main:net.safetensors'))"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment | variables, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "elsewhere")
    assert Path(done.stdout.strip()).read_bytes() == to_safetensors(state())


def test_a_reference_to_the_hub_needs_no_record(server, monkeypatch):
    server.repositories[REPO] = Repository({"net.pth": pickled(state()), "readme.md": b"x"})
    path = weights.locate(f"hf-hub:{REPO}")
    assert path.suffix == ".safetensors"
    # The revision moves: the new file is taken, and the old one where the hub cannot be asked.
    server.repositories[REPO].files["net.pth"] = pickled(state(2))
    with monkeypatch.context() as offline:
        offline.setenv("IRTOOL_OFFLINE", "1")
        assert weights.locate(f"hf-hub:{REPO}@main:net.pth") == path
    server.repositories[REPO].files["other.pth"] = b""
    with pytest.raises(UsageError, match=r"2 model files: net\.pth, other\.pth"):
        weights.locate(f"hf-hub:{REPO}")
    for wrong in ("hf-hub:nets", "hf-hub:acme/a--b", "hf-hub:acme/nets@main:../../x.pth"):
        with pytest.raises(UsageError, match="names no file on the hub"):
            weights.locate(wrong)
    server.repositories[REPO].files = {"readme.md": b""}
    with pytest.raises(UsageError, match="no model file"):
        weights.locate(f"hf-hub:{REPO}")


def test_where_files_are_kept_is_where_the_client_keeps_its_own(environment, tmp_path):
    program = (
        "from irtool.weights import hub; from huggingface_hub import constants as c;"
        "print(hub.hub_cache(), c.HF_HUB_CACHE, hub.assets_cache().parent, c.HF_ASSETS_CACHE)"
    )
    bare = {k: v for k, v in environment.items() if not k.startswith(("HF_", "XDG_"))}
    for variables in (
        {},
        {"HF_HOME": str(tmp_path)},
        {"HF_HOME": "~/there", "HF_HUB_CACHE": "$HOME/x"},
        {"HF_ASSETS_CACHE": str(tmp_path / "a"), "XDG_CACHE_HOME": str(tmp_path / "c")},
    ):
        done = subprocess.run(
            [sys.executable, "-c", program], env=bare | variables, capture_output=True, text=True, check=False
        )
        ours, theirs, our_assets, their_assets = done.stdout.split()
        assert (ours, our_assets) == (theirs, their_assets)
