"""Maintenance of weights.toml: ``python -m irtool.weights refresh``."""

from __future__ import annotations

import sys

from .refresh import refresh
from .registry import table_path

if __name__ == "__main__":
    if sys.argv[1:] != ["refresh"]:
        sys.exit("usage: python -m irtool.weights refresh")
    for line in refresh(table_path()):
        print(line)
