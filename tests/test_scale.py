"""Work shared out among processes: shards, --jobs, the account, kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from killing import command, contents, recorded, run_shards_killed, small_pictures

from irtool.engine.workers import LostProcessError, parallel
from irtool.errors import UnavailableError, UsageError
from irtool.shard import Shard, parse

linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_every_name_belongs_to_exactly_one_shard_and_they_are_alike_in_size():
    names = [f"a/{i}.jpg" for i in range(2000)]
    taken = [[name for name in names if Shard(index, 7).takes(name)] for index in range(7)]
    assert sorted(name for part in taken for name in part) == sorted(names)
    assert all(200 < len(part) < 380 for part in taken)
    assert Shard(3, 7).takes("a/1.jpg") == ("a/1.jpg" in taken[3])  # whatever else is listed


@pytest.mark.parametrize(
    ("variables", "shard"),
    [
        ({"SLURM_ARRAY_TASK_ID": "14", "SLURM_ARRAY_TASK_MIN": "10", "SLURM_ARRAY_TASK_MAX": "18",
          "SLURM_ARRAY_TASK_COUNT": "5", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, Shard(2, 5)),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "0", "AWS_BATCH_JOB_ARRAY_SIZE": "9"}, Shard(0, 9)),
        ({"JOB_COMPLETION_INDEX": "6", "JOB_COMPLETIONS": "7"}, Shard(6, 7)),
        ({"RANK": "1", "WORLD_SIZE": "4"}, Shard(1, 4)),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "4"}, Shard(3, 4)),
    ],
)  # fmt: skip
def test_auto_reads_the_scheduler(variables, shard):
    assert parse("auto", variables) == shard


@pytest.mark.parametrize(
    ("text", "variables", "said"),
    [
        ("0/3", {}, "no share"),
        ("4/3", {}, "no share"),
        ("x", {}, "no share"),
        ("auto", {}, "no scheduler"),
        ("auto", {"JOB_COMPLETION_INDEX": "1"}, "JOB_COMPLETIONS"),
        ("auto", {"RANK": "one", "WORLD_SIZE": "2"}, "no number"),
        ("auto", {"RANK": "2", "WORLD_SIZE": "2"}, "share 2 of 2"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "7",
                  "SLURM_ARRAY_TASK_COUNT": "3"}, None),
        ("auto", {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "7",
                  "SLURM_ARRAY_TASK_COUNT": "3"}, "gaps"),
    ],
)  # fmt: skip
def test_a_share_that_makes_no_sense_is_refused(text, variables, said):
    if said is None:
        assert parse(text, variables) == Shard(2, 3)
        return
    with pytest.raises(UsageError, match=said) as caught:
        parse(text, variables)
    assert caught.value.hint


class Echo:
    """Stages that need no network: numbers are doubled; some of them end the process or fail."""

    def __init__(self, log: Path, number: int) -> None:
        self.log, self.number = log, number

    def load(self) -> list[str]:
        if self.log.name == "broken":
            raise UnavailableError("no model", "get one")
        return [f"process {self.number} is ready"]

    def read(self, item: int) -> int:
        return item

    def work(self, item: int, read: int) -> int:
        if item == 5 and not self.log.exists():
            self.log.write_text("killed once")
            os.kill(os.getpid(), signal.SIGKILL)
        if item == 15:
            raise UsageError("fifteen", "not fifteen")
        return 2 * read

    def write(self, item: int, worked: int) -> int:
        return worked


@pytest.mark.parametrize("overlap", [False, True])
def test_a_lost_process_costs_only_what_it_held_and_is_replaced(tmp_path, overlap):
    remarks: list[str] = []
    results = list(parallel(range(20), partial(Echo, tmp_path / "log"), 2, overlap=overlap, on_remark=remarks.append))
    assert [r.item for r in results] == list(range(20)) and remarks == ["process 0 is ready"]
    failed = {r.item: r.error for r in results if r.error is not None}
    assert isinstance(failed.pop(15), UsageError) and results[15].error.hint == "not fifteen"
    assert 5 in failed and all(isinstance(error, LostProcessError) for error in failed.values())
    assert len(failed) <= (4 if overlap else 1) and "signal 9" in failed[5].message
    assert all(r.result == 2 * r.item for r in results if r.error is None)


def test_what_cannot_be_loaded_is_said_as_by_one_process(tmp_path):
    with pytest.raises(UnavailableError, match="no model") as caught:
        list(parallel(range(4), partial(Echo, tmp_path / "broken"), 2))
    assert caught.value.hint == "get one"


def test_jobs_give_the_bytes_and_the_messages_of_one_process(cli, using, photo, tmp_path):
    photos = tmp_path / "in"
    for name in ("b.png", "a.jpg", "sub/c.png", "sub/d.jpg"):
        photo(photos / name)
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    told = {}
    for jobs in ("1", "2"):
        out = tmp_path / f"out{jobs}"
        own = {"start_new_session": True} if jobs == "2" else {}
        done = cli("restore", photos, "-r", "-o", out, "--json", "--jobs", jobs, env=using("rain"), **own)
        assert done.returncode == 1 and "broken.jpg" in done.stderr, done.stderr
        told[jobs] = [(r.get("input"), r["status"]) for r in lines(done.stdout)[:-1]]
        summary = lines(done.stdout)[-1]
        assert summary["restored"] == 4 and summary["failed"] == 1
    assert told["1"] == told["2"]
    one, two = ({p.relative_to(tmp_path / f"out{n}"): p.read_bytes() for p in (tmp_path / f"out{n}").rglob("*.*g")}
                for n in (1, 2))  # fmt: skip
    assert one == two and len(one) == 4
    seen = [cli("detect", photos, "-r", "--json", "--jobs", jobs, env=using("rain")) for jobs in ("1", "2")]
    assert lines(seen[0].stdout)[:-1] == lines(seen[1].stdout)[:-1] and seen[1].returncode == 1


def test_a_run_without_shards_or_jobs_leaves_nothing_but_pictures(cli, using, photo, tmp_path):
    photo(tmp_path / "in/a.png")
    assert cli("restore", tmp_path / "in", "-o", tmp_path / "out", env=using("rain")).returncode == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.png"]


def test_gather_names_what_failed_and_what_is_missing(cli, using, photo, tmp_path):
    photos, out = tmp_path / "in", tmp_path / "out"
    for i in range(6):
        photo(photos / f"{i}.png", seed=i)
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no picture")
    arguments = ("restore", photos, "-o", out, "-q")
    first = cli(*arguments, "--shard", "1/2", env=using("rain"))
    listed = tmp_path / "again.txt"
    told = cli("gather", out, "--json", "--missing", listed)
    summary = lines(told.stdout)[-1]
    assert told.returncode == 1 and summary["pictures"] == 7 and 0 < summary["done"] < 6
    second = cli(*arguments, "--shard", "2/2", env=using("rain"))
    assert sorted([first.returncode, second.returncode]) == [0, 1]
    told = cli("gather", out, "--missing", listed)
    assert told.returncode == 1 and "broken.png" in told.stdout and "no picture" not in told.stderr
    assert listed.read_text() == f"{photos / 'broken.png'}\n"
    (photos / "broken.png").unlink()
    assert cli("gather", out).returncode == 0
    gathered = lines((out / ".irtool/gathered.jsonl").read_text())
    done = [line for line in gathered[1:] if line["status"] == "restored"]
    assert len(done) == 6 and all(line["sha256_in"] != line["sha256_out"] for line in done)
    (out / "3.png").unlink()
    told = cli("gather", out)
    assert told.returncode == 1 and "3.png" in told.stdout
    assert cli("gather", tmp_path / "in").returncode == 2


def _killed(cli, tmp_path: Path, variables: dict[str, str], count: int, shards: int, kills: int) -> None:
    source, one, many = tmp_path / "in", tmp_path / "one", tmp_path / "many"
    small_pictures(source, count)
    assert cli(*command(source, one)[3:], env=variables, timeout=6000).returncode == 0
    seen = run_shards_killed(source, many, shards, kills, variables)
    assert seen.kills == kills
    assert contents(one) == contents(many) and len(contents(many)) == count
    assert max(recorded(many).values()) == 1
    leftover = [path for path in many.rglob("*") if path.is_file() and path.suffix == ".tmp"]
    assert len(leftover) <= kills  # hidden, of killed processes; swept by the next that writes into the folder
    if count >= 1000:  # of a life that is mostly work, the second half: by then everything is loaded
        for series, allowed in ((seen.memory, 48 << 20), (seen.files, 4)):
            for values in [values[len(values) // 2 :] for pid, values in series.items() if pid in seen.finished]:
                assert max(values[len(values) // 2 :]) - max(values[: len(values) // 2]) <= allowed
    gathered = cli("gather", many, env=variables)
    assert gathered.returncode == 0, gathered.stdout
    print(f"{count} pictures, {shards} shards, {seen.kills} kills, {seen.seconds:.0f} s; {gathered.stderr.strip()}")


@linux
def test_shards_killed_at_random_moments_end_with_the_bytes_of_one_process(cli, environment, using, tmp_path):
    _killed(cli, tmp_path, environment | using("rain"), count=60, shards=2, kills=2)


@linux
@pytest.mark.slow
def test_ten_thousand_pictures_in_seven_shards_killed_ten_times(cli, environment, using, tmp_path):
    _killed(cli, tmp_path, environment | using("rain"), count=10_000, shards=7, kills=10)


def _scores(cli, *arguments):
    done = cli(*arguments, start_new_session=True)
    assert done.returncode == 0, done.stderr
    told = lines(done.stdout)
    return {r["name"]: r["output"] for r in told if r["type"] == "image"}, told[-1]["output"]["psnr"]["mean"]


@pytest.mark.slow
def test_eval_in_shards_and_in_processes_gives_the_figures_of_one(cli, models_dir, photo, tmp_path):
    for i in range(5):
        photo(tmp_path / "rain" / f"{i}.png", seed=i)
        photo(tmp_path / "norain" / f"{i}.png", seed=i + 10)
    arguments = ["eval", "--lq", tmp_path / "rain", "--gt", tmp_path / "norain", "--task", "derain", "--json"]
    arguments += ["--model", f"local:{models_dir / 'restorer.safetensors'}"]
    one = _scores(cli, *arguments)
    assert _scores(cli, *arguments, "--jobs", "2") == one
    report = tmp_path / "report"
    parts = [_scores(cli, *arguments, "--shard", f"{i}/2", "--report", report)[0] for i in (1, 2)]
    assert not set(parts[0]) & set(parts[1]) and parts[0] | parts[1] == one[0]
    for run in (report / "shards").glob("*/run.jsonl"):  # what shards have scored is taken over, not scored again
        run.write_text(run.read_text().replace('"seconds": ', '"seconds": 1'))
    assert _scores(cli, *arguments, "--report", report, "--resume") == one
    assert (report / "index.html").exists()
    assert all(line["seconds"] >= 1 for line in lines((report / "run.jsonl").read_text())[1:6])


def test_degrade_of_a_folder_is_the_same_in_shards(cli, photo, tmp_path):
    for name in ("a.png", "b.jpg", "sub/c.png", "sub/d.png"):
        photo(tmp_path / "in" / name)
    arguments = ["degrade", tmp_path / "in", "noise(30)", "-r", "-q"]
    assert cli(*arguments, "-o", tmp_path / "one").returncode == 0
    for i in (1, 2):
        assert cli(*arguments, "-o", tmp_path / "two", "--shard", f"{i}/2").returncode == 0
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one == two and len(one) == 4 and one["a.png"] != one["sub/c.png"]  # equal pictures get noise of their own
    again = cli(*arguments[:-1], "-o", tmp_path / "one", "--json")
    assert lines(again.stdout)[-1]["skipped"] == 4
    assert cli("degrade", tmp_path / "in", "noise(30)").returncode == 2


@pytest.mark.slow
@linux
def test_an_interrupted_run_of_several_processes_leaves_none_of_them(environment, using, photo, tmp_path):
    for i in range(60):
        photo(tmp_path / "in" / f"{i:02}.png", size=(240, 320), seed=i)
    arguments = ["restore", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--jobs", "2"]
    run = subprocess.Popen(
        [sys.executable, "-m", "irtool", *arguments], env=environment | using("rain"), start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    run.stdout.readline()  # the first picture is done
    os.killpg(run.pid, signal.SIGINT)  # as Ctrl-C does
    _, errors = run.communicate(timeout=600)
    assert run.returncode == 130 and "interrupted" in errors and "Traceback" not in errors, errors
    with pytest.raises(ProcessLookupError):
        for _ in range(1200):  # Python's own resource tracker ends a moment after its parent
            os.killpg(run.pid, 0)
            time.sleep(0.1)
    assert 1 <= len(list((tmp_path / "out").glob("*.png"))) < 60
