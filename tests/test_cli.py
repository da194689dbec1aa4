"""What holds for every verb: streams, exit codes, errors, start-up; through the real executable."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import irtool
from irtool.cli import app, main
from irtool.cli.options import one_of, parse_bytes
from irtool.degradation import IDS
from irtool.errors import UsageError

VERBS = (
    "compare",
    "degrade",
    "detect",
    "doctor",
    "download",
    "eval",
    "export",
    "gather",
    "info",
    "instruct",
    "models",
    "presets",
    "restore",
    "serve",
    "train",
)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["models"], [], ["restore", "--help"], ["restore", "x", "--task", "no"]]
)
def test_torch_is_not_imported_to_answer_at_once(environment, arguments):
    code = (
        "import sys; from irtool.cli import main; main(sys.argv[1:]);"
        "print(*(m for m in ('torch', 'numpy', 'PIL', 'rich', 'skimage') if m in sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    loaded = done.stderr.splitlines()[-1].split()
    assert "torch" not in loaded and "skimage" not in loaded
    if arguments[:1] != ["restore"]:
        assert loaded == []


def test_help_and_version(cli):
    bare, asked = cli(), cli("--help")
    assert bare.returncode == asked.returncode == 0
    assert bare.stdout == asked.stdout and bare.stderr == ""
    assert all(f"  {verb} " in asked.stdout for verb in VERBS)
    assert cli("--version").stdout == f"irtool {irtool.__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_that_ends_sentences(cli, verb):
    done = cli(verb, "--help")
    assert done.returncode == 0 and "Usage: irtool" in done.stdout and "..." not in done.stdout.split("Options:")[1]


def test_the_installed_command_is_the_same(environment):
    installed = shutil.which("irtool", path=str(Path(sys.executable).parent))
    if installed is None:
        pytest.skip("irtool is not installed in this environment")
    done = subprocess.run([installed, "--version"], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == f"irtool {irtool.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["restor"], "restore"),
        (["restore", "x.png", "--devise", "cpu"], "--device"),
        (["restore", "x.png", "--task", "denois"], "denoise"),
        (["restore", "x.png", "--existing", "skipp"], "skip"),
        (["restore", "x.png", "--dtype", "fp23"], "fp32"),
        (["restore", "x.png", "--device", "gpu"], "cpu"),
        (["restore", "x.png", "--format", "jpgg"], "jpg"),
        (["restore", "x.png", "--model", "irtool-smal.v1", "--task", "denoise"], "irtool-small.v1"),
        (["restore", "x.png", "--strength", "2"], "0 to 1"),
        (["restore", "x.png", "--quality", "0"], "1 to 100"),
        (["restore", "x.png", "--tile", "big"], "off"),
        (["restore", "x.png", "--max-memory", "lots"], "2GB"),
        (["restore", "x.png", "--threads", "0"], "threads"),
        (["restore", "x.png", "--auto", "--task", "denoise"], "exclude"),
        (["restore", "x.png", "-o", "-", "--json"], "exclude"),
        (["restore"], "INPUT"),
        (["degrade", "x.png"], "--sheet"),
        (["train"], "--recipe"),
        (["train", "--recipe", "defualt"], "default"),
        (["train", "--recipe", "default", "--dry-run", "minuts=5"], "minutes"),
        (["train", "--recipe", "default"], "--data"),
    ],
)
def test_a_wrong_request_is_exit_code_2_with_a_way_out(cli, tmp_path, arguments, told):
    done = cli(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and told in done.stderr and "Traceback" not in done.stderr


def test_environment_twins(cli, tmp_path):
    for name in ("DEVICE", "DTYPE", "EXISTING", "FORMAT", "TILE", "MAX_MEMORY", "THREADS", "QUALITY", "STRENGTH"):
        done = cli("restore", "x.png", cwd=tmp_path, env={f"IRTOOL_{name}": "nonsense"})
        assert done.returncode == 2, name
        assert "nonsense" in done.stderr or "Invalid value" in done.stderr, name


def test_exit_code_1_3_and_4(cli, using, tmp_path):
    (tmp_path / "empty").mkdir()
    assert cli("restore", tmp_path / "empty").returncode == 4
    assert cli("detect", tmp_path / "empty").returncode == 4
    missing = cli("restore", tmp_path / "none.jpg", "--model", "local:none.safetensors", "--task", "denoise")
    assert missing.returncode == 3 and "none.safetensors" in missing.stderr and missing.stdout == ""
    absent = cli("restore", tmp_path / "none.jpg", "--json", env=using("clean"))
    assert absent.returncode == 1 and "none.jpg" in absent.stderr
    record, summary = map(json.loads, absent.stdout.splitlines())
    assert record["status"] == "failed" and "none.jpg" in record["error"] and summary["exit_code"] == 1
    assert not list(tmp_path.glob("none.*"))


def test_debug_shows_the_traceback_of_a_users_mistake(cli):
    assert "Traceback" not in cli("restore", "x", "--task", "no").stderr
    assert "Traceback" in cli("restore", "x", "--task", "no", env={"IRTOOL_DEBUG": "1"}).stderr


@pytest.fixture
def broken(monkeypatch):
    """A verb with a bug, and the signal handler of the test run put back afterwards."""
    import signal

    before = signal.getsignal(signal.SIGTERM)

    def fail():
        raise RuntimeError("boom\nin two lines")

    monkeypatch.setattr("irtool.cli.models.records", fail)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_bug_is_called_one(broken, capsys, monkeypatch):
    monkeypatch.delenv("IRTOOL_DEBUG", raising=False)
    assert main(["models"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: a bug in irtool (RuntimeError: boom in two lines)") and "IRTOOL_DEBUG=1" in err
    assert "Traceback" not in err
    monkeypatch.setenv("IRTOOL_DEBUG", "1")
    assert main(["models"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error(environment):
    run = subprocess.Popen(
        [sys.executable, "-m", "irtool", "models"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    run.stdout.close()
    assert run.stderr.read() == b"" and run.wait() == 1


def test_models(cli):
    lines = [json.loads(line) for line in cli("models", "--json").stdout.splitlines()]
    assert [r["id"] for r in lines[:-1] if r["default"]] == ["irtool-small.v3", "irtool-detector.v5"]
    assert set(lines[0]["tasks"]) == set(IDS) and lines[-1] == {"type": "summary", "models": len(lines) - 1}
    listed = cli("models").stdout
    assert "irtool-small.v3" in listed and "lm4lv" in listed.partition("no published file")[2]


def test_doctor(cli, tmp_path):
    env = {"HF_HOME": str(tmp_path / "hf"), "IRTOOL_THREADS": "1"}
    done = cli("doctor", "--json", env=env)
    report = json.loads(done.stdout)
    assert (
        report["irtool"] == irtool.__version__
        and report["packages"]["torch"]
        and report["torch"]["devices"][0] == "cpu"
    )
    assert report["cache"] == str(tmp_path / "hf" / "hub") and report["environment"]["HF_HOME"] == env["HF_HOME"]
    assert set(report["models"]) >= {"irtool-small.v3", "irtool-detector.v5"}
    assert done.returncode == (0 if report["healthy"] else 3)
    words = cli("doctor", env=env)
    assert words.returncode == done.returncode and "irtool-small.v3" in words.stdout


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GB", 2 * 10**9), ("2GiB", 2 << 30), ("2G", 2 << 30), ("1.5m", 3 << 19), ("800 MiB", 800 << 20), ("4096", 4096),
     ("1kB", 1000), ("12B", 12)],
)  # fmt: skip
def test_sizes(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1G", "2 GB x", "GB", "1e9", "2XB", "0GB", "9" * 400, "1e400", "9" * 17])
def test_what_is_no_size(text):
    with pytest.raises(UsageError):
        parse_bytes(text)


def test_choices():
    assert one_of("a", ("a", "b"), "--x") == "a"
    with pytest.raises(UsageError) as raised:
        one_of("zzz", ("a", "b"), "--x")
    assert "a, b" in raised.value.hint


def test_every_verb_is_here():
    assert sorted(typer.main.get_command(app.app).commands) == list(VERBS)
