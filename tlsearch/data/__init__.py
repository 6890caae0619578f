"""Data sets: sources, splits, decoding, the data card, transforms, augmentation, the packed image store.

Names are loaded on first use: listing and looking over a data set must not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tlsearch.data.augmentation import AUGMENTATIONS, Drawn, apply_drawn, augment, draw_view
    from tlsearch.data.card import DataCard, data_card
    from tlsearch.data.class_names import nfc, same_classes
    from tlsearch.data.decode import decode_rgb
    from tlsearch.data.folder_walk import FolderImages, images_below
    from tlsearch.data.formats import IMAGE_SUFFIXES
    from tlsearch.data.index import (
        ImageIndex,
        Split,
        image_name,
        load_index,
        read_bytes,
        read_image,
        seen_digest,
        with_val_in_train,
    )
    from tlsearch.data.pack import Pixels, open_pixels
    from tlsearch.data.ready import require_ready
    from tlsearch.data.sources import SOURCES
    from tlsearch.data.streamed import StreamedImages
    from tlsearch.data.transforms import eval_image, normalise, with_image_size

__all__ = [
    "AUGMENTATIONS",
    "IMAGE_SUFFIXES",
    "SOURCES",
    "DataCard",
    "Drawn",
    "FolderImages",
    "ImageIndex",
    "Pixels",
    "Split",
    "StreamedImages",
    "apply_drawn",
    "augment",
    "data_card",
    "decode_rgb",
    "draw_view",
    "eval_image",
    "image_name",
    "images_below",
    "load_index",
    "nfc",
    "normalise",
    "open_pixels",
    "read_bytes",
    "read_image",
    "require_ready",
    "same_classes",
    "with_image_size",
    "seen_digest",
    "with_val_in_train",
]

_HOMES = {
    "augmentation": ("AUGMENTATIONS", "Drawn", "apply_drawn", "augment", "draw_view"),
    "card": ("DataCard", "data_card"),
    "class_names": ("nfc", "same_classes"),
    "decode": ("decode_rgb",),
    "folder_walk": ("FolderImages", "images_below"),
    "formats": ("IMAGE_SUFFIXES",),
    "index": (
        "ImageIndex",
        "Split",
        "image_name",
        "load_index",
        "read_bytes",
        "read_image",
        "seen_digest",
        "with_val_in_train",
    ),
    "pack": ("Pixels", "open_pixels"),
    "ready": ("require_ready",),
    "sources": ("SOURCES",),
    "streamed": ("StreamedImages",),
    "transforms": ("eval_image", "normalise", "with_image_size"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            module = importlib.import_module(f"tlsearch.data.{home}")
            globals().update({one: getattr(module, one) for one in names})
            return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
