"""Folders and columns that name a split: train, val or test, as public data sets write them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping

_WORDS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validate", "validation", "dev", "devel", "development"),
    "test": ("test", "testing", "tst"),
    # Some mean validation by it (Keras, PyTorch's examples), some test (Hugging Face): see ``read_split_names``.
    "eval": ("eval", "evaluate", "evaluation"),
}
_SPLIT_OF = {word: split for split, words in _WORDS.items() for word in words}
# Words that may stand beside: train_set, "Training Data", val_images, test2017, seg_train.
_FILLERS = (
    "data", "dataset", "datasets", "files", "folder", "images", "image", "imgs", "img", "photos", "pics", "pictures",
    "samples", "set", "split", "seg",
)  # fmt: skip
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_]+")


def read_split_names(names: Iterable[str]) -> dict[str, str]:
    """The split that each name stands for, in any case and spelling: ``Train``, ``VAL``, ``valid``, ``test_set``.

    ``eval`` is the val split, unless another name is: then it is the test split.

    Returns:
        train, val or test by name; names that stand for no split are left out. Several may stand for one.
    """
    found = {name: split for name in names if (split := _split_of(name)) is not None}
    evaluation = "test" if "val" in found.values() else "val"
    return {name: evaluation if split == "eval" else split for name, split in found.items()}


def speaks_of_a_split(name: str) -> bool:
    """Whether a word of the name is one for a split, whatever stands beside it: ``my-train-v2``."""
    return any(word in _SPLIT_OF for word in _words(name))


def spelling_note(splits: Mapping[str, str]) -> str:
    """How names were understood, by split; empty where all are called as we call them."""
    if all(name == split for split, name in splits.items()):
        return ""
    return "the splits: " + ", ".join(f"{split} is {name}/" for split, name in splits.items())


def _split_of(name: str) -> str | None:
    words = [word for word in _words(name) if not word.isdigit() and word not in _FILLERS]
    if len(words) != 1:
        return None
    word = words[0]
    for filler in ("set", "data", "images", "imgs"):  # trainset, testdata
        if word not in _SPLIT_OF:
            word = word.removesuffix(filler)
    return _SPLIT_OF.get(word)


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(unicodedata.normalize("NFKC", name).replace("_", " "))]
