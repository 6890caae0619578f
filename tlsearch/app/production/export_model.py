"""Writes a trained model in a format that runs without tlsearch, once it is shown to give what the model gives."""

from __future__ import annotations

import os
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from tlsearch.app.catalog.catalog import SearchEntry, find, names_search, read_entry
from tlsearch.app.catalog.stored import stored_file
from tlsearch.app.views.outcome import find_checkpoint
from tlsearch.config import one_of
from tlsearch.core.errors import DataError, StorageError, UsageError, UserError
from tlsearch.core.export_formats import EXPORT_FORMATS
from tlsearch.core.files import IMAGE_BYTES, read_regular
from tlsearch.data import decode_rgb, images_below, load_index, read_image
from tlsearch.results import load_model
from tlsearch.results.export.base import Parity, check_parity, expected_outputs, prepared_images
from tlsearch.results.leaderboard.search_facts import this_cpu
from tlsearch.tracking import model_origin

MAX_IMAGES = 100
_URI = re.compile(r"[a-z][a-z0-9+.-]+:/")
_WARMUPS, _REPEATS = 3, 20


@dataclass(frozen=True, kw_only=True)
class FormatLatency:
    """Median time of one image, in milliseconds; the format ``model`` is the model itself."""

    format: str
    ms: float


@dataclass(frozen=True, kw_only=True)
class ExportedModel:
    """What ``export`` has written, and how it compares with the model.

    Attributes:
        path: The file, or the folder of a script.
        latency: Of the model, then of the format, on the machine ``latency_on``.
    """

    format: str
    path: str
    parity: Parity
    latency: tuple[FormatLatency, ...]
    latency_on: str


def export_model(
    model: str,
    *,
    form: str,
    output: Path | None = None,
    images: Path | None = None,
    storage: Path | None = None,
) -> ExportedModel:
    """Exports a model.

    Args:
        model: As for ``predict``.
        form: One of `EXPORT_FORMATS`.
        output: The file, or the folder of a script; must not exist.
        images: A folder of images to check on; else the validation images of the search that the model comes from (by
            its ID, its folder, or the tags of an MLflow model), else made-up ones.

    Raises:
        UserError: No such format, or one that this model or this installation does not allow.
        StorageError: The output exists or cannot be written.
        ParityError: The exported model gives something else; nothing is left.
    """
    if form not in EXPORT_FORMATS:
        raise UsageError(f"a format is {one_of(EXPORT_FORMATS)}, not {form!r}")
    target = (output or Path(EXPORT_FORMATS[form].default_output)).absolute()
    if target.exists():
        raise StorageError(f"{target} exists; an export overwrites nothing")
    classifier = load_model(find_checkpoint(model, storage), device="cpu")
    real = _some_images(model, images, storage)
    pixels = prepared_images(classifier, real)
    expected = expected_outputs(classifier, pixels)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".tlsearch-export-", dir=target.parent))
    except OSError as error:
        raise StorageError(f"{target.parent} cannot be written: {error.strerror or error}") from error
    try:
        made = scratch / f"model{EXPORT_FORMATS[form].suffix}"
        module = import_module(EXPORT_FORMATS[form].module)
        module.write(classifier, made)
        run = module.open_model(made)
        parity = check_parity(form, run, pixels, expected, real=bool(real))
        first = [one[:1] for one in pixels]
        latency = [
            FormatLatency(format="model", ms=_latency(lambda *one: expected_outputs(classifier, one), first)),
            FormatLatency(format=form, ms=_latency(run, first)),
        ]
        os.replace(made, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return ExportedModel(
        format=form,
        path=str(target),
        parity=parity,
        latency=tuple(latency),
        latency_on=f"{this_cpu(torch.get_num_threads())}, batch of 1",
    )


def _some_images(model: str, folder: Path | None, storage: Path | None) -> Sequence[Image.Image]:
    if folder is not None:
        if not folder.is_dir():
            raise UsageError(f"--images names a folder of images; {folder} is not a folder")
        files = [folder / one for one in images_below(folder).images[:MAX_IMAGES]]
        if not files:
            raise DataError(f"a folder to check an export on holds images; {folder} has none")
        return [decode_rgb(read_regular(one, IMAGE_BYTES), str(one)) for one in files]
    try:
        entry = search_of_model(model, storage)
        if entry is None:
            return ()
        file, _ = stored_file(entry, "so its images are not known")
        index = load_index(file.data)
    except UserError:
        if names_search(model):
            raise
        return ()  # a model outlives its search and its images
    keys = index.splits["val"].keys
    step = max(1, len(keys) // MAX_IMAGES)  # of all classes: keys are sorted by label
    return [read_image(index, key) for key in keys[::step][:MAX_IMAGES]]


def search_of_model(model: str, storage: Path | None = None) -> SearchEntry | None:
    """The search that a model comes from: by its ID, by the folder it lies in, or by the tags of an MLflow model.

    Raises:
        StorageError: The search does not exist here.
    """
    if names_search(model):
        return find(model.partition(":")[0], storage)
    if _URI.match(model):
        origin = model_origin(model)
        if origin is None:
            return None
        entry = find(origin.search_id, storage)
        return entry if entry.uid == origin.uid else None
    folder = Path(model).absolute()
    around = (read_entry(one) for one in (folder, *folder.parents))
    return next((one for one in around if one is not None), None)


def _latency(run: Callable[..., object], image: Sequence[Tensor]) -> float:
    times = []
    for _ in range(_WARMUPS + _REPEATS):
        start = time.perf_counter()
        run(*image)
        times.append(time.perf_counter() - start)
    return 1000.0 * statistics.median(times[_WARMUPS:])
