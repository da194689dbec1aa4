"""Bring bytes and sha256 of weights.toml up to date after shipped files changed."""

from __future__ import annotations

import re
from pathlib import Path

from ..fileio import atomic_write, sha256
from .registry import parse


def refresh(table: Path) -> list[str]:
    """Rewrite `bytes` and `sha256` of every record whose file ships and is there; all other text stays as it is.

    Args:
        table: a weights.toml.

    Returns:
        One line per record that ships, saying what was found.
    """
    text = table.read_text(encoding="utf-8")
    changes = []
    for record in parse(text, str(table)):
        if record.kind != "asset":
            continue
        if not record.path.is_file():
            changes.append(f"{record.id}: {record.path} is absent, left as it was")
            continue
        size, digest = record.path.stat().st_size, sha256(record.path)
        head, found, rest = text.partition(f'id = "{record.id}"')
        own, mark, others = rest.partition("[[weights]]")
        own = re.sub(r"(?m)^bytes = .*$", f"bytes = {size}", own)
        own = re.sub(r"(?m)^sha256 = .*$", f'sha256 = "{digest}"', own)
        text = head + found + own + mark + others
        changes.append(f"{record.id}: {size} bytes, sha256 {digest}")
    atomic_write(table, text)
    return changes
