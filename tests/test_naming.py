"""Patterns as inputs, names by a template, a few pictures only, and a log."""

from __future__ import annotations

import json
import os

import pytest

from irtool.errors import NothingToDoError, UsageError
from irtool.naming import Template, tasks_of
from irtool.picture import find
from irtool.plan import Plan, Step, Upscale
from irtool.targets import Item, make_items, resolve_existing


@pytest.fixture
def tree(photo, tmp_path):
    for name in ("b.jpg", "a.png", "sub/c.JPG", "sub/deep/d.jpg", "sub/.hidden.jpg"):
        photo(tmp_path / "in" / name, size=(4, 5))
    (tmp_path / "in" / "readme.txt").write_text("x")
    return tmp_path / "in"


def found(tree, pattern, **options):
    return [one.relative.as_posix() for one in find([f"{tree}/{pattern}"], **options)]


def test_a_pattern_gives_the_pictures_that_match_and_their_place_below_it(tree):
    assert found(tree, "*") == ["a.png", "b.jpg", "sub/c.JPG"]  # a folder that matches is looked into
    assert found(tree, "**/*.JPG") == ["sub/c.JPG"]
    assert found(tree, "**/*.[jJ][pP][gG]") == ["b.jpg", "sub/c.JPG", "sub/deep/d.jpg"]
    assert found(tree, "sub/**/?.jpg") == ["deep/d.jpg"]
    assert found(tree, "s*", recursive=True) == ["sub/c.JPG", "sub/deep/d.jpg"]


def test_a_pattern_without_a_match_is_nothing_to_do(tree):
    for pattern in ("*.tif", "*.txt", "none/**/*.jpg"):
        with pytest.raises(NothingToDoError, match=r"No picture matches"):
            found(tree, pattern)


def test_a_file_that_is_called_like_a_pattern_is_that_file(tree, photo):
    photo(tree / "[b].jpg", size=(4, 5))
    assert [one.path.name for one in find([f"{tree}/[b].jpg"])] == ["[b].jpg"]


def test_a_pattern_runs_like_a_folder(cli, using, tree, tmp_path):
    arguments = ("restore", "in/**/*.jpg", "-o", "out", "--json")
    done = cli(*arguments, cwd=tmp_path, env=using("rain"))
    assert done.returncode == 0, done.stderr
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")) == [
        "b.jpg", "sub/deep/d.jpg",
    ]  # fmt: skip
    again = json.loads(cli(*arguments, cwd=tmp_path, env=using("rain")).stdout.splitlines()[-1])
    assert again["skipped"] == 2
    done = cli("instruct", "in/sub/*.JPG", "remove the rain", "-o", "out2", cwd=tmp_path, env=using("rain"))
    assert done.returncode == 0 and (tmp_path / "out2" / "c.JPG").is_file()
    assert cli("restore", "in/*.tif", cwd=tmp_path).returncode == 4


@pytest.mark.parametrize(
    "text",
    ["", "x", "{stem}", "{stem}.png", "{ext}{stem}", "{ext}{ext}", "../{stem}{ext}", "a/{stem}{ext}", "a\\{stem}{ext}",
     ".{stem}{ext}", "{stem}\0{ext}", "{stem}:{ext}", "{stem!r}{ext}", "{stem:>9}{ext}", "{stem.parent}{ext}",
     "{0}{ext}", "{}{ext}", "{stem{ext}", "{tasc}{ext}"],
)  # fmt: skip
def test_what_is_no_template_of_names(text):
    with pytest.raises(UsageError):
        Template(text)


def test_a_wrong_field_gets_the_closest():
    with pytest.raises(UsageError) as raised:
        Template("{stem}-{task}{ext}")
    assert "'tasks'" in raised.value.hint


def test_names_and_back():
    both = Template("{stem}-{tasks}{ext}")
    assert both.fill("a", "rain+noise", ".jpg") == "a-rain+noise.jpg"
    names = sorted(["a-rain.jpg", "a-rain+noise+x2.jpg", "a-untouched.jpg", "a-b.jpg", "a-rain.png", "ab-rain.jpg"])
    assert both.matching("a", ".jpg", names) == ["a-rain+noise+x2.jpg", "a-rain.jpg", "a-untouched.jpg"]
    assert both.stem_of("a-rain.jpg") == "a" and both.stem_of("a-b.jpg") is None
    assert Template("{stem}{{1}}{ext}").fill("a", "", ".png") == "a{1}.png"
    assert Template("x{ext}").stem_of("x.png") is None


def test_what_tasks_stand_for():
    steps = (Step({"rain": 1, "noise": 0.5}), Step({"haze": 1}))
    assert sorted(tasks_of(Plan(steps)).split("+")) == ["haze", "noise", "rain"]
    assert tasks_of(Plan((Step({"haze": 1}),), upscale=Upscale(2))) == "haze+x2"
    assert tasks_of(Plan(upscale=Upscale(3))) == "x3" and tasks_of(Plan()) == "untouched"


def items(*inputs, name, output=None, format=None):
    return make_items([str(i) for i in inputs], output=output, recursive=True, format=format, name=name)


def test_names_lie_in_the_folder_or_beside_their_inputs(tree, tmp_path):
    out = f"{tmp_path}/out/"
    assert [i.target.name for i in items(tree, name="{stem}-x{ext}", output=out)] == [
        "a-x.png", "b-x.jpg", "c-x.JPG", "d-x.jpg",
    ]  # fmt: skip
    assert items(tree / "sub" / "c.JPG", name="{stem}-x{ext}")[0].target == tree / "sub" / "c-x.JPG"
    # A file that is named is called so, whatever a lasting preference says of names.
    assert items(tree / "a.png", name="{stem}-{tasks}{ext}", output=str(tmp_path / "x.png"))[0].outputs == (
        tmp_path / "x.png",
    )
    assert items("-", name="{stem}-x{ext}")[0].target is None


