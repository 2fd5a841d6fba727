"""The pictures of ``da6401 explain`` for the page, compressed as far as they look the same."""

from __future__ import annotations

import base64
import functools
import io
import json
from pathlib import Path

from PIL import Image

from da6401.redact import safe
from da6401.report.blocks import Block, text

ABOUT = "explain/about.json"
MAX_BYTES = 2_500_000  # of base64 for one run's pictures: the whole page stays below 6 MB
MAX_WIDTH = 1400  # px


def pictures(run: Path) -> list[Block]:
    """Blocks with a run's explanations; [] where there are none, and a note where some are too large or damaged."""
    try:
        listed = json.loads((run / ABOUT).read_text(encoding="utf-8"))
        entries = [(str(each["file"]), str(each["title"]), str(each["caption"])) for each in listed]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        return [text(safe(f"{ABOUT} cannot be read ({error}); da6401 explain writes it again."), "warning")]
    items, left_out, bytes_left = [], [], MAX_BYTES
    for file, title, caption in entries:
        path = run / "explain" / Path(file).name  # a name with folders in it leads nowhere else
        try:
            source = _embedded(path, path.stat().st_mtime_ns)
        except (OSError, ValueError, Image.DecompressionBombError):
            source = ""
        if not 0 < len(source) <= bytes_left:
            left_out.append(file)
            continue
        bytes_left -= len(source)
        items.append({"title": title, "caption": caption, "source": source})
    notes = [
        text(
            safe(f"Left out, since the page would be too large or they cannot be read: {', '.join(left_out)}."),
            "warning",
        )
    ]
    return [{"kind": "pictures", "items": items}, *(notes if left_out else [])]


@functools.lru_cache(maxsize=64)
def _embedded(path: Path, changed: int) -> str:
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    image.thumbnail((MAX_WIDTH, 4 * MAX_WIDTH))
    packed = io.BytesIO()
    image.save(packed, "WEBP", quality=88)
    return "data:image/webp;base64," + base64.b64encode(packed.getvalue()).decode("ascii")
