"""The tasks of a classifier, and what follows from each outside of torch.

A new one is a row here, and one in ``tlsearch.train.loop.loss``: other rooms compare no names of tasks. N images, C
classes. Labels are int64 (N,) where an image has one class, and float32 (N, C) of 0 and 1 where it has any number of
them: an array of labels tells its task.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tlsearch.core.errors import UsageError
from tlsearch.core.metrics import MULTI_LABEL_METRICS, SINGLE_LABEL_METRICS, Metric, confusion_matrix, f1_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tlsearch.core.metrics import Labels, Scores, Values

TaskName = Literal["single_label", "multi_label"]
Label = int | tuple[int, ...]  # the index of an image's class; of a multi-label task those of all of them, rising

DEFAULT_TASK: TaskName = "single_label"
SEPARATOR = "|"  # of the names of several classes in one text
Use = Literal["screen", "folders", "label_errors", "distance"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a classifier says of an image.

    Attributes:
        name: As in ``data.task`` and in checkpoint.json.
        several: Whether an image may have any number of classes: its table names them with a bar between them, and a
            model has a threshold for each class.
        activation: What turns logits into probabilities, by its name in torch.
        limits: What its models cannot say, for the model card; ``{}`` is the number of classes.
        metrics: By name.
        default_metric: What decides where ``search.metric`` is left out.
        imbalanced_metric: What ``tlsearch init`` writes where a class has many times the images of another.
        array: The labels of N images, and C, to an array.
        indicators: Labels, and C, to float (N, C): 1 where an image has the class.
        strata: Labels to int64 (N,): what halves of the images are stratified by.
        probabilities: Logits (N, C) to probabilities.
        scores: Probabilities (N, C) to what metrics take.
        ranks: Probabilities (N, C) to what all metrics but the loss take, too: it has the order and the sign of scores.
        likelihood: Probabilities and labels to the mean logarithm of what came true.
        confusion: Scores and labels to counts: int64 (C, C) by true and predicted class; of a multi-label task
            (C, 2, 2), for each class by whether an image has it and whether the answer is yes.
        answers: Scores and thresholds to the most probable classes, (N,), or to bool (N, C): the classes above them.
        rightness: What the fraction of images with ``same`` answers as labels is called.
        thresholds: Scores and labels of validation images to the probability of each class above which the answer is
            yes, C values; none where the most probable class is the answer.
        guess: The loss and the default metric of a model that has learned how frequent the classes are, and no more.
        refused: Values of hyperparameters that do not fit the task, with the reason.
        unsupported: What cannot be done with its data or models, with the reason and what to do instead.
    """

    name: TaskName
    several: bool
    activation: Literal["softmax", "sigmoid"]
    limits: str
    metrics: Mapping[str, Metric]
    default_metric: str
    imbalanced_metric: str
    array: Callable[[Sequence[Label], int], Labels]
    indicators: Callable[[Labels, int], Values]
    strata: Callable[[Labels], NDArray[np.int64]]
    probabilities: Callable[[Scores], Values]
    scores: Callable[[Scores], Values]
    ranks: Callable[[Scores], Scores]
    likelihood: Callable[[Scores, Labels], float]
    confusion: Callable[[Scores, Labels], NDArray[np.int64]]
    answers: Callable[[Scores, Sequence[float]], NDArray[Any]]
    rightness: str
    thresholds: Callable[[Scores, Labels], tuple[float, ...]]
    guess: Callable[[Labels, int], tuple[float, float]]
    refused: Mapping[tuple[str, str], str]
    unsupported: Mapping[Use, str]

    @property
    def per_image(self) -> bool:
        """Whether the default metric is a mean over the images, so that it has a standard error."""
        return self.metrics[self.default_metric].per_image is not None

    def require(self, use: Use, what: str) -> None:
        """Raises UsageError where the task does not support ``what``; the message says what to do instead."""
        if use in self.unsupported:
            raise UsageError(f"{what} does not fit data.task {self.name}: {self.unsupported[use]}")

    def same(self, answers: NDArray[Any], others: NDArray[Any]) -> NDArray[np.bool_]:
        """bool (N,): whether answers for an image are wholly equal to others, or to labels."""
        equal: NDArray[np.bool_] = (answers == others).reshape(len(answers), -1).all(1)
        return equal

    def values(self, scores: Scores, labels: Labels) -> dict[str, float]:
        """All of its metrics that this number of classes has."""
        return {
            name: one.value(scores, labels) for name, one in self.metrics.items() if scores.shape[1] >= one.min_classes
        }


def task_of(labels: Labels) -> Task:
    """The task of labels as an array."""
    return TASKS["multi_label" if labels.ndim == 2 else "single_label"]


def classes_of(label: Label) -> tuple[int, ...]:
    """The indices of an image's classes."""
    return label if isinstance(label, tuple) else (label,)


def class_counts(labels: Iterable[Label]) -> Counter[int]:
    """The number of images by class."""
    return Counter(one for label in labels for one in classes_of(label))


def joined_names(label: Label, classes: Sequence[str]) -> str:
    """An image's classes as a table names them; empty where it has none."""
    return SEPARATOR.join(classes[one] for one in classes_of(label))


def label_text(label: Label, classes: Sequence[str]) -> str:
    """An image's classes for people."""
    return joined_names(label, classes) or "(none)"


def _indices(labels: Sequence[Label], num_classes: int) -> Labels:
    import numpy as np

    return np.array(labels, dtype=np.int64)


def _one_hot(labels: Labels, num_classes: int) -> Values:
    import numpy as np

    return np.eye(num_classes)[labels]


def _softmax(scores: Scores) -> Values:
    import numpy as np

    powers = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True), dtype=np.float64)


