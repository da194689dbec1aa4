"""Files that are written whole or not at all: what a kill, a full disk, a race or a planted link can do to them."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from irtool import fileio
from irtool.errors import FileError

ROOT = Path(__file__).resolve().parents[1]


def left(folder: Path) -> list[str]:
    """Temporary files in a folder."""
    return [p.name for p in folder.iterdir() if p.name.startswith(".irtool-")]


def test_a_file_and_its_folder_reach_the_disk_before_the_write_returns(tmp_path, monkeypatch):
    synced = []
    real = os.fsync

    def fsync(descriptor):
        synced.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        # The data is flushed while the target does not exist yet, the folder when it does.
        assert (tmp_path / "out").exists() == (synced[-1] == "folder")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    assert fileio.atomic_write(tmp_path / "out", b"abc") == tmp_path / "out"
    assert synced == ["file", "folder"]
    assert (tmp_path / "out").read_bytes() == b"abc" and not left(tmp_path)


def test_an_error_in_the_block_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "out").write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), fileio.atomic_open(tmp_path / "out") as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert (tmp_path / "out").read_bytes() == b"old" and not left(tmp_path)


def test_a_full_disk_is_said_plainly_and_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match="No space left on device"):
        fileio.atomic_write(tmp_path / "out", b"abc")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "absent/out"])
def test_a_name_that_no_file_can_have_is_an_error_with_the_name(tmp_path, name):
    with pytest.raises(FileError, match="cannot be written"):
        fileio.atomic_write(tmp_path / name, b"abc")
    assert not fileio.exists(tmp_path / name) and not fileio.is_regular(tmp_path / name)


def test_the_longest_name_can_be_written(tmp_path):
    assert fileio.atomic_write(tmp_path / ("x" * 251 + ".png"), b"abc").read_bytes() == b"abc"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_pipes_devices_and_folders_are_neither_replaced_nor_read(tmp_path):
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    (tmp_path / "to-null").symlink_to("/dev/null")
    for target in (pipe, tmp_path / "to-null", tmp_path):
        kind = target.lstat().st_mode
        with pytest.raises(FileError, match=r"not replaced|is a folder"):
            fileio.atomic_write(target, b"abc")
        assert target.lstat().st_mode == kind
        with pytest.raises(FileError, match=r"no regular file|Is a directory"):
            fileio.open_regular(target)
    assert not left(tmp_path)


def test_a_file_that_appears_meanwhile_is_kept_where_it_must_not_be_replaced(tmp_path):
    target = tmp_path / "out"
    with pytest.raises(FileError, match="exists already"), fileio.atomic_open(target, replace=False) as file:
        file.write(b"ours")
        target.write_bytes(b"theirs")
    assert target.read_bytes() == b"theirs" and not left(tmp_path)
    target.unlink()
    assert fileio.atomic_write(target, b"ours", replace=False).read_bytes() == b"ours"
    assert target.stat().st_nlink == 1 and not left(tmp_path)


def test_permissions_are_those_of_the_replaced_file_or_of_the_source(tmp_path):
    source, old = tmp_path / "private.jpg", tmp_path / "old"
    source.write_bytes(b"x")
    source.chmod(0o600)
    old.write_bytes(b"x")
    old.chmod(0o640)
    assert stat.S_IMODE(fileio.atomic_write(tmp_path / "new", b"", like=source).stat().st_mode) == 0o600
    assert stat.S_IMODE(fileio.atomic_write(old, b"", like=source).stat().st_mode) == 0o640


def test_a_link_is_replaced_and_what_it_leads_to_is_not_touched(tmp_path):
    (tmp_path / "kept").write_bytes(b"kept")
    (tmp_path / "link").symlink_to("kept")
    fileio.atomic_write(tmp_path / "link", b"new")
    assert (tmp_path / "kept").read_bytes() == b"kept" and not (tmp_path / "link").is_symlink()


@pytest.mark.skipif(fileio.fcntl is None, reason="files are not locked here")
def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    code = (
        "import os, sys, time\n"
        "from irtool import fileio\n"
        "with fileio.atomic_open(sys.argv[1]) as file:\n"
        "    file.write(b'half'); file.flush(); print('ready', flush=True); time.sleep(60)\n"
    )

    def writer(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, str(tmp_path / name)]
        started = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
        assert started.stdout is not None and started.stdout.readline() == "ready\n"
        return started

    killed = writer("killed")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    (dead,) = left(tmp_path)
    living = writer("living")
    try:
        assert dead not in left(tmp_path)  # its writer has swept the folder
        (alive,) = left(tmp_path)
        fileio._swept.clear()
        fileio.atomic_write(tmp_path / "out", b"abc")
        assert left(tmp_path) == [alive]
    finally:
        living.terminate()
        living.wait()
    assert not (tmp_path / "killed").exists()


def test_files_are_read_within_a_limit_and_text_without_its_mark(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"\xef\xbb\xbfabc")
    assert fileio.read_text(path) == "abc" and len(fileio.read_bytes(path, 6)) == 6
    assert fileio.sha256(path) == hashlib.sha256(b"\xef\xbb\xbfabc").hexdigest()
    with pytest.raises(FileError, match="at most 5"):
        fileio.read_bytes(path, 5)
    path.write_bytes(b"ab\xff")
    with pytest.raises(FileError, match="UTF-8"):
        fileio.read_text(path)
    with pytest.raises(FileError, match="cannot be read"):
        fileio.read_text(tmp_path / "absent")
