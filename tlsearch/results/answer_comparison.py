"""Two multi-label models on the same images: how their metrics differ, by paired bootstrap, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tlsearch.core.label_tasks import TASKS
from tlsearch.core.metrics import Objective
from tlsearch.results.inference.labelled import check_same_images
from tlsearch.results.inference.multi_labelled import MultiLabelEvaluation, answer_scores
from tlsearch.results.stats.intervals import Interval, bootstrap_differences

_TASK = TASKS["multi_label"]


@dataclass(frozen=True, kw_only=True)
class MetricDifference:
    """One metric of both models; the difference is A less B, its interval that of the same images drawn again."""

    name: str
    a: float
    b: float
    difference: float
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class PrecisionComparison:
    """One class: the images that have it, and the average precision of each model; None where no image has it."""

    name: str
    images: int
    a: float | None
    b: float | None


@dataclass(frozen=True, kw_only=True)
class DifferingAnswers:
    """An image that the two models give different classes, in words; ``wrong_a`` of the answers of A are wrong."""

    key: str
    label: str
    a: str
    b: str
    wrong_a: int
    wrong_b: int


@dataclass(frozen=True, kw_only=True)
class AnswerComparison:
    """Two multi-label models on the same N images.

    Attributes:
        a: Its name.
        b: Its name.
        metrics: All of the task, first the one that the verdict rests on.
        classes: Those whose average precision differs most come first.
        disagreements: At each model's own thresholds; those where one has far more wrong answers come first.
    """

    a: str
    b: str
    num_images: int
    metrics: Sequence[MetricDifference]
    classes: Sequence[PrecisionComparison]
    disagreements: Sequence[DifferingAnswers]

    @property
    def metric(self) -> str:
        """What the verdict rests on."""
        return self.metrics[0].name

    @property
    def verdict(self) -> str:
        """One sentence."""
        first = self.metrics[0]
        interval = f"95 %: {first.interval.low:+.4f} to {first.interval.high:+.4f}"
        if first.interval.low <= 0 <= first.interval.high:
            return f"no difference shown: {first.name} differs by {first.difference:+.4f}, {interval}"
        better = self.a if Objective.of(first.name).better(first.a, first.b) else self.b
        return f"{better} is better: {first.name} by {abs(first.difference):.4f}, {interval}"

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "verdict": self.verdict}


def compare_answers(
    names: tuple[str, str], a: MultiLabelEvaluation, b: MultiLabelEvaluation, *, metric: str = _TASK.default_metric
) -> AnswerComparison:
    """Compares what two models answer for the same images.

    Args:
        metric: What the verdict rests on.

    Raises:
        DataError: The images differ.
    """
    check_same_images(a, b)
    ordered = [metric, *(name for name in _TASK.metrics if name != metric)]
    intervals = bootstrap_differences(ordered, a.probabilities, b.probabilities, a.labels)
    return AnswerComparison(
        a=names[0],
        b=names[1],
        num_images=len(a.keys),
        metrics=[
            MetricDifference(
                name=name, a=a.value(name), b=b.value(name), difference=a.value(name) - b.value(name), interval=interval
            )
            for name, interval in zip(ordered, intervals, strict=True)
        ],
        classes=_classes(a, b),
        disagreements=_disagreements(a, b),
    )


def _classes(a: MultiLabelEvaluation, b: MultiLabelEvaluation) -> list[PrecisionComparison]:
    found = [
        PrecisionComparison(name=one.name, images=one.images, a=one.average_precision, b=other.average_precision)
        for one, other in zip(answer_scores(a), answer_scores(b), strict=True)
    ]
    return sorted(found, key=lambda one: (-abs((one.a or 0.0) - (one.b or 0.0)), one.name))


def _disagreements(a: MultiLabelEvaluation, b: MultiLabelEvaluation) -> list[DifferingAnswers]:
    wrong_a, wrong_b = a.wrong.sum(1), b.wrong.sum(1)
    differing = (a.said != b.said).sum(1)
    order = np.lexsort((np.arange(len(differing)), -differing, -np.abs(wrong_a - wrong_b)))
    return [
        DifferingAnswers(
            key=a.keys[i],
            label=a.names(a.labels[i] > 0),
            a=a.names(a.said[i]),
            b=b.names(b.said[i]),
            wrong_a=int(wrong_a[i]),
            wrong_b=int(wrong_b[i]),
        )
        for i in order
        if differing[i]
    ]
