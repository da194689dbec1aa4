"""irtool instruct through the real executable, with tiny models and the text model that ships."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from irtool.errors import UsageError


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def steps(record: dict) -> list[tuple[dict, float]]:
    return [(s["mixture"], s["strength"]) for s in record["plan"]["steps"]]


def test_what_is_said_is_done(cli, using, photo, tmp_path):
    source = photo(tmp_path / "a.png")
    before = source.read_bytes()
    said = "remove the rain and brighten it slightly, but keep the grain"
    done = cli("instruct", source, said, "--json", env=using("clean"))
    assert done.returncode == 0, done.stderr
    image, summary = lines(done.stdout)
    assert image["status"] == "restored" and image["diagnosis"] is None  # named, so nothing was looked for
    assert steps(image) == [({"lowlight": 1.0}, 0.5), ({"rain": 1.0}, 1.0)]
    assert image["plan"]["keep"] == ["noise"] and "order that works best" in image["plan"]["reason"]
    assert image["instruction"][0]["text"] == said and image["instruction"][0]["keep"] == ["noise"]
    assert summary["restored"] == 1 and source.read_bytes() == before
    assert not np.array_equal(np.asarray(Image.open(tmp_path / "a.restored.png")), np.asarray(Image.open(source)))


def test_sentences_in_order_and_an_order_within_one(cli, photo, tmp_path):
    source = photo(tmp_path / "a.png")
    done = cli("instruct", source, "sharpen it", "remove the noise", "--dry-run", "--json")
    assert [list(m) for m, _ in steps(lines(done.stdout)[0])] == [["blur"], ["noise"]]
    done = cli("instruct", source, "first deblur, then denoise", "--dry-run")
    assert "undo blur" in done.stdout and ", then undo noise" in done.stdout and "in the order said" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png"]


def test_a_general_wish_is_auto_without_what_is_to_stay(cli, using, photo, tmp_path):
    source = photo(tmp_path / "a.png")
    done = cli("instruct", source, "make it look better but keep the grain", "--dry-run", "--json", env=using("mixed"))
    assert done.returncode == 0, done.stderr
    image = lines(done.stdout)[0]
    assert set(image["diagnosis"]["present"]) == {"rain", "noise", "jpeg", "haze"}
    assert [set(m) for m, _ in steps(image)] == [{"rain", "jpeg", "haze"}]
    done = cli("instruct", source, "fix this", env=using("clean"))
    assert (tmp_path / "a.restored.png").read_bytes() == source.read_bytes() and "clean" in done.stdout


def test_a_question_is_answered_and_nothing_written(cli, using, photo, tmp_path):
    source = photo(tmp_path / "a.png")
    done = cli("instruct", source, "is it rainy?", "--json", env=using("rain"))
    image, summary = lines(done.stdout)
    assert image["plan"]["reason"].startswith("rain: yes")
    assert image["status"] == "answered" and "output" not in image and image["diagnosis"]["present"] == ["rain"]
    assert summary["answered"] == 1 and summary["restored"] == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png"]


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("make me younger", "does not alter people"),
        ("upscale 4x", "enlarges"),
        ("remove the rain and upscale it", "rain can be undone"),
        ("xqzt vbnm", ""),
    ],
)
def test_what_irtool_cannot_do_is_said_before_anything_is_touched(cli, photo, tmp_path, said, answer):
    source = photo(tmp_path / "a.png")
    done = cli("instruct", source, said)
    assert done.returncode == 2 and answer in done.stderr and "Traceback" not in done.stderr and done.stdout == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png"]


def test_folders_and_stdin(cli, using, photo, tmp_path):
    for name in ("a.png", "sub/b.jpg"):
        photo(tmp_path / "in" / name)
    arguments = ("instruct", tmp_path / "in", "去雨", "-r", "-o", tmp_path / "out", "--json")
    assert lines(cli(*arguments, env=using("clean")).stdout)[-1]["restored"] == 2
    with (tmp_path / "in" / "a.png").open("rb") as stdin:
        done = cli("instruct", "-", "quita la lluvia", stdin=stdin, env=using("clean"), text=False)
    assert done.returncode == 0 and done.stdout[:4] == b"\x89PNG" and b"undid rain" in done.stderr


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_list_of_instructions(cli, using, photo, tmp_path, kind):
    photo(tmp_path / "in" / "a.png")
    photo(tmp_path / "in" / "b.png")
    listed = tmp_path / f"list.{kind}"
    if kind == "csv":
        listed.write_text('picture,instruction\nin/a.png,"remove the rain, please"\nin/b.png,is it dark?\n')
    else:
        rows = [
            {"picture": "in/a.png", "instruction": ["remove the rain"]},
            {"picture": "in/b.png", "instruction": "is it dark?"},
        ]
        listed.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    if kind == "jsonl":  # the reading is what differs
        planned = lines(cli("instruct", "--from", listed, "--dry-run", "--json", env=using("clean")).stdout)
        assert {Path(i["input"]).name: i["status"] for i in planned[:-1]} == {"a.png": "planned", "b.png": "answered"}
        return
    done = cli("instruct", "--from", listed, "-o", tmp_path / "out", "--json", env=using("clean"))
    assert done.returncode == 0, done.stderr
    *images, summary = lines(done.stdout)
    assert summary["restored"] == 1 and summary["answered"] == 1
    assert {Path(i["input"]).name: i["status"] for i in images} == {"a.png": "restored", "b.png": "answered"}
    assert [p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*.png")] == [Path("in/a.png")]


def test_results_of_a_list_lie_as_the_pictures_do(cli, photo, tmp_path):
    for name in ("list/x/a.png", "list/y/a.png", "other/c.png"):
        photo(tmp_path / name)
    rows = [f"{name},denoise" for name in ("x/a.png", "y/a.png", "../other/c.png")]
    (tmp_path / "list" / "list.csv").write_text("\n".join(["picture,instruction", *rows]))
    done = cli("instruct", "--from", "list/list.csv", "-o", "out", "--dry-run", "--json", cwd=tmp_path)
    assert [i["output"] for i in lines(done.stdout)[:-1]] == ["out/x/a.png", "out/y/a.png", "out/c.png"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("picture,instruction\na.png,\n", "line 2"),
        ("file,text\na.png,denoise\n", "line 2"),
        ("picture,instruction\n", "no pictures"),
        ("picture,instruction\na.png,make me younger\n", "does not alter people"),
    ],
)
def test_a_wrong_list_is_turned_away(cli, photo, tmp_path, text, told):
    photo(tmp_path / "a.png")
    (tmp_path / "list.csv").write_text(text)
    done = cli("instruct", "--from", tmp_path / "list.csv")
    assert done.returncode == 2 and told in done.stderr


@pytest.mark.parametrize(
    "arguments", [[], ["a.png"], ["denoise"], ["denoise", "a.png"], ["a.png", "denoise", "--text-model", "x"]]
)
def test_usage(cli, photo, tmp_path, arguments):
    photo(tmp_path / "a.png")
    done = cli("instruct", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and "hint:" in done.stderr


def test_a_missing_picture_is_no_sentence(cli, tmp_path):
    done = cli("instruct", tmp_path / "no.png", "denoise", "--dry-run")
    assert done.returncode == 1 and "no.png does not exist" in done.stderr


@pytest.fixture
def moire(models_dir, tmp_path):
    """Offsets of a task "moire" for the tiny restorer, which change what it makes."""
    import torch

    from irtool.models import loading, lora

    torch.manual_seed(0)
    net = loading.read(models_dir / "restorer.safetensors")[0]
    net.merge({"jpeg": 1.0})  # type: ignore[operator]
    made = lora.LoRAModel(net, ["middle.blocks.0.expand.weight", "middle.blocks.0.narrow.weight"], rank=2)
    for up in made.up:
        torch.nn.init.normal_(up, std=0.5)
    path = tmp_path / "my.safetensors"
    lora.save(made, path, tasks=["moire"], base="tiny", notes={"like": "jpeg"})
    return path


def test_a_task_of_ones_own_by_a_word(cli, using, photo, moire, tmp_path):
    source, env = photo(tmp_path / "a.png"), using("clean")
    said = "remove the moire and then the noise"
    done = cli("instruct", source, said, "--offsets", moire, "--json", env=env)
    assert done.returncode == 0, done.stderr
    found = lines(done.stdout)[0]["plan"]["steps"]
    assert [(s["mixture"], s.get("offsets")) for s in found] == [({"jpeg": 1.0}, str(moire)), ({"noise": 1.0}, None)]
    other = ("take out the wobble", "--offsets", f"wobble={moire}", "--dry-run", "--existing", "overwrite")
    by_another_word = cli("instruct", source, *other)
    assert f"undo jpeg with {moire}" in by_another_word.stdout
    for wrong in (f"={moire}", "moire=nothing.safetensors"):
        done = cli("instruct", source, said, "--offsets", wrong, "--dry-run")
        assert done.returncode in (2, 3) and "hint:" in done.stderr and "Traceback" not in done.stderr
    done = cli("instruct", source, said, "--offsets", moire, "--offsets", moire)
    assert done.returncode == 2 and "named twice" in done.stderr
    import irtool

    model = env["IRTOOL_MODEL"]
    plain = irtool.restore(source, tasks="jpeg", model=model).picture.pixels
    own = irtool.instruct(source, "remove the wobble", adapters={"wobble": moire}, model=model)
    assert np.abs(own.picture.pixels - plain).max() > 1 / 255 and own.plan.steps[0].adapter == str(moire)
    np.testing.assert_array_equal(irtool.restore(source, tasks="jpeg", model=model).picture.pixels, plain)


def test_words_are_understood_without_torch(environment, tmp_path):
    code = (
        "import sys, irtool.language as l; w = l.parse('remove the noise')[0]; "
        "assert dict(w.tasks) == {'noise': 1.0}; l.plan_intents([w]); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_a_list_of_any_spreadsheet_is_read(tmp_path, mark, start):
    from irtool.cli.instruct import read_list

    rows = [("picture", "instruction"), ("a.png", "remove the rain"), ("a.png", '"is it, or; is it dark?"')]
    (tmp_path / "list.csv").write_bytes(start + "\r\n".join(mark.join(row) for row in rows).encode())
    assert read_list(tmp_path / "list.csv") == {tmp_path / "a.png": ["remove the rain", "is it, or; is it dark?"]}


def test_a_list_nested_too_deeply_is_named(tmp_path):
    from irtool.cli.instruct import read_list

    (tmp_path / "list.jsonl").write_text("[" * 100_000)
    with pytest.raises(UsageError, match=r"list\.jsonl, line 1"):
        read_list(tmp_path / "list.jsonl")


def test_a_list_that_is_no_file_is_refused_at_once(tmp_path):
    from irtool.cli.instruct import read_list

    os.mkfifo(tmp_path / "list.csv")
    with pytest.raises(UsageError, match="no regular file"):
        read_list(tmp_path / "list.csv")
