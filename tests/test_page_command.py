"""`irtool serve` as a command."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

pytest.importorskip("starlette", reason="the page needs irtool[page]")
pytest.importorskip("uvicorn", reason="the page needs irtool[page]")


def test_without_its_packages_the_command_names_the_extra(environment):
    code = "import sys; sys.modules['starlette'] = None; from irtool.cli.app import main; sys.exit(main(['serve']))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr == "error: The page needs optional packages.\nhint: pip install 'irtool[page]'\n"


def test_the_command_serves_until_it_is_interrupted(environment, cli, using, photo, tmp_path):
    photo(tmp_path / "in" / "a.png")
    (tmp_path / "tmp").mkdir()
    env = environment | using("rain") | {"TMPDIR": str(tmp_path / "tmp")}
    command = [sys.executable, "-m", "irtool", "serve", str(tmp_path / "in"), "--no-open"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{22}/", address)
        with urllib.request.urlopen(address, timeout=30) as answer:
            assert answer.status == 200 and b"<title>irtool</title>" in answer.read()
        with urllib.request.urlopen(f"{address}api/state", timeout=30) as answer:
            assert b'"a.png"' in answer.read()
        port = int(address.split(":")[2].partition("/")[0])
        taken = cli(*command[3:], "--port", port, env=env)
        assert taken.returncode == 2 and f"Port {port} of 127.0.0.1 cannot be listened on" in taken.stderr
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0 and err == "Ctrl-C ends it.\n"
    assert list((tmp_path / "tmp").glob("irtool-page-*")) == []
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_folder_that_is_not_there_or_empty_is_said(cli, tmp_path):
    assert cli("serve", tmp_path / "none", "--no-open").returncode == 2
    (tmp_path / "empty").mkdir()
    assert cli("serve", tmp_path / "empty", "--no-open").returncode == 4
    assert cli("serve", "-o", tmp_path, "--no-open").returncode == 2
