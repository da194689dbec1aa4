"""Which output each input gets, settled before any work; in process, since nothing is computed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from irtool.errors import NothingToDoError, PictureError, UsageError
from irtool.targets import Item, gather, make_folder, make_items, resolve_existing


def jobs(*inputs, output=None, recursive=False, format=None, side_by_side=False):
    made = make_items(
        [str(i) for i in inputs],
        output=None if output is None else str(output),
        recursive=recursive,
        format=format,
        side_by_side=side_by_side,
    )
    return [(j.source, j.target, j.format) for j in made]


@pytest.fixture
def tree(photo, tmp_path):
    for name in ("b.jpg", "a.png", "sub/c.webp", "sub/deep/d.tif"):
        photo(tmp_path / "in" / name, size=(4, 5))
    (tmp_path / "in" / "readme.txt").write_text("x")
    return tmp_path / "in"


def test_a_result_lies_beside_its_input(tree):
    assert jobs(tree / "a.png") == [(tree / "a.png", tree / "a.restored.png", "PNG")]
    assert jobs(tree / "a.png", format="jpg") == [(tree / "a.png", tree / "a.restored.jpg", "JPEG")]


def test_an_output_is_a_file_or_a_folder(tree, tmp_path):
    source = tree / "b.jpg"
    assert jobs(source, output=tmp_path / "x.png") == [(source, tmp_path / "x.png", "PNG")]
    assert jobs(source, output=f"{tmp_path}/new/") == [(source, tmp_path / "new" / "b.jpg", "JPEG")]
    assert jobs(source, output=tmp_path) == [(source, tmp_path / "b.jpg", "JPEG")]
    assert jobs(source, output=tmp_path / "x", format="png") == [(source, tmp_path / "x", "PNG")]


def test_a_folder_is_mirrored_in_sorted_order(tree, tmp_path):
    out = tmp_path / "out"
    assert [t for _, t, _ in jobs(tree, output=out)] == [out / "a.png", out / "b.jpg"]
    targets = [t for _, t, _ in jobs(tree, output=out, recursive=True)]
    assert targets == [out / "a.png", out / "b.jpg", out / "sub/c.webp", out / "sub/deep/d.tif"]


def test_content_decides_the_format_not_the_name(tree):
    (tree / "a.png").rename(tree / "wrong.jpg")
    assert jobs(tree / "wrong.jpg") == [(tree / "wrong.jpg", tree / "wrong.restored.png", "PNG")]
    (tree / "a.gif").write_bytes(b"GIF89a")  # read, not written
    assert jobs(tree / "a.gif") == [(tree / "a.gif", tree / "a.restored.png", "PNG")]


def test_results_are_not_read_as_inputs(tree, photo):
    for name in ("a.restored.png", "b.restored-2.jpg", "b.restored.side-by-side.jpg", "out/a.png"):
        photo(tree / name, size=(4, 5))
    names = [found.path.name for found in gather([str(tree)], recursive=True, output=tree / "out")]
    assert names == ["a.png", "b.jpg", "c.webp", "d.tif"]
    # Named, a result is an input like any other.
    assert len(jobs(tree / "a.restored.png")) == 1


def test_stdin_and_stdout(tree, tmp_path):
    assert jobs("-") == [(None, None, None)]
    assert jobs("-", output="-", format="jpg") == [(None, None, "JPEG")]
    assert jobs("-", output=tmp_path / "x.png") == [(None, tmp_path / "x.png", "PNG")]
    assert jobs(tree / "a.png", output="-") == [(tree / "a.png", None, None)]
    for wrong in (("-", tree / "a.png"), ("-", "-")):
        with pytest.raises(UsageError):
            jobs(*wrong)
    with pytest.raises(UsageError, match="one picture"):
        jobs(tree, output="-")


def test_a_before_and_after_picture_lies_beside_the_result(tree):
    made = make_items([str(tree / "a.png")], output=None, recursive=False, format=None, side_by_side=True)
    assert made[0].side == tree / "a.restored.side-by-side.jpg"
    with pytest.raises(UsageError):
        jobs("-", side_by_side=True)


def test_two_inputs_do_not_share_an_output(tree, photo, tmp_path):
    other = photo(tmp_path / "other" / "a.png", size=(4, 5))
    with pytest.raises(UsageError, match="both"):
        jobs(tree / "a.png", other, output=tmp_path / "out")
    # Nor through a folder that has two names.
    (tmp_path / "link").symlink_to(tmp_path / "other")
    with pytest.raises(UsageError, match="both"):
        jobs(tmp_path / "other" / "a.png", tmp_path / "link" / "a.png")


def test_an_output_is_never_an_input(tree, tmp_path):
    (tmp_path / "link.png").symlink_to(tree / "a.png")
    os.link(tree / "a.png", tmp_path / "hard.png")
    for output in (tree / "a.png", tmp_path / "link.png", tmp_path / "hard.png"):
        with pytest.raises(UsageError, match="never written to"):
            jobs(tree / "a.png", output=output)
    with pytest.raises(UsageError, match="input folder"):
        jobs(tree, output=tree)
    # Another input counts too, not only its own.
    with pytest.raises(UsageError, match="never written to"):
        jobs(tree, tree / "sub" / "c.webp", output=tree / "sub")


def test_outputs_that_do_not_fit_are_turned_away(tree):
    for wrong in (
        {"output": tree / "b.jpg"},  # a file for a folder
        {"output": tree.parent / "x", "format": "nothing"},
    ):
        with pytest.raises(UsageError):
            jobs(tree, **wrong)
    for wrong in ({"output": "x.xyz"}, {"output": "x"}, {"output": "x.png", "format": "jpg"}):
        with pytest.raises(UsageError):
            jobs(tree / "a.png", **wrong)


def test_a_folder_without_pictures_is_nothing_to_do(tree):
    (tree / "empty").mkdir()
    with pytest.raises(NothingToDoError):
        jobs(tree / "empty")
    for name in ("a.png", "b.jpg"):
        (tree / name).unlink()
    with pytest.raises(NothingToDoError) as raised:
        jobs(tree)
    assert "`recursive`" in raised.value.hint


def test_what_is_not_there_is_left_to_the_run(tree, tmp_path):
    assert [s for s, _, _ in jobs(tree / "a.png", tree / "none.jpg", output=tmp_path / "out")] == [
        tree / "a.png",
        tree / "none.jpg",
    ]


@pytest.fixture
def two(tmp_path):
    made = [Item(Path(n), tmp_path / n, None, tmp_path / f"{n}.side.jpg") for n in ("a.png", "b.png")]
    (tmp_path / "a.png").write_bytes(b"")
    return made


def test_existing_outputs(two, tmp_path):
    assert resolve_existing(two, "overwrite") == (two, [])
    assert resolve_existing(two, "skip") == (two, [])  # the first lacks the page beside it still
    for path in two[0].outputs:
        path.write_bytes(b"")
    assert resolve_existing(two, "skip") == (two, [])  # empty files, as a power cut leaves them, are no results
    for path in two[0].outputs:
        path.write_bytes(b"x")
    assert resolve_existing(two, "skip") == ([two[1]], [two[0]])
    with pytest.raises(UsageError, match=r"a\.png exists"):
        resolve_existing(two, "error")
    (tmp_path / "a-2.png").write_bytes(b"")
    renamed, skipped = resolve_existing(two, "rename")
    assert [j.target.name for j in renamed] == ["a-3.png", "b.png"] and skipped == []
    assert renamed[0].side.name.startswith("a-3.")


def test_new_names_do_not_meet(tmp_path):
    for name in ("a.png", "a-2.png"):
        (tmp_path / name).write_bytes(b"")
    both = [Item(Path("x"), tmp_path / "a.png", None), Item(Path("y"), tmp_path / "a-2.png", None)]
    names = [j.target.name for j in resolve_existing(both, "rename")[0]]
    assert names == ["a-3.png", "a-2-2.png"]


def test_links_that_lead_in_a_circle_stop_nothing(tree, tmp_path):
    out = tree / "out"
    out.mkdir()
    for link in (tree / "round.png", out / "round.png", tmp_path / "round"):
        link.symlink_to(link.name)
    names = [target.name for _, target, _ in jobs(tree, output=out)]
    assert "round.png" in names and len(names) > 1  # named as what it is when it is read
    assert jobs(tree / "a.png", output=tmp_path / "round" / "a.png")
    with pytest.raises(PictureError, match="cannot be created"):
        make_folder(tmp_path / "round" / "below")


def test_a_folder_that_cannot_be_made_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PictureError, match="cannot be created"):
        make_folder(tmp_path / "file" / "below")
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(stat.S_IRUSR | stat.S_IXUSR)
    if not os.access(locked, os.W_OK):  # root may write anywhere
        with pytest.raises(PictureError, match="cannot be written"):
            make_folder(locked)


def test_a_page_that_exists_is_not_overwritten(tree):
    side = tree / "a.restored.side-by-side.jpg"
    side.write_bytes(b"mine")
    (item,) = make_items([str(tree / "a.png")], output=None, recursive=False, format=None, side_by_side=True)
    with pytest.raises(UsageError, match=r"side-by-side\.jpg exists already"):
        resolve_existing([item], "error")
    assert resolve_existing([item], "skip") == ([item], [])  # its result is not there yet; the page is left as it is
    (renamed,), _ = resolve_existing([item], "rename")
    assert renamed.side != side and renamed.target.name == "a.restored-2.png"


def test_a_picture_that_is_called_like_a_result_is_one_where_nothing_else_is(tree, photo):
    for name in ("old.restored.png", "b.restored.degraded.jpg"):
        photo(tree / name, size=(4, 5))
    names = [found.path.name for found in gather([str(tree)], recursive=False)]
    assert names == ["a.png", "b.jpg", "old.restored.png"]  # b.jpg is there, so its own is a result


def test_a_mask_is_not_written_over(tree):
    with pytest.raises(UsageError, match="never written to"):
        make_items(
            [str(tree / "a.png")], output=str(tree / "b.jpg"), recursive=False, format=None, others=(tree / "b.jpg",)
        )


def test_a_pipe_is_not_read_to_name_its_output(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    # Opening it would block: nobody writes.
    assert jobs(tmp_path / "pipe", output=f"{tmp_path}/out/") == [
        (tmp_path / "pipe", tmp_path / "out" / "pipe.png", "PNG")
    ]


def test_messages_name_parameters_and_the_command_line_flags(tree):
    from irtool.cli.output import in_flags

    with pytest.raises(UsageError) as raised:
        jobs(tree, output="-")
    assert "`output`" in raised.value.message and in_flags(raised.value.message).startswith("-o - takes one picture")
    assert in_flags("Raise `max_memory`; `tile` 3 is `dtype`.") == "Raise --max-memory; --tile 3 is --dtype."


def test_inputs_that_would_share_an_output_are_told_apart_by_their_suffix(tree, photo, tmp_path):
    photo(tree / "a.jpg", size=(4, 5))
    out = tmp_path / "out"
    names = [t.name for _, t, _ in jobs(tree, output=out, format="png", recursive=True)]
    assert names == ["a.jpg.png", "a.png.png", "b.png", "c.png", "d.png"]
    photo(tree / "a.jpg.png", size=(4, 5))  # called as one of them would be
    names = [t.name for _, t, _ in jobs(tree, output=out, format="png", recursive=True)]
    assert sorted(names) == ["a.jpg.jpg.png", "a.jpg.png.png", "a.png.png", "b.png", "c.png", "d.png"]
    # Two of one name from two folders still need a word from the user.
    with pytest.raises(UsageError, match="would both be written"):
        jobs(tree / "a.png", photo(tmp_path / "other" / "a.png", size=(4, 5)), output=f"{out}/")


def test_names_that_differ_by_case_clash_where_the_file_system_folds_it(tree, photo, tmp_path, monkeypatch):
    from irtool import targets

    photo(tree / "A.PNG", size=(4, 5))
    assert len({target for _, target, _ in jobs(tree, output=tmp_path / "out")}) == 3
    monkeypatch.setattr(targets, "_folds_case", lambda folder: True)
    with pytest.raises(UsageError, match="would both be written"):
        jobs(tree, output=tmp_path / "out")
