"""What eval writes, and what it must leave alone: inputs, other people's files, pages and sheets."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from irtool.cli import main
from irtool.data import Pair, PairSet, get_protocol
from irtool.errors import UsageError
from irtool.evaluation import EvalRequest, evaluate, header, read_run, summarize
from irtool.evaluation.outputs import check_outputs
from irtool.evaluation.report import SHOWN, Report, to_csv

Photo = Callable[..., Path]


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def evaluated(*arguments: object) -> int:
    return main(["eval", "--model", "none", *map(str, arguments)])


@pytest.fixture
def pairs(tmp_path: Path, photo: Photo) -> Path:
    for i in range(2):
        photo(tmp_path / "lq" / f"{i}.png", seed=i)
        photo(tmp_path / "gt" / f"{i}.png", seed=i + 10)
    return tmp_path


def test_a_report_beside_the_pictures_leaves_them_alone(tmp_path: Path, photo: Photo, monkeypatch: Any) -> None:
    for i in range(3):
        photo(tmp_path / "pictures" / f"p{i}.jpg", seed=i)
    (tmp_path / SHOWN).mkdir()
    (tmp_path / SHOWN / "mine.jpg").write_bytes(b"mine")
    before = content(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert evaluated("--gt", "pictures", "--degrade", "noise(20)", "--only", "p1", "--report", ".") == 0
    after = content(tmp_path)
    assert {name: data for name, data in after.items() if name in before} == before
    assert set(after) - set(before) == {"index.html", "run.jsonl"}


def test_a_report_that_was_killed_and_resumed_leaves_only_its_own_two_files(pairs: Path) -> None:
    found = PairSet(tuple(Pair(str(i), pairs / f"lq/{i}.png", pairs / f"gt/{i}.png") for i in range(2)), "test")
    request = EvalRequest(found, get_protocol("canonical"), "none")
    page = Report(pairs / "out", header(request))
    records = list(evaluate(request))
    page.keep("0", *([__import__("numpy").zeros((9, 9, 3), "uint8")] * 3))
    page.add(records[0])
    again = Report(pairs / "out", header(request), resume=True)
    again.finish(records, summarize(records), title="x")
    assert sorted(p.name for p in (pairs / "out").iterdir()) == ["index.html", "run.jsonl"]


def test_a_page_that_is_no_runs_is_not_replaced(pairs: Path) -> None:
    (pairs / "out").mkdir()
    (pairs / "out/index.html").write_text("my home page")
    for more in ((), ("--resume",)):
        assert evaluated("--lq", pairs / "lq", "--gt", pairs / "gt", "--report", pairs / "out", *more) == 2
    assert content(pairs / "out") == {"index.html": b"my home page"}


@pytest.mark.parametrize("existing", [(), ("--existing", "overwrite")])
def test_outputs_never_go_onto_inputs(pairs: Path, existing: tuple[str, ...]) -> None:
    (pairs / "other").symlink_to("gt")
    (pairs / "set.toml").write_text('[[dataset]]\nname = "mine"\nlq = "lq"\ngt = ["gt"]\n')
    before = content(pairs)
    folders = ("--lq", pairs / "lq", "--gt", pairs / "gt", *existing)
    for wrong in (
        ("--save-images", pairs / "gt"),
        ("--save-images", pairs / "lq"),
        ("--save-images", pairs / "other"),
        ("--csv", pairs / "gt/0.png"),
        ("--csv", pairs / "other/1.png"),
        ("--csv", pairs / "out/run.jsonl", "--report", pairs / "out"),
    ):
        assert evaluated(*folders, *wrong) == 2, wrong
        assert content(pairs) == before, wrong
    assert evaluated("--dataset", pairs / "set.toml", "--csv", pairs / "set.toml", *existing) == 2
    assert content(pairs) == before


def test_files_that_exist_are_replaced_only_where_that_is_asked_for(pairs: Path, capsys: Any) -> None:
    (pairs / "made").mkdir()
    (pairs / "made/1.png").write_bytes(b"mine")
    (pairs / "t.csv").write_text("mine")
    folders = ("--lq", pairs / "lq", "--gt", pairs / "gt")
    for wanted in (("--csv", pairs / "t.csv"), ("--save-images", pairs / "made")):
        assert evaluated(*folders, *wanted) == 2
        assert "exists already" in capsys.readouterr().err
    assert not (pairs / "made/0.png").exists()  # nothing is done before all is checked
    assert (
        evaluated(*folders, "--csv", pairs / "t.csv", "--save-images", pairs / "made", "--existing", "overwrite") == 0
    )
    assert (pairs / "made/1.png").read_bytes() != b"mine" and (pairs / "t.csv").read_text().startswith("name,")
    with pytest.raises(UsageError, match="written twice"):
        check_outputs(PairSet((), ""), csv=pairs / "new/index.html", report=pairs / "new")


def test_a_picture_that_appears_during_the_run_is_kept(pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from irtool.evaluation import session

    def late(*arguments: object, **options: object) -> None:
        (pairs / "made").mkdir()
        (pairs / "made/0.png").write_bytes(b"theirs")

    monkeypatch.setattr(session, "check_outputs", late)
    assert evaluated("--lq", pairs / "lq", "--gt", pairs / "gt", "--save-images", pairs / "made") == 1
    assert (pairs / "made/0.png").read_bytes() == b"theirs" and (pairs / "made/1.png").is_file()


def test_the_case_of_pictures_with_one_stem(shared: Path, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(shared / "cases/eval-same-stem/gt", tmp_path / "gt")
    table = tmp_path / "out.csv"
    assert evaluated("--gt", tmp_path / "gt", "--degrade", "noise(25)", "--csv", table) == 0
    assert "3 of 3 pairs scored" in capsys.readouterr().out
    with table.open() as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["a.jpg", "a.png", "b"]


def test_a_name_that_is_no_utf8_is_scored_like_any_other(pairs: Path) -> None:
    for folder in ("lq", "gt"):
        (pairs / folder / "1.png").rename(pairs / folder / os.fsdecode(b"\xff.png"))
    options = ("--report", pairs / "out", "--csv", pairs / "t.csv", "--save-images", pairs / "made")
    assert evaluated("--lq", pairs / "lq", "--gt", pairs / "gt", *options) == 0
    assert sorted(os.fsencode(path.name) for path in (pairs / "made").iterdir()) == [b"0.png", b"\xff.png"]
    assert b"\xff" in (pairs / "t.csv").read_bytes()
    assert evaluated("--gt", pairs / "gt", "--degrade", "noise(25)") == 0


def test_a_pipe_and_a_bomb_among_the_pairs_are_named_and_the_rest_is_scored(pairs: Path, shared: Path) -> None:
    os.mkfifo(pairs / "lq/2.png")
    shutil.copy(pairs / "gt/0.png", pairs / "gt/2.png")
    assert evaluated("--lq", pairs / "lq", "--gt", pairs / "gt", "--csv", pairs / "t.csv") == 1
    with (pairs / "t.csv").open() as file:
        told = {row["name"]: row["error"] for row in csv.DictReader(file)}
    assert "no regular file" in told["2"] and told["0"] == told["1"] == ""


def test_cells_of_a_table_are_no_formulas() -> None:
    record = {"type": "image", "error": "=x"}
    for name in ("=1+1", "+1", "-1", "@x", "\tx"):
        (_, row) = csv.reader(io.StringIO(to_csv([record | {"name": name}])))
        assert row[0] == "'" + name and row[-1] == "'=x"
    assert to_csv([record | {"name": "a=b"}]).splitlines()[1].startswith("a=b,")


def test_a_run_that_was_tampered_with_is_no_run(pairs: Path, tmp_path: Path) -> None:
    assert evaluated("--lq", pairs / "lq", "--gt", pairs / "gt", "--report", pairs / "out") == 0
    lines = (pairs / "out/run.jsonl").read_text().splitlines()
    good = json.loads(lines[1])
    wrong = [
        {**good, "name": 3}, {**good, "output": None}, {**good, "output": {}},
        {**good, "input": {"psnr": "x", "ssim": 1}},
        {**good, "content": 1}, {**good, "seconds": None}, {**good, "output": {"psnr": [1], "ssim": 1}},
        {**good, "peak_bytes": {}}, {"type": "image", "name": "x", "error": {}}, {k: good[k] for k in ("type", "name")},
    ]  # fmt: skip
    for record in wrong:
        (tmp_path / "bad.jsonl").write_text("\n".join([lines[0], json.dumps(record), lines[2]]) + "\n")
        with pytest.raises(UsageError, match="line 2 is no record"):
            read_run(tmp_path / "bad.jsonl")
    for text in ("[" * 100_000 + "\n" + lines[0], '{"type": "run"}\n', lines[1]):
        (tmp_path / "bad.jsonl").write_text(text)
        assert main(["eval", "--compare", str(tmp_path / "bad.jsonl"), str(pairs / "out")]) == 2
    assert main(["eval", "--compare", str(pairs / "out"), str(pairs / "out")]) == 0
