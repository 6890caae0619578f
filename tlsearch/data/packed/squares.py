"""From the file to the resized square that a model's batches are made of: one image at a time, from any thread."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from tlsearch.core.errors import DataError
from tlsearch.core.types import TransformSpec
from tlsearch.data.images.decode import decode_rgb
from tlsearch.data.images.preprocessing import resized_square
from tlsearch.data.index import ImageIndex, Split, image_name, read_bytes


def decode_square(index: ImageIndex, members: Split, row: int, spec: TransformSpec) -> NDArray[np.uint8] | str:
    """One image of a split as uint8 (crop_size, crop_size, 3), or what is wrong with it, its name included."""
    name = image_name(index, members.keys[row])
    try:
        data = read_bytes(index, members.keys[row])
        if members.digests and hashlib.sha256(data).digest() != members.digests[row]:
            return f"{name}: has changed since the data set was listed"
        with ExitStack() as hold:
            image = decode_rgb(data, name, max_pixels=index.max_pixels, hold=hold)
            return resized_square(image, spec, spec.crop_size)
    except DataError as error:
        return str(error)
