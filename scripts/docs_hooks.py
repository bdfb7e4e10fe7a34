"""Hooks of mkdocs: what a page links to in the repository becomes part of the site.

Pages link to files beside docs/ (../engine/errors.py) as they do for a reader of the repository.
Here such a file is copied to source/ in the site, Markdown as a page and the rest as text, and the
link goes there. A link to a file that does not exist stays as it is, so that mkdocs complains.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s]+)(\))")
FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2 *$", re.MULTILINE | re.DOTALL)
SHOWN = {".svg", ".png"}  # as they are; other files become text


def on_files(files: Any, config: Any) -> Any:
    """Add what is linked to, and what that links to."""
    from mkdocs.structure.files import File

    waiting = list((ROOT / "docs").rglob("*.md"))
    seen: set[str] = set()
    while waiting:
        page = waiting.pop()
        for place in targets(page):
            if place in seen or place.startswith("docs/"):
                continue
            seen.add(place)
            path = ROOT / place
            files.append(File.generated(config, site_place(place), abs_src_path=str(path)))
            if path.suffix == ".md":
                waiting.append(path)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Point the links of a page at their places in the site."""
    source = repository_place(page.file.src_uri)

    def moved(match: re.Match[str]) -> str:
        place, anchor = resolve(source, match[2])
        if place is None:
            return match[0]
        if (ROOT / place).is_dir():  # nothing to show
            return match[1].strip("![](")
        there = posixpath.relpath(site_place(place), posixpath.dirname(page.file.src_uri) or ".")
        return f"{match[1]}{there}{anchor}{match[3]}"

    return outside_fences(markdown, lambda text: LINK.sub(moved, text))


def outside_fences(markdown: str, change: Any) -> str:
    """Change a page but for its code blocks."""
    parts, start = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [change(markdown[start : fence.start()]), fence[0]]
        start = fence.end()
    return "".join([*parts, change(markdown[start:])])


def targets(page: Path) -> Iterator[str]:
    """The files of the repository that a page links to, as paths from its root."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for match in LINK.finditer(text):
        place, _ = resolve(page.relative_to(ROOT).as_posix(), match[2])
        if place is not None and (ROOT / place).is_file():
            yield place


def resolve(source: str, link: str) -> tuple[str | None, str]:
    """(path from the repository's root, anchor) of a relative link; None if it is no such link."""
    path, hash_sign, anchor = link.partition("#")
    if not path or ":" in path or path.startswith("/"):
        return None, ""
    place = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if (ROOT / place / "README.md").is_file():
        place += "/README.md"
    return (place if (ROOT / place).exists() else None), hash_sign + anchor


def site_place(place: str) -> str:
    """Where a file of the repository lies in the site."""
    if place.startswith("docs/"):
        return place.removeprefix("docs/")
    keeps_name = Path(place).suffix in {".md", *SHOWN}
    return f"source/{place}" + ("" if keeps_name else ".txt")


def repository_place(src_uri: str) -> str:
    """Where a page of the site lies in the repository."""
    return src_uri.removeprefix("source/") if src_uri.startswith("source/") else f"docs/{src_uri}"
