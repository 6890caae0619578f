"""PNG files reduced to what their pixels depend on.

Pillow refuses a whole PNG for a chunk that no pixel depends on: a text or colour profile of more than a megabyte, a
comment with a wrong checksum, one that is cut off behind the last row of pixels. The picture is good all the same.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

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
        Another PNG of the same pixels; None where the data are no PNG. Chunks of pixels are kept as they are, broken
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
