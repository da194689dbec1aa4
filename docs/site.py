"""MkDocs hook: pages that live outside docs/ (benchmarks, model cards, changelog) become pages of the site.

Links are written for the repository; those that leave docs/ are pointed at the page made of their target.
A link to a file that is no page (source code) becomes plain text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
MOVED = {"irtool/assets/README.md": "model-cards.md", "CHANGELOG.md": "changes.md"}  # in the repository -> on the site
MOVED |= {path.relative_to(ROOT).as_posix(): f"benchmarks/{path.name}" for path in (ROOT / "benchmarks").glob("*.md")}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_config(config: Any) -> Any:
    """Pages right under docs/ that the navigation does not name come last in its section "Guide"."""
    named = str(config.nav)
    more = sorted(path.name for path in (ROOT / "docs").glob("*.md") if f"'{path.name}'" not in named)
    guide = next(section["Guide"] for section in config.nav if isinstance(section, dict) and "Guide" in section)
    guide += more
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from outside docs/."""
    for source, page in MOVED.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point the links of a page at pages of the site."""
    here = page.file.src_uri
    source = next((s for s, p in MOVED.items() if p == here), f"docs/{here}")

    def point(match: re.Match[str]) -> str:
        image, text, target, anchor = match.groups()
        if "://" in target:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        name = MOVED.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(name) is None and not path.startswith("docs/"):
            return text
        return f"{image}[{text}]({posixpath.relpath(name, posixpath.dirname(here) or '.')}{anchor or ''})"

    return LINK.sub(point, markdown)
