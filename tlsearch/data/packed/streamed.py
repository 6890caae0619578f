"""Images that are decoded each time they are read, for sets that the packed store has no room for.

Shapes: N images of the split, B of a batch, S side of the square.
"""

from __future__ import annotations

import hashlib
import weakref
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tlsearch.core.errors import DamagedImages, DataError
from tlsearch.core.types import TransformSpec
from tlsearch.data.image_files import raise_together
from tlsearch.data.images.own_channels import decode_image
from tlsearch.data.images.pixel_budget import num_decoders
from tlsearch.data.images.preprocessing import eval_image, for_torch
from tlsearch.data.index import ImageIndex, Split

Square = NDArray[np.uint8] | NDArray[np.uint16] | DataError


def decode_square(index: ImageIndex, members: Split, row: int, spec: TransformSpec) -> Square:
    """One image of a split as (crop_size, crop_size, C), or why there is none: damaged, or not readable now."""
    name = index.reader.name(members.keys[row])
    try:
        data = index.reader.read(members.keys[row])
    except DataError as error:
        return error
    if members.digests and hashlib.sha256(data).digest() != members.digests[row]:
        return DamagedImages(f"{name}: has changed since the data set was listed")
    try:
        with ExitStack() as hold:
            image = decode_image(data, name, pixels=index.pixels, max_pixels=index.max_pixels, hold=hold)
            return eval_image(image, spec)
    except DataError as error:
        return DamagedImages(str(error))


_AHEAD = 256  # images decoded ahead of the reader: 38 MB of RGB at 224 px


class StreamedImages:
    """A split to be read as the packed store's tensor is, ``images[rows]``, with the same values to the bit.

    Threads decode ahead: the rows that ``expect`` names, or, where slices are read, those that follow. One
    reader at a time gains from that; several get the right images all the same.

    Attributes:
        shape: (N, C, S, S).
    """

    def __init__(self, index: ImageIndex, members: Split, spec: TransformSpec) -> None:
        self.shape = (len(members), index.pixels.channels, spec.crop_size, spec.crop_size)
        self._index = index
        self._members = members
        self._spec = spec
        Image.init()  # loads Pillow's plugins here, instead of in several threads at once
        self._pool = ThreadPoolExecutor(max_workers=num_decoders(), thread_name_prefix="decode")
        weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)
        self._lock = Lock()
        self._coming: deque[int] = deque()
        self._ready: dict[int, Future[Square]] = {}

    def __len__(self) -> int:
        return self.shape[0]

    def expect(self, rows: Iterable[int]) -> None:
        """Names the rows that will be read next, in their order, and forgets those named before."""
        with self._lock:
            self._forget()
            self._coming.extend(rows)
            self._decode_ahead()

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """Decodes rows.

        Args:
            rows: int64 (B,), or a slice.

        Returns:
            uint8 or int16 (B, C, S, S), see ``as_tensor``; channels_last.

        Raises:
            DataError: Images cannot be used (DamagedImages: by any trial); names the first 20.
        """
        wanted = list(range(len(self))[rows]) if isinstance(rows, slice) else rows.tolist()
        with self._lock:
            futures = [self._take(row) for row in wanted]
            if isinstance(rows, slice) and wanted and not self._coming:
                self._coming.extend(range(wanted[-1] + 1, min(wanted[-1] + 1 + _AHEAD, len(self))))
            self._decode_ahead()
        squares = [future.result() for future in futures]
        raise_together([square for square in squares if isinstance(square, DataError)], len(self))
        _, channels, side, _ = self.shape
        dtype = torch.uint8 if self._index.pixels.bits == 8 else torch.int16
        batch = torch.empty((len(wanted), side, side, channels), dtype=dtype)
        for target, square in zip(batch, squares, strict=True):
            assert not isinstance(square, DataError)
            target.numpy()[...] = for_torch(square)
        return batch.permute(0, 3, 1, 2)

    def _take(self, row: int) -> Future[Square]:
        if self._coming and self._coming[0] == row:
            self._coming.popleft()
        ready = self._ready.pop(row, None)
        return ready if ready is not None else self._submit(row)

    def _submit(self, row: int) -> Future[Square]:
        return self._pool.submit(decode_square, self._index, self._members, row, self._spec)

    def _decode_ahead(self) -> None:
        while self._coming and len(self._ready) < _AHEAD:
            row = self._coming.popleft()
            if row not in self._ready:
                self._ready[row] = self._submit(row)

    def _forget(self) -> None:
        self._coming.clear()
        for future in self._ready.values():
            future.cancel()
        self._ready.clear()
