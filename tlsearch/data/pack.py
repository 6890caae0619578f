"""The packed image store: every image of a split decoded and resized once per node.

An entry is a .npy file, uint8 NHWC, and a .json file of the same name. The JSON is the commit point: it is
written last, and a .npy without one, or of another length or checksum than it says, is built anew. Writers hold
the entry's lock, so that one process builds while the others wait. What does not fit into the store's budget is
decoded each time it is read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import tempfile
import weakref
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import IO, Any

import numpy as np
import PIL
import torch
import torchvision
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tlsearch.codec import read_json
from tlsearch.data.cachedir import cache_directory
from tlsearch.data.failures import raise_together
from tlsearch.data.index import ImageIndex, Split
from tlsearch.data.modes import give_usual_mode
from tlsearch.data.pixel_budget import num_decoders
from tlsearch.data.room import budget_bytes, hold, reserve
from tlsearch.data.squares import decode_square
from tlsearch.data.streamed import StreamedImages
from tlsearch.errors import StorageError
from tlsearch.types import CacheSpec, CropMode, TransformSpec

logger = logging.getLogger(__name__)

_FORMAT = 1
_CHUNK = 256  # images decoded ahead of the writer
_MAX_HANDLES = 4  # those of one trial; an entry that is open cannot make room for others

Progress = Callable[[int, int], None]  # images done, of how many

# Entries that this process has mapped, the last used at the end.
_HANDLES: OrderedDict[tuple[str, str], Pixels] = OrderedDict()
_HANDLES_LOCK = Lock()


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """A split, shared with every process of the node; not to be written to.

    Attributes:
        images: uint8 (N, 3, S, S), read as ``images[rows]``: a channels_last view of the mapped file, or, where
            the store has no room for it, images that are decoded as they are read.
        labels: int64 (N,).
    """

    images: Tensor | StreamedImages
    labels: Tensor


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """All that the bytes of an entry depend on."""

    format: int
    digest: str
    split: str
    resize_size: int
    side: int
    interpolation: str
    crop_mode: CropMode
    pillow: str
    torchvision: str

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:40]

    @property
    def transform(self) -> TransformSpec:
        """Of the resize alone."""
        return TransformSpec(
            resize_size=self.resize_size,
            crop_size=self.side,
            interpolation=self.interpolation,
            crop_mode=self.crop_mode,
        )


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
        Images in the order of the split's keys, shared within the process. Of a split that does not fit into
        the cache's budget they are decoded, by threads ahead of the reader, each time they are read.

    Raises:
        DataError: The split does not exist, or images are missing, changed or corrupt: all of the split
            are tried, the first 20 named. Of a split that does not fit, reading them raises it.
        StorageError: The entry cannot be written.
    """
    members = index.split(split)
    rule = _Rule(
        format=_FORMAT,
        digest=index.digest,
        split=split,
        resize_size=spec.resize_size,
        side=max(spec.resize_size, spec.crop_size) if margin else spec.crop_size,
        interpolation=spec.interpolation,
        crop_mode=spec.crop_mode,
        pillow=PIL.__version__,
        torchvision=torchvision.__version__,
    )
    folder = cache_directory(cache) / "images"
    handle = (str(folder), rule.key)
    with _HANDLES_LOCK:
        if handle in _HANDLES:
            _HANDLES.move_to_end(handle)
            return _HANDLES[handle]
    array = _open_entry(folder, rule, len(members))
    if array is None:
        array = _wait_and_build(folder, rule, index, members, cache, progress)
    if array is None:
        images: Tensor | StreamedImages = StreamedImages(index, members, rule.transform)
    else:
        images = torch.from_numpy(array).permute(0, 3, 1, 2)
    pixels = Pixels(images=images, labels=torch.tensor(members.labels, dtype=torch.int64))
    with _HANDLES_LOCK:
        pixels = _HANDLES.setdefault(handle, pixels)
        while len(_HANDLES) > _MAX_HANDLES:
            _HANDLES.popitem(last=False)
    return pixels


def close_pixels() -> None:
    """Forgets this process's mapped entries; tensors in use stay valid."""
    with _HANDLES_LOCK:
        _HANDLES.clear()


