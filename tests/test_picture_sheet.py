"""Contact sheets: right size, pictures where they belong, text that is there and legible."""

from __future__ import annotations

import numpy as np
import pytest

from irtool.picture import sheet, side_by_side

RED = np.zeros((40, 60, 3), np.float32)
RED[..., 0] = 1
WHITE = 255


def dark(region: np.ndarray) -> int:
    return int((region < 100).all(axis=-1).sum())


def test_pictures_stand_in_their_cells() -> None:
    page = sheet([[RED, RED], [None, (RED * 255).astype(np.uint8)]])
    assert page.dtype == np.uint8
    red = (page == (255, 0, 0)).all(axis=-1)
    assert red.sum() == 3 * 40 * 60
    height, width = red.shape
    assert not red[height // 2 :, : width // 2].any()  # the empty cell
    assert (page[0] == WHITE).all()
    assert (page[:, 0] == WHITE).all()


def test_text_is_drawn_and_pictures_are_not_covered() -> None:
    bare = sheet([[RED, RED]])
    page = sheet([[RED, RED]], titles=["left", "right"], labels=["row"], captions=[["one", "two"]])
    assert page.shape[0] > bare.shape[0] + 20
    assert page.shape[1] > bare.shape[1] + 20
    red = (page == (255, 0, 0)).all(axis=-1)
    assert red.sum() == 2 * 40 * 60
    top, bottom = np.flatnonzero(red.any(axis=1))[[0, -1]]
    first = np.flatnonzero(red.any(axis=0))[0]
    assert dark(page[:top]) > 50  # titles
    assert dark(page[bottom + 1 :]) > 50  # captions
    assert dark(page[:, :first]) > 30  # labels
    assert dark(bare) == 0


def test_large_pictures_are_reduced_to_the_cell_and_small_ones_left_alone() -> None:
    page = sheet([[np.ones((400, 800, 3)) * 0, RED]], cell=(100, 100))
    assert dark(page) == pytest.approx(100 * 50, rel=0.05)
    assert (page == (255, 0, 0)).all(axis=-1).sum() == 40 * 60


def test_long_text_is_shortened_to_its_column() -> None:
    page = sheet([[RED, RED]], titles=["an endless heading " * 20, ""])
    assert page.shape[1] == sheet([[RED, RED]]).shape[1]
    half = page.shape[1] // 2
    assert dark(page[:20, half + 5 :]) == 0


def test_side_by_side() -> None:
    gray = np.full((40, 60), 0.5, np.float32)
    page = side_by_side(RED, gray, labels=("in", "out"))
    assert page.dtype == np.uint8
    red = (page == (255, 0, 0)).all(axis=-1)
    mid = (page == 128).all(axis=-1)
    assert red.sum() == mid.sum() == 40 * 60
    assert np.flatnonzero(red.any(axis=0))[-1] + 1 < np.flatnonzero(mid.any(axis=0))[0]
    assert dark(page[: np.flatnonzero(red.any(axis=1))[0]]) > 20
    assert 120 < page.shape[1] < 130


def test_one_pixel_and_nothing() -> None:
    assert sheet([[np.zeros((1, 1, 3))]], titles=["x"]).size
    assert side_by_side(np.zeros((1, 1, 3)), np.ones((1, 1, 3))).shape[1] >= 2
    for empty in ([], [[]], [[None]]):
        with pytest.raises(ValueError):
            sheet(empty)  # type: ignore[arg-type]
