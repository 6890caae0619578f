"""What a source hands over: the images it found, before anything is split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


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
        root: Absolute folder that the keys are relative to; empty for bundled sets.
        classes: Sorted class names.
        items: By ``train``, ``val``, ``test`` where the source has them ready (``train`` always,
            the others perhaps), or all under ``all``; each sorted by (label, key).
    """

    root: str
    classes: tuple[str, ...]
    items: Mapping[str, tuple[Item, ...]]
