"""Data sets: sources, splits, decoding, the data card, transforms, augmentation, the packed image store.

Names are loaded on first use: listing and looking over a data set must not wait for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsearch.core.imports import lazy_names

if TYPE_CHECKING:
    from tlsearch.data.images.augmentation import AUGMENTATIONS, Drawn, apply_drawn, augment, draw_view
    from tlsearch.data.images.decode import decode_rgb
    from tlsearch.data.images.own_channels import Picture, decode_image, picture_of
    from tlsearch.data.images.preprocessing import (
        as_tensor,
        data_transform,
        eval_image,
        normalise,
        to_device,
        with_image_size,
    )
    from tlsearch.data.index import (
        ImageIndex,
        Split,
        load_index,
        read_image,
        seen_digest,
        split_digest,
    )
    from tlsearch.data.inspect.data_card import DataCard, data_card
    from tlsearch.data.inspect.pixel_formats import find_pixels, measure_channels
    from tlsearch.data.inspect.scan import require_ready
    from tlsearch.data.packed.packed import open_pixels
    from tlsearch.data.packed.streamed import StreamedImages
    from tlsearch.data.pooled import fold_indexes, rows_with_val_in_train, with_val_in_train
    from tlsearch.data.sources.class_names import nfc, same_classes
    from tlsearch.data.sources.folder_walk import FolderImages, images_below

__getattr__ = lazy_names(__name__, __file__)
