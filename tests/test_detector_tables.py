"""tools/detector_tables.py: what is tested on or kept back is never learned from."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TOOL = Path(__file__).parents[1] / "tools" / "detector_tables.py"
COLUMNS = ("role", "kind", "file", "repo", "path_in_repo", "licence")


def picture(path: Path, seed: int, size: int = 96) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(values).resize((size, size), Image.Resampling.BICUBIC).save(path)


def write(path: Path, rows: list[tuple[str, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows([COLUMNS, *rows])


def files(table: Path) -> set[str]:
    with table.open(encoding="utf-8", newline="") as file:
        return {row["file"] for row in csv.DictReader(file, delimiter="\t")}


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    data, out = tmp_path / "data", tmp_path / "out"
    rows = [
        # A test picture whose kind is that of training pairs, and the same file of its repository elsewhere.
        ("test", "haze_sots_indoor/hazy", "test/haze_sots_indoor/hazy/1.png", "a/sots", "1.png", "-"),
        ("train_pairs", "haze_sots_indoor/hazy", "train_pairs/hazy/1.png", "a/sots", "1.png", "-"),
        ("train_pairs", "haze_sots_indoor/hazy", "train_pairs/hazy/2.png", "a/sots", "2.png", "-"),
        # The same picture as the test picture, larger, from another repository.
        ("train_pairs", "haze_sots_indoor/gt", "train_pairs/gt/1.png", "b/copy", "x.png", "-"),
        ("train_clean", "wallpapers", "train_clean/kept.png", "c/walls", "kept.png", "-"),
        ("train_clean", "wallpapers", "train_clean/free.png", "c/walls", "free.png", "-"),
    ]
    kept = [("detect", "clean.ok/azure", "detect/clean/kept.png", "d/azure", "k.png", "-")]
    for (_, _, file, *_), (seed, size) in zip(
        (*rows, *kept), ((1, 96), (2, 96), (3, 96), (1, 160), (4, 160), (5, 96), (4, 96)), strict=True
    ):
        picture(data / file, seed, size)
    write(data / "manifest.tsv", rows)
    write(data / "detect" / "manifest.tsv", kept)
    spec = importlib.util.spec_from_file_location("detector_tables", TOOL)
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(sys, "argv", ["detector_tables.py", str(data), str(out)])
    tool.main()
    return out


def test_what_is_tested_on_is_in_no_table(tables: Path) -> None:
    assert files(tables / "detector_train.tsv") == {"data/train_pairs/hazy/2.png"}
    assert files(tables / "detector_held.tsv") == {"data/detect/clean/kept.png"}


def test_what_is_kept_back_is_no_content(tables: Path) -> None:
    assert files(tables / "detector_content.tsv") == {"data/train_clean/free.png"}
