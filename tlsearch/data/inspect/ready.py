"""What a search asks of its data before it begins: a clear layout, and decoders for the images.

A search that has begun is not asked again: its data are what they were.
"""

from __future__ import annotations

import logging
import os

from tlsearch.core.errors import DataError
from tlsearch.core.printable import printable
from tlsearch.data.failures import quoted, raise_together
from tlsearch.data.images.decode import has_decoder
from tlsearch.data.images.file_formats import DECODERS, FORMATS, HEAD_BYTES, image_format
from tlsearch.data.index import ImageIndex, image_name, read_bytes
from tlsearch.data.sources.left_out import JUNK

logger = logging.getLogger(__name__)


def require_ready(index: ImageIndex) -> None:
    """Refuses data that no search should begin with, and logs what is left out of them.

    No image of test is opened: a decoder that is missing for images of test by their names is a warning.

    Raises:
        DataError: The layout is doubtful, or images of train or val are of a format without a decoder here.
    """
    if index.doubt:
        raise DataError(index.doubt)
    for name in ("train", "val"):
        keys = index.splits[name].keys
        failures = [
            f"{image_name(index, key)}: {found} {DECODERS[found]}, or convert the image"
            for key in keys
            if _lacks_decoder(key)
            and (found := image_format(read_bytes(index, key)[:HEAD_BYTES])) in DECODERS
            and not has_decoder(found)
        ]
        raise_together(failures, len(keys))
    if "test" in index.splits and (lacking := [key for key in index.splits["test"].keys if _lacks_decoder(key)]):
        logger.warning(
            "images of test that cannot be decoded here if they are what they are called: %s", quoted(lacking)
        )
    left = [one for one in index.left_out if one.reason != JUNK]
    if left:
        reasons = "; ".join(f"{one.reason}: {len(one.keys):,}" for one in left)
        logger.warning("files left out of the data: %s. `tlsearch check` names them", printable(reasons))
    for note in index.notes:
        logger.warning("the data: %s", printable(note))


def _lacks_decoder(key: str) -> bool:
    """Whether a file is called like one of a format that cannot be decoded here."""
    suffix = os.path.splitext(key)[1].lower()
    return any(suffix in FORMATS[one] and not has_decoder(one) for one in DECODERS)
