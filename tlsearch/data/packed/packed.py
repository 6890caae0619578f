"""Packed images: every image of a split decoded and resized once per node, in a memory-mapped NHWC array.

What does not fit into the store's budget is decoded each time it is read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tlsearch.core.errors import DataError, StorageError
from tlsearch.core.types import CacheSpec, TransformSpec
from tlsearch.data.image_files import raise_together
from tlsearch.data.images.pixel_budget import num_decoders
from tlsearch.data.images.preprocessing import as_tensor
from tlsearch.data.index import ImageIndex, Split
from tlsearch.data.packed.streamed import StreamedImages, decode_square
from tlsearch.node_cache.locked_files import cache_directory
from tlsearch.node_cache.store import Content, NoRoomError, Store

logger = logging.getLogger(__name__)

_FORMAT = 2
_CHUNK = 256  # images decoded ahead of the writer

Progress = Callable[[int, int], None]  # images done, of how many


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """A split, shared with every process of the node; not to be written to.

    Attributes:
        images: uint8 or int16 (N, C, S, S), see ``as_tensor``, read as ``images[rows]``: a channels_last view of the
            mapped file, or, where the store has no room for it, images that are decoded as they are read.
        labels: int64 (N,), or float32 (N, C) of a multi-label task.
    """

    images: Tensor | StreamedImages
    labels: Tensor


def open_pixels(
    index: ImageIndex,
    split: str,
    spec: TransformSpec,
    cache: CacheSpec,
    *,
    margin: bool = False,
    progress: Progress = lambda done, total: None,
) -> Pixels:
    """Opens a split's images, resized; builds them where this node has not got them yet.

    Args:
        index: The data set.
        split: ``train``, ``val`` or ``test``.
        spec: Sizes, interpolation and crop mode; mean and std have no part in it.
        cache: Where the store lives and what it may take.
        margin: Whether to keep the square of ``resize_size`` px, room for random crops, instead of the
            evaluation's crop of ``crop_size`` px.
        progress: Hears how many images of how many are packed, where this call does it.

    Returns:
        Images in the order of the split's keys. Of a split that does not fit into
        the cache's budget they are decoded, by threads ahead of the reader, each time they are read.

    Raises:
        DataError: The split does not exist, or images are missing, changed or corrupt: all of the split
            are tried, the first 20 named. Of a split that does not fit, reading them raises it.
        StorageError: The entry cannot be written.
    """
    members = index.split(split)
    side = max(spec.resize_size, spec.crop_size) if margin else spec.crop_size
    resize = replace(spec, crop_size=side)
    store = Store(
        folder=cache_directory(cache) / "images",
        budget_gb=cache.images_gb,
        share=0.5,
        max_open=4,  # of one trial
    )

    def content() -> Content:
        logger.info("packing %d images of %s at %d px", len(members), split, side)
        rows = _squares(index, members, resize, progress)
        pixels = index.pixels
        dtype = np.dtype(np.uint8 if pixels.bits == 8 else np.uint16)
        return Content(shape=(len(members), side, side, pixels.channels), dtype=dtype, rows=rows)

    images: Tensor | StreamedImages
    try:
        array, _ = store.open(_key(index, split, resize), content)
        images = as_tensor(array).permute(0, 3, 1, 2)
    except NoRoomError as error:
        logger.warning(
            "the %s images at %d px are decoded in every epoch: they take %.3g GB, of %.3g GB that the cache may hold",
            split,
            side,
            error.needed_bytes / 1e9,
            error.budget_bytes / 1e9,
        )
        images = StreamedImages(index, members, resize)
    except OSError as error:
        raise StorageError(f"the image cache {store.folder} cannot be written: {error.strerror or error}") from error
    return Pixels(images=images, labels=torch.from_numpy(index.label_array(split)))


def _key(index: ImageIndex, split: str, resize: TransformSpec) -> dict[str, object]:
    """All that the bytes of an entry depend on; RGB of 8 bits has the keys of earlier versions."""
    import torchvision

    key: dict[str, object] = {
        "format": _FORMAT,
        "digest": index.digest,
        "split": split,
        "resize_size": resize.resize_size,
        "side": resize.crop_size,
        "interpolation": resize.interpolation,
        "crop_mode": resize.crop_mode,
        "pillow": PIL.__version__,
        "torchvision": torchvision.__version__,
    }
    return key if index.pixels.is_rgb else {**key, "channels": index.pixels.channels, "bits": index.pixels.bits}


def _squares(
    index: ImageIndex, members: Split, resize: TransformSpec, progress: Progress
) -> Iterator[NDArray[np.uint8] | NDArray[np.uint16]]:
    """Each image as (side, side, C), in order; all are tried before those that cannot be used are named."""
    failures: list[DataError] = []
    Image.init()  # loads Pillow's plugins here, instead of in several threads at once
    with ThreadPoolExecutor(max_workers=num_decoders()) as pool:
        for start in range(0, len(members), _CHUNK):
            rows = range(start, min(start + _CHUNK, len(members)))
            squares = pool.map(lambda row: decode_square(index, members, row, resize), rows)
            for row, square in zip(rows, squares, strict=True):
                progress(row + 1, len(members))
                if isinstance(square, DataError):
                    failures.append(square)
                elif not failures:
                    yield square
    raise_together(failures, len(members))
