"""Predictions of a trained model: the same pixels, batches and classes as the trial's own evaluation.

Shapes: N images, C classes, S side of the crop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tlsearch.config.ensemble_meta import EnsembleMeta, is_ensemble, read_ensemble_meta
from tlsearch.core.errors import DataError, Infeasible, StorageError, UsageError
from tlsearch.core.label_tasks import TASKS, Task
from tlsearch.core.text import first_line, plural
from tlsearch.core.types import PixelFormat
from tlsearch.data import ImageIndex, read_image
from tlsearch.data.images.pixel_budget import num_decoders
from tlsearch.model import StagedModel
from tlsearch.results.inference.answers import Prediction, Unreadable, prediction
from tlsearch.results.inference.checkpoint_uri import checkpoint_folder
from tlsearch.results.inference.image_inputs import ImageLike, Opener, open_image, pixel_source, preprocessed
from tlsearch.results.inference.labelled import check_classes, check_task
from tlsearch.results.inference.networks import Network, average_logits, load_networks, network_logits, transforms_of
from tlsearch.train import EVAL_BATCH_SIZE, LOSSES, ModelMeta, PixelSource, Runtime, in_batches, open_runtime

TOP = 5
_BATCH_PIXELS = EVAL_BATCH_SIZE * 640 * 640  # larger images come in smaller batches than the trial's evaluation


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A trained model ready to predict: one network, or an ensemble that averages the probabilities of several.

    Attributes:
        networks: At least one; see `Network`.
        max_pixels: The most pixels that an image may have.
        ensemble: What an ensemble says of itself; None for a plain model.
        name: What messages call it, e.g. its folder.
    """

    networks: tuple[Network, ...]
    runtime: Runtime
    max_pixels: int
    ensemble: EnsembleMeta | None = None
    name: str = "the model"

    @property
    def meta(self) -> ModelMeta:
        """What the checkpoint says of itself; of an ensemble, the checkpoint of its first member."""
        return self.networks[0].meta

    @property
    def model(self) -> StagedModel:
        """The network; of an ensemble, its first member's."""
        return self.networks[0].model

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of the logits."""
        return self.meta.classes

    @property
    def pixels(self) -> PixelFormat:
        """How images are decoded for it."""
        return self.meta.transform.pixel_format

    @property
    def temperature(self) -> float:
        """What the logits are divided by before they become probabilities."""
        return self.meta.temperature if self.ensemble is None else self.ensemble.temperature

    @property
    def task(self) -> Task:
        """Whether it gives an image one class or any number of them."""
        return TASKS[self.meta.task]

    @property
    def raw_thresholds(self) -> tuple[float, ...]:
        """Of the probabilities before the temperature: see ``ModelMeta``."""
        return self.meta.thresholds if self.ensemble is None else self.ensemble.thresholds

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Of a multi-label model: the score of each class above which an image has it."""
        found = torch.tensor(self.raw_thresholds, dtype=torch.float64)
        return tuple(torch.sigmoid(torch.logit(found) / self.temperature).tolist())

    def predict(self, images: Iterable[ImageLike], *, top: int = TOP) -> list[Prediction]:
        """As the function ``predict``, which see."""
        return predict(self, images, top=top)

    def __repr__(self) -> str:
        backbones = " + ".join(one.meta.backbone for one in self.networks)
        return f"Classifier({self.name!r}: {backbones}, {plural(len(self.classes), 'class', 'classes')})"


