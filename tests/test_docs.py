"""The pages: links that lead somewhere, a site that builds, a README on one page."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md", "irtool/assets/*.md") for path in ROOT.glob(pattern)
)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_pages_lead_to_files(page):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    absent = [t for t in LINK.findall(text) if "://" not in t and not (page.parent / t).exists()]
    assert absent == []


def test_pages_name_only_files_of_the_repository_that_exist():
    named = re.compile(r"`((?:irtool|docs|benchmarks|tests|tools)/[\w./-]+\.(?:py|md|toml|csv|tsv))`")
    example = re.compile(r"/(NAME|toy)\.")
    pages = [p for p in PAGES if "lab" not in p.parts and p.name != "CHANGELOG.md"]
    absent = [
        (p.name, n)
        for p in pages
        for n in named.findall(p.read_text(encoding="utf-8"))
        if not example.search(n) and not (ROOT / n).exists()
    ]
    assert absent == []


def test_readme_fits_on_120_lines():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "index.html").is_file()
