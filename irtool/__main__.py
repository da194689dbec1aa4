"""``python -m irtool``: the same as the command ``irtool``."""

from __future__ import annotations

import sys

from .cli import run

if __name__ == "__main__":
    sys.exit(run())