def load_model(model: str | Path, *, device: str = "auto", tracking_uri: str | None = None) -> Classifier:
    """Loads a model of a search; no pickle is read and no code of the model is run.

    Args:
        model: A trial's ``best`` folder, the folder of an ensemble or of an MLflow model, or a URI as ``models:/...``.
        device: ``auto`` is CUDA where there is one, else the CPU; or a torch device.
        tracking_uri: The MLflow store for a URI; None is MLflow's own setting.

    Raises:
        StorageError: No checkpoint, or a damaged one.
        TrackingError: MLflow does not give the model.
        UserError: The device does not exist.
    """
    folder = checkpoint_folder(model, tracking_uri=tracking_uri)
    ensemble = read_ensemble_meta(folder) if is_ensemble(folder) else None
    networks = load_networks(folder, ensemble)
    try:
        runtime = open_runtime(device)
        for network in networks:
            network.model.to(device=runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        rule = "a device is auto, cpu, cuda or cuda:N, and must be here"
        raise UsageError(f"{rule}; {device!r}: {first_line(error)}") from error
    max_pixels = networks[0].meta.max_pixels if ensemble is None else ensemble.max_pixels
    return Classifier(networks=networks, runtime=runtime, max_pixels=max_pixels, ensemble=ensemble, name=str(folder))


def predict(
    model: Classifier, images: Iterable[ImageLike], *, top: int = TOP, progress: Callable[[int], None] | None = None
) -> list[Prediction]:
    """Predicts the classes of images, one Prediction for each, in their order.

    Scores are the softmax of the logits over the model's temperature; of a multi-label model their sigmoid.

    Args:
        images: Paths (str or Path), encoded files (bytes), or pixels: RGB of uint8 (H, W, 3), of a model of other
            channels these as uint8 or uint16, (H, W), (H, W, C) or (C, H, W).
        top: How many classes each prediction lists, from 1.
        progress: Hears how many images are done, after each batch.

    Raises:
        DataError: An image is missing or corrupt, has other channels than the model takes, or is an array of another
            type or shape; names it.
    """
    predictions: list[Prediction] = []
    for one in predict_readable(model, images, top=top, progress=progress, strict=True):
        assert isinstance(one, Prediction)
        predictions.append(one)
    return predictions


def predict_readable(
    model: Classifier,
    images: Iterable[ImageLike],
    *,
    top: int = TOP,
    progress: Callable[[int], None] | None = None,
    strict: bool = False,
) -> list[Prediction | Unreadable]:
    """As `predict`, but an image that cannot be read costs no other its prediction.

    Args:
        strict: The first image that cannot be read is an error.

    Returns:
        One for each image, in their order.
    """
    if isinstance(images, (str, bytes, Path)):
        raise DataError("predict takes a sequence of images, not a single one")
    if top < 1:
        raise UsageError(f"top must be at least 1, not {top}")
    images = list(images)
    names = [str(image) if isinstance(image, (str, Path)) else f"image {n}" for n, image in enumerate(images)]
    opened = zip(images, names, strict=True)
    openers = [partial(open_image, *pair, model.max_pixels, model.pixels) for pair in opened]
    answers: list[Prediction | Unreadable] = []
    probabilities_of, thresholds = LOSSES[model.meta.task].probabilities, model.thresholds
    for errors, logits in _batches(model, openers, strict=strict):
        probabilities = probabilities_of(logits.double() / model.temperature)
        scores = iter(_finite(model, probabilities))
        for error in errors:
            name = names[len(answers)]
            if error is None:
                answers.append(prediction(name, next(scores), model.classes, top=top, thresholds=thresholds))
            else:
                answers.append(Unreadable(path=name, error=str(error)))
        if progress is not None:
            progress(len(answers))
    return answers


def logits_on(model: Classifier, index: ImageIndex, split: str) -> Tensor:
    """The model's raw outputs for a split's images, in the index's order: float (N, C) on the CPU.

    They are those of the trial's own evaluation: the same pixels in the same batches. Those of an ensemble are the
    logarithms of its averaged probabilities.

    Raises:
        DataError: The data's classes differ from the model's in content or order, or their task does; or an image is
            corrupt.
    """
    check_classes(model.classes, index.classes)
    check_task(model.task.name, index.task)
    if split not in index.splits:
        raise DataError(f"the data have the splits {', '.join(index.splits)}, not {split}")
    openers = [partial(read_image, index, key, pixels=model.pixels) for key in index.splits[split].keys]
    return torch.cat([logits.cpu() for _, logits in _batches(model, openers, strict=True)])


def _batches(
    model: Classifier, openers: Sequence[Opener], *, strict: bool
) -> Iterator[tuple[list[DataError | None], Tensor]]:
    """One evaluation batch after the other, so that any number of images fits into memory.

    Returns:
        What is wrong with each image, None where nothing is; and the logits of those, float (B, C).
    """
    transforms = transforms_of(model.networks)
    values = sum(one.crop_size**2 * one.channels for one in transforms)
    size = max(1, min(EVAL_BATCH_SIZE, 3 * _BATCH_PIXELS // values))
    with ThreadPoolExecutor(num_decoders()) as pool:
        for start in range(0, len(openers), size):
            read = partial(preprocessed, transforms, strict=strict)
            read_ones = list(pool.map(read, openers[start : start + size]))
            batch = [one for one in read_ones if not isinstance(one, DataError)]
            errors = [one if isinstance(one, DataError) else None for one in read_ones]
            if not batch:
                yield errors, torch.empty(0, len(model.classes))
                continue
            sources = [
                pixel_source(np.stack(pixels), transform)
                for pixels, transform in zip(zip(*batch, strict=True), transforms, strict=True)
            ]
            try:
                logits = logits_of(model, sources, batch_size=size)
            except Infeasible as error:
                raise StorageError(f"{model.name} takes more memory than there is: {error}") from error
            yield errors, _finite(model, logits)


def logits_of(model: Classifier, sources: Sequence[PixelSource], *, batch_size: int | None = None) -> Tensor:
    """Logits (N, C) on the CPU: float32 of a plain model, float64 of an ensemble, whose averages keep all digits.

    Those of an ensemble are the logarithms of its averaged probabilities; what its members share is computed once.

    Args:
        sources: The same N images for each of ``transforms_of(model.networks)``.
        batch_size: None is that of the device's passes.

    Raises:
        Infeasible: Out of memory with a single image.
    """
    found: dict[int, Tensor] = {}
    for source in sources:
        places = [n for n, network in enumerate(model.networks) if network.meta.transform == source.transform]
        compute = partial(network_logits, [model.networks[place] for place in places])
        parts = in_batches(source, model.runtime, compute, batch_size=batch_size)
        logits = torch.cat([part.float() for part in parts]).cpu()
        found.update(zip(places, logits.unbind(1), strict=True))
    stacked = torch.stack([found[place] for place in range(len(model.networks))], dim=1)
    return average_logits(model.networks, stacked if len(model.networks) == 1 else stacked.double())


def _finite(model: Classifier, values: Tensor) -> Tensor:
    if not bool(torch.isfinite(values).all()):
        raise StorageError(
            f"the scores of a model must be finite, and those of {model.name} are not: its weights or its "
            "checkpoint.json are damaged"
        )
    return values
