"""Kinds of files that are not read, by their first bytes, and what to do with each."""

from __future__ import annotations

# Brands of the container that HEIC and AVIF share with films (ISO/IEC 23008-12, ISO/IEC 14496-12).
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
AVIF = (b"avif", b"avis")
FIRST_BYTES = {
    b"\x00\x00\x00\x0cJXL ": "a JPEG XL picture",
    b"\xff\x0a": "a JPEG XL picture",
    b"MM\0+": "a big-endian BigTIFF",
    b"8BPS": "a Photoshop file",
    b"%PDF": "a PDF",
    b"%!PS": "a PostScript drawing",
    b"<svg": "an SVG drawing",
    b"<?xml": "an XML file",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\x1aE\xdf\xa3": "a film",
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "an HDF5 file",
    b"version https://git-lfs": "a Git LFS pointer",
}
UNPACK, LFS, FILM, HTML = "unpack it", "a Git LFS pointer", "a film", "a page of HTML"
REMEDIES = {
    **dict.fromkeys(("a zip archive", "a gzip archive", "a 7z archive", "a RAR archive"), UNPACK),
    LFS: "fetch the picture itself with `git lfs pull`",
    FILM: "save its frames as pictures",
    HTML: "the download went wrong, fetch the picture again",
    "an HEIC photograph": "convert it to JPEG, for example with heif-convert (an iPhone takes JPEGs with Settings, "
    "Camera, Formats, Most Compatible)",
}


def name_of_kind(head: bytes) -> str | None:
    """The kind of a file with these first bytes, and the remedy: "a PDF, which is not read: ..."; None if unknown."""
    kind = _container(head) if head[4:8] == b"ftyp" else None
    text = head.lstrip().lower()
    if kind is None and (text.startswith((b"<!doctype html", b"<html"))):
        kind = HTML
    if kind is None:
        kind = next((kind for first, kind in FIRST_BYTES.items() if head.startswith(first)), None)
    if kind is None and head.startswith(b"\xff\xd8"):
        return "a JPEG of a kind that is not read (more than 8 bits, or a damaged header): convert it to an 8-bit one"
    return None if kind is None else f"{kind}, which is not read: {REMEDIES.get(kind, 'convert it to JPEG or PNG')}"


def _container(head: bytes) -> str:
    """The kind by the brands: the main one, and the compatible ones."""
    length = int.from_bytes(head[:4], "big")
    brands = (head[8:12], *(head[at : at + 4] for at in range(16, min(length, len(head)) - 3, 4)))
    if any(brand in AVIF for brand in brands):
        return "an AVIF picture"
    if any(brand in HEIC for brand in brands):
        return "an HEIC photograph"
    return "an HEIF picture" if b"mif1" in brands or b"msf1" in brands else FILM
