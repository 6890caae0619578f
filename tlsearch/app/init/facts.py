"""What a space file is fitted to: the images and this machine. No torch, no model, no image of a test split."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tlsearch.core.errors import DataError
from tlsearch.core.files import first_existing
from tlsearch.core.label_tasks import DEFAULT_TASK, TaskName, class_counts
from tlsearch.core.text import one_of
from tlsearch.core.types import DataSpec, SplitSpec
from tlsearch.data import DataCard, ImageIndex, data_card, find_pixels, load_index
from tlsearch.data.images.pixel_budget import num_decoders
from tlsearch.data.sources.listing import Listing, list_source
from tlsearch.data.sources.manifest import table_task
from tlsearch.doctor.environment import memory_gb

_TABLES = (".csv", ".tsv", ".parquet")
_TAKES = f"init takes a folder with one folder of images per class, or a table ({one_of(_TABLES)})"
_GREY_MODES = ("1", "L", "I", "I;16", "I;16B", "I;16L", "I;16N", "F", "LA", "La")
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
# What a group may be called by in an image's path below its class: a folder, or a name before a number.
_GROUP_PATTERNS = (r"^([^/]+)/", r"^(.+?)[-_ ]?\(?\d+\)?\.[^.]+$", r"^(.+)[-_][^-_]+\.[^.]+$", r"^([^-_]+)[-_]")
_EXPLAINED = 0.8  # fraction of the doubles that one pattern must bring together
_MIN_GROUPS = 4  # of each class, so that every split can have some


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """The images.

    Attributes:
        spec: Where they are and how they are split.
        ready: The splits that the source has: names of folders or of the table's column; empty where none.
        images: By split.
        per_class: Images of train by class.
        sides: Shortest, median and longest shorter side, in pixels.
        grey: Whether every image is grey.
        alpha: Fraction of the images with transparency.
        leaks: Pairs of images in different splits that show the same picture.
        notes: Of the data card.
    """

    spec: DataSpec
    classes: tuple[str, ...]
    ready: tuple[str, ...]
    images: Mapping[str, int]
    per_class: Mapping[str, int]
    sides: tuple[int, float, int]
    grey: bool
    alpha: float
    leaks: int
    notes: tuple[str, ...]
    index: ImageIndex

    @property
    def num_train(self) -> int:
        """Images of the training split."""
        return self.images["train"]

    @property
    def imbalance(self) -> float:
        """Images of the largest class of train to those of the smallest."""
        return max(self.per_class.values()) / max(1, min(self.per_class.values()))


@dataclass(frozen=True, kw_only=True)
class Machine:
    """This machine.

    Attributes:
        memory_gb: Of the machine, or of the container.
        gpus: Name of each NVIDIA GPU.
        disk_gb: Free where the searches will be kept.
    """

    cores: int
    memory_gb: float
    gpus: tuple[str, ...]
    disk_gb: float


def look_at_data(path: str, *, layout: str = "auto") -> DataFacts:
    """Lists the images and opens those of train and val.

    Args:
        path: A folder, here or ``s3://``, or a table of paths and labels.
        layout: As ``data.layout``.

    Raises:
        DataError: No class has images, or too few of a class, or some that cannot be decoded.
    """
    if "://" not in path and not os.path.exists(path):
        raise DataError(f"{path} does not exist; {_TAKES}")
    source = "manifest" if path.lower().endswith(_TABLES) else "folder"
    if source == "folder" and os.path.isfile(path):
        raise DataError(f"{path} is a file; {_TAKES}")
    place = path if "://" in path else os.path.abspath(path)
    task: TaskName = table_task(place) if source == "manifest" else DEFAULT_TASK
    spec = DataSpec(source=source, path=place, layout=layout, task=task)  # type: ignore[arg-type]
    listing = list_source(spec)
    if listing.doubt:
        raise DataError(listing.doubt.replace("say `layout: classes` under data", "add --layout classes"))
    spec = replace(spec, split=_split(listing))
    index = _with_pixels(load_index(spec))
    card = data_card(index, scan=True)
    pattern = _group_pattern(index, card) if source == "folder" and "all" in listing.items else None
    if pattern is not None:
        grouped = replace(spec, split=replace(spec.split, group_by=pattern))
        try:
            index = _with_pixels(load_index(grouped))
            card, spec = data_card(index, scan=True), grouped
        except DataError:  # too few groups to give every split some
            pass
    if card.corrupt:
        raise DataError(card.corrupt_message())
    return _facts(spec, listing, index, card)


def _with_pixels(index: ImageIndex) -> ImageIndex:
    """The index with the channels and bits that its images have."""
    return replace(index, pixels=find_pixels(index, DataSpec(source=index.source)))


def _facts(spec: DataSpec, listing: Listing, index: ImageIndex, card: DataCard) -> DataFacts:
    assert card.width is not None and card.height is not None, "an index has images, and none is corrupt"
    seen = sum(card.modes.values())
    return DataFacts(
        spec=spec,
        classes=index.classes,
        ready=() if "all" in listing.items else tuple(listing.items),
        images={name: len(split) for name, split in index.splits.items()},
        per_class=dict(card.splits["train"].per_class),
        sides=(
            min(card.width.min, card.height.min),
            min(card.width.median, card.height.median),
            min(card.width.max, card.height.max),
        ),
        grey=all(mode in _GREY_MODES for mode in card.modes),
        alpha=sum(count for mode, count in card.modes.items() if mode in _ALPHA_MODES) / seen,
        leaks=len(card.leaks),
        notes=card.notes,
        index=index,
    )


def _split(listing: Listing) -> SplitSpec:
    """More of few images to val and test: 100 of each tell apart what 20 cannot."""
    if "val" in listing.items:
        return SplitSpec()
    if "all" not in listing.items:  # test is there
        return SplitSpec(val=_fraction(len(listing.items["train"]), most=0.25))
    total = len(listing.items["all"])
    counts = class_counts(item.label for item in listing.items["all"])
    smallest = min(counts[label] for label in range(len(listing.classes)))
    test = 0.0 if smallest < 3 else _fraction(total, most=0.2)
    return SplitSpec(val=_fraction(total, most=0.25), test=test)


def _fraction(total: int, *, most: float) -> float:
    return round(min(max(0.15, 100 / max(total, 1)), most), 2)


def _group_pattern(index: ImageIndex, card: DataCard) -> str | None:
    """An expression that puts doubles into one group, where the names of the files say which images belong together.

    Doubles are the sign that images come in groups: frames of a film, photographs of one object.
    """
    pairs = [pair for pair in (*card.leaks, *card.duplicates) if pair.kind == "near"]
    if len(pairs) < 3:
        return None
    paths = {key: key.partition("/")[2] for split in index.splits.values() for key in split.keys}
    labels = {
        key: label for split in index.splits.values() for key, label in zip(split.keys, split.labels, strict=True)
    }
    keys = {index.reader.name(key): key for key in paths}
    for pattern in _GROUP_PATTERNS:
        found = {key: match[1] for key, path in paths.items() if (match := re.search(pattern, path))}
        if len(found) < len(paths):
            continue
        together = sum(found[keys[pair.first.path]] == found[keys[pair.second.path]] for pair in pairs)
        groups = {(labels[key], group) for key, group in found.items()}
        by_class = Counter(label for label, _ in groups)
        if together >= _EXPLAINED * len(pairs) and min(by_class.values()) >= _MIN_GROUPS:
            return pattern
    return None


def look_at_machine(folder: Path) -> Machine:
    """Cores, memory, GPUs, and the free disk of the nearest existing folder above ``folder``."""
    return Machine(
        cores=num_decoders(),
        memory_gb=memory_gb()[1],
        gpus=_gpus(),
        disk_gb=shutil.disk_usage(first_existing(folder.absolute())).free / 1e9,
    )


def _gpus() -> tuple[str, ...]:
    """The GPUs that the driver's own tool lists and CUDA_VISIBLE_DEVICES shows: asking torch takes seconds."""
    tool, visible = shutil.which("nvidia-smi"), os.environ.get("CUDA_VISIBLE_DEVICES")
    if tool is None or visible in ("", "-1"):
        return ()
    try:
        done = subprocess.run(
            [tool, "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    names = tuple(line.strip() for line in done.stdout.splitlines() if line.strip())
    return names if visible is None else names[: len(visible.split(","))]
