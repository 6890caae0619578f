"""What a model predicts for labelled images, and where it is wrong; its classes must be those of the data."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tlsearch.core.errors import DataError
from tlsearch.core.metrics import confusion_matrix
from tlsearch.data import nfc, same_classes
from tlsearch.results.stats.intervals import LABELS, PROBABILITIES

if TYPE_CHECKING:
    from tlsearch.data import ImageIndex


_THUMBNAIL_PX = 112


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a model says of the N labelled images of a split, whatever its task.

    Attributes:
        classes: C names.
        keys: N keys of the index.
        labels: As of ``ImageIndex.label_array``.
        probabilities: float (N, C).
    """

    classes: tuple[str, ...]
    keys: tuple[str, ...]
    labels: LABELS
    probabilities: PROBABILITIES


@dataclass(frozen=True, kw_only=True)
class Evaluation(Answers):
    """A model's predictions; labels are int (N,), probabilities softmax."""

    @property
    def predicted(self) -> NDArray[np.int64]:
        """int (N,): the most probable class."""
        found: NDArray[np.int64] = self.probabilities.argmax(1)
        return found

    @property
    def right(self) -> NDArray[np.bool_]:
        """bool (N,): which predictions are right."""
        found: NDArray[np.bool_] = self.predicted == self.labels
        return found

    @property
    def accuracy(self) -> float:
        """The fraction of right predictions."""
        return float(self.right.mean())

    def worst(self, count: int = 12) -> list[Mistake]:
        """The wrong predictions that the model is surest of."""
        wrong = np.flatnonzero(~self.right)
        scores = self.probabilities[wrong, self.predicted[wrong]]
        return [
            Mistake(
                key=self.keys[i],
                label=self.classes[self.labels[i]],
                predicted=self.classes[self.predicted[i]],
                score=float(self.probabilities[i, self.predicted[i]]),
            )
            for i in wrong[np.argsort(-scores, kind="stable")[:count]]
        ]

    def confusion(self) -> NDArray[np.int64]:
        """int (C, C): counts by true and predicted class."""
        return confusion_matrix(self.predicted, self.labels, len(self.classes))


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """One class: its images, and how well they are found; None where there is nothing to divide by."""

    name: str
    images: int
    right: int
    recall: float | None
    precision: float | None


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One image that the model gets wrong; ``score`` is the probability of the wrong class."""

    key: str
    label: str
    predicted: str
    score: float


def check_same_images(a: Answers, b: Answers) -> None:
    """Raises DataError where two models were evaluated on other images, or on other labels of them."""
    if a.keys != b.keys or not np.array_equal(a.labels, b.labels):
        raise DataError("two models are compared on the same images with the same labels; these differ")


def class_scores(evaluation: Evaluation) -> list[ClassScore]:
    """Recall and precision of each class, the lowest recall first."""
    confusion = evaluation.confusion()
    scores = []
    for place, name in enumerate(evaluation.classes):
        right, images, said = (
            int(x) for x in (confusion[place, place], confusion[place].sum(), confusion[:, place].sum())
        )
        scores.append(
            ClassScore(
                name=name,
                images=images,
                right=right,
                recall=right / images if images else None,
                precision=right / said if said else None,
            )
        )
    return sorted(scores, key=lambda s: (s.recall is None, s.recall or 0.0, s.name))


def most_confused(evaluation: Evaluation, count: int = 8) -> list[tuple[str, str, int]]:
    """(true class, predicted class, images), the most frequent first."""
    confusion = evaluation.confusion()
    np.fill_diagonal(confusion, 0)
    order = np.argsort(-confusion, axis=None, kind="stable")[:count]
    pairs = [(int(cell) // len(confusion), int(cell) % len(confusion)) for cell in order]
    names = evaluation.classes
    return [(names[t], names[p], int(confusion[t, p])) for t, p in pairs if confusion[t, p] > 0]


def thumbnails(index: ImageIndex, keys: Sequence[str]) -> list[str]:
    """Small pictures as data URIs, so that a page needs no other file."""
    from tlsearch.data import picture_of, read_image

    return [_data_uri(picture_of(read_image(index, key))) for key in keys]


def _data_uri(image: Image.Image) -> str:
    image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


_SHOWN = 40


def check_classes(model: Sequence[str], data: Sequence[str]) -> None:
    """Compares the classes of a model, in the order of its logits, with those of a data set, in any Unicode form.

    Raises:
        DataError: They differ in content or order; says how, and gives both lists.
    """
    if same_classes(model, data):
        return
    model, data = [nfc(name) for name in model], [nfc(name) for name in data]
    missing = [name for name in model if name not in data]
    extra = [name for name in data if name not in model]
    if missing and extra:
        what = f"other names: {_listed(missing)} of the model, {_listed(extra)} of the data"
    elif missing:
        what = f"the data lack {_listed(missing)}"
    elif extra:
        what = f"the model does not know {_listed(extra)}"
    else:
        what = "the same names in another order"
    raise DataError(
        f"a model is used on data with its own classes in its own order; here are {what}\n"
        f"  model: {_listed(model)}\n  data:  {_listed(data)}"
    )


def _listed(names: Sequence[str]) -> str:
    text = ", ".join(names[:_SHOWN])
    return f"{text} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else text


def check_task(model: str, data: str) -> None:
    """Raises DataError where a model of one task meets data of another."""
    if model != data:
        raise DataError(f"a model is used on data of its own task: the model is {model}, data.task is {data}")
