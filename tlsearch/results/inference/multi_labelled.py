"""What a multi-label model answers for labelled images, and where it is wrong: an answer is one class of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tlsearch.core.label_tasks import TASKS, Task
from tlsearch.core.metrics import average_precisions, f1_of
from tlsearch.results.inference.labelled import Answers, Evaluation, Mistake
from tlsearch.results.stats.intervals import LABELS

if TYPE_CHECKING:
    from tlsearch.data import ImageIndex
    from tlsearch.results.inference.predictor import Classifier


@dataclass(frozen=True, kw_only=True)
class MultiLabelEvaluation(Answers):
    """A model's answers; labels are float (N, C) of 0 and 1, probabilities sigmoid.

    Attributes:
        thresholds: Of the probabilities, C.
    """

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

    def names(self, flags: NDArray[np.bool_]) -> str:
        """The classes of an image, bool (C,), in words."""
        return ", ".join(name for name, given in zip(self.classes, flags, strict=True) if given) or "no class"

    def worst(self, count: int = 12) -> list[Mistake]:
        """The wrong answers that the model is surest of, one for each image: a class that it misses, or has not."""
        sure = np.where(self.wrong, np.abs(self.probabilities - np.array(self.thresholds)), -1.0)
        places, most = sure.argmax(1), sure.max(1)
        rows = np.argsort(-most, kind="stable")[:count]
        found = []
        for row in rows[most[rows] >= 0]:
            place = int(places[row])
            missed = self.labels[row, place] > 0
            found.append(
                Mistake(
                    key=self.keys[row],
                    label=self.names(self.labels[row] > 0),
                    predicted=f"{'not ' if missed else ''}{self.classes[place]}",
                    score=float(self.probabilities[row, place]),
                )
            )
        return found


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


AnyEvaluation = Evaluation | MultiLabelEvaluation


def evaluation_of(
    task: Task,
    logits: NDArray[np.float64],
    labels: LABELS,
    *,
    classes: tuple[str, ...],
    keys: tuple[str, ...],
    thresholds: tuple[float, ...],
) -> AnyEvaluation:
    """What logits, float (N, C), say of N images; the thresholds are those of a multi-label task."""
    probabilities = task.probabilities(logits)
    if not task.several:
        return Evaluation(classes=classes, keys=keys, labels=labels, probabilities=probabilities)
    return MultiLabelEvaluation(
        classes=classes, keys=keys, labels=labels, probabilities=probabilities, thresholds=thresholds
    )


def evaluate_split(model: Classifier, index: ImageIndex, split: str) -> AnyEvaluation:
    """Predicts a split's images exactly as the trial's own evaluation did.

    Raises:
        DataError: The classes or the task differ from the model's, or an image is corrupt.
    """
    from tlsearch.results.inference.predictor import logits_on

    logits, labels = logits_on(model, index, split).double().numpy(), index.label_array(split)
    keys, thresholds = index.splits[split].keys, model.raw_thresholds
    return evaluation_of(model.task, logits, labels, classes=index.classes, keys=keys, thresholds=thresholds)
