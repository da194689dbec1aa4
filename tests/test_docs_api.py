"""Every example of docs/api.md runs, in its order, in one namespace."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch

PAGE = Path(__file__).parents[1] / "docs" / "api.md"


@pytest.fixture
def photographs(tmp_path: Path, photo: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    photo(tmp_path / "photo.jpg", size=(72, 96))
    for name in ("a.png", "more/b.jpg"):
        photo(tmp_path / "photos" / name, size=(40, 48))
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_example_of_the_page_runs(photographs: Path) -> None:
    torch.manual_seed(0)
    page = PAGE.read_text(encoding="utf-8")
    examples = list(re.finditer(r"```python\n(.*?)```", page, re.DOTALL))
    assert len(examples) >= 12
    names: dict[str, Any] = {}
    printed = io.StringIO()
    for example in examples:
        # Line numbers of the page, so that a failure points into it.
        lines = "\n" * page[: example.start(1)].count("\n") + example[1]
        with contextlib.redirect_stdout(printed):
            exec(compile(lines, str(PAGE), "exec"), names)
    assert (photographs / "better.jpg").is_file() and (photographs / "said.png").is_file()
    assert {p.name for p in (photographs / "restored").rglob("*.*")} == {"a.png", "b.jpg"}
    assert "Did you mean 'denoise'?" in printed.getvalue() and "broken.jpg" in printed.getvalue()