def _logarithms(probabilities: Scores) -> Values:
    import numpy as np

    return np.asarray(np.log(np.maximum(probabilities, np.finfo(probabilities.dtype).tiny)))


def _likelihood(probabilities: Scores, labels: Labels) -> float:
    import numpy as np

    return float(_logarithms(probabilities[np.arange(len(labels)), labels]).mean())


def _single_guess(labels: Labels, num_classes: int) -> tuple[float, float]:
    """Equal odds, and the largest class's share."""
    import numpy as np

    return math.log(num_classes), float(np.bincount(labels).max()) / len(labels)


def _multi_hot(labels: Sequence[Label], num_classes: int) -> Labels:
    import numpy as np

    found = np.zeros((len(labels), num_classes), dtype=np.float32)
    for row, label in enumerate(labels):
        found[row, list(classes_of(label))] = 1.0
    return found


def _rarest(labels: Labels) -> NDArray[np.int64]:
    """The rarest class of each image; C where it has none."""
    import numpy as np

    counts = np.where(labels > 0, labels.sum(0), np.inf)
    return np.asarray(np.where(labels.any(1), counts.argmin(1), labels.shape[1]), dtype=np.int64)


def _sigmoid(scores: Scores) -> Values:
    import numpy as np

    return np.asarray(np.exp(-np.logaddexp(0.0, -scores)), dtype=np.float64)


def _log_odds(probabilities: Scores) -> Values:
    return _logarithms(probabilities) - _logarithms(1.0 - probabilities)


def _likelihood_of_answers(probabilities: Scores, labels: Labels) -> float:
    return float(_logarithms(abs(labels + probabilities - 1)).mean())


def _multi_guess(labels: Labels, num_classes: int) -> tuple[float, float]:
    """The entropy of how frequent the classes are, and the mAP of a random order: the mean frequency."""
    shares = labels.mean(0, dtype=float)
    entropy = -(shares * _logarithms(shares) + (1 - shares) * _logarithms(1 - shares))
    return float(entropy.mean()), float(shares.mean())


def _answer_counts(scores: Scores, labels: Labels) -> NDArray[np.int64]:
    """As scikit-learn's ``multilabel_confusion_matrix`` at probabilities of a half."""
    import numpy as np

    said, true = scores > 0, labels > 0
    cells = [[(~true & ~said).sum(0), (~true & said).sum(0)], [(true & ~said).sum(0), (true & said).sum(0)]]
    return np.array(cells, dtype=np.int64).transpose(2, 0, 1)


def _best_thresholds(scores: Scores, labels: Labels) -> tuple[float, ...]:
    """Those with the largest F1 of each class (Lipton et al., "Thresholding classifiers to maximize F1 score", 2014).

    A threshold is a half where that is as good as any, else half way between the probabilities of two images.
    """
    import numpy as np

    found = []
    for place in range(scores.shape[1]):
        order = np.argsort(-scores[:, place], kind="stable")
        values, right = _sigmoid(scores[order, place]), labels[order, place] > 0
        last = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)  # of the images that get a yes
        below = np.append(values[last[:-1] + 1], 0.0)
        hits = np.cumsum(right)[last]
        f1 = f1_of(hits, last + 1, hits[-1])
        cuts = np.where((below < 0.5) & (values[last] > 0.5), 0.5, (values[last] + below) / 2)
        best = cuts[f1 >= f1.max() * (1 - 1e-12)]
        found.append(float(best[np.abs(best - 0.5).argmin()]) if hits[-1] else 0.5)
    return tuple(found)


TASKS: Mapping[str, Task] = {
    "single_label": Task(
        name="single_label",
        several=False,
        activation="softmax",
        limits="each showing one of the {} classes. Whatever it is shown, it answers with one of them; it cannot say "
        "that an image shows none.",
        metrics=SINGLE_LABEL_METRICS,
        default_metric="val_accuracy",
        imbalanced_metric="val_macro_f1",
        array=_indices,
        indicators=_one_hot,
        strata=lambda labels: labels,
        probabilities=_softmax,
        scores=_logarithms,
        ranks=lambda probabilities: probabilities,
        likelihood=_likelihood,
        confusion=lambda scores, labels: confusion_matrix(scores.argmax(1), labels, scores.shape[1]),
        answers=lambda scores, thresholds: scores.argmax(1),
        rightness="accuracy",
        thresholds=lambda scores, labels: (),
        guess=_single_guess,
        refused={},
        unsupported={},
    ),
    "multi_label": Task(
        name="multi_label",
        several=True,
        activation="sigmoid",
        limits="each showing any number of the {} classes. Of each class it says on its own whether an image shows it: "
        "where its score is above its threshold, which the validation images have chosen.",
        metrics=MULTI_LABEL_METRICS,
        default_metric="val_map",
        imbalanced_metric="val_map",
        array=_multi_hot,
        indicators=lambda labels, num_classes: labels.astype(float),
        strata=_rarest,
        probabilities=_sigmoid,
        scores=_log_odds,
        ranks=lambda probabilities: probabilities - 0.5,
        likelihood=_likelihood_of_answers,
        confusion=_answer_counts,
        answers=lambda scores, thresholds: _sigmoid(scores) > thresholds,
        rightness="images with all answers right",
        thresholds=_best_thresholds,
        guess=_multi_guess,
        refused={
            ("head", "cosine"): "an image has no nearest class where it may have several: take ridge or logistic",
            ("class_balance", "sampler"): "an order in which all classes are equally frequent does not exist where "
            "images have several: take weighted_loss",
        },
        unsupported={
            "screen": "it ranks backbones by the images that a probe gets right; leave it out",
            "folders": "one of its images may be of several classes; give a table with the columns path and label",
            "label_errors": "confident learning is of one label an image",
            "distance": "a probe of stages gives an image one class; --domain says it",
        },
    ),
}
