"""How the folders of a data set are arranged: which are splits, and whether classes look like splits.

Folders and columns name a split in many spellings: train, Training, val, valid, test_set.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping

from tlsearch.core.errors import DataError
from tlsearch.data.image_files import quoted
from tlsearch.data.sources.folder_walk import FolderWalk
from tlsearch.data.sources.left_out import NO_SPLIT

_UNLABELLED = "images of a split that are in no class folder"
_ANSWER = "if the top folders are the classes, say `layout: classes` under data"


def split_folders(walk: FolderWalk) -> dict[str, str]:
    """The folder of each ready split, relative to the root; ``{"all": ""}`` where there are none.

    Raises:
        DataError: Several folders are one split, or train is missing, or it may be a class as well as a split.
    """
    # A class may be called "train" (vehicles): then it holds images, not folders of classes.
    folders = walk.folders("")
    named = read_split_names([name for name in folders if walk.folders(name)])
    splits: dict[str, str] = {}
    for name, split in named.items():
        if split in splits:
            raise DataError(f"{walk.root}: both {splits[split]}/ and {name}/ are the {split} split; keep one")
        splits[split] = name
    if not splits:
        return {"all": ""}
    if "train" not in splits:
        found = ", ".join(f"{name}/" for name in splits.values())
        raise DataError(f"{walk.root}: has {found} but no train/ with a folder per class")
    _leave_out_others(walk, [name for name in folders if name not in named], splits)
    return {name: _innermost(walk, splits[name], name) for name in ("train", "val", "test") if name in splits}


def _leave_out_others(walk: FolderWalk, names: list[str], splits: Mapping[str, str]) -> None:
    flat = read_split_names(names)  # as test/ of a competition, whose labels are not public
    others = {name: images for name in names if (images := walk.images(name))}
    doubtful = [name for name in others if name not in flat]
    if doubtful and len(splits) == 1:
        raise DataError(
            f"{walk.root}: is {splits['train']}/ a class or a split? Move {quoted(doubtful)} away, "
            f"or the folders inside {splits['train']}/"
        )
    for name, images in others.items():
        walk.leave_out(_UNLABELLED if name in flat else NO_SPLIT, images)


def _innermost(walk: FolderWalk, key: str, split: str) -> str:
    """``training_set/training_set`` where an archive was unpacked into a folder of its own name."""
    while len(inside := walk.folders(key)) == 1 and read_split_names(inside) == {inside[0]: split}:
        walk.note_strays(key)
        key = f"{key}/{inside[0]}"
    return key


def doubt(walk: FolderWalk, classes: Mapping[str, list[str]]) -> str:
    """A question where folders that were taken for classes look like splits; empty where they do not.

    Args:
        walk: Of the data folder.
        classes: The images below each top folder, by its name.
    """
    inside = {
        name: {key.removeprefix(f"{name}/").partition("/")[0] for key in images if key.count("/") > 1}
        for name, images in classes.items()
        if images and not any(key.count("/") == 1 for key in images)
    }
    for name, folders in inside.items():
        if len(known := set(read_split_names(folders).values())) > 1 and "train" in known:
            return (
                f"{walk.root}: {name}/ holds {quoted(sorted(folders))}: are these splits? "
                f"Splits are the top folders (train/{name}/, not {name}/train/); {_ANSWER}"
            )
    if len(inside) < 2 or len(inside) < len(classes):
        return ""
    common, all_of_them = set.intersection(*inside.values()), set.union(*inside.values())
    alike = len(common) > 1 and 2 * len(common) >= len(all_of_them)
    if alike or any(speaks_of_a_split(name) for name in inside):
        same = (
            f" hold nothing but the same folders ({quoted(sorted(common))})" if alike else " hold nothing but folders"
        )
        return (
            f"{walk.root}: {quoted(sorted(inside))}{same}: are these splits? "
            f"Call them train, val and test (Train, valid, test_set ... are known too); {_ANSWER}"
        )
    return ""


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
