"""What a shell, a terminal, a disk and a stranger's file names can do to the command line: one sentence, a known exit
code, never "a bug in irtool"."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from irtool.cli import main
from irtool.cli.output import printable
from irtool.errors import FileError, IrtoolError, explained

ODD = "\x1b]0;mine\x07\u202egnp.\nb"
FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")


def in_shell(line: str, environment: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """A line of bash in which irtool is the real executable."""
    line = f'irtool() {{ "{sys.executable}" -m irtool "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", line], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def is_plain_error(done: subprocess.CompletedProcess[str], told: str, code: int) -> bool:
    return (
        done.returncode == code
        and told in done.stderr
        and "a bug in irtool" not in done.stderr
        and "Traceback" not in done.stderr
        and "Exception ignored" not in done.stderr
    )


@FULL
@pytest.mark.parametrize(
    "line", ["models", "models --json", "eval protocols", "--version", "degrade in.png 'noise(9)' -o -"]
)
def test_a_full_device_as_stdout_is_one_sentence(line, environment, photo, tmp_path):
    photo(tmp_path / "in.png")
    done = in_shell(f"irtool {line} > /dev/full", environment, tmp_path)
    assert is_plain_error(done, "No space left on device", 1), done.stderr
    assert done.stderr.count("error:") == 1


def test_a_closed_stdout_takes_words_and_refuses_pictures(environment, photo, tmp_path):
    photo(tmp_path / "in.png")
    done = in_shell("irtool models >&-", environment, tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    done = in_shell("irtool degrade in.png 'noise(9)' -o - >&-", environment, tmp_path)
    assert is_plain_error(done, "stdout is closed", 1), done.stderr
    done = in_shell("irtool degrade - 'noise(9)' -o none.png <&-", environment, tmp_path)
    assert is_plain_error(done, "stdin: the file is empty", 1), done.stderr
    done = in_shell("irtool degrade in.png 'noise(9)' -o out.png >&- 2>&- <&-", environment, tmp_path)
    assert done.returncode == 0, done
    from PIL import Image

    with Image.open(tmp_path / "out.png") as written:  # no word of the run got into the file
        written.load()


def test_a_current_folder_that_was_removed_is_said(environment, tmp_path):
    done = in_shell("mkdir d; cd d; rmdir ../d; irtool eval --lq a --gt b --report out", environment, tmp_path)
    assert done.returncode in (1, 2, 3) and "a bug in irtool" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    "line",
    [
        "degrade|ODD|noise(9)|-o|x.png",
        "degrade|in.png|ODD",
        "compare|ODD|in.png",
        "eval|--lq|ODD|--gt|in.png|--model|none",
        "eval|--gt|ODD|--degrade|noise(9)|--model|none",
        "eval|--dataset|ODD",
        "models|ODD",
        "download|ODD",
        "train|--recipe|ODD",
        "train|export|ODD|x.safetensors",
    ],
)
def test_names_cannot_steer_the_terminal(line, photo, tmp_path, monkeypatch, capsys):
    photo(tmp_path / "in.png")
    (tmp_path / ODD).write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    assert main([ODD if word == "ODD" else word for word in line.split("|")]) != 0
    shown = "".join(capsys.readouterr())
    assert "a bug in irtool" not in shown and "\\x1b]0;mine" in shown, shown
    assert not {c for c in shown if ord(c) < 32 or c in "\x7f\u202e"} - {"\n"}, shown


def test_what_is_printable_stays_as_it_is():
    assert printable("Grüße, 写真 שלום a\u0301 🙂") == "Grüße, 写真 שלום a\u0301 🙂"
    assert printable("\x1b[31m\r\n\x9b\u2066\u2028") == "\\x1b[31m\\r\\n\\x9b\\u2066\\u2028"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_signals_that_end_a_run_leave_nothing_half_written(name, environment, photo, tmp_path):
    for i in range(40):
        photo(tmp_path / "gt" / f"{i:02}.png", seed=i, size=(200, 200))
    command = [sys.executable, "-m", "irtool", "eval", "--gt", "gt", "--degrade", "noise(9)", "--model", "none"]
    command += ["--save-images", "made", "--report", "out"]
    run = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )  # fmt: skip
    end = time.monotonic() + 120
    while not (tmp_path / "made").is_dir() and time.monotonic() < end and run.poll() is None:
        time.sleep(0.02)
    run.send_signal(getattr(signal, name))
    _, told = run.communicate(timeout=120)
    assert run.returncode == 130 and "interrupted" in told, told
    assert not [p for p in tmp_path.rglob(".irtool-*.tmp")]
    from PIL import Image

    for path in (tmp_path / "made").iterdir():
        with Image.open(path) as picture:
            picture.load()


def test_a_terminal_that_is_lost_does_not_end_what_nohup_started(environment, tmp_path):
    code = "import signal, irtool.cli.app as a; a.main(['--version']); print(repr(signal.getsignal(signal.SIGHUP)))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )  # fmt: skip
    assert "SIG_IGN" in done.stdout


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 9), "xxxxxxxxx: File name too long."),
        (PermissionError(errno.EACCES, "Permission denied", b"a\xff"), "a\udcff: Permission denied."),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), "The current folder is no longer there."),
        (MemoryError(), "memory"),
        (RecursionError(), "nested"),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"), "no UTF-8"),
        (ValueError("embedded null byte"), "NUL"),
        (FileError("known"), "known"),
    ],
)
def test_errors_of_the_system_are_explained(error, told):
    known = explained(error)
    assert isinstance(known, IrtoolError) and told in known.message


def test_mistakes_of_irtool_stay_bugs():
    for error in (KeyError("x"), TypeError("x"), ValueError("x"), OSError("no number"), None):
        assert explained(error) is None


def test_a_file_that_ends_too_early_is_no_interruption(monkeypatch: Any, capsys: Any):
    from irtool.cli import compare as module

    def short(*arguments: object, **options: object) -> None:
        raise EOFError("No data left in file")

    monkeypatch.setattr(module.Output, "__init__", short)
    monkeypatch.setattr("irtool.picture.read", short)
    assert main(["compare", "a.png", "b.png"]) == 1
    assert "interrupted" not in capsys.readouterr().err


def test_degrade_keeps_a_file_that_appears_meanwhile(photo: Callable[..., Path], tmp_path, monkeypatch, capsys):
    from irtool import synth

    source, target = photo(tmp_path / "in.png"), tmp_path / "out.png"
    parse = synth.parse

    def late(chain: str) -> Any:
        target.write_bytes(b"theirs")
        return parse(chain)

    monkeypatch.setattr(synth, "parse", late)
    assert main(["degrade", str(source), "noise(9)", "-o", str(target)]) == 1
    assert target.read_bytes() == b"theirs" and "exists already" in capsys.readouterr().err
    assert main(["degrade", str(source), "noise(9)", "-o", str(target), "--existing", "overwrite"]) == 0


def test_compare_asks_before_it_replaces_a_file(photo: Callable[..., Path], tmp_path, capsys):
    a, b, target = photo(tmp_path / "a.png"), photo(tmp_path / "b.png", seed=1), tmp_path / "both.png"
    target.write_bytes(b"mine")
    assert main(["compare", str(a), str(b), "-o", str(target)]) == 2
    assert "exists already" in capsys.readouterr().err and target.read_bytes() == b"mine"
    assert main(["compare", str(a), str(b), "-o", str(target), "--existing", "overwrite"]) == 0
    assert target.read_bytes() != b"mine"


@pytest.mark.parametrize("line", ["train|export|run/last.pt|net.safetensors", "export|irtool-nano|net.onnx",
                                  "export|irtool-nano|net.xml"])  # fmt: skip
def test_an_export_asks_before_it_replaces_a_file(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("net.safetensors", "net.onnx", "net.bin"):
        (tmp_path / name).write_bytes(b"mine")
    assert main(line.split("|")) == 2
    assert "exists already" in capsys.readouterr().err
    assert all(path.read_bytes() == b"mine" for path in tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
@pytest.mark.parametrize(
    "line",
    [
        "degrade|pipe|noise(9)|-o|x.png",
        "compare|pipe|in.png",
        "compare|in.png|in.png|--truth|pipe",
        "eval|--lq|pipe|--gt|in.png|--model|none",
        "eval|--compare|pipe|pipe",
        "eval|--dataset|pipe.toml",
        "train|validate|pipe.toml",
        "download|prenet.rain100h|--from|pipe",
        "train|export|pipe|x.safetensors",
        "instruct|in.png|denoise|--adapter|x=pipe",
        "instruct|in.png|denoise|--adapter|pipe",
        "instruct|in.png|denoise|--text-model|local:pipe",
        "instruct|--from|pipe.jsonl",
        "degrade|in.png|noise(9)|-o|pipe.png|--existing|overwrite",
        "compare|in.png|in.png|-o|pipe.png|--existing|overwrite",
        "eval|--lq|in.png|--gt|in.png|--model|none|--csv|pipe|--existing|overwrite",
    ],
)
def test_pipes_hang_no_verb_and_are_not_replaced(line, photo, tmp_path, monkeypatch, capsys):
    photo(tmp_path / "in.png")
    monkeypatch.chdir(tmp_path)
    for name in ("pipe", "pipe.png", "pipe.toml", "pipe.jsonl"):
        os.mkfifo(name)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(60)
    try:
        code = main(line.split("|"))
    finally:
        signal.alarm(0)
    told = capsys.readouterr().err
    assert code in (1, 2, 3, 4) and "a bug in irtool" not in told, (code, told)
    assert all((tmp_path / name).is_fifo() for name in ("pipe", "pipe.png", "pipe.toml"))


@pytest.mark.parametrize(
    "more",
    [
        "--max-memory|" + "9" * 400,
        f"--threads|{2**31}",
        f"--seed|{2**64}",
        f"--steps|{10**12}",
        "--tile|" + "9" * 400,
        "--quality|" + "9" * 4000,
    ],
)
def test_numbers_beyond_all_measure_are_usage_errors(more, photo, tmp_path, capsys):
    source = photo(tmp_path / "in.png")
    assert main(["restore", str(source), "--task", "denoise", *more.split("|")]) == 2
    assert "a bug in irtool" not in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_what_is_made_of_a_private_picture_is_private(photo, tmp_path):
    source = photo(tmp_path / "in.png")
    source.chmod(0o600)
    assert main(["degrade", str(source), "noise(9)", "-o", str(tmp_path / "worse.png")]) == 0
    assert main(["restore", str(source), "--task", "denoise", "--side-by-side", "-o", str(tmp_path / "out.png")]) == 0
    made = [path for path in tmp_path.iterdir() if path != source]
    assert len(made) == 3 and not any(path.stat().st_mode & 0o077 for path in made)
