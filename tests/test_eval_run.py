"""Runs, their figures, their page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from irtool.data import between, clean, get_protocol
from irtool.errors import UsageError
from irtool.evaluation import EvalRequest, compare, evaluate, header, interval, read_run, report, summarize, summary
from irtool.evaluation.published import rows, rows_of
from irtool.evaluation.report import Report, picks, render, to_csv
from irtool.metrics.extra import Blur
from irtool.plan import plan_tasks
from irtool.synth import parse

Photo = Callable[..., Path]


@pytest.fixture
def pairs(tmp_path: Path, photo: Photo) -> Path:
    """Three pairs, ever further apart; a fourth of two sizes, a fifth without a truth, a sixth that is no picture."""
    from PIL import Image

    for i in range(3):
        truth = photo(tmp_path / "gt" / f"{i}.png", seed=i)
        pixels = np.asarray(Image.open(truth)).astype(int) + 4 * (i + 1)
        (tmp_path / "lq").mkdir(exist_ok=True)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(tmp_path / "lq" / f"{i}.png")
    photo(tmp_path / "lq" / "3.png", size=(30, 30))
    photo(tmp_path / "gt" / "3.png", size=(30, 31))
    photo(tmp_path / "lq" / "4.png")
    (tmp_path / "lq" / "5.png").write_bytes(b"no picture")
    photo(tmp_path / "gt" / "5.png")
    return tmp_path


def request_of(folder: Path, **changes: object) -> EvalRequest:
    found = between(folder / "lq", [folder / "gt"])
    return replace(EvalRequest(found, get_protocol("canonical"), "none"), **changes)  # type: ignore[arg-type]


def test_broken_pairs_are_named_and_in_no_mean(pairs: Path) -> None:
    records = list(evaluate(request_of(pairs)))
    assert [record["name"] for record in records] == list("012345")
    errors = {record["name"]: record["error"] for record in records if "error" in record}
    assert set(errors) == {"3", "4", "5"}
    assert "30x30 against 31x30" in errors["3"]
    assert "no truth" in errors["4"]
    summary = summarize(records)
    assert (summary["pairs"], summary["scored"], summary["failed"]) == (6, 3, 3)
    assert summary["failed_names"] == ["3", "4", "5"]
    expected = [20 * np.log10(255 / (4 * (i + 1))) for i in range(3)]
    assert summary["input"]["psnr"]["mean"] == pytest.approx(np.mean(expected), abs=1e-4)
    assert summary["output"] == summary["input"]


def test_equal_pictures_are_counted_apart(tmp_path: Path, photo: Photo) -> None:
    for name in ("a", "b"):
        photo(tmp_path / "lq" / f"{name}.png", seed=1)
        photo(tmp_path / "gt" / f"{name}.png", seed=1 if name == "a" else 2)
    records = list(evaluate(request_of(tmp_path)))
    assert records[0]["output"]["psnr"] is None
    json.dumps(records, allow_nan=False)
    told = summarize(records)["output"]["psnr"]
    assert (told["n"], told["infinite"]) == (1, 1)
    assert told["mean"] == records[1]["output"]["psnr"]


def test_a_model_is_run_and_scored(pairs: Path, models_dir: Path) -> None:
    from irtool import api, metrics
    from irtool.picture import read

    model = f"local:{models_dir / 'restorer.safetensors'}"
    request = request_of(pairs, model=model, plan=plan_tasks(["rain"], 1.0, model), device="cpu", extras=[Blur()])
    record = next(evaluate(request))
    restored = api.restore(pairs / "lq/0.png", tasks="rain", model=model, dtype="fp32").picture.pixels
    truth, image = (metrics.to_8bit(x) for x in (read(pairs / "gt/0.png").pixels, restored))
    assert record["output"]["psnr"] == pytest.approx(metrics.psnr(truth, image), abs=1e-6)
    assert record["output"]["ssim"] == pytest.approx(metrics.ssim(truth, image), abs=1e-6)
    assert 0 < record["output"]["blur"] < 1
    assert record["seconds"] > 0
    assert record["tiles"] == 1
    four = api.restore(pairs / "lq/0.png", tasks="rain", model=model, dtype="fp32", ensemble=True).picture.pixels
    assert not np.array_equal(four, restored)
    record = next(evaluate(replace(request, ensemble=True)))
    assert record["output"]["psnr"] == pytest.approx(metrics.psnr(truth, metrics.to_8bit(four)), abs=1e-6)
    assert header(replace(request, ensemble=True)) == header(request) | {"ensemble": True}


def test_degraded_pictures_are_made_alike_every_time(tmp_path: Path, photo: Photo) -> None:
    for i in range(3):
        photo(tmp_path / "gt" / f"{i}.png", seed=i)
    made = replace(
        EvalRequest(clean([tmp_path / "gt"]), get_protocol("promptir"), "none"), degrade=parse("noise(25)"), dataset="x"
    )
    first = [record["input"]["psnr"] for record in evaluate(made)]
    done = {record["name"]: record for record in evaluate(made) if record["name"] == "0"}
    # One stream runs through all pictures: what is passed over must still be drawn.
    assert [record["input"]["psnr"] for record in evaluate(made, done)] == first
    assert 19 < np.mean(first) < 22


def test_the_head_says_all_that_must_agree(pairs: Path, models_dir: Path) -> None:
    model = f"local:{models_dir / 'restorer.safetensors'}"
    head = header(request_of(pairs, model=model, plan=plan_tasks(["rain"], 1.0, model), device="cpu"))
    json.dumps(head, allow_nan=False)
    assert head["protocol"]["id"] == "canonical"
    assert re.fullmatch("[0-9a-f]{64}", head["listing"])
    assert re.fullmatch("[0-9a-f]{64}", head["weights"]["loaded_sha256"])
    assert head["versions"]["torch"][0].isdigit()
    assert head["network"]["architecture"] == "compact" and head["network"]["parameters"] > 1000
    assert (head["dtype"], head["tile"], head["seed"], head["device"][:3]) == ("float32", "auto", 0, "cpu")
    (pairs / "lq/0.png").write_bytes((pairs / "lq/1.png").read_bytes() + b"\0")
    assert header(request_of(pairs))["listing"] != head["listing"]


def test_bootstrap_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        low, high = interval(list(rng.normal(30, 2, 40)), draws=300)
        held += low <= 30 <= high
    assert 176 <= held <= 199  # 95 % of 200 is 190; four standard deviations are 12
    assert interval([3.0, 3.0]) == (3.0, 3.0)


def test_bootstrap_takes_little_memory_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    values = list(np.random.default_rng(1).normal(30, 2, 101))
    whole = interval(values)
    monkeypatch.setattr(summary, "BOOTSTRAP_CHUNK", 1000)
    assert interval(values) == whole


def test_a_page_holds_the_run(pairs: Path, tmp_path: Path) -> None:
    request, folder = request_of(pairs), tmp_path / "out"
    page = Report(folder, header(request))
    request = replace(request, keep=page.keep)
    records = list(evaluate(request))
    for record in records:
        page.add(record)
    target = page.finish(records, summarize(records), title="<b>mine</b>", notes=["broken: 3"], rows=rows_of("lol"))
    text = target.read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:)[^"]+"|https?://(?!www\.w3\.org)[^" ]*\.(?:js|css)', text)
    data = json.loads(text.split('<script id="data" type="application/json">')[1].split("</script>")[0])
    assert data["title"] == "<b>mine</b>"
    assert len(data["images"]) == 6
    assert [pick["role"] for pick in data["picks"]] == ["worst", "median", "best"]
    assert [pick["name"] for pick in data["picks"]] == ["2", "1", "0"]
    assert all(
        pick[kind].startswith("data:image/jpeg;base64,") for pick in data["picks"] for kind in ("before", "truth")
    )
    assert data["notes"] == ["broken: 3"]
    assert sorted(path.name for path in folder.iterdir()) == ["index.html", "run.jsonl"]
    head, kept = read_run(folder)
    assert head == header(request)
    assert kept == records


def test_a_large_set_leaves_few_copies_and_the_same_page(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "COPIES", 1)
    request, folder = request_of(pairs), tmp_path / "out"
    page = Report(folder, header(request))
    records = []
    for record in evaluate(replace(request, keep=page.keep)):
        page.add(record)
        records.append(record)
    assert page.missing_pictures(records) == ["1"]  # the median; the worst and the best are there
    assert len(list((folder / report.SHOWN).iterdir())) == 6
    rest = {r["name"]: r for r in records if r["name"] != "1"}
    for _ in evaluate(replace(request, keep=page.keep), rest):
        pass
    text = page.finish(records, summarize(records), title="few").read_text(encoding="utf-8")
    assert text.count("data:image/jpeg;base64") == 9


def test_what_a_page_is_told_cannot_end_it() -> None:
    text = render({"title": "</script><script>alert(1)</script>"})
    assert "</script><script>alert" not in text


def test_a_run_goes_on_where_it_stopped(pairs: Path, tmp_path: Path) -> None:
    request, folder = request_of(pairs), tmp_path / "out"
    page = Report(folder, header(request))
    records = list(evaluate(request))
    page.add(records[0])
    with (folder / "run.jsonl").open("a") as file:
        file.write('{"type": "image", "na')  # killed while it wrote
    with pytest.raises(UsageError, match="holds a run already"):
        Report(folder, header(request))
    with pytest.raises(UsageError, match="protocol"):
        Report(folder, header(replace(request, protocol=get_protocol("rain-y"))), resume=True)
    again = Report(folder, header(request), resume=True)
    assert list(again.done) == ["0"]
    begun: list[str] = []
    more = list(evaluate(replace(request, keep=again.keep), again.done, begun.append))
    assert begun == ["1", "2"]
    assert [r["output"] for r in more[:3]] == [r["output"] for r in records[:3]]
    for record in more:
        again.add(record)
    assert [r["name"] for r in read_run(folder)[1]] == list("012345")
    assert again.missing_pictures(more) == ["0"]


def test_the_worst_median_and_best_are_picked() -> None:
    made = [{"name": str(v), "output": {"psnr": v}} for v in (30.0, None, 10.0, 20.0)]
    assert [(role, r["name"]) for role, r in picks([*made, {"name": "x", "error": "no"}])] == [
        ("worst", "10.0"), ("median", "20.0"), ("best", "None"),
    ]  # fmt: skip
    assert [role for role, _ in picks(made[:1])] == ["worst"]
    assert picks([]) == []


def test_two_runs_are_compared_picture_by_picture(pairs: Path) -> None:
    records = list(evaluate(request_of(pairs)))
    head = header(request_of(pairs))
    better = [
        r if "error" in r else r | {"output": {"psnr": r["output"]["psnr"] + d, "ssim": r["output"]["ssim"]}}
        for r, d in zip(records, (1.0, 2.0, -0.5, 0, 0, 0), strict=True)
    ]
    told = compare((head, records), (head | {"seed": 3}, better[1:]))
    assert told["differ"] == ["seed"]
    assert (told["pictures"], told["alone"]) == (2, [1, 0])
    psnr = told["metrics"]["psnr"]
    assert psnr["difference"]["mean"] == pytest.approx(0.75)
    assert (psnr["higher"], psnr["lower"]) == (1, 1)
    assert psnr["difference"]["low"] <= 0.75 <= psnr["difference"]["high"]
    with pytest.raises(UsageError, match="share no picture"):
        compare((head, records), (head, []))


def test_nothing_scored_is_a_page_all_the_same(pairs: Path, tmp_path: Path) -> None:
    request = request_of(pairs)
    broken = [r for r in evaluate(request) if "error" in r]
    summary = summarize(broken, {"fid": None})
    assert (summary["scored"], "output" in summary) == (0, False)
    page = Report(tmp_path / "out", header(request))
    assert page.finish(broken, summary, title="none", rows=rows_of("lol")).stat().st_size > 10_000


def test_a_table_has_a_line_per_picture(pairs: Path) -> None:
    lines = to_csv(list(evaluate(request_of(pairs)))).splitlines()
    assert lines[0] == "name,input_psnr,input_ssim,output_psnr,output_ssim,width,height,seconds,content,error"
    assert len(lines) == 7
    assert lines[5].startswith("4,,,,,,,,,no truth")


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    for text, said in (("", "is no run"), ("{}\n{}\n", "is no run"), ("{\n{}\n", "line 1 is no JSON")):
        path.write_text(text)
        with pytest.raises(UsageError, match=said):
            read_run(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_run(tmp_path / "none")


def test_published_rows_are_of_known_sets_and_say_where_they_are_from() -> None:
    from irtool.data import PROTOCOLS, datasets

    names = {known.name for known in datasets()}
    for row in rows():
        assert row.dataset in names
        assert row.protocol in PROTOCOLS or row.protocol in ("rgb", "y", "unknown")
        assert row.source
        assert row.evidence in ("page", "figure", "memory")
        assert row.psnr is not None and 5 < row.psnr < 50
    assert {row.method for row in rows_of("cbsd68", "noise(sigma=25)")} >= {"FFDNet", "CDnCNN"}
    assert all(row.psnr and row.psnr > 30 for row in rows_of("cbsd68", "noise(25)") if row.method == "FFDNet")
    shown = [row.psnr for row in rows_of("lol")]
    assert shown == sorted(shown, reverse=True)
