"""Files that are images by their content though not by their names: found by ``check``, which may open any file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from tlsearch.data.fetch.bucket_images import RemoteReader
from tlsearch.data.images.file_formats import HEAD_BYTES, content_words, image_format
from tlsearch.data.index import ImageIndex
from tlsearch.data.sources.left_out import CONTENT, LeftOut, may_be_image
from tlsearch.data.sources.readers import FileReader

_IMAGES = ("a JPEG 2000 image", "a JPEG XL image", "a DICOM file", "an SVG drawing", "a Photoshop document")


def told_by_content(index: ImageIndex) -> tuple[LeftOut, ...]:
    """What an index leaves out, with the files that are images by content under a reason of their own."""
    reader = index.reader
    if not isinstance(reader, FileReader | RemoteReader):
        return index.left_out

    def kind(key: str) -> str:
        try:
            head = reader.head(key, HEAD_BYTES)
        except OSError:
            return ""  # it is left out anyway
        words = content_words(head)
        return image_format(head) or (words if words in _IMAGES else "")

    told: list[LeftOut] = []
    images: list[str] = []
    with ThreadPoolExecutor(max_workers=min(8, (os.cpu_count() or 1) * 2)) as pool:
        for left in index.left_out:
            kinds: Iterable[str] = pool.map(kind, left.keys) if may_be_image(left) else [""] * len(left.keys)
            others = []
            for key, found in zip(left.keys, kinds, strict=True):
                if found:
                    images.append(f"{key} ({found})")
                else:
                    others.append(key)
            if others:
                told.append(replace(left, keys=tuple(others)))
    return (LeftOut(reason=CONTENT, keys=tuple(images)), *told) if images else tuple(told)
