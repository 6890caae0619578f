"""The sources of images that a space file can name. A new one is a row here and a file in ``tlsearch.data``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class SourceEntry:
    """A kind of data set.

    Attributes:
        lister: ``module:name`` of the function from a ``DataSpec`` to the ``Listing`` of its images. It is imported
            when it is first used: the source's own libraries load slowly.
        keys: The keys of ``data`` that only some sources have, and this one.
        path: What ``data.path`` names: a folder, a file, or a folder that may be made; None where it has none.
        needed: What the path is, where it is required; it may then be an s3:// address. Empty where it is optional.
        suffixes: Of a file.
        name: What ``data.name`` must be, where it is required.
        either: Whether exactly one of name and path is required.
        groups: Where groups of images come from: ``path`` through ``split.group_by``, ``column`` of a table, or none.
    """

    lister: str
    keys: frozenset[str] = frozenset()
    path: Literal["folder", "file", "new folder"] | None = None
    needed: str = ""
    suffixes: tuple[str, ...] = ()
    name: str = ""
    either: bool = False
    groups: Literal["path", "column"] | None = None


DATA_SOURCES: Mapping[str, SourceEntry] = {
    "folder": SourceEntry(
        lister="tlsearch.data.sources.image_folder:list_folder",
        keys=frozenset({"layout"}),
        path="folder",
        needed="a folder with train/ and val/, or with one folder per class",
        groups="path",
    ),
    "digits": SourceEntry(lister="tlsearch.data.sources.digits:list_digits"),
    "manifest": SourceEntry(
        lister="tlsearch.data.sources.manifest:list_manifest",
        keys=frozenset({"task"}),
        path="file",
        needed="a .csv, .tsv or .parquet file with the columns path and label",
        suffixes=(".csv", ".tsv", ".parquet"),
        groups="column",
    ),
    "torchvision": SourceEntry(
        lister="tlsearch.data.libraries.torchvision_sets:list_torchvision",
        keys=frozenset({"name", "download", "options"}),
        path="new folder",
        name="a class of torchvision.datasets such as CIFAR10",
    ),
    "huggingface": SourceEntry(
        lister="tlsearch.data.libraries.huggingface:list_huggingface",
        keys=frozenset({"name", "download", "options", "image_column", "label_column"}),
        path="folder",
        either=True,
    ),
}
