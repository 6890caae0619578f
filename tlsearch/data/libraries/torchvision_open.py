"""Opens torchvision's data sets, with four places of torchvision changed meanwhile that only this file knows.

CIFAR's pickles are loaded by an unpickler that makes arrays alone; files are fetched through our fetcher; archives are
unpacked inside their folder; no other connection is made, and only regular files are opened. Checked with torchvision
0.29.
"""

from __future__ import annotations

import inspect
import os
import pickle
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from errno import ENOENT
from pathlib import Path
from threading import RLock
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
from filelock import FileLock

from tlsearch.core.errors import DataError
from tlsearch.core.types import DataSpec
from tlsearch.data.fetch.fetcher import SET_FILE, fetch_file
from tlsearch.data.libraries.confined import confined
from tlsearch.data.libraries.torchvision_sets_table import READABLE, REFUSED

# What sets call the same split; the first that a set knows is taken.
_SPLITS = {
    "train": ("train", "trainval", "train-standard"),
    "val": ("val", "valid"),
    "test": ("test",),
}
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


def find_set(spec: DataSpec) -> type[Any]:
    if spec.split.group_by is not None:
        raise DataError("data.split.group_by is for folders; torchvision's sets have no paths")
    if not spec.name:
        raise DataError("data.name must name a set for data.source torchvision, e.g. CIFAR10")
    import torchvision
    from torchvision import datasets

    found = getattr(datasets, spec.name, None)
    if spec.name not in datasets.__all__ or not inspect.isclass(found) or not issubclass(found, datasets.VisionDataset):
        near = get_close_matches(spec.name.lower(), [one.lower() for one in READABLE], 1, 0.5)
        hints = [one for one in READABLE if one.lower() in near]
        hint = f"; did you mean {hints[0]}?" if hints else ""
        raise DataError(f"data.name must be a set of torchvision.datasets, not {spec.name!r}{hint}")
    if spec.name not in READABLE:
        reason = REFUSED.get(spec.name, f"its code in torchvision {torchvision.__version__} was not reviewed")
        raise DataError(
            f"torchvision's {spec.name} is not read: {reason}. Save its images in a folder for each class (data.source "
            "folder), or name them with their labels in a table (data.source manifest)"
        )
    _check_options(spec, found)
    return found


def _check_options(spec: DataSpec, dataset_class: type[Any]) -> None:
    allowed, known = READABLE[str(spec.name)].options, _parameters(dataset_class)
    for option, value in spec.options.items():
        if option not in known | {"train"}:
            raise DataError(f"data.options: torchvision's {spec.name} has no argument {option!r}")
        if option not in allowed:
            raise DataError(f"data.options must leave {option!r} to tlsearch")
        values = allowed[option]
        if type(value) is not type(values[0]) or value not in values:
            of = f"{values[0]} to {values[-1]}" if isinstance(values, range) else ", ".join(map(str, values))
            raise DataError(f"data.options: {option} of torchvision's {spec.name} may be {of}, not {value!r}")


def _parameters(dataset_class: type[Any]) -> set[str]:
    """Names of the constructor's parameters, those that it hands on as **kwargs included."""
    names: set[str] = set()
    for one in dataset_class.__mro__:
        if "__init__" not in vars(one) or one is object:
            continue
        parameters = inspect.signature(vars(one)["__init__"]).parameters.values()
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names - {"self"}


def open_parts(dataset_class: type[Any], spec: DataSpec, root: Path) -> dict[str, Any]:
    """The set's own splits, train first; all of it under ``all`` where it has none."""
    known = _parameters(dataset_class)
    fixed = dict(spec.options) | ({"root": str(root)} if "root" in known else {})
    if "train" in known:
        choices: dict[str, list[dict[str, Any]]] = {"train": [{"train": True}], "test": [{"train": False}]}
    elif "split" in known:
        choices = {part: [{"split": name} for name in names] for part, names in _SPLITS.items()}
    else:
        choices = {"all": [{}]}
    parts = {}
    for part, candidates in choices.items():
        for arguments in candidates:
            try:
                parts[part] = _construct(dataset_class, fixed | arguments, spec, root, "download" in known)
                break
            except _NoSuchSplit as error:
                unknown = error
        else:
            if part == "train":
                raise DataError(f"torchvision's {spec.name} has no split called train: {unknown}")
    return parts


class _NoSuchSplit(Exception):
    """The set does not have a split of that name."""


def _construct(
    dataset_class: type[Any], arguments: dict[str, Any], spec: DataSpec, root: Path, can_download: bool
) -> Any:
    if lacking := [one for one in READABLE[str(spec.name)].needs if not (root / one).exists()]:
        raise DataError(f"torchvision's {spec.name} is not unpacked: {root} has no {', '.join(lacking)}")
    try:
        with guarded():  # without it some sets download by default
            return dataset_class(**arguments, **({"download": False} if can_download else {}))
    except ValueError as error:
        if "for argument split" in str(error) and "train" not in arguments:
            raise _NoSuchSplit(str(error)) from error
        raise DataError(f"torchvision's {spec.name} refuses its arguments: {error}") from error
    except Exception as error:
        # as most sets say when their files are not there; the others open them
        absent = "download=True" in str(error) or getattr(error, "errno", None) == ENOENT
        if not can_download or not absent:
            raise DataError(f"torchvision's {spec.name} cannot be opened from {root}: {error}") from error
        if not spec.download:
            raise DataError(
                f"torchvision's {spec.name} is not in {root}: set data.download to true to fetch it, "
                "or name the folder that has it in data.path"
            ) from error
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{spec.name}.lock"), guarded(fetch_set_file):  # one process of a node fetches it
            return dataset_class(**arguments, download=True)
    except Exception as error:
        raise DataError(f"torchvision's {spec.name} could not be downloaded into {root}: {error}") from error
