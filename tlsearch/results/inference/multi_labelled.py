"""What a multi-label model answers for labelled images, and where it is wrong: an answer is one class of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tlsearch.core.label_tasks import TASKS
from tlsearch.core.metrics import average_precisions, f1_of
from tlsearch.results.inference.labelled import Mistake
from tlsearch.results.stats.intervals import LABELS, PROBABILITIES

if TYPE_CHECKING:
    from tlsearch.data import ImageIndex
    from tlsearch.results.inference.predictor import Classifier


@dataclass(frozen=True, kw_only=True)
class MultiLabelEvaluation:
    """A model's answers for the N images of a split.

    Attributes:
        classes: C names.
        keys: N keys of the index.
        labels: float (N, C) of 0 and 1.
        probabilities: float (N, C), sigmoid.
        thresholds: Of the probabilities, C.
    """

    classes: tuple[str, ...]
    keys: tuple[str, ...]
    labels: LABELS
    probabilities: PROBABILITIES
    thresholds: tuple[float, ...]

    @property
    def said(self) -> NDArray[np.bool_]:
        """bool (N, C): the answers."""
        found: NDArray[np.bool_] = self.probabilities > np.array(self.thresholds)
        return found

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """bool (N, C): which answers are wrong."""
        found: NDArray[np.bool_] = self.said != (self.labels > 0)
        return found

    def value(self, metric: str) -> float:
        """A metric of the task; F1 at probabilities of a half."""
        task = TASKS["multi_label"]
        return task.metrics[metric].value(task.scores(self.probabilities), self.labels)


@dataclass(frozen=True, kw_only=True)
class AnswerScore:
    """One class: how well its images are ranked before the others, and its answers at its threshold.

    Precision, recall and F1 are 0 where there is nothing to divide by, as in scikit-learn.

    Attributes:
        images: Those that have the class.
        average_precision: None where no image has it.
        threshold: The probability above which the answer is yes.
    """

    name: str
    images: int
    average_precision: float | None
    threshold: float
    precision: float
    recall: float
    f1: float


def answer_scores(evaluation: MultiLabelEvaluation) -> list[AnswerScore]:
    """The figures of each class, in their order."""
    said, true = evaluation.said, evaluation.labels > 0
    hits, answers, images = (said & true).sum(0), said.sum(0), true.sum(0)
    precisions, f1 = average_precisions(evaluation.probabilities, evaluation.labels), f1_of(hits, answers, images)
    return [
        AnswerScore(
            name=name,
            images=int(images[place]),
            average_precision=None if np.isnan(precisions[place]) else float(precisions[place]),
            threshold=evaluation.thresholds[place],
            precision=float(hits[place] / max(1, answers[place])),
            recall=float(hits[place] / max(1, images[place])),
            f1=float(f1[place]),
        )
        for place, name in enumerate(evaluation.classes)
    ]


def worst_answers(evaluation: MultiLabelEvaluation, count: int = 12) -> list[Mistake]:
    """The wrong answers that the model is surest of, one for each image: a class that it misses, or has not."""
    sure = np.where(evaluation.wrong, np.abs(evaluation.probabilities - np.array(evaluation.thresholds)), -1.0)
    places, most = sure.argmax(1), sure.max(1)
    rows = np.argsort(-most, kind="stable")[:count]
    found = []
    for row in rows[most[rows] >= 0]:
        place = int(places[row])
        missed = evaluation.labels[row, place] > 0
        found.append(
            Mistake(
                key=evaluation.keys[row],
                label=_names(evaluation, row),
                predicted=f"{'not ' if missed else ''}{evaluation.classes[place]}",
                score=float(evaluation.probabilities[row, place]),
            )
        )
    return found


def _names(evaluation: MultiLabelEvaluation, row: int) -> str:
    names = [evaluation.classes[place] for place in np.flatnonzero(evaluation.labels[row] > 0)]
    return ", ".join(names) or "no class"


def evaluate_answers(model: Classifier, index: ImageIndex, split: str) -> MultiLabelEvaluation:
    """Predicts a split's images exactly as the trial's own evaluation did.

    Raises:
        DataError: The classes or the task differ from the model's, or an image is corrupt.
    """
    from tlsearch.results.inference.predictor import logits_on

    return MultiLabelEvaluation(
        classes=index.classes,
        keys=index.splits[split].keys,
        labels=index.label_array(split),
        probabilities=model.task.probabilities(logits_on(model, index, split).double().numpy()),
        thresholds=model.raw_thresholds,
    )
