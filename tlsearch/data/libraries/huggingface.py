"""Image sets of Hugging Face: from the Hub (or its cache on this machine), or from a local folder.

Images stay encoded as the set stores them; no column but those of images and labels is read.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tlsearch.core.errors import DataError
from tlsearch.core.files import IMAGE_BYTES, read_regular
from tlsearch.core.types import DataSpec
from tlsearch.data.libraries.confined import confined
from tlsearch.data.libraries.hub import MODULES, check_files, check_folder, fetch_set, kept_copy
from tlsearch.data.libraries.library_rows import hash_rows, label_parts, row_key, split_key, unread_files
from tlsearch.data.sources.folder_layout import read_split_names
from tlsearch.data.sources.left_out import LeftOut
from tlsearch.data.sources.listing import Listing

_OPTIONS = ("name", "data_dir", "revision")
_LABEL_NAMES = ("label", "labels")


def list_huggingface(spec: DataSpec) -> Listing:
    """Lists a set of images; decodes none.

    Raises:
        DataError: The package is not installed, the set is not there, cannot be fetched or may not be, or
            its columns of images and labels cannot be recognised.
    """
    datasets = _import()
    if spec.split.group_by is not None:
        raise DataError("data.split.group_by is for folders; a Hugging Face set has no paths")
    name = f"the Hugging Face set {spec.path or spec.name}"
    loaded, homes = _load(datasets, spec, name)
    tables, notes = _by_split(loaded, name)
    features = next(iter(tables.values())).features
    image_column = _image_column(datasets, features, spec.image_column, name)
    label_column = _label_column(datasets, features, spec.label_column, name)
    classes, labels = _labels(tables, features[label_column], label_column, name)
    sizes = {part: len(table) for part, table in tables.items()}
    encoded = datasets.Image(decode=False)
    images = {
        part: table.select_columns([image_column]).cast_column(image_column, encoded) for part, table in tables.items()
    }
    reader = HuggingfaceReader(set_name=name, images=images, column=image_column, homes=homes)
    found = label_parts(name, classes, labels, lambda part, row: row_key(part, row, sizes[part]), reader=reader)
    return replace(found, left_out=(*found.left_out, *_unread(spec, reader)), notes=(*notes, *found.notes))


def _unread(spec: DataSpec, reader: HuggingfaceReader) -> tuple[LeftOut, ...]:
    """What lies in a local folder of image files and is in no row; () of sets that hold their images themselves."""
    paths: list[str] = []
    for table in reader.images.values():
        first = table[0][reader.column] if len(table) else None
        if not spec.path or (first is not None and first["bytes"] is not None):
            return ()
        paths += [value["path"] for value in table[reader.column] if value is not None and value["path"]]
    return unread_files(str(spec.path), paths)


@dataclass(frozen=True, kw_only=True)
class HuggingfaceReader:
    """Rows of a set's image column."""

    set_name: str
    images: Mapping[str, Any]
    column: str
    homes: tuple[Path, ...]

    def read(self, key: str) -> bytes:
        """The row's image as the set stores it."""
        part, row = split_key(key)
        try:
            value = self.images[part][row][self.column]
            if value is not None and value["bytes"] is not None:
                return bytes(value["bytes"])
            if value is not None and value["path"]:
                return self._read_file(key, value["path"])
        except OSError as error:
            raise DataError(f"{self.name(key)}: cannot be read: {error.strerror or error}") from error
        raise DataError(f"{self.name(key)}: has no image")

    def _read_file(self, key: str, path: str) -> bytes:
        """A file that the set names: inside of the set, whatever links and dots are in its path."""
        real = os.path.realpath(self.homes[0] / path)
        if not any(Path(real).is_relative_to(os.path.realpath(home)) for home in self.homes):
            raise DataError(f"{self.name(key)}: names a file outside of the set: {path}")
        return read_regular(real, IMAGE_BYTES)

    def name(self, key: str) -> str:
        """The set, the part and the row."""
        part, row = split_key(key)
        return f"{self.set_name}, {part} row {row}"

    def digests(self, keys: Sequence[str]) -> tuple[bytes, ...]:
        """Of each row's encoded image."""
        return hash_rows(keys, self.read)


def _import() -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise DataError(
            "data.source huggingface needs the package datasets: pip install 'tlsearch[huggingface]'"
        ) from error


