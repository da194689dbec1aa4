"""What goes into the wheel and the sdist, and the manual page."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import irtool
from irtool.tables import read_toml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
LARGEST_WHEEL = 35_000_000  # bytes


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """Wheel and sdist, built without a network; by the build backend itself, which `python -m build` calls too."""
    pytest.importorskip("hatchling", reason="the build backend hatchling is not installed: pip install hatchling")
    out = tmp_path_factory.mktemp("dist")
    code = "import sys, hatchling.build as b; out = sys.argv[1]; print(b.build_wheel(out)); print(b.build_sdist(out))"
    done = subprocess.run([sys.executable, "-c", code, str(out)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    wheel, sdist = (out / name for name in done.stdout.split())
    return wheel, sdist


def test_the_wheel_holds_the_package_its_models_and_nothing_else(built):
    wheel, _ = built
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
    data = f"irtool-{irtool.__version__}.data/data/share/man/man1/irtool.1"
    assert data in names and "irtool/weights.toml" in names
    tops = {name.split("/")[0] for name in names}
    assert tops == {"irtool", f"irtool-{irtool.__version__}.dist-info", f"irtool-{irtool.__version__}.data"}
    for path in (ROOT / "irtool" / "assets").rglob("*.*"):
        assert path.relative_to(ROOT).as_posix() in names
    assert not [name for name in names if "test" in name or name.endswith((".tsv", ".pyc")) or "/words" in name]


def test_the_wheel_is_small(built):
    assert built[0].stat().st_size <= LARGEST_WHEEL


def test_the_sdist_holds_what_the_tests_need(built):
    _, sdist = built
    with tarfile.open(sdist) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "weights.toml", "tests/conftest.py",
                 "tools/manpage.py", "docs/man/irtool.1", "docs/samples/rain.jpg"):  # fmt: skip
        assert name in names
    assert not [name for name in names if name.startswith((".git/", "runs", "build")) or "__pycache__" in name]


def test_the_version_is_one():
    assert read_toml(ROOT / "pyproject.toml")["project"]["version"] == irtool.__version__


def test_the_manual_page_says_what_the_help_says():
    import manpage

    assert (ROOT / "docs" / "man" / "irtool.1").read_text() == manpage.page(), (
        "out of date: python tools/manpage.py -o docs/man/irtool.1"
    )


def test_the_container_is_built_from_what_is_there():
    ignored = (ROOT / ".dockerignore").read_text().split()
    kept = [line[1:] for line in ignored if line.startswith("!")]
    assert all((ROOT / name).exists() for name in kept)
    # What pip install needs: what the wheel is made of.
    project = read_toml(ROOT / "pyproject.toml")
    needed = {project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml",
              *project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"],
              *project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"],
              *project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]}  # fmt: skip
    assert needed <= set(kept)
