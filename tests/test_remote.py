"""Inputs and outputs in stores, on servers and in archives: through fsspec, against servers on loopback."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

fsspec = pytest.importorskip("fsspec", reason="the extra irtool[remote] is not installed")

from irtool import remote  # noqa: E402 (after the check that it can work)
from irtool.errors import NothingToDoError, PictureError, UnavailableError, UsageError  # noqa: E402
from irtool.shard import Shard  # noqa: E402


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def test_items_of_an_address_mirror_its_tree_and_know_what_is_there(memory):
    for name in ("a.png", "sub/b.jpg", "notes.txt", ".hidden.png"):
        memory.pipe_file(f"/in/{name}", b"x")
    memory.pipe_file("/out/a.png", b"done")
    items = remote.make_items(["memory://in"], output="memory://out", recursive=True)
    assert [item.relative for item in items] == ["a.png", "sub/b.jpg"]
    assert [str(item.target) for item in items] == ["memory:///out/a.png", "memory:///out/sub/b.jpg"]
    assert [item.target.exists() for item in items] == [True, False]
    assert [i.relative for i in remote.make_items(["memory://in"], output="memory://out")] == ["a.png"]
    shards = [remote.make_items(["memory://in"], output="x", recursive=True, shard=Shard(i, 2)) for i in range(2)]
    assert sorted(item.relative for shard in shards for item in shard) == ["a.png", "sub/b.jpg"]


def test_what_cannot_work_is_said_before_anything_is_read(memory):
    memory.pipe_file("/in/a.png", b"x")
    memory.pipe_file("/other/a.png", b"x")
    with pytest.raises(UsageError, match="would both be written"):
        remote.make_items(["memory://in", "memory://other"], output="memory://out")
    with pytest.raises(UsageError, match="is the input"):
        remote.make_items(["memory://in"], output="memory://in")
    with pytest.raises(UsageError, match="needs a folder"):
        remote.make_items(["memory://in"], output=None)
    with pytest.raises(UsageError, match="needs a folder"):
        remote.make_items(["memory://in"], output="out.tar")
    with pytest.raises(UsageError, match=r"nonsense|protocol|Protocol"):
        remote.make_items(["nonsense://in"], output="out")
    memory.mkdir("/empty")
    with pytest.raises(NothingToDoError):
        remote.make_items(["memory://empty"], output="out")


def test_pictures_of_one_stem_are_told_apart_by_their_suffix(memory):
    for name in ("a.png", "a.jpg", "b.jpg"):
        memory.pipe_file(f"/in/{name}", b"x")
    items = remote.make_items(["memory://in"], output="out", format="png")
    assert [item.target.name for item in items] == ["a.jpg.png", "a.png.png", "b.png"]


ESCAPING = ("../../above.png", "/tmp/rooted.png", "a/../../b/./c.png", "..\\..\\windows.png", "plain.png")


def archive_of(folder: Path, members: dict[str, bytes], suffix: str) -> Path:
    path = folder / f"shard-000.{suffix}"
    if suffix == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, data in members.items():
                packed.writestr(name, data)
    else:
        with tarfile.open(path, "w") as packed:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                packed.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("suffix", ["tar", "zip"])
def test_no_name_in_an_archive_leads_out_of_the_output_folder(cli, using, photo, tmp_path, suffix):
    picture = photo(tmp_path / "p.png").read_bytes()
    archive = archive_of(tmp_path, dict.fromkeys(ESCAPING, picture), suffix)
    out = tmp_path / "deep" / "below" / "out"
    items = remote.make_items([str(archive)], output=str(out))
    assert len(items) >= 3 and all(out in item.target.resolve().parents for item in items)
    before = set(tmp_path.rglob("*")) | set(Path("/tmp").glob("*.png"))
    done = cli("restore", archive, "-o", out, "--json", env=using("clean"))
    assert done.returncode in (0, 1) and "a bug in irtool" not in done.stderr, done.stderr
    made = (set(tmp_path.rglob("*")) | set(Path("/tmp").glob("*.png"))) - before
    assert {out / "above.png", out / "plain.png"} <= made
    assert all(path.is_relative_to(tmp_path / "deep") for path in made)


def test_what_unpacks_to_more_than_there_is_room_for_is_not_unpacked(tmp_path):
    archive = archive_of(tmp_path, {"a.png": bytes(50 << 20)}, "zip")
    assert archive.stat().st_size < 100_000
    (item,) = remote.make_items([str(archive)], output=str(tmp_path / "out"))
    with pytest.raises(PictureError, match="larger than the memory"):
        item.source.read_bytes(1 << 20)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_called_like_an_archive_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.zip")
    for name in ("pipe.zip", "absent.tar"):
        with pytest.raises(UnavailableError, match="no file"):
            remote.make_items([str(tmp_path / name)], output=str(tmp_path / "out"))


def test_a_store_that_sends_more_than_it_says_is_cut_off(memory, monkeypatch):
    memory.pipe_file("/in/a.png", bytes(5 << 20))
    monkeypatch.setattr(type(memory), "info", lambda self, path, **options: {"size": 10, "name": path, "type": "file"})
    with pytest.raises(PictureError, match="larger than the memory"):
        remote.RemotePath("memory://in", "/in/a.png").read_bytes(1 << 20)


def test_a_write_that_fails_leaves_nothing_under_the_name(memory, monkeypatch):
    target = remote.RemotePath("memory://out", "/out/a.png", there=False)
    target.write_bytes(b"whole")
    assert memory.cat("/out/a.png") == b"whole" and memory.find("/out") == ["/out/a.png"]

    def broken(self, *paths, **options):
        raise OSError("the connection broke")

    monkeypatch.setattr(type(memory), "mv", broken)
    with pytest.raises(PictureError, match="connection broke"):
        remote.RemotePath("memory://out", "/out/b.png").write_bytes(b"half")
    assert memory.find("/out") == ["/out/a.png"]


def test_a_store_is_written_to_once(monkeypatch):
    calls = []

    class Store:
        protocol = ("s3", "s3a")

        def pipe_file(self, key, data):
            calls.append((key, data))

    monkeypatch.setattr(remote, "_file_system", lambda text: (Store(), "", False))
    remote.RemotePath("s3://b", "b/a.png").write_bytes(b"x")
    assert calls == [("b/a.png", b"x")]


@pytest.mark.parametrize("suffix", ["tar", "zip"])
def test_an_archive_gives_its_pictures(cli, using, photo, tmp_path, suffix):
    picture = photo(tmp_path / "p.png").read_bytes()
    members = {"0001.png": picture, "0001.json": b"{}", "0002.png": picture, "0002.json": b"{}"}
    archive = archive_of(tmp_path, members, suffix)
    local = cli("restore", tmp_path / "p.png", "-o", tmp_path / "one.png", env=using("rain"))
    done = cli("restore", archive, "-o", tmp_path / "out", "--json", env=using("rain"))
    assert local.returncode == done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["0001.png", "0002.png"]
    assert (tmp_path / "out/0002.png").read_bytes() == (tmp_path / "one.png").read_bytes()
    again = cli("restore", archive, "-o", tmp_path / "out", "--json", env=using("rain"))
    assert lines(again.stdout)[-1]["skipped"] == 2


class _Unreliable(BaseHTTPRequestHandler):
    """Breaks off in the middle of the first answers, and is slow in the others."""

    data, breaks = b"", 0

    def do_HEAD(self):
        self._head()

    def do_GET(self):
        cls = type(self)
        if not self.path.endswith("a.png"):
            self.send_error(404)
            return
        self._head()
        if cls.breaks:
            cls.breaks -= 1
            self.wfile.write(self.data[: len(self.data) // 2])
            self.wfile.flush()
            self.connection.close()
            return
        for start in range(0, len(self.data), 1000):
            self.wfile.write(self.data[start : start + 1000])
            time.sleep(0.01)

    def _head(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.data)))
        self.send_header("Content-Type", "image/png")
        self.end_headers()

    def log_message(self, *arguments):
        pass


def test_a_web_server_that_breaks_off_and_is_slow_is_read_in_the_end(photo, tmp_path, monkeypatch):
    pytest.importorskip("aiohttp", reason="the extra irtool[remote] is not installed")
    monkeypatch.setattr(remote, "PAUSE", 0.01)
    _Unreliable.data, _Unreliable.breaks = photo(tmp_path / "a.png").read_bytes(), 2
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Unreliable)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        (item,) = remote.make_items([f"{base}/a.png"], output=str(tmp_path / "out"))
        assert item.source.read_bytes() == _Unreliable.data and _Unreliable.breaks == 0
        _Unreliable.breaks = remote.TRIES
        with pytest.raises(PictureError, match="cannot be read"):
            item.source.read_bytes()
        with pytest.raises(PictureError, match="no such file"):
            remote.RemotePath(f"{base}/b.png", f"{base}/b.png").read_bytes()
    finally:
        server.shutdown()
        server.server_close()


def test_a_bucket_is_restored_into_another_and_resumed(environment, using, photo, tmp_path):
    pytest.importorskip("s3fs", reason="the extra irtool[remote] is not installed")
    moto = pytest.importorskip("moto.server", reason="moto, a server that speaks S3, is not installed")
    server = moto.ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_ENDPOINT_URL": f"http://{host}:{port}"}
    variables = environment | keys | using("rain") | {"PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        store = fsspec.filesystem("s3", key="x", secret="x", client_kwargs={"endpoint_url": f"http://{host}:{port}"})
        store.mkdir("photos")
        store.mkdir("results")
        for name in ("a.png", "sub/b.png"):
            store.pipe_file(f"photos/{name}", photo(tmp_path / name).read_bytes())
        store.pipe_file("photos/broken.png", b"\x89PNG\r\n\x1a\n no picture")
        arguments = ["restore", "s3://photos", "-r", "-o", "s3://results/day", "--json"]

        def run() -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "irtool", *arguments]
            return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)

        first = run()
        assert first.returncode == 1 and "s3://photos/broken.png" in first.stderr, first.stderr
        store.invalidate_cache()
        assert sorted(store.find("results")) == ["results/day/a.png", "results/day/sub/b.png"]
        one = subprocess.run(
            [sys.executable, "-m", "irtool", "restore", str(tmp_path / "a.png"), "-o", str(tmp_path / "one.png")],
            env=variables, check=True,
        )  # fmt: skip
        assert one.returncode == 0 and store.cat("results/day/a.png") == (tmp_path / "one.png").read_bytes()
        assert lines(run().stdout)[-1]["skipped"] == 2
    finally:
        server.stop()


def test_without_the_extra_the_message_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    remote._file_system.cache_clear()
    with pytest.raises(UnavailableError) as caught:
        remote.make_items(["s3://bucket/x"], output="out")
    assert "irtool[remote]" in caught.value.hint
    assert not Path("out").exists()