def _open_entry(folder: Path, rule: _Rule, num_images: int) -> NDArray[np.uint8] | None:
    """Maps an entry; None unless it is there and whole. It stays in the store as long as the array is in use."""
    shape = (num_images, rule.side, rule.side, 3)
    data_path, sidecar = folder / f"{rule.key}.npy", folder / f"{rule.key}.json"
    number = None
    try:
        meta: Any = read_json(sidecar)
        number = hold(data_path)
        if number is None or meta["rule"] != asdict(rule) or meta["size_bytes"] != data_path.stat().st_size:
            return None
        # Copy-on-write: writable, as torch wants its memory, yet nothing ever reaches the file.
        array: NDArray[np.uint8] = np.load(data_path, mmap_mode="c", allow_pickle=False)
        if array.shape != shape or array.dtype != np.uint8 or not array.flags.c_contiguous:
            return None
        # Once a process: an epoch reads all of it too, and at about the same rate.
        if zlib.crc32(array.data) != meta["crc32"]:
            logger.warning("image store: %s does not match its checksum; it is packed anew", data_path)
            return None
        weakref.finalize(array, os.close, number)
        number = None
        os.utime(sidecar)  # its last use
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    finally:
        if number is not None:
            os.close(number)
    return array


def _wait_and_build(
    folder: Path, rule: _Rule, index: ImageIndex, members: Split, cache: CacheSpec, progress: Progress
) -> NDArray[np.uint8] | None:
    """Maps the entry once it is built, by this process or another; None where there is no room for it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(folder / f"{rule.key}.lock"):
            # Another process may have built it while we waited.
            array = _open_entry(folder, rule, len(members))
            if array is None and not _build(folder, rule, index, members, cache, progress):
                return None
            array = array if array is not None else _open_entry(folder, rule, len(members))
    except OSError as error:
        raise StorageError(f"the image cache {folder} cannot be written: {error.strerror or error}") from error
    if array is None:
        raise StorageError(f"the image cache {folder} does not hold what was written to it")
    return array


def _build(folder: Path, rule: _Rule, index: ImageIndex, members: Split, cache: CacheSpec, progress: Progress) -> bool:
    """Writes an entry; False where there is no room for it."""
    # A JSON left from an entry whose data do not fit it must not vouch for the new data's first moments.
    (folder / f"{rule.key}.json").unlink(missing_ok=True)
    for stale in folder.glob(f"{rule.key}.*.tmp"):  # of a writer that was killed; we hold its lock
        stale.unlink(missing_ok=True)
    shape = (len(members), rule.side, rule.side, 3)
    failures: list[str] = []
    checksum = 0
    with _temporary(folder, rule.key) as temporary:
        if not _reserve(folder, temporary, math.prod(shape), rule, cache):
            return False
        logger.info("packing %d images of %s at %d px", len(members), rule.split, rule.side)
        with open(temporary, "r+b") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": np.dtype(np.uint8).str, "fortran_order": False, "shape": shape}
            )
            for number, result in enumerate(_squares(index, members, rule), 1):
                progress(number, len(members))
                if isinstance(result, str):
                    failures.append(result)
                elif not failures:
                    file.write(result.data)
                    checksum = zlib.crc32(result.data, checksum)
            file.truncate()
            _flush(file)
        raise_together(failures, len(members))
        size_bytes = temporary.stat().st_size
        os.replace(temporary, folder / f"{rule.key}.npy")
    with _temporary(folder, rule.key) as temporary:
        with open(temporary, "w", encoding="utf-8") as text:
            json.dump({"rule": asdict(rule), "size_bytes": size_bytes, "crc32": checksum}, text, indent=1)
            _flush(text)
        os.replace(temporary, folder / f"{rule.key}.json")
    return True


def _reserve(folder: Path, temporary: Path, size_bytes: int, rule: _Rule, cache: CacheSpec) -> bool:
    if reserve(folder, temporary, size_bytes, cache.images_gb):
        return True
    close_pixels()  # what this process has open but no longer uses can go
    if reserve(folder, temporary, size_bytes, cache.images_gb):
        return True
    logger.warning(
        "the %s images at %d px are decoded in every epoch: they take %.3g GB, of %.3g GB that the cache may hold",
        rule.split,
        rule.side,
        size_bytes / 1e9,
        budget_bytes(folder, cache.images_gb) / 1e9,
    )
    return False


def _squares(index: ImageIndex, members: Split, rule: _Rule) -> Iterator[NDArray[np.uint8] | str]:
    """Each image as uint8 (side, side, 3), in order, or what is wrong with it."""
    Image.init()  # loads Pillow's plugins here, instead of in several threads at once
    with ThreadPoolExecutor(max_workers=num_decoders()) as pool:
        for start in range(0, len(members), _CHUNK):
            rows = range(start, min(start + _CHUNK, len(members)))
            yield from pool.map(lambda row: decode_square(index, members, row, rule.transform), rows)


@contextmanager
def _temporary(folder: Path, key: str) -> Iterator[Path]:
    """A new file beside an entry, removed unless it was renamed."""
    number, name = tempfile.mkstemp(prefix=f"{key}.", suffix=".tmp", dir=folder)
    os.close(number)
    try:
        give_usual_mode(Path(name))
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _flush(file: IO[Any]) -> None:
    """To the disk itself: after a power cut the JSON must not stand there without the data."""
    file.flush()
    os.fsync(file.fileno())
