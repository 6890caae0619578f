"""Predictions of a model for files, folders, and folders with labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tlsearch.app.views.compare_searches import refuse_sealed
from tlsearch.app.views.outcome import find_checkpoint
from tlsearch.core.errors import DataError
from tlsearch.core.types import DataSpec
from tlsearch.data import FolderImages, images_below
from tlsearch.data.sources.listing import list_source
from tlsearch.results import load_model
from tlsearch.results.inference.labelled import check_classes
from tlsearch.results.inference.predictor import Prediction, Unreadable, predict_readable
from tlsearch.results.stats.intervals import wilson_interval


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What became of images.

    Attributes:
        images: In the published shape, in the order of the images: {path, label, score, top: [{label, score}], error};
            of an image that cannot be read, ``error`` says why, ``label`` and ``score`` are None and ``top`` is empty.
        notes: Which files of folders were left out, in words.
        unlisted: Why folders inside the given ones could not be listed.
    """

    images: list[dict[str, Any]]
    notes: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()

    @property
    def errors(self) -> list[str]:
        """What has no prediction, and why."""
        return [*(one["error"] for one in self.images if one["error"] is not None), *self.unlisted]


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
    hear = None if progress is None else partial(_tell, progress, len(files))
    answers = predict_readable(loaded, files, strict=strict, progress=hear)
    return Predictions(images=[_published(one) for one in answers], notes=notes, unlisted=unlisted)


def predict_labelled(
    model: str,
    data: Path,
    *,
    split: str = "val",
    storage: Path | None = None,
    device: str = "auto",
    strict: bool = False,
) -> dict[str, Any]:
    """Predictions for a folder of labelled images, and how many are right.

    Args:
        data: One folder for each class, of which all images are taken; or train/ and val/ with such folders.
        split: Of the latter: train or val. The test split is looked at by ``promote`` alone.

    Returns:
        {accuracy, interval, images, predictions}: the predictions in the published shape with ``truth`` added. Images
        that cannot be read are among them with their ``error``; they count neither as ``images`` nor as wrong.

    Raises:
        DataError: The folder's classes are not the model's, in content and order; gives both lists. Or the images are
            those of the test split of the model's search.
    """
    if split not in ("train", "val"):
        raise DataError(f"labelled images are those of train or val, not {split!r}: `promote` alone looks at test")
    listing = list_source(DataSpec(source="folder", path=str(data.absolute())))
    loaded = load_model(find_checkpoint(model, storage), device=device)
    check_classes(loaded.classes, listing.classes)
    items = listing.items.get("all") or listing.items.get(split)
    if items is None:
        raise DataError(f"{data} has the splits {', '.join(listing.items)}, not {split}")
    files = [Path(listing.root, item.key) for item in items]
    refuse_sealed(files, (model,), storage)
    answers = predict_readable(loaded, files, strict=strict)
    predictions = [
        {**_published(one), "truth": listing.classes[item.label]} for item, one in zip(items, answers, strict=True)
    ]
    known = [one for one in predictions if one["error"] is None]
    if not known:
        raise DataError(f"no image of {data} can be read; the first: {predictions[0]['error']}")
    accuracy = sum(one["label"] == one["truth"] for one in known) / len(known)
    interval = wilson_interval(accuracy, len(known))
    return {
        "accuracy": accuracy,
        "interval": [interval.low, interval.high],
        "images": len(known),
        "predictions": predictions,
    }


def _published(answer: Prediction | Unreadable) -> dict[str, Any]:
    if isinstance(answer, Prediction):
        return {**asdict(answer), "error": None}
    return {"path": answer.path, "label": None, "score": None, "top": [], "error": answer.error}


def _tell(progress: Callable[[int, int], None], total: int, done: int) -> None:
    progress(done, total)


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
