"""Kinds of image files: their suffixes, and how to recognise a format by its first bytes.

The suffix alone decides which files of a folder are images, so that listing opens none of them, least of all those of
the test split. Decoding uses the content alone: a PNG named .jpg is read as a PNG.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

# Pillow's names of the formats that are read, and NPY for arrays, with the suffixes of their files.
FORMATS = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif", ".hif"),
    "NPY": (".npy",),
}

IMAGE_SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)

# Formats that some installations of Pillow cannot decode, and what helps.
DECODERS = {
    "AVIF": "needs Pillow 11.3 or later with AVIF support (pip install -U pillow)",
    "HEIF": "needs pillow-heif (pip install pillow-heif)",
}

HEAD_BYTES = 256  # that tell what a file is

_PREFIXES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\x93NUMPY", "NPY"),
)
_OTHERS = (
    (b"version https://git-lfs", "a Git LFS pointer: fetch the file itself with `git lfs pull`"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"8BPS", "a Photoshop document"),
    (b"\x00\x00\x01\x00", "an icon"),
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"<svg", "an SVG drawing"),
)
_AVIF_BRANDS = (b"avif", b"avis")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def named_as_image(name: str) -> bool:
    """Whether the suffix of a file's name is one of IMAGE_SUFFIXES, in either case."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def image_format(head: bytes) -> str | None:
    """The format of an image by its first bytes, a key of FORMATS; None where it is none of these.

    Args:
        head: The first HEAD_BYTES of the file, or all of a shorter one.
    """
    for prefix, name in _PREFIXES:
        if head.startswith(prefix):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        # The major brand, the version, and the brands that the file is compatible with.
        brands = [head[8:12], *(head[at : at + 4] for at in range(16, min(int.from_bytes(head[:4], "big"), 64), 4))]
        if any(brand in _AVIF_BRANDS for brand in brands):
            return "AVIF"
        return "HEIF" if any(brand in _HEIF_BRANDS for brand in brands) else None
    if (
        head[:2] == b"BM"
        and len(head) > 18
        and head[15:18] == b"\0\0\0"
        and head[14] in (12, 16, 40, 52, 56, 64, 108, 124)
    ):
        return "BMP"
    if len(head) > 3 and head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():
        return "PPM" if head[3:4].isdigit() or head[3:4] in (b"#", b" ", b"\t", b"\n", b"\r") else None
    return None


def content_words(head: bytes) -> str:
    """What a file is that is not an image of a known format, in words; empty where that is unknown."""
    if not head:
        return "empty"
    for prefix, words in _OTHERS:
        if head.startswith(prefix):
            return words
    if head[128:132] == b"DICM":
        return "a DICOM file"
    if head[4:8] == b"ftyp":
        return "a video"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "an HTML page: perhaps the answer of a server that did not give the image"
    if text.startswith(b"<?xml"):
        return "an SVG drawing" if b"<svg" in text else "XML"
    if not any(head):
        return "only zero bytes"
    return "text" if all(byte >= 32 or byte in b"\t\r\n" for byte in head) and _is_utf8(head) else ""


def _is_utf8(head: bytes) -> bool:
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start >= len(head) - 3  # a character cut off at the end
    return True


_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
# Texts in which programs keep the EXIF orientation.
_ORIENTATION = (b"XML:com.adobe.xmp", b"Raw profile type exif", b"Raw profile type APP1")
_MAX_TEXT_BYTES = 65_536


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    """One chunk: name, all bytes, those of its data; whole: it ends within the file, and its checksum is right."""

    name: bytes
    raw: bytes
    body: bytes
    whole: bool


def essential_png(data: bytes, *, orientation: bool) -> bytes | None:
    """The file without the chunks that its pixels do not depend on.

    Args:
        data: An encoded file.
        orientation: Whether to keep small chunks that may hold the EXIF orientation.

    Returns:
        Another PNG of the same pixels; None where the data are not a PNG. Chunks of pixels are kept as they are, broken
        ones too.
    """
    if not data.startswith(_SIGNATURE):
        return None
    kept, ended = [_SIGNATURE], False
    for chunk in _chunks(data):
        if chunk.name in _PIXELS or (orientation and chunk.whole and _may_turn(chunk)):
            kept.append(chunk.raw)
            ended = chunk.name == b"IEND" or not chunk.whole
    if not ended:  # the end went with a chunk that was cut off; missing rows are still found missing
        kept.append(b"\0\0\0\0IEND\xaeB`\x82")
    return b"".join(kept)


def _chunks(data: bytes) -> Iterator[_Chunk]:
    at = len(_SIGNATURE)
    while at + 8 <= len(data):
        length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 12 + length
        body, checksum = data[at + 8 : end - 4], data[end - 4 : end]
        whole = end <= len(data) and zlib.crc32(body, zlib.crc32(name)) == int.from_bytes(checksum, "big")
        yield _Chunk(name=name, raw=data[at:end], body=body, whole=whole)
        if name == b"IEND":
            return
        at = end


def _may_turn(chunk: _Chunk) -> bool:
    if len(chunk.body) > _MAX_TEXT_BYTES:
        return False
    return chunk.name == b"eXIf" or (chunk.name in _TEXTS and chunk.body.partition(b"\0")[0] in _ORIENTATION)
