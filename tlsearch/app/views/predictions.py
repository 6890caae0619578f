"""Predictions of a model for files, folders, and folders with labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tlsearch.app.views.compare_searches import refuse_sealed
from tlsearch.app.views.outcome import find_checkpoint
from tlsearch.core.errors import DataError, UsageError
from tlsearch.core.label_tasks import SEPARATOR, joined_names
from tlsearch.core.types import DataSpec
from tlsearch.data import FolderImages, images_below
from tlsearch.data.sources.listing import list_source
from tlsearch.results import load_model
from tlsearch.results.inference.answers import MultiLabelPrediction, Prediction, Unreadable
from tlsearch.results.inference.labelled import check_classes
from tlsearch.results.inference.predictor import predict_readable
from tlsearch.results.stats.intervals import Interval, wilson_interval


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """The answers of a model for images.

    Attributes:
        answers: In the order of the images.
        truths: The label of each image, where they are labelled, several with bars between them; else empty.
        notes: Which files of folders were left out, in words.
        unlisted: Why folders inside the given ones could not be listed.
    """

    answers: tuple[Prediction | Unreadable, ...]
    truths: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()

    @property
    def predicted(self) -> list[Prediction]:
        """Those of the images that can be read."""
        return [one for one in self.answers if isinstance(one, Prediction)]

    @property
    def errors(self) -> list[str]:
        """Why an image has no prediction, or a folder could not be listed."""
        return [*(one.error for one in self.answers if isinstance(one, Unreadable)), *self.unlisted]

    @property
    def accuracy(self) -> float | None:
        """Of the labelled images that can be read; None without labels. With several, all of an image must be right."""
        pairs = zip(self.answers, self.truths, strict=False)
        right = [_is_right(one, truth) for one, truth in pairs if isinstance(one, Prediction)]
        return sum(right) / len(right) if right else None

    @property
    def interval(self) -> Interval | None:
        """Of the accuracy, 95 %."""
        return None if self.accuracy is None else wilson_interval(self.accuracy, len(self.predicted))


def predict_images(
    model: str,
    images: Sequence[Path],
    *,
    storage: Path | None = None,
    device: str = "auto",
    strict: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Predictions:
    """Predictions for image files and for all images of folders, which are found as those of training folders are.

    Args:
        strict: An image that cannot be read is an error, and no image is predicted; else the others are.
        progress: Hears how many images are done, and of how many.

    Raises:
        DataError: A file or folder does not exist, or a folder has no image.
    """
    files, notes, unlisted = _image_files(images)
    if strict and unlisted:
        raise DataError(unlisted[0])
    loaded = load_model(find_checkpoint(model, storage), device=device)
    heard = None if progress is None else lambda done: progress(done, len(files))
    answers = predict_readable(loaded, files, strict=strict, progress=heard)
    return Predictions(answers=tuple(answers), notes=notes, unlisted=unlisted)


def predict_labelled(
    model: str,
    data: Path,
    *,
    split: str = "val",
    storage: Path | None = None,
    device: str = "auto",
    strict: bool = False,
) -> Predictions:
    """Predictions for a folder of labelled images, with their labels.

    Args:
        data: One folder for each class, of which all images are taken; or train/ and val/ with such folders. For a
            multi-label model a table with the classes of each image.
        split: Of the latter: train or val. The test split is looked at by ``promote`` alone.

    Raises:
        DataError: The folder's classes are not the model's, in content and order; gives both lists. Or the images are
            those of the test split of the model's search.
    """
    if split not in ("train", "val"):
        raise UsageError(f"labelled images are those of train or val, not {split!r}: `promote` alone looks at test")
    loaded = load_model(find_checkpoint(model, storage), device=device)
    if data.is_dir():
        loaded.task.require("folders", f"a folder of labelled images ({data})")
    source = "manifest" if loaded.task.several else "folder"
    listing = list_source(DataSpec(source=source, path=str(data.absolute()), task=loaded.task.name))
    check_classes(loaded.classes, listing.classes)
    items = listing.items.get("all") or listing.items.get(split)
    if items is None:
        raise DataError(f"{data} has the splits {', '.join(listing.items)}, not {split}")
    files = [Path(listing.root, item.key) for item in items]
    refuse_sealed(files, (model,), storage)
    answers = predict_readable(loaded, files, strict=strict)
    truths = tuple(joined_names(item.label, listing.classes) for item in items)
    found = Predictions(answers=tuple(answers), truths=truths)
    if not found.predicted:
        raise DataError(f"no image of {data} can be read; the first: {found.errors[0]}")
    return found


def _is_right(answer: Prediction, truth: str) -> bool:
    if isinstance(answer, MultiLabelPrediction):
        return {one.label for one in answer.labels} == set(truth.split(SEPARATOR) if truth else ())
    return answer.label == truth


def _image_files(images: Sequence[Path]) -> tuple[list[Path], tuple[str, ...], tuple[str, ...]]:
    """The files, what was left out of folders, and what is wrong with folders inside them."""
    files: list[Path] = []
    notes: list[str] = []
    unlisted: list[str] = []
    for path in images:
        try:
            is_dir, exists = path.is_dir(), path.exists()
        except OSError as error:  # a name too long for any file
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
        if is_dir:
            found = images_below(path)
            notes += _left_out(path, found)
            unlisted += found.unlisted
            if not found.images:
                reason = notes[-1] if found.left_out else "it is empty"
                raise DataError("; ".join([f"a folder to predict holds images, {path} has none: {reason}", *unlisted]))
            files += [path / one for one in found.images]
        elif exists:  # a pipe, as of <(...), too
            files.append(path)
        else:
            raise DataError(f"the image file or folder {path} does not exist")
    return files, tuple(notes), tuple(unlisted)


def _left_out(path: Path, found: FolderImages) -> list[str]:
    if not found.left_out:
        return []
    kinds = ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in sorted(found.left_out.items()))
    return [f"{path}: left out by their suffix: {kinds}"]
