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

__all__ = [
    "AUGMENTATIONS",
    "DataCard",
    "Drawn",
    "FolderImages",
    "ImageIndex",
    "Picture",
    "Split",
    "StreamedImages",
    "apply_drawn",
    "as_tensor",
    "augment",
    "data_card",
    "data_transform",
    "decode_image",
    "decode_rgb",
    "draw_view",
    "eval_image",
    "find_pixels",
    "fold_indexes",
    "images_below",
    "load_index",
    "measure_channels",
    "nfc",
    "normalise",
    "open_pixels",
    "picture_of",
    "read_image",
    "require_ready",
    "rows_with_val_in_train",
    "same_classes",
    "seen_digest",
    "split_digest",
    "to_device",
    "with_image_size",
    "with_val_in_train",
]

__getattr__ = lazy_names(
    __name__,
    {
        "images.augmentation": ("AUGMENTATIONS", "Drawn", "apply_drawn", "augment", "draw_view"),
        "inspect.data_card": ("DataCard", "data_card"),
        "inspect.pixel_formats": ("find_pixels", "measure_channels"),
        "inspect.scan": ("require_ready",),
        "sources.class_names": ("nfc", "same_classes"),
        "images.decode": ("decode_rgb",),
        "images.own_channels": ("Picture", "decode_image", "picture_of"),
        "sources.folder_walk": ("FolderImages", "images_below"),
        "index": (
            "ImageIndex",
            "Split",
            "load_index",
            "read_image",
            "seen_digest",
            "split_digest",
        ),
        "packed.packed": ("open_pixels",),
        "packed.streamed": ("StreamedImages",),
        "pooled": ("fold_indexes", "rows_with_val_in_train", "with_val_in_train"),
        "images.preprocessing": (
            "as_tensor",
            "data_transform",
            "eval_image",
            "normalise",
            "to_device",
            "with_image_size",
        ),
    },
)
