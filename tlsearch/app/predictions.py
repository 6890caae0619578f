"""Predictions of a model for files, folders, and folders with labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from tlsearch.app.compare import refuse_sealed
from tlsearch.app.outcome import find_checkpoint
from tlsearch.data import IMAGE_SUFFIXES
from tlsearch.data.sources import list_source
from tlsearch.errors import DataError
from tlsearch.results import load_model, predict
from tlsearch.results.classes import check_classes
from tlsearch.results.statistics import wilson_interval
from tlsearch.types import DataSpec


def predict_images(
    model: str,
    images: Sequence[Path],
    *,
    storage: Path | None = None,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Predictions in the published shape: [{path, label, score, top: [{label, score}]}].

    Args:
        progress: Hears how many images are done, and of how many.
    """
    files = _image_files(images)
    loaded = load_model(find_checkpoint(model, storage), device=device)
    hear = None if progress is None else partial(_tell, progress, len(files))
    return [asdict(prediction) for prediction in predict(loaded, files, progress=hear)]


def predict_labelled(
    model: str, data: Path, *, split: str = "val", storage: Path | None = None, device: str = "auto"
) -> dict[str, Any]:
    """Predictions for a folder of labelled images, and how many are right.

    Args:
        data: One folder for each class, of which all images are taken; or train/ and val/ with such folders.
        split: Of the latter: train or val. The test split is looked at by ``promote`` alone.

    Returns:
        {accuracy, interval, images, predictions}: the predictions in the published shape with ``truth`` added.

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
    predictions: list[dict[str, Any]] = []
    for item, prediction in zip(items, predict(loaded, files), strict=True):
        predictions.append({**asdict(prediction), "truth": listing.classes[item.label]})
    accuracy = sum(one["label"] == one["truth"] for one in predictions) / len(predictions)
    interval = wilson_interval(accuracy, len(predictions))
    return {
        "accuracy": accuracy,
        "interval": [interval.low, interval.high],
        "images": len(predictions),
        "predictions": predictions,
    }


def _tell(progress: Callable[[int, int], None], total: int, done: int) -> None:
    progress(done, total)


def _image_files(images: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in images:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
            if not found:
                raise DataError(f"a folder to predict holds images; {path} has none")
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise DataError(f"no such image file or folder: {path}")
    return files
