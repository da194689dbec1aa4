"""What pictures are read from and written to: pipes, devices, files with holes, full disks, files of others."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import picture_samples as make
import pytest

from irtool import fileio
from irtool.errors import PictureError
from irtool.picture import Picture, find, read, save_bytes, sources, write

posix = pytest.mark.skipif(os.name != "posix", reason="pipes, devices and permissions as POSIX has them")
PNG = make.png(make.noise(9, 9, 3))
PICTURE = Picture(make.noise(9, 9, 3) / np.float32(255))


def refused(call: object, *arguments: object, **options: object) -> PictureError:
    with pytest.raises(PictureError) as caught:
        call(*arguments, **options)  # type: ignore[operator]
    assert caught.value.hint
    return caught.value


# Reading


@posix
def test_a_pipe_that_nobody_writes_to_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PATIENCE", 0.2)
    os.mkfifo(tmp_path / "a.png")
    begun = time.monotonic()
    assert "pipe" in refused(read, tmp_path / "a.png").message
    assert time.monotonic() - begun < 5


@posix
@pytest.mark.parametrize("wait", [0.0, 0.3])
def test_a_pipe_with_a_writer_is_read_once_and_whole(tmp_path: Path, wait: float) -> None:
    path = tmp_path / "a.png"
    os.mkfifo(path)
    data = make.png(make.noise(90, 90, 3))

    def send() -> None:
        time.sleep(wait)
        with path.open("wb") as pipe:
            pipe.write(data[:5000])
            pipe.flush()
            time.sleep(wait)
            pipe.write(data[5000:])

    writer = threading.Thread(target=send)
    writer.start()
    picture = read(path)
    writer.join()
    assert picture.original == data


@posix
def test_pipes_and_sockets_in_a_folder_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    os.mkfifo(tmp_path / "b.png")
    (tmp_path / "c.png").symlink_to("nowhere")
    assert [found.path.name for found in find([tmp_path])] == ["a.png", "c.png"]


@posix
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_devices_are_no_pictures(device: str) -> None:
    assert "device" in refused(read, Path(device)).message


def test_a_file_with_a_hole_behind_the_picture_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "hole.png"
    path.write_bytes(PNG)
    os.truncate(path, 3 << 30)
    assert "larger than any picture" in refused(read, path).message


def test_a_stream_without_end_is_not_read_to_it() -> None:
    class Endless(BytesIO):
        taken = 0

        def read(self, size: int | None = -1) -> bytes:
            assert size is not None
            assert size > 0
            self.taken += size
            return (PNG + bytes(size))[:size] if self.taken <= 4096 else bytes(size)

    stream = Endless()
    assert "larger than any picture" in refused(read, stream, max_pixels=1_000_000).message
    assert stream.taken < 20_000_000


def test_a_stream_is_read_once_and_its_bytes_are_kept() -> None:
    class Once(BytesIO):
        def seek(self, *arguments: int) -> int:
            raise AssertionError("read a second time")

    picture = read(Once(PNG))
    assert picture.original == PNG
    assert picture.with_pixels(picture.pixels).original is None


def test_many_nested_folders_are_listed(tmp_path: Path) -> None:
    before = Path.cwd()
    try:
        os.chdir(tmp_path)
        for _ in range(1500):
            Path("d").mkdir()
            os.chdir("d")
        Path("a.png").write_bytes(PNG)
        os.chdir(before)
        assert find([tmp_path], recursive=True)  # the picture, or the folder whose path is too long to be listed
    finally:
        os.chdir(before)
        # pytest removes old folders by recursion, which ends at a thousand levels.
        subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)


@posix
def test_a_folder_that_cannot_be_entered_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    is_dir = Path.is_dir

    def locked(self: Path) -> bool:
        if "locked" in self.parts:
            raise PermissionError(errno.EACCES, "Permission denied")
        return is_dir(self)

    monkeypatch.setattr(Path, "is_dir", locked)
    named = tmp_path / "locked" / "b.png"
    assert [found.path for found in find([tmp_path / "a.png", named])] == [tmp_path / "a.png", named]
    assert [found.path.name for found in find(["x" * 300 + ".png"])] == ["x" * 300 + ".png"]
    assert "cannot be read" in refused(read, "x" * 300 + ".png").message


# Writing


@posix
def test_pipes_and_devices_are_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "null.png").symlink_to("/dev/null")
    for name in ("pipe.png", "null.png"):
        assert "device or a pipe" in refused(write, PICTURE, tmp_path / name).message
    assert stat.S_ISFIFO((tmp_path / "pipe.png").stat().st_mode)
    assert stat.S_ISCHR((tmp_path / "null.png").stat().st_mode)


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:

        def unsupported(*_: object) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", unsupported)
    path = tmp_path / "a.png"
    write(PICTURE, path, replace=False)
    assert read(path).width == 9
    path.write_bytes(b"somebody's")
    assert "exists already" in refused(write, PICTURE, path, replace=False).message
    assert path.read_bytes() == b"somebody's"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]
    write(PICTURE, path)
    assert read(path).width == 9


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    sync, rename = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        events.append("name")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    save_bytes(b"x", tmp_path / "a.png")
    assert events == (["file", "name", "folder"] if os.name == "posix" else ["file", "name"])


@pytest.mark.parametrize(("owner", "step"), [(os, "fsync"), (Path, "replace"), (Path, "open")])
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, step: str) -> None:
    (tmp_path / "a.png").write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(owner, step, full)
        assert "No space left" in refused(save_bytes, b"x", tmp_path / "a.png").message
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("a.png", b"old")]


@posix
def test_the_result_of_a_private_picture_is_private(tmp_path: Path) -> None:
    source = tmp_path / "private.png"
    source.write_bytes(PNG)
    for mode in (0o600, 0o640, 0o400):
        source.chmod(mode)
        target = write(read(source), tmp_path / f"{mode}.png")
        assert stat.S_IMODE(target.stat().st_mode) == (mode | 0o200) & ~0o022
    (tmp_path / "open.png").write_bytes(b"")
    (tmp_path / "open.png").chmod(0o664)
    assert stat.S_IMODE(write(read(source), tmp_path / "open.png").stat().st_mode) == 0o664


@posix
def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom irtool.picture import save_bytes\n"
        "os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)\n"
        "save_bytes(b'x', Path(sys.argv[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png")], check=False, cwd=Path.cwd())
    assert done.returncode < 0
    left = [entry.name for entry in tmp_path.iterdir()]
    assert len(left) == 1
    others = {".irtool-mine.tmp", ".irtool-999999999-short.tmp", "b.tmp"}
    for name in others:
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setattr(fileio, "_swept", set())
    save_bytes(b"x", tmp_path / "b.png")
    assert {entry.name for entry in tmp_path.iterdir()} == others | {"b.png"}
