"""What mkdocs does besides its own: pages that stand outside docs/, and links that lead out of it."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
# Pages of the site that stand elsewhere in the repository.
OUTSIDE = {
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    **{f"benchmarks/{page.name}": f"benchmarks/{page.name}" for page in (ROOT / "benchmarks").glob("*.md")
       if not page.name.endswith("template.md")},
}  # fmt: skip
LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, *, config: Any) -> Files:
    for uri, place in OUTSIDE.items():
        if (ROOT / place).is_file():
            files.append(File.generated(config, uri, abs_src_path=str(ROOT / place)))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Links within the repository: to the site's own page where there is one, else the file's name."""
    source = OUTSIDE.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def turned(found: re.Match[str]) -> str:
        words, target, anchor = found[1], found[2], found[3] or ""
        if ":" in target:
            return found[0]
        place = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        uri = next((uri for uri, other in OUTSIDE.items() if other == place), place.removeprefix("docs/"))
        if place == "README.md":
            uri = "index.md"
        if files.get_file_from_path(uri) is None:
            return f"`{place}`" if (ROOT / place).exists() else found[0]
        return f"[{words}]({posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or '.')}{anchor})"

    return LINK.sub(turned, markdown)