def test_outputs_that_would_collide_are_an_error_before_anything_is_written(cli, using, tree, tmp_path):
    for name in ("x{ext}", "{tasks}{ext}"):
        done = cli("restore", tree / "b.jpg", tree / "sub" / "c.JPG", "-o", f"{tmp_path}/out/", "--format", "png",
                   "--name", name, env=using("rain"))  # fmt: skip
        assert done.returncode == 2 and "would both be written" in done.stderr, done.stderr
    with pytest.raises(UsageError, match="never written to"):
        items(tree / "a.png", name="{stem}{ext}")
    assert not (tmp_path / "out").exists()


def test_results_that_a_template_named_are_not_read_as_inputs(tree, photo):
    for name in ("a-rain.png", "b-rain+noise.jpg", "b-sea.jpg"):
        photo(tree / name, size=(4, 5))
    names = [i.source.name for i in items(tree, name="{stem}-{tasks}{ext}")]
    assert names == ["a.png", "b-sea.jpg", "b.jpg", "c.JPG", "d.jpg"]


def test_existing_outputs_are_found_whatever_was_removed(tmp_path):
    template = Template("{stem}-{tasks}{ext}")
    pending = Item(tmp_path / "a.png", tmp_path / "a-tasks.png", "PNG", template=template)
    assert resolve_existing([pending], "skip") == ([pending], [])
    (tmp_path / "a-rain+noise.png").write_bytes(b"")
    assert resolve_existing([pending], "skip") == ([], [pending])
    with pytest.raises(UsageError, match=r"a-rain\+noise\.png exists"):
        resolve_existing([pending], "error")
    with pytest.raises(UsageError, match="rename"):
        resolve_existing([pending], "rename")


def test_outputs_are_named_by_what_was_found_and_a_second_run_skips_them(cli, using, tree, tmp_path):
    arguments = ("restore", tree, "-o", tmp_path / "out", "--name", "{stem}-{tasks}{ext}", "--json")
    for detector, what in (("clean", "untouched"), ("rain", "rain")):
        env = using(detector)
        done = cli(*arguments, "--dry-run", env=env)
        assert f"a-{what}.png" in done.stdout, done.stderr
        done = cli(*arguments, env=env)
        assert done.returncode == 0, done.stderr
        made = sorted(p.name for p in (tmp_path / "out").iterdir())
        assert made == [f"a-{what}.png", f"b-{what}.jpg"]
        told = [json.loads(line) for line in done.stdout.splitlines()]
        assert told[0]["output"] == str(tmp_path / "out" / f"a-{what}.png")
        assert json.loads(cli(*arguments, env=env).stdout.splitlines()[-1])["skipped"] == 2
        for name in made:
            (tmp_path / "out" / name).unlink()


def test_names_of_named_tasks_with_the_pages_beside(cli, using, tree, tmp_path):
    done = cli("restore", tree / "a.png", "--task", "derain,denoise", "--scale", 2,
               "--name", "{tasks}_{stem}{ext}", "--side-by-side", env=using("rain"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = sorted(p.name for p in tree.iterdir() if "_a" in p.name)
    assert len(made) == 2 and made[0].endswith("+x2_a.png") and made[1].endswith("+x2_a.side-by-side.jpg")


def test_a_few_first(cli, using, tree, tmp_path):
    arguments = ("restore", tree, "-r", "-o", tmp_path / "out", "--limit", 2, "--json")
    for done, skipped in ((2, 0), (2, 2), (0, 4)):
        told = json.loads(cli(*arguments, env=using("rain")).stdout.splitlines()[-1])
        assert (told["restored"], told["skipped"]) == (done, skipped)
    assert cli("restore", tree, "--limit", 0).returncode == 2


def test_a_log_keeps_what_is_said_and_what_is_not(cli, using, tree, tmp_path):
    (tree / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    log = tmp_path / "run.log"
    for _ in range(2):
        done = cli("restore", tree, "-o", tmp_path / "out", "--log", log, "-q", env=using("rain"))
        assert done.returncode == 1 and done.stdout == ""
    lines = log.read_text().splitlines()
    assert all(line[:2] == "20" and "+00:00 " in line for line in lines)
    text = log.read_text()
    assert "a.png: undid rain" in text and "error: " in text and "broken.jpg" in text
    assert "exists already, skipped" in text  # of the second run, which went on below the first


def test_a_log_is_no_picture_and_no_output(cli, using, tree, tmp_path):
    before = (tree / "a.png").read_bytes()
    done = cli("restore", tree / "b.jpg", "--log", tree / "a.png", env=using("rain"))
    assert done.returncode == 2 and "is a picture" in done.stderr
    done = cli("restore", tree / "b.jpg", "-o", tmp_path / "x.jpg", "--log", tmp_path / "x.jpg", env=using("rain"))
    assert done.returncode == 2 and "would both be written" in done.stderr and not (tmp_path / "x.jpg").exists()
    done = cli("restore", tree / "b.jpg", "--log", tmp_path / "none" / "x.log", env=using("rain"))
    assert done.returncode == 1 and "--log" in done.stderr
    assert (tree / "a.png").read_bytes() == before
    os.mkfifo(tmp_path / "pipe")
    assert cli("restore", tree / "b.jpg", "--log", tmp_path / "pipe", env=using("rain"), timeout=60).returncode == 1
