"""Kinds of files that are not read, by their first bytes, and what to do with each."""

from __future__ import annotations

from da6401.data.tiff import BIG_ENDIAN_BIGTIFF

# Brands of the container that HEIC and AVIF share with videos (ISO/IEC 23008-12, ISO/IEC 14496-12).
HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
AVIF = {b"avif", b"avis"}
HEIF = {b"mif1", b"msf1"}
CONVERT, UNPACK, FRAMES = "convert it to JPEG or PNG", "unpack it", "save its frames as images"
WRONG_DOWNLOAD = "the download went wrong, fetch the image again"
KINDS = {
    b"\x00\x00\x00\x0cJXL ": ("a JPEG XL image", CONVERT),
    b"\xff\x0a": ("a JPEG XL image", CONVERT),
    BIG_ENDIAN_BIGTIFF: ("a big-endian BigTIFF", CONVERT),
    b"8BPS": ("a Photoshop file", CONVERT),
    b"%PDF": ("a PDF", CONVERT),
    b"%!PS": ("a PostScript drawing", CONVERT),
    b"<svg": ("an SVG drawing", CONVERT),
    b"<?xml": ("an XML file", CONVERT),
    b"<html": ("a page of HTML", WRONG_DOWNLOAD),
    b"<!doctype html": ("a page of HTML", WRONG_DOWNLOAD),
    b"PK\x03\x04": ("a zip archive", UNPACK),
    b"\x1f\x8b": ("a gzip archive", UNPACK),
    b"7z\xbc\xaf": ("a 7z archive", UNPACK),
    b"Rar!": ("a RAR archive", UNPACK),
    b"\x1aE\xdf\xa3": ("a video", FRAMES),
    b"\x93NUMPY": ("a NumPy array", CONVERT),
    b"\x89HDF": ("an HDF5 file", CONVERT),
    b"version https://git-lfs": ("a Git LFS pointer", "fetch the image itself with `git lfs pull`"),
}


def name_of_kind(head: bytes) -> str | None:
    """The kind of a file with these first bytes, and the remedy: "a PDF, which is not read: ..."; None if unknown."""
    text = head.lstrip().lower()
    kinds = (kind for first, kind in KINDS.items() if (text if first.startswith(b"<") else head).startswith(first))
    kind = _in_container(head) if head[4:8] == b"ftyp" else next(kinds, None)
    if kind is not None:
        return f"{kind[0]}, which is not read: {kind[1]}"
    if head.startswith(b"\xff\xd8"):
        return "a JPEG of a kind that is not read (more than 8 bits, or a damaged header): convert it to an 8-bit one"
    return None


def _in_container(head: bytes) -> tuple[str, str]:
    """By the brands: the main one, and the compatible ones."""
    length = int.from_bytes(head[:4], "big")
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, min(length, len(head)) - 3, 4))}
    if brands & AVIF:
        return "an AVIF image", CONVERT
    if brands & HEIC:
        settings = "Settings, Camera, Formats, Most Compatible"
        remedy = f"convert it to JPEG, for example with heif-convert (an iPhone takes JPEGs with {settings})"
        return "an HEIC photograph", remedy
    return ("an HEIF image", CONVERT) if brands & HEIF else ("a video", FRAMES)
