"""What a model does on the test split: accuracy with its interval, scores of the classes, calibration.

N test images, C classes; scores are fractions, intervals cover 95 %. Calibration after Guo et al., "On Calibration of
Modern Neural Networks" (ICML 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlsearch.core.metrics import confusion_matrix
from tlsearch.results.stats.calibration import cross_entropy, expected_calibration_error, scaled_probabilities
from tlsearch.results.stats.intervals import compare_paired, wilson_interval


@dataclass(frozen=True, kw_only=True)
class ClassEvidence:
    """One class; precision, recall and F1 are 0 where there is nothing to divide by, as in scikit-learn."""

    name: str
    images: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Before and after the division of the logits by the temperature.

    Attributes:
        temperature: Fitted on the validation images.
        ece_before: Expected calibration error, 15 bins.
        loss_before: Cross-entropy.
    """

    temperature: float
    ece_before: float
    ece_after: float
    loss_before: float
    loss_after: float

    @classmethod
    def of(
        cls, before: NDArray[np.float64], after: NDArray[np.float64], labels: NDArray[np.int64], temperature: float
    ) -> Calibration:
        """Of probabilities, float (N, C), by labels, int (N,)."""
        return cls(
            temperature=temperature,
            ece_before=expected_calibration_error(before, labels),
            ece_after=expected_calibration_error(after, labels),
            loss_before=cross_entropy(before, labels),
            loss_after=cross_entropy(after, labels),
        )


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The figure that a model is judged by on the test split, with its interval.

    Attributes:
        name: As in the registry, after ``test_``; ``label`` is for people.
        method: Of the interval.
    """

    name: str
    label: str
    value: float
    low: float
    high: float
    method: str


@dataclass(frozen=True, kw_only=True)
class AgainstSingle:
    """An ensemble or soup against the best single trial of its search, on the same test images.

    Attributes:
        trial: The single one's number; ``accuracy`` is its own.
        only_combined: Images that the combination alone gets right.
        only_single: Images that the single trial alone gets right.
        p_value: McNemar's exact test, two-sided.
        difference: Accuracy of the combination less that of the trial, with its interval.
    """

    trial: int
    accuracy: float
    only_combined: int
    only_single: int
    p_value: float
    difference: float
    difference_interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class TestEvidence:
    """The one evaluation on the test split.

    Attributes:
        accuracy_interval: Low and high end: Wilson's, which stays honest on few images and at 0 or 1.
        confusion: (C, C) counts by true and predicted class.
        against: For a combination of trials, the best single one in the same look; else None.
    """

    __test__ = False  # no test class, whatever pytest thinks of its name

    num_images: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    balanced_accuracy: float
    macro_f1: float
    classes: tuple[ClassEvidence, ...]
    calibration: Calibration
    confusion: tuple[tuple[int, ...], ...]
    against: AgainstSingle | None = None

    @property
    def headline(self) -> Headline:
        """The accuracy."""
        low, high = self.accuracy_interval
        return Headline(name="accuracy", label="accuracy", value=self.accuracy, low=low, high=high, method="Wilson's")

    @property
    def others(self) -> Sequence[tuple[str, str, float]]:
        """Further figures: name, as of ``Headline``, label and value."""
        return (
            ("balanced_accuracy", "balanced accuracy", self.balanced_accuracy),
            ("macro_f1", "macro F1", self.macro_f1),
        )

    @property
    def weakest(self) -> list[tuple[str, str]]:
        """Three classes with what is weak about them, the weakest first."""
        ranked = sorted((one for one in self.classes if one.images), key=lambda one: one.recall)[:3]
        return [(one.name, f"recall {one.recall:.2f} of {one.images}") for one in ranked]

    @property
    def class_table(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        """Heads and rows; the first column is the name."""
        rows = [
            [one.name, str(one.images), f"{one.precision:.3f}", f"{one.recall:.3f}", f"{one.f1:.3f}"]
            for one in self.classes
        ]
        return ["class", "test images", "precision", "recall", "F1"], rows


def gather_evidence(
    logits: NDArray[np.float64], labels: NDArray[np.int64], *, classes: Sequence[str], temperature: float
) -> TestEvidence:
    """Scores the predictions for the test images.

    Args:
        logits: float (N, C), as the model gives them.
        labels: int (N,).
        classes: C names.
        temperature: From the validation images.
    """
    before, after = scaled_probabilities(logits), scaled_probabilities(logits, temperature)
    predicted = logits.argmax(1)
    confusion = confusion_matrix(predicted, labels, len(classes))
    per_class = tuple(_class_evidence(name, confusion, place) for place, name in enumerate(classes))
    present = [one for one in per_class if one.images]
    occurring = [one for place, one in enumerate(per_class) if one.images or confusion[:, place].any()]
    accuracy = float((predicted == labels).mean())
    interval = wilson_interval(accuracy, len(labels))
    return TestEvidence(
        num_images=len(labels),
        accuracy=accuracy,
        accuracy_interval=(interval.low, interval.high),
        balanced_accuracy=float(np.mean([one.recall for one in present])),
        macro_f1=float(np.mean([one.f1 for one in occurring])),
        classes=per_class,
        calibration=Calibration.of(before, after, labels, temperature),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
    )


def compare_with_single(
    logits: NDArray[np.float64], single: NDArray[np.float64], labels: NDArray[np.int64], *, trial: int
) -> AgainstSingle:
    """Compares the predictions of a combination with those of a single trial.

    Args:
        logits: float (N, C), of the combination; ``single`` of the trial.
        labels: int (N,).
        trial: The single trial's number.
    """
    right, right_single = logits.argmax(1) == labels, single.argmax(1) == labels
    found = compare_paired(right, right_single)
    return AgainstSingle(
        trial=trial,
        accuracy=float(right_single.mean()),
        only_combined=found.only_a,
        only_single=found.only_b,
        p_value=found.p_value,
        difference=found.difference,
        difference_interval=(found.interval.low, found.interval.high),
    )


def _class_evidence(name: str, confusion: NDArray[np.int64], place: int) -> ClassEvidence:
    hits = int(confusion[place, place])
    images, said = int(confusion[place].sum()), int(confusion[:, place].sum())
    return ClassEvidence(
        name=name,
        images=images,
        precision=hits / said if said else 0.0,
        recall=hits / images if images else 0.0,
        f1=2 * hits / (images + said) if images + said else 0.0,
    )
