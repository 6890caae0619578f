"""Data sets: sources, splits, decoding, transforms, augmentation and the packed image store."""

from tlsearch.data.augment import AUGMENTATIONS, augment
from tlsearch.data.cachedir import cache_directory
from tlsearch.data.decode import decode_rgb
from tlsearch.data.folder import IMAGE_SUFFIXES
from tlsearch.data.index import SOURCES, ImageIndex, Split, image_name, load_index, read_bytes, read_image
from tlsearch.data.pack import Pixels, close_pixels, open_pixels
from tlsearch.data.transforms import eval_image, normalise, with_image_size

__all__ = [
    "AUGMENTATIONS",
    "IMAGE_SUFFIXES",
    "SOURCES",
    "ImageIndex",
    "Pixels",
    "Split",
    "augment",
    "cache_directory",
    "close_pixels",
    "decode_rgb",
    "eval_image",
    "image_name",
    "load_index",
    "normalise",
    "open_pixels",
    "read_bytes",
    "read_image",
    "with_image_size",
]
