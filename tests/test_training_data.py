"""What a run learns from: found, decoded once, cut, degraded; by the seed alone, in any number of processes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from training_samples import CPU, tiny

from irtool import picture
from irtool.degradation import IDS, INDEX
from irtool.errors import IrtoolError, UsageError
from irtool.training import data, pictures, prefetch
from irtool.training.tasks import Shard


@pytest.fixture(autouse=True)
def cache(decoded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ASSETS_CACHE", str(decoded))


def save(path: Path, size: tuple[int, int] = (64, 64), value: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


def test_unusable_pictures_are_told_and_no_picture_is_an_error(photos, tmp_path):
    found = pictures.gather(tiny(), photos)
    assert (len(found.clean), len(found.held_out)) == (9, 1)
    assert found.held_out[0].source not in [p.source for p in found.clean]
    assert len(found.skipped) == 2
    assert any("broken.png" in s for s in found.skipped)
    assert any("small.png is smaller than 48" in s for s in found.skipped)
    assert len(pictures.gather(tiny(hold=0), photos).clean) == 10
    (tmp_path / "clean").mkdir()
    with pytest.raises(UsageError, match="No usable picture"):
        pictures.gather(tiny(), tmp_path)
    with pytest.raises(UsageError, match="not a folder, nor a manifest"):
        pictures.gather(tiny(data=["none"]), tmp_path)


def test_pictures_are_decoded_once(photos, tmp_path, monkeypatch):
    first = pictures.gather(tiny(), photos, tmp_path)
    with Image.open(first.clean[0].source) as image:
        assert np.array_equal(first.clean[0].pixels, np.asarray(image))
    real, again = picture.read, []
    monkeypatch.setattr(picture, "read", lambda path: again.append(path.name) or real(path))
    second = pictures.gather(tiny(), photos, tmp_path)
    assert again == ["broken.png"]
    assert second.digest() == first.digest() and second.clean == first.clean
    source = save(tmp_path / "x" / "clean" / "a.png", value=10)
    one = pictures.gather(tiny(), tmp_path / "x", tmp_path)
    save(source, value=200)
    other = pictures.gather(tiny(), tmp_path / "x", tmp_path)
    assert other.digest() != one.digest() and other.clean[0].pixels.max() == 200


def test_large_pictures_are_reduced_by_whole_factors(tmp_path):
    stripes = np.zeros((200, 300, 3), np.uint8)
    stripes[::2] = 200
    Image.fromarray(stripes).save(tmp_path / "a.png")
    skipped: list[str] = []
    (one,) = pictures.decode([tmp_path / "a.png"], tmp_path / "cache", 16_000, skipped)
    assert (one.height, one.width) == (100, 150) and not skipped
    assert abs(int(one.pixels[50, 50, 0]) - 100) <= 1


def test_a_cache_that_cannot_be_written_is_told(photos, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(IrtoolError, match="cannot be kept") as caught:
        pictures.gather(tiny(), photos, tmp_path / "file" / "below")
    assert "HF_ASSETS_CACHE" in caught.value.hint


def test_pairs_by_stem(tmp_path):
    for name in ("1400.png", "1401.png", "14.png", "wide.png"):
        save(tmp_path / "gt" / name)
    for name in ("1400_3.png", "1400-a_2.png", "1401.png", "14_0.png", "1402_1.png"):
        save(tmp_path / "hazy" / name)
    save(tmp_path / "hazy" / "wide.png", (70, 64))
    save(tmp_path / "hazy" / "1401_small.png", (30, 30))
    entry = {"task": "haze", "degraded": "hazy", "clean": "gt"}
    found = pictures.gather(tiny(data=[], weights={}, pairs=[entry]), tmp_path)
    matched = [(t.degraded.source.name, t.clean.source.name) for t in found.pairs[0]]
    expected = ["14_0.png 14.png", "1400-a_2.png 1400.png", "1400_3.png 1400.png", "1401.png 1401.png"]
    assert {" ".join(pair) for pair in matched} == set(expected)
    told = "\n".join(found.skipped)
    assert "1402_1.png has no clean twin" in told and "is smaller than" in told
    assert "wide.png is 70x64, its clean twin 64x64" in told
    with pytest.raises(UsageError, match="No usable clean picture"):
        pictures.gather(tiny(data=["none.tsv"][:0], pairs=[entry]), tmp_path)


def pairs_of(root: Path, degraded: str, clean: str, **more: object) -> tuple[dict[str, str], list[str]]:
    """Degraded -> clean picture, below the root, and what was skipped."""
    entry = {"task": "blur", "degraded": degraded, "clean": clean}
    found = pictures.gather(tiny(data=[], weights={}, pairs=[entry], **more), root)
    told = {str(t.degraded.source.relative_to(root)): str(t.clean.source.relative_to(root)) for t in found.pairs[0]}
    return told, list(found.skipped)


def test_pairs_in_sub_folders_keep_to_their_folder(shared):
    root = shared / "cases" / "train-pairs-in-subfolders" / "data"
    told, skipped = pairs_of(root, "blur", "sharp", region=32)
    assert told == {f"blur/{s}/000{i}.png": f"sharp/{s}/000{i}.png" for s in "AB" for i in (1, 2)} and not skipped


@pytest.mark.parametrize(
    ("degraded", "clean", "folders"),
    [
        ("train_blur", "train_sharp", "train_{kind}/{sequence}"),  # REDS
        ("train", "train", "train/{sequence}/{kind}"),  # GoPro
        ("blur", "sharp", "{kind}/deep/{sequence}"),
        ("blur", "sharp", "{kind}/{sequence}/{kind}"),
        ("blur", "sharp", "{kind}/{other}"),  # folders that are called like kinds of damage are sequences here
    ],
)
def test_layouts_of_training_pairs(tmp_path, degraded, clean, folders):
    for kind in ("blur", "sharp"):
        for sequence, other in (("A", "rain"), ("B", "snow")):
            place = tmp_path / folders.format(kind=kind, sequence=sequence, other=other)
            for i in (1, 2):
                save(place / f"{i}.png")
    told, skipped = pairs_of(tmp_path, degraded, clean)
    assert told == {name: name.replace("blur", "sharp") for name in told} and len(told) == 4 and not skipped


def test_a_degraded_picture_is_never_paired_with_that_of_another_sub_folder(tmp_path):
    for name in ("blur/A/1.png", "blur/A/2.png", "blur/B/1.png", "sharp/A/1.png", "sharp/B/1.png", "sharp/B/2.png"):
        save(tmp_path / name)
    told, skipped = pairs_of(tmp_path, "blur", "sharp")
    assert told == {"blur/A/1.png": "sharp/A/1.png", "blur/B/1.png": "sharp/B/1.png"}
    assert len(skipped) == 1 and "blur/A/2.png has no clean twin" in skipped[0]


def test_clean_pictures_in_one_folder_belong_to_degraded_ones_in_many(tmp_path):
    for name in ("hazy/near/1_0.png", "hazy/far/1_1.png", "gt/1.png"):
        save(tmp_path / name)
    assert pairs_of(tmp_path, "hazy", "gt")[0] == {"hazy/near/1_0.png": "gt/1.png", "hazy/far/1_1.png": "gt/1.png"}


def test_of_clean_pictures_with_one_stem_the_suffix_decides_or_nobody(tmp_path):
    for name in ("blur/1.png", "blur/2.png", "sharp/1.png", "sharp/1.jpg", "sharp/2.webp", "sharp/2.jpg"):
        save(tmp_path / name)
    told, skipped = pairs_of(tmp_path, "blur", "sharp")
    assert told == {"blur/1.png": "sharp/1.png"}
    assert len(skipped) == 1 and "2.png has 2 clean twins" in skipped[0]


def test_a_cached_picture_that_was_cut_short_is_decoded_again(tmp_path):
    save(tmp_path / "a.png")
    cache = tmp_path / "cache"
    (whole,) = pictures.decode([tmp_path / "a.png"], cache, None, [])
    content = whole.path.read_bytes()
    for damaged in (b"", content[:-5], content[:50], b"not an array"):
        whole.path.write_bytes(damaged)
        (again,) = pictures.decode([tmp_path / "a.png"], cache, None, [])
        assert again.path.read_bytes() == content and (again.height, again.width) == (whole.height, whole.width)


def test_a_pipe_among_the_pictures_does_not_stop_the_run(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    skipped: list[str] = []
    assert pictures.decode([tmp_path / "pipe.png", tmp_path / "a\0.png"], tmp_path / "cache", None, skipped) == []
    assert "no regular file" in skipped[0] and "cannot be read" in skipped[1]


def test_a_list_separated_by_semicolons_is_read(tmp_path):
    save(tmp_path / "a.png")
    (tmp_path / "list.csv").write_text("\ufefffile;licence\na.png;CC0\n", encoding="utf-8")
    assert pictures.manifest(tmp_path / "list.csv", ("clean",)) == [{"clean": tmp_path / "a.png"}]
    (tmp_path / "list.csv").write_text("file,licence\na\0.png,CC0\n")
    with pytest.raises(UsageError, match="NUL"):
        pictures.manifest(tmp_path / "list.csv", ("clean",))


def test_manifests(tmp_path):
    for name in ("a.png", "b.png", "sub/c.png"):
        save(tmp_path / "set" / name)
    (tmp_path / "set" / "list.tsv").write_text("degraded\tclean\tnote\na.png\tsub/c.png\tx\nb.png\tnone.png\ty\n")
    (tmp_path / "set" / "list.csv").write_text("file,licence\na.png,CC0\nsub/c.png,CC BY\n")
    found = pictures.gather(
        tiny(data=["set/list.csv"], pairs=[{"task": ["noise", "blur"], "manifest": "set/list.tsv"}]), tmp_path
    )
    assert [p.source.name for p in found.clean] == ["a.png", "c.png"]
    assert [(t.degraded.source.name, t.clean.source.name) for t in found.pairs[0]] == [("a.png", "c.png")]
    assert found.pairs[0][0].task == ("noise", "blur")
    assert len(found.skipped) == 1 and "none.png" in found.skipped[0]
    (tmp_path / "set" / "bad.tsv").write_text("clean\nb.png\n")
    with pytest.raises(UsageError, match="no column 'degraded'"):
        pictures.gather(tiny(pairs=[{"task": "noise", "manifest": "set/bad.tsv"}], data=["set"]), tmp_path)


def test_licenses_are_counted(photos):
    assert pictures.licenses(pictures.gather(tiny(), photos), photos) == {"CC0": 9, "not stated": 1}


def test_a_pool_is_its_index_and_seed(photos):
    made = tiny(weights={"noise": 1.0, "real": 1.0, "clean": 1.0, "mixed": 1.0})
    pools = data.Pools(pictures.gather(made, photos), made)
    first, again, other = pools[5], pools[5], pools[6]
    assert torch.equal(first.degraded, again.degraded)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.degraded, other.degraded)
    assert not torch.equal(first.degraded, data.Pools(pools.pictures, tiny(seed=1, weights=made.weights))[5].degraded)
    assert first.degraded.shape == first.clean.shape == (32, 3, 48, 48)
    assert torch.allclose(first.degraded * 255, (first.degraded * 255).round(), atol=1e-4)
    untouched = (first.degraded - first.clean).abs().amax(dim=(1, 2, 3)) < 1.01 / 255
    assert (untouched | (first.labels.sum(1) > 0)).all()
    assert first.labels.shape == (32, len(IDS))
    real = first.labels[:, [INDEX[i] for i in ("blur", "noise", "jpeg")]].sum(1)
    assert real.max() <= 3
    # A task is asked for of clean samples too.
    clean = first.labels.sum(1) == 0
    assert clean.any() and (first.task_weights[clean].sum(1) == 1).all()
    assert torch.equal(first.task_weights[~clean], first.labels[~clean])
    assert first.names().count("clean") == int(clean.sum())


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("batch", [4, 8, 32])
def test_processes_share_the_batches_that_one_would_have(photos, ranks, batch):
    made = tiny()
    found = pictures.gather(made, photos)
    shares = [data.Pools(found, made, Shard(rank, ranks, CPU))[3] for rank in range(ranks)]
    whole, rows = data.Pools(found, made)[3], 32 // batch
    for row in range(rows):

        def batch_of(pool: data.Sample, row: int = row) -> data.Sample:
            return data.cut(pool, row, rows, 16, torch.Generator().manual_seed(row))

        together = data.join([batch_of(s) for s in shares])
        alone = batch_of(whole)
        assert len(alone) == batch and len(shares[0]) == 32 // ranks
        for name in ("degraded", "clean", "context", "labels", "task_weights"):
            assert torch.equal(getattr(together, name), getattr(alone, name)), name


def test_the_batches_of_a_pool_use_every_sample_once(photos):
    made = tiny()
    pool = data.Pools(pictures.gather(made, photos), made)[0]
    marked = data.Sample(*(getattr(pool, n) for n in ("degraded", "clean", "context", "labels", "task_weights")))
    number = torch.arange(32.0)
    mask = number.view(-1, 1, 1, 1).expand(32, 2, 48, 48)
    marked = data.Sample(
        marked.degraded,
        marked.clean,
        marked.context,
        marked.labels,
        marked.task_weights,
        {"number": number, "mask": mask},
    )
    batches = [data.cut(marked, row, 4, 16, torch.Generator().manual_seed(0)) for row in range(4)]
    taken = torch.cat([b.extras["number"] for b in batches])
    assert sorted(taken.tolist()) == number.tolist()
    # What is spatial is cut like the pictures, the rest is not.
    assert batches[0].extras["mask"].shape == (8, 2, 16, 16)
    assert batches[1].to(CPU).extras["mask"][3, 0, 0, 0] == batches[1].extras["number"][3]


def test_a_low_light_sample_comes_from_a_bright_picture(tmp_path):
    for i in range(4):
        save(tmp_path / "clean" / f"dark{i}.png", (90, 60), 10)
        save(tmp_path / "clean" / f"light{i}.png", (90, 60), 200)
    made = tiny(weights={"lowlight": 1.0})
    pools = data.Pools(pictures.gather(made, tmp_path), made)
    assert pools[0].clean.mean(dim=(1, 2, 3)).gt(0.3).float().mean() > 0.9


def test_pairs_are_cut_at_the_same_place_and_mixed_with_the_rest(tmp_path):
    ramp = np.arange(64 * 80 * 3, dtype=np.uint32).reshape(64, 80, 3) * 7919 % 200
    (tmp_path / "gt").mkdir()
    (tmp_path / "low").mkdir()
    Image.fromarray(ramp.astype(np.uint8)).save(tmp_path / "gt" / "a.png")
    Image.fromarray((ramp + 40).astype(np.uint8)).save(tmp_path / "low" / "a.png")
    entry = {"task": ["lowlight"], "degraded": "low", "clean": "gt", "weight": 3.0}
    made = tiny(data=["gt"], pairs=[entry], weights={"clean": 1.0})
    pools = data.Pools(pictures.gather(made, tmp_path), made)
    labels, offsets = [], []
    for index in range(6):
        sample = pools[index]
        labels.append(sample.labels[:, INDEX["lowlight"]])
        offsets.append((sample.degraded - sample.clean).mean(dim=(1, 2, 3)) * 255)
    is_pair, offset = torch.cat(labels) == 1, torch.cat(offsets)
    assert 0.6 < is_pair.float().mean() < 0.9  # three to one
    assert torch.allclose(offset[is_pair], torch.tensor(40.0), atol=1e-2)
    assert torch.allclose(offset[~is_pair], torch.tensor(0.0), atol=0.6)


def test_held_out_samples_are_of_kept_pictures_and_the_same_for_every_seed(photos):
    made = tiny()
    pools = data.Pools(pictures.gather(made, photos), made)
    held = data.held_out(pools)
    other = data.held_out(data.Pools(pools.pictures, tiny(seed=9, rate=1.0)))
    assert torch.equal(held.degraded, other.degraded)
    assert len(held) == 8 and set(held.names()) >= {"noise", "jpeg", "clean"}
    kept = torch.from_numpy(np.array(pools.pictures.held_out[0].pixels)).permute(2, 0, 1).float() / 255
    clean = held.clean[held.names().index("noise")]
    views = [clean, clean.flip(-1), *(clean.rot90(k, (-2, -1)) for k in (1, 2, 3))]
    views += [view.flip(-1) for view in views[2:]]
    windows = kept.unfold(1, 48, 1).unfold(2, 48, 1)
    assert min(float((windows - v[:, None, None]).abs().amax(dim=(0, 3, 4)).min()) for v in views) < 1e-6


def test_a_thread_feeds_as_processes_do(photos):
    made = tiny()
    pools = data.Pools(pictures.gather(made, photos), made)
    by_thread, by_workers = prefetch._by_thread(pools, 2), prefetch._by_workers(pools, 2)
    for _ in range(3):
        assert torch.equal(next(by_thread).degraded, next(by_workers).degraded)
    by_thread.close()
    by_workers.close()

    class Broken(torch.utils.data.Dataset):
        def __getitem__(self, index: int) -> int:
            if index == 3:
                raise ValueError("no such thing")
            return index

    items = prefetch._by_thread(Broken(), 2)
    assert next(items) == 2
    with pytest.raises(ValueError, match="no such thing"):
        next(items)


def test_a_folder_with_the_files_of_another_run_is_not_written_to(photos, tmp_path):
    from irtool.training import loop

    for name, text in (("step-00000900.pt", "mine"), ("log.jsonl", "a log of another program\n")):
        out = tmp_path / name
        out.mkdir()
        (out / name).write_text(text)
        with pytest.raises(UsageError, match="not of a run that could go on here"):
            loop._require_own(out)
        assert (out / name).read_text() == text
    for text in ("", '{"step": 0, "loss": 1.0}\n'):  # a run that was killed before its first checkpoint
        (tmp_path / "log.jsonl" / "log.jsonl").write_text(text)
        loop._require_own(tmp_path / "log.jsonl")
