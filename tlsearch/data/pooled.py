"""The images of train and val as one pool: for a model that no validation has to choose any more, and for folds.

Trials with folds hold out each image of the pool once.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from tlsearch.data.index import ImageIndex, Kept, Split
from tlsearch.data.sources.listing import Item
from tlsearch.data.splits import fold_items


def with_val_in_train(index: ImageIndex) -> ImageIndex:
    """The data set with the images of val in train as well, for a model that no validation has to choose any more.

    Its digest is another one, so that no stored pixels or features are taken for those of the split data.
    """
    both, order = _both(index)
    splits = {**index.splits, "train": both.part(order)}
    return index.with_splits(splits)


def rows_with_val_in_train(index: ImageIndex) -> dict[str, tuple[int, ...]]:
    """Where the images of train and val are in the train split of ``with_val_in_train``, by split."""
    _, order = _both(index)
    place = {row: position for position, row in enumerate(order)}
    num = len(index.splits["train"])
    return {
        "train": tuple(place[row] for row in range(num)),
        "val": tuple(place[row] for row in range(num, len(order))),
    }


def _both(index: ImageIndex) -> tuple[Split, list[int]]:
    """The images of train, then those of val, and the order that sorts them."""
    train, val = index.splits["train"], index.splits["val"]
    both = Split(
        keys=train.keys + val.keys,
        labels=train.labels + val.labels,
        digests=train.digests + val.digests,
        groups=_groups(train) + _groups(val) if train.groups or val.groups else (),
    )
    return both, sorted(range(len(both)), key=lambda row: (both.labels[row], both.keys[row], both.digests[row]))


def _groups(split: Split) -> tuple[str, ...]:
    return split.groups or split.keys


def fold_indexes(index: ImageIndex, num_folds: int, *, seed: int) -> tuple[ImageIndex, ...]:
    """The images of train and val cut into folds: each fold's are val once, where all others are train.

    A node keeps pixels and features of all of them once, as those of ``with_val_in_train``.

    Args:
        num_folds: K, at least 2.
        seed: Of the folds.

    Returns:
        K data sets, each with a digest of its own.

    Raises:
        DataError: A class has fewer images, or groups, than there are folds.
    """
    pool = with_val_in_train(index)
    images = pool.splits["train"]
    groups = images.groups or tuple(map(str, range(len(images))))
    items = [
        Item(key=f"{row:09}", label=label, group=group)
        for row, (label, group) in enumerate(zip(images.labels, groups, strict=True))
    ]
    folds = [{int(item.key) for item in fold} for fold in fold_items(items, index.classes, num_folds, seed)]
    return tuple(_fold(pool, images, held_out) for held_out in folds)


def _fold(pool: ImageIndex, images: Split, held_out: Collection[int]) -> ImageIndex:
    rows = {
        "train": tuple(row for row in range(len(images)) if row not in held_out),
        "val": tuple(sorted(held_out)),
    }
    splits = {**pool.splits, **{name: images.part(own) for name, own in rows.items()}}
    shared = {name: Kept(index=pool, split="train", rows=own) for name, own in rows.items()}
    return replace(pool.with_splits(splits), shared=shared)