def _load(datasets: Any, spec: DataSpec, name: str) -> tuple[Any, tuple[Path, ...]]:
    """The set, and the folders that its images may be in."""
    for option in spec.options:
        if option not in _OPTIONS:
            raise DataError(f"data.options of a Hugging Face set may be {', '.join(_OPTIONS)}, not {option!r}")
    if bool(spec.path) == bool(spec.name):
        raise DataError("data.source huggingface needs either data.name (on the Hub) or data.path (a local folder)")
    if spec.path and not Path(spec.path).is_dir():
        raise DataError(f"data.path must be a folder: {spec.path} does not exist")
    try:
        root = Path(spec.path) if spec.path else kept_copy(spec)
        if root is None and spec.download:
            root = fetch_set(spec)
        with _offline(datasets), confined():
            if root is None:
                return _named(datasets, spec)
            home = check_folder(root)
            if any((root / one).is_file() for one in ("dataset_dict.json", "state.json")):
                return datasets.load_from_disk(str(root)), (home,)
            options = {key: value for key, value in spec.options.items() if key != "revision"}
            loaded = _built(datasets, datasets.load_dataset_builder(str(root), **options), home)
            return loaded, (home, Path(datasets.config.EXTRACTED_DATASETS_PATH))
    except DataError:
        raise
    except Exception as error:  # of the Hub, of the network, of any file format
        if not spec.path and not spec.download:
            raise DataError(
                f"{name} is not on this machine: set data.download to true to fetch it, "
                f"or name a local copy in data.path ({error})"
            ) from error
        raise DataError(f"{name} cannot be loaded: {error}") from error


def _named(datasets: Any, spec: DataSpec) -> tuple[Any, tuple[Path, ...]]:
    """A set from the cache of datasets, which other programs have fetched into it."""
    from huggingface_hub import constants

    if Path(str(spec.name)).is_dir():
        raise DataError(f"{spec.name} is a folder: name it in data.path")
    caches = (Path(datasets.config.HF_DATASETS_CACHE), Path(constants.HF_HUB_CACHE))
    return _built(datasets, datasets.load_dataset_builder(spec.name, **spec.options), None), caches


def _built(datasets: Any, builder: Any, home: Path | None) -> Any:
    module = type(builder).__module__.rpartition(".")[2]
    if module not in MODULES:
        raise DataError(f"its files are read by datasets' module {module}; images are read by {', '.join(MODULES)}")
    if home is not None:
        check_files(builder.config.data_files or {}, home)
    builder.download_and_prepare()
    return builder.as_dataset()


@contextmanager
def _offline(datasets: Any) -> Iterator[None]:
    """Only what this machine has: nothing is fetched by the library itself."""
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _by_split(loaded: Any, name: str) -> tuple[dict[str, Any], list[str]]:
    """The tables of the splits we know, train first, and what the card says of the others."""
    tables = dict(loaded) if isinstance(loaded, Mapping) else {"all": loaded}
    known = {**read_split_names(map(str, tables)), "all": "all"}
    found: dict[str, Any] = {}
    notes = []
    for part, table in tables.items():
        ours = known.get(str(part))
        if ours is None:
            notes.append(f"left out, since it is not train, val or test: {part} ({len(table):,} rows)")
        elif ours in found:
            raise DataError(f"{name}: several of its splits are the {ours} split: {', '.join(map(str, tables))}")
        else:
            found[ours] = table
    if "train" not in found and "all" not in found:
        raise DataError(f"{name}: has no split train, only {', '.join(map(str, tables))}")
    return {part: found[part] for part in ("all", "train", "val", "test") if part in found}, notes


def _image_column(datasets: Any, features: Mapping[str, Any], wanted: str | None, name: str) -> str:
    images = [column for column, feature in features.items() if isinstance(feature, datasets.Image)]
    if wanted is not None and wanted not in images:
        raise DataError(f"{name}: data.image_column must be a column of images ({_or_none(images)}), not {wanted!r}")
    if wanted is None and len(images) != 1:
        hint = "name one in data.image_column" if images else "its columns are " + ", ".join(features)
        raise DataError(f"{name}: one column of images is needed, it has {_or_none(images)}; {hint}")
    return wanted or images[0]


def _label_column(datasets: Any, features: Mapping[str, Any], wanted: str | None, name: str) -> str:
    labels = [column for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    plain = [column for column, feature in features.items() if _is_plain(datasets, feature)]
    if wanted is not None:
        if wanted not in (*labels, *plain):
            known = _or_none([*labels, *plain])
            raise DataError(f"{name}: data.label_column must be a column of labels ({known}), not {wanted!r}")
        return wanted
    found = labels or [column for column in plain if column in _LABEL_NAMES]
    if len(found) != 1:
        known = _or_none(found or plain)
        raise DataError(f"{name}: which column has the labels? Name one in data.label_column: {known}")
    return found[0]


def _is_plain(datasets: Any, feature: Any) -> bool:
    return isinstance(feature, datasets.Value) and (
        feature.dtype == "string" or feature.dtype.startswith(("int", "uint"))
    )


def _labels(
    tables: Mapping[str, Any], feature: Any, column: str, name: str
) -> tuple[Sequence[str], dict[str, list[int]]]:
    """Class names, and each row's label by part; -1 where it has none."""
    values = {part: list(table[column]) for part, table in tables.items()}
    if hasattr(feature, "names"):
        return list(feature.names), {part: [-1 if one is None else int(one) for one in v] for part, v in values.items()}
    present = {one for part in values.values() for one in part if one is not None}
    if len(present) > 10_000:
        raise DataError(f"{name}: the column {column!r} has {len(present)} different values: no classes")
    numbers = {value: number for number, value in enumerate(sorted(present))}
    return [str(value) for value in numbers], {
        part: [-1 if one is None else numbers[one] for one in v] for part, v in values.items()
    }


def _or_none(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
