"""How the folders of a data set lie: which are splits, and whether those taken for classes look like splits."""

from __future__ import annotations

from collections.abc import Mapping

from tlsearch.core.errors import DataError
from tlsearch.data.failures import quoted
from tlsearch.data.sources.folder_walk import FolderWalk
from tlsearch.data.sources.left_out import NO_SPLIT
from tlsearch.data.sources.split_names import read_split_names, speaks_of_a_split

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
    flat = read_split_names(names)  # as test/ of a competition, whose labels nobody has
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
