"""What a multi-label model does on the test split: mAP with its interval, F1 at its thresholds, calibration.

N test images, C classes; scores are fractions, intervals cover 95 %. An answer is whether one image has one class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlsearch.core.codec import from_plain
from tlsearch.core.label_tasks import TASKS
from tlsearch.core.metrics import f1_of
from tlsearch.core.text import number_text
from tlsearch.results.inference.multi_labelled import AnswerScore, MultiLabelEvaluation, answer_scores
from tlsearch.results.promotion.test_evaluation import AgainstSingle, Calibration, Headline, TestEvidence
from tlsearch.results.stats.intervals import bootstrap_metric

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class MultiLabelEvidence:
    """The one evaluation on the test split.

    Attributes:
        mean_average_precision: Over the classes that an image has.
        map_interval: Low and high end, from a bootstrap over the images.
        micro_f1: Of all answers, at the model's thresholds; ``macro_f1`` is the mean over the classes.
        exact_match: Fraction of the images of which all answers are right.
        calibration: Of the answers, each a choice of two.
    """

    num_images: int
    mean_average_precision: float
    map_interval: tuple[float, float]
    micro_f1: float
    macro_f1: float
    exact_match: float
    classes: tuple[AnswerScore, ...]
    calibration: Calibration

    @property
    def headline(self) -> Headline:
        """The mAP."""
        low, high = self.map_interval
        value = self.mean_average_precision
        return Headline(name="map", label="mAP", value=value, low=low, high=high, method="bootstrap over the images")

    @property
    def against(self) -> AgainstSingle | None:
        """None: McNemar's test, which compares a combination with a single trial, is of one answer an image."""
        return None

    @property
    def others(self) -> Sequence[tuple[str, str, float]]:
        """Further figures: name, as of ``Headline``, label and value."""
        return (
            ("micro_f1", "micro F1", self.micro_f1),
            ("macro_f1", "macro F1", self.macro_f1),
            ("exact_match", "images with all answers right", self.exact_match),
        )

    @property
    def weakest(self) -> list[tuple[str, str]]:
        """Three classes with what is weak about them, the weakest first."""
        known = [one for one in self.classes if one.average_precision is not None]
        ranked = sorted(known, key=lambda one: one.average_precision or 0.0)[:3]
        return [(one.name, f"average precision {one.average_precision:.2f}, {one.images} images") for one in ranked]

    @property
    def class_table(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        """Heads and rows; the first column is the name."""
        heads = ["class", "test images", "average precision", "threshold", "precision", "recall", "F1"]
        rows = []
        for one in self.classes:
            ap = number_text(one.average_precision, ".3f", none="")
            figures = (one.threshold, one.precision, one.recall, one.f1)
            rows.append([one.name, str(one.images), ap, *(f"{figure:.3f}" for figure in figures)])
        return heads, rows


AnyEvidence = TestEvidence | MultiLabelEvidence


def read_evidence(plain: Mapping[str, Any]) -> AnyEvidence:
    """What ``to_plain`` of either gave; raises ValueError for anything else."""
    return from_plain(MultiLabelEvidence, plain) if "map_interval" in plain else from_plain(TestEvidence, plain)


def gather_answers(
    logits: Floats, labels: Floats, *, classes: Sequence[str], temperature: float, thresholds: Sequence[float]
) -> MultiLabelEvidence:
    """Scores the answers for the test images.

    Args:
        logits: float (N, C), as the model gives them.
        labels: float (N, C) of 0 and 1.
        classes: C names.
        temperature: From the validation images; so are the thresholds of the probabilities, C, before it.
    """
    task = TASKS["multi_label"]
    before, after = task.probabilities(logits), task.probabilities(logits / temperature)
    scaled = task.probabilities(task.scores(np.array(thresholds)) / temperature)
    evaluation = MultiLabelEvaluation(
        classes=tuple(classes), keys=(), labels=labels, probabilities=after, thresholds=tuple(scaled.tolist())
    )
    said, true = evaluation.said, labels > 0
    per_class = tuple(answer_scores(evaluation))
    _, interval = bootstrap_metric("val_map", before, labels)
    return MultiLabelEvidence(
        num_images=len(labels),
        mean_average_precision=evaluation.value("val_map"),
        map_interval=(interval.low, interval.high),
        micro_f1=float(f1_of((said & true).sum(), said.sum(), true.sum())),
        macro_f1=float(np.mean([one.f1 for one in per_class])),
        exact_match=float((~evaluation.wrong).all(1).mean()),
        classes=per_class,
        calibration=_calibration(before, after, true, temperature),
    )


def _calibration(before: Floats, after: Floats, true: NDArray[np.bool_], temperature: float) -> Calibration:
    """Of the answers, each a choice of two."""
    of_before, of_after = (np.stack([1 - one, one], axis=-1).reshape(-1, 2) for one in (before, after))
    return Calibration.of(of_before, of_after, true.astype(np.int64).ravel(), temperature)
