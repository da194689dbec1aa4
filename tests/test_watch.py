"""irtool restore --watch: pictures that come are done once they are whole."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from irtool.cli.watch import Settling


def test_a_file_is_whole_when_it_has_stopped_growing(tmp_path):
    now = [0.0]
    settling = Settling(2, lambda: now[0])
    path = tmp_path / "a"

    def at(seconds):
        now[0] = seconds
        return settling.ready([path])

    assert at(0) == set() and not settling.waiting  # not there
    path.write_bytes(b"x")
    assert at(1) == set() and settling.waiting
    path.write_bytes(b"xx")
    assert at(2.5) == set()
    assert at(4) == set()  # two seconds from the last change, not from the first sight
    assert at(4.5) == {path} and not settling.waiting
    assert at(9) == set()
    path.write_bytes(b"xxx")  # a new state is a new file
    assert at(10) == set() and at(12) == {path}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("a.png",), "needs a folder"),
        ((".", "-o", "-"), "Name a folder"),
        ((".", "--dry-run"), "--dry-run and --watch"),
        ((".", "--jobs", "2"), "--jobs and --watch"),
        ((".", "--limit", "2"), "--limit and --watch"),
        ((".", "-o", "."), "is the input folder"),
    ],
)
def test_what_does_not_go_with_watching(cli, photo, tmp_path, arguments, told):
    photo(tmp_path / "a.png", size=(4, 5))
    done = cli("restore", *arguments, "--watch", cwd=tmp_path, timeout=60)
    assert done.returncode == 2 and told in done.stderr, done.stderr


def wait_for(condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.1)


def test_what_is_there_and_what_comes_is_done_until_it_is_interrupted(environment, using, photo, tmp_path):
    pytest.importorskip("watchfiles")
    inputs, out = tmp_path / "in", tmp_path / "out"
    photo(inputs / "first.png")
    (inputs / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    command = [sys.executable, "-m", "irtool", "restore", str(inputs), "-o", str(out), "--watch", "-r"]
    with (tmp_path / "err").open("wb") as errors:
        run = subprocess.Popen(command, env=environment | using("rain"), stdout=subprocess.PIPE, stderr=errors)
        try:
            wait_for((out / "first.png").exists)
            whole = photo(tmp_path / "later.png").read_bytes()
            with (inputs / "later.png").open("wb") as file:  # it grows for longer than it would take to be done
                for i in range(4):
                    file.write(whole[i * len(whole) // 4 : (i + 1) * len(whole) // 4])
                    file.flush()
                    time.sleep(1)
                    assert not (out / "later.png").exists()
            photo(inputs / "sub" / "deep.png")
            wait_for(lambda: (out / "later.png").exists() and (out / "sub" / "deep.png").exists())
        finally:
            run.send_signal(signal.SIGINT)
            try:
                assert run.wait(30) == 130
            finally:
                run.kill()
                run.stdout.close()
    told = (tmp_path / "err").read_text()
    assert "watching" in told and "Traceback" not in told
    assert told.count("error: ") == 1  # the broken one is named once, not with every picture that comes
    assert not list(out.rglob(".irtool-*"))
