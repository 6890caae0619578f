"""Writes a trained model in a format that runs without tlsearch, once it is shown to give what the model gives."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path

import torch

from tlsearch.app.catalog.catalog import SearchEntry, find, names_search, read_entry
from tlsearch.app.catalog.stored import stored_file
from tlsearch.app.checks.outputs import check_output
from tlsearch.app.searches.input_digests import refuse_changed_images
from tlsearch.app.views.outcome import find_checkpoint
from tlsearch.core.errors import DataError, StorageError, UsageError, UserError
from tlsearch.core.files import IMAGE_BYTES, read_regular
from tlsearch.data import ImageIndex, Picture, decode_image, images_below, load_index, read_image
from tlsearch.results import load_model
from tlsearch.results.export.base import Parity, check_parity, expected_outputs, prepared_images, spread
from tlsearch.results.export.export_formats import ExportFormat, export_format, formats_of_any_model
from tlsearch.results.export.hf_folder import check_push, push
from tlsearch.results.export.onnx_int8 import Int8Test, quantize
from tlsearch.results.inference.predictor import Classifier
from tlsearch.results.leaderboard.search_facts import this_cpu
from tlsearch.tracking import model_origin
from tlsearch.trial import time_calls

MAX_IMAGES = 100
_URI = re.compile(r"[a-z][a-z0-9+.-]+:/")


@dataclass(frozen=True, kw_only=True)
class FormatLatency:
    """The fastest pass of one image of 20, in milliseconds; the format ``model`` is the model itself."""

    format: str
    ms: float


@dataclass(frozen=True, kw_only=True)
class ExportedModel:
    """What ``export`` has written, and how it compares with the model.

    Attributes:
        path: The file, or the folder of a format that has several files.
        parity: Of the format in fp32.
        latency: Of the model, then of the format, then of its 8-bit form, on the machine ``latency_on``.
        int8: What 8-bit integers cost, where they were asked for.
        pushed: The address on the Hub; empty where it was not uploaded.
    """

    format: str
    path: str
    parity: Parity
    latency: tuple[FormatLatency, ...]
    latency_on: str
    int8: Int8Test | None = None
    pushed: str = ""


def export_model(
    model: str,
    *,
    form: str,
    output: Path | None = None,
    images: Path | None = None,
    storage: Path | None = None,
    int8: bool = False,
    push_to: str = "",
) -> ExportedModel:
    """Exports a model.

    Args:
        model: As for ``predict``.
        form: One of `EXPORT_FORMATS`.
        output: The file, or the folder of a format that has several files; must not exist,
            and lies in a folder that does.
        images: A folder of images to check on; else the validation images of the search that the model comes from (by
            its ID, its folder, or the tags of an MLflow model), else made-up ones.
        int8: Quantize with training images of that search, and test on its validation images.
        push_to: A repository of the Hugging Face Hub to upload the folder to.

    Raises:
        UserError: No such format, or one that this model or this installation does not allow.
        DataError: The images of the search are needed and cannot be read.
        UsageError: The folder of the output does not exist.
        StorageError: The output exists or cannot be written.
        ParityError: The exported model gives something else; nothing is left.
        HubError: The upload failed; the folder is there.
    """
    chosen = export_format(form, [name for name, value in (("int8", int8), ("push", push_to)) if value])
    target = (output or Path(chosen.default_output)).absolute()
    if target.exists():
        raise StorageError(f"{target} exists; an export overwrites nothing")
    check_output(target, "--output")
    if push_to:
        check_push(push_to)
    classifier = load_model(find_checkpoint(model, storage), device="cpu")
    if len(classifier.networks) > 1 and not chosen.any_model:
        raise UserError(
            f"the format {form} holds one network, and {model} is an ensemble: use --format {formats_of_any_model()}"
        )
    if images is not None and not int8:
        found, index = _images_of(images, classifier), None
    else:
        index = _index_of(model, storage, needed=int8)
        found = _images_of(images, classifier) if images is not None else _validation_images(index, classifier)
    with _beside(target) as scratch:
        exported = _export(classifier, chosen, found, target, scratch, index if int8 else None)
    return replace(exported, pushed=push(target, push_to)) if push_to else exported


def _export(
    classifier: Classifier,
    chosen: ExportFormat,
    images: Sequence[Picture],
    target: Path,
    scratch: Path,
    index: ImageIndex | None,
) -> ExportedModel:
    """Writes and checks the model in ``scratch``, then puts it in its place.

    Args:
        images: To check it on; empty for made-up ones.
        index: To quantize the file with; None to leave it in fp32.
    """
    pixels = prepared_images(classifier, images)
    made = scratch / f"model{chosen.suffix}"
    module = import_module(chosen.module)
    module.write(classifier, made)
    run = module.open_model(made)
    expected = expected_outputs(classifier, pixels)
    parity = check_parity(chosen.name, run, pixels, expected, real=bool(images))
    runs: dict[str, Callable[..., object]] = {
        "model": lambda *one: expected_outputs(classifier, one),
        chosen.name: run,
    }
    tested = None
    if index is not None:
        small = scratch / f"int8{chosen.suffix}"
        tested = quantize(classifier, index, made, small)
        runs[f"{chosen.name} int8"] = module.open_model(small)
        made = small
    first = [one[:1] for one in pixels]
    latency = tuple(FormatLatency(format=name, ms=time_calls(partial(one, *first))) for name, one in runs.items())
    os.replace(made, target)
    return ExportedModel(
        format=chosen.name,
        path=str(target),
        parity=parity,
        latency=latency,
        latency_on=f"{this_cpu(torch.get_num_threads())}, batch of 1",
        int8=tested,
    )


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A scratch folder on the file system of the output, removed at the end."""
    try:
        scratch = Path(tempfile.mkdtemp(prefix=".tlsearch-export-", dir=target.parent))
    except OSError as error:
        raise StorageError(f"{target.parent} cannot be written: {error.strerror or error}") from error
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _images_of(folder: Path, classifier: Classifier) -> Sequence[Picture]:
    if not folder.is_dir():
        raise UsageError(f"--images names a folder of images; {folder} is not a folder")
    files = [folder / one for one in images_below(folder).images[:MAX_IMAGES]]
    if not files:
        raise DataError(f"a folder to check an export on holds images; {folder} has none")
    return [decode_image(read_regular(one, IMAGE_BYTES), str(one), pixels=classifier.pixels) for one in files]


def _validation_images(index: ImageIndex | None, classifier: Classifier) -> Sequence[Picture]:
    if index is None:
        return ()
    keys = spread(index.splits["val"].keys, MAX_IMAGES)
    return [read_image(index, key, pixels=classifier.pixels) for key in keys]


def _index_of(model: str, storage: Path | None, *, needed: bool) -> ImageIndex | None:
    """The images of the search that a model comes from; None where they are not known or cannot be read.

    Raises:
        DataError: They are needed for a quantization, which takes those of the training and no others.
    """
    try:
        entry = search_of_model(model, storage)
        if entry is not None:
            file, _ = stored_file(entry, "so its images are not known")
            index = load_index(file.data)
            if needed:
                refuse_changed_images(entry, index, purpose="the model cannot be quantized")
            return index
        reason = "it names no search that is here"
    except UserError as error:
        if names_search(model) and not needed:
            raise
        reason = str(error)  # a model outlives its search and its images
    if needed:
        raise DataError(
            "--int8 calibrates on the training images of the model's search and tests on its validation images; "
            f"those of {model} cannot be read: {reason}"
        )
    return None


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
