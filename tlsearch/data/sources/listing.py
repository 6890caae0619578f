"""What a source hands over: the images it found, before anything is split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tlsearch.data.sources.left_out import LeftOut
from tlsearch.data.sources.readers import Reader


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image: its key, its label, and the group that must not be torn apart (by default the key)."""

    key: str
    label: int
    group: str


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A source's images.

    Attributes:
        root: Absolute folder that the keys are relative to; empty where images are rows, not files.
        reader: Gives each key's encoded image.
        classes: Class names; sorted, unless the set has an order of its own.
        items: By ``train``, ``val``, ``test`` where the source has them ready (``train`` always,
            the others perhaps), or all under ``all``; each sorted by (label, key).
        spellings: The class names as the data write them, see ``Classes``; empty where they are ``classes``.
        left_out: What lies there and is no image of the set.
        notes: Lines for the data card: how the source was read.
        doubt: A question to answer before a search begins, such as whether folders are splits; or empty.
    """

    root: str
    reader: Reader
    classes: tuple[str, ...]
    items: Mapping[str, tuple[Item, ...]]
    spellings: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    doubt: str = ""
