"""What torchvision's data sets do when they are opened, changed in four places that only this file knows.

They load CIFAR's pickles by an unpickler that makes arrays alone; they fetch through our fetcher; archives are unpacked
inside their folder; nothing else is connected to, and no file is opened that is not regular. Tried with torchvision
0.29.
"""

from __future__ import annotations

import os
import pickle
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from types import SimpleNamespace
from typing import IO, Any

import numpy as np

from tlsearch.data.fetch.fetcher import SET_FILE, fetch_file
from tlsearch.data.libraries.confined import confined

_LOCK = RLock()  # the changed places belong to the process
# All that CIFAR's files need: numpy's own way to make an array of a type.
_ARRAYS = {"_reconstruct": np.empty(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": np.dtype}
_ARRAY_MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
_MAGIC = {
    ".bz2": b"BZh",
    ".gz": b"\x1f\x8b",
    ".mat": b"MATLAB",
    ".tgz": b"\x1f\x8b",
    ".xz": b"\xfd7zXZ\x00",
    ".zip": b"PK",
}


class _ArrayUnpickler(pickle.Unpickler):
    """Makes numbers, text, lists, mappings and arrays; any other object is refused before it is made."""

    def find_class(self, module: str, name: str) -> Any:
        if module in _ARRAY_MODULES and name in _ARRAYS:
            return _ARRAYS[name]
        raise pickle.UnpicklingError(f"the file would make an object of {module}.{name}: nothing but arrays is loaded")


def load_arrays(file: IO[bytes], *, encoding: str = "ASCII") -> Any:
    """``pickle.load`` for CIFAR's files.

    Raises:
        pickle.UnpicklingError: The file would make anything but arrays and plain values.
    """
    return _ArrayUnpickler(file, encoding=encoding).load()


def fetch_set_file(path: str, url: str) -> None:
    """Puts a file of a set at a path; torchvision compares its MD5 then, where it knows one.

    Raises:
        OSError: It cannot be had, or what was sent is not of the kind that its name says.
    """

    def problem(file: Path) -> str:
        with file.open("rb") as stream:
            head = stream.read(512)
        wanted = _MAGIC.get(os.path.splitext(path)[1], b"")
        if not head.startswith(wanted) or head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
            return f"is not the file of the data set: it begins with {head[:16]!r}"
        return ""

    fetch_file(url, Path(path), SET_FILE, problem=problem)


@contextmanager
def guarded(fetch: Callable[[str, str], None] | None = None) -> Iterator[None]:
    """Opens or reads a set of torchvision inside.

    Args:
        fetch: Takes a path and an address, and puts the file there; None fetches nothing.
    """
    from torchvision.datasets import cifar, utils

    def get(path: str, url: str) -> None:
        if fetch is None:
            raise RuntimeError(f"{url} is not fetched: data.download is false")
        with confined(False):
            fetch(path, url)

    places = (
        (cifar, "pickle", SimpleNamespace(load=load_arrays)),
        (utils, "_is_remote_location_available", lambda: True),
        (utils, "_download_file_from_remote_location", get),
        (tarfile.TarFile, "extraction_filter", staticmethod(tarfile.data_filter)),
    )
    with _LOCK:
        before = [vars(owner).get(name) for owner, name, _ in places]
        for owner, name, ours in places:
            assert hasattr(owner, name) or owner is tarfile.TarFile, f"torchvision has no {owner}.{name} any more"
            setattr(owner, name, ours)
        try:
            with confined():
                yield
        finally:
            for (owner, name, _), theirs in zip(places, before, strict=True):
                setattr(owner, name, theirs)
