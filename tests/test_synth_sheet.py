"""The contact sheet of degradations and the command that draws it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from irtool.synth import TABLE, parse
from irtool.synth.sheet import ROWS, contact_sheet, main


def test_the_sheet_shows_every_degradation():
    assert [parse(row[0]).steps[0].id for row in ROWS] == list(TABLE)
    picture = np.random.default_rng(0).random((70, 90, 3), dtype=np.float32)
    drawn = contact_sheet([picture], cell=(40, 30))
    assert drawn.dtype == np.uint8
    assert drawn.shape[0] > 30 * len(ROWS) and drawn.shape[1] > 40 * 5
    assert (drawn == contact_sheet([picture], cell=(40, 30))).all()


def test_the_command_writes_a_jpeg(tmp_path):
    source = tmp_path / "in.png"
    Image.new("RGB", (50, 40), (90, 120, 60)).save(source)
    main([str(tmp_path / "out.jpg"), str(source)])
    with Image.open(tmp_path / "out.jpg") as picture:
        assert picture.format == "JPEG"


def test_the_command_needs_a_picture():
    with pytest.raises(SystemExit, match="usage"):
        main(["out.jpg"])
