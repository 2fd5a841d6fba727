"""The pictures of ``da6401 explain`` for the page, as small as they look the same."""

from __future__ import annotations

import base64
import functools
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from da6401.redact import safe

ABOUT = "explain/about.json"
ROOM = 2_500_000  # bytes of base64 for one run's pictures: the whole page stays below 6 MB
WIDEST = 1400  # px


def pictures(run: Path) -> list[dict[str, Any]]:
    """Blocks with a run's explanations; [] where there are none, and a note where some have no room or are damaged."""
    try:
        listed = json.loads((run / ABOUT).read_text(encoding="utf-8"))
        entries = [(str(each["file"]), str(each["title"]), str(each["caption"])) for each in listed]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        return [_note(f"{ABOUT} cannot be read ({error}); da6401 explain writes it again.")]
    items, left_out, room = [], [], ROOM
    for file, title, caption in entries:
        path = run / "explain" / Path(file).name  # a name with folders in it leads nowhere else
        try:
            source = _embedded(path, path.stat().st_mtime_ns)
        except (OSError, ValueError, Image.DecompressionBombError):
            left_out.append(file)
            continue
        if len(source) > room:
            left_out.append(file)
            continue
        room -= len(source)
        items.append({"title": title, "caption": caption, "source": source})
    notes = [_note(f"Left out, for want of room or because they cannot be read: {', '.join(left_out)}.")]
    return [{"kind": "pictures", "items": items}, *(notes if left_out else [])]


def _note(text: str) -> dict[str, Any]:
    return {"kind": "text", "text": safe(text), "tone": "warning"}


@functools.lru_cache(maxsize=64)
def _embedded(path: Path, changed: int) -> str:
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    image.thumbnail((WIDEST, 4 * WIDEST))
    packed = io.BytesIO()
    image.save(packed, "WEBP", quality=88)
    return "data:image/webp;base64," + base64.b64encode(packed.getvalue()).decode("ascii")
