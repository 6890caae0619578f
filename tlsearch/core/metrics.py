"""The metrics of a search, equal to scikit-learn's. A new one is a row of its task's table and its function.

Functions take scores (N, C), one row per image, and labels. Of a single-label task these are logits, or logarithms of
probabilities, and int64 (N,), each in [0, C); of a multi-label task logits of each class, of which those above 0 are
the classes of the image, and float32 (N, C) of 0 and 1. numpy is imported where it is used: reading a space file needs
only the names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Scores = NDArray[np.floating[Any]]
    Labels = NDArray[Any]
    Values = NDArray[np.float64]

Mode = Literal["max", "min"]
Item = TypeVar("Item")
Number = TypeVar("Number", float, "Values")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric.

    Attributes:
        name: As in ``search.metric``, MLflow and the study.
        label: Its name in reports.
        per_image: What each image adds, float (N,): the metric is the mean; None where it is not a mean over images.
        whole: The metric over all images, where ``per_image`` is None.
        is_share: It is a fraction of the images, so that the binomial distribution alone gives its spread.
        min_classes: With fewer classes it says next to nothing.
        note: What it says, where its name does not.
    """

    name: str
    mode: Mode
    label: str
    per_image: Callable[[Scores, Labels], Values] | None = None
    whole: Callable[[Scores, Labels], float] | None = None
    is_share: bool = False
    min_classes: int = 1
    note: str = ""

    def value(self, scores: Scores, labels: Labels) -> float:
        """The metric over all images."""
        if self.per_image is not None:
            return float(self.per_image(scores, labels).mean())
        assert self.whole is not None, f"{self.name} needs per_image or whole"
        return self.whole(scores, labels)


def confusion_matrix(predicted: Labels, labels: Labels, num_classes: int) -> Labels:
    """Counts by (true class, predicted class): int64 (C, C)."""
    import numpy as np

    cells = labels * num_classes + predicted
    return np.bincount(cells, minlength=num_classes * num_classes).reshape(num_classes, num_classes)


def is_share(name: str) -> bool:
    """Whether a metric is a fraction of the images."""
    return name in METRICS and METRICS[name].is_share


def _hits(scores: Scores, labels: Labels) -> Values:
    import numpy as np

    return np.asarray(scores.argmax(1) == labels, dtype=np.float64)


def _top5_hits(scores: Scores, labels: Labels) -> Values:
    import numpy as np

    chosen = np.take_along_axis(scores, labels[:, None], 1)
    earlier = np.arange(scores.shape[1]) < labels[:, None]  # of equal scores the first counts, as in argmax
    ahead = (scores > chosen) | ((scores == chosen) & earlier)
    return np.asarray(ahead.sum(1) < 5, dtype=np.float64)


def _losses(scores: Scores, labels: Labels) -> Values:
    """Cross-entropy; not finite where a score is not."""
    import numpy as np

    with np.errstate(invalid="ignore"):  # the difference of two infinities
        shifted = scores - scores.max(1, keepdims=True)
        chosen = np.take_along_axis(shifted, labels[:, None], 1)[:, 0]
        return np.asarray(np.log(np.exp(shifted).sum(1)) - chosen, dtype=np.float64)


def _balanced_hits(scores: Scores, labels: Labels) -> Values:
    """Hits weighted so that each class that occurs counts alike: their mean is the mean recall."""
    import numpy as np

    counts = np.bincount(labels)
    return _hits(scores, labels) * (len(labels) / (np.count_nonzero(counts) * counts[labels]))


def _macro_f1(scores: Scores, labels: Labels) -> float:
    """Mean F1 over the classes that occur as a label or as a prediction."""
    confusion = confusion_matrix(scores.argmax(1), labels, scores.shape[1])
    occurrences = confusion.sum(0) + confusion.sum(1)
    present = occurrences > 0
    return float((2 * confusion.diagonal()[present] / occurrences[present]).mean())


def average_precisions(scores: Scores, labels: Labels) -> Values:
    """Average precision of each class over the images, float (C,); NaN where no image has it."""
    import numpy as np

    found = np.full(scores.shape[1], np.nan)
    for place in range(scores.shape[1]):
        order = np.argsort(-scores[:, place], kind="stable")
        values, right = scores[order, place], labels[order, place] > 0
        if right.any():
            last = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)  # equal scores are one step
            hits = np.cumsum(right)[last]
            found[place] = (np.diff(hits, prepend=0) * hits / (last + 1)).sum() / hits[-1]
    return found


def _mean_average_precision(scores: Scores, labels: Labels) -> float:
    """Over the classes that an image has."""
    import numpy as np

    found = average_precisions(scores, labels)
    known = found[~np.isnan(found)]
    return float(known.mean()) if len(known) else 0.0


def _binary_losses(scores: Scores, labels: Labels) -> Values:
    """Binary cross-entropy, the mean over the classes; not finite where a score is not."""
    import numpy as np

    with np.errstate(invalid="ignore"):  # 0 times infinity
        losses = np.maximum(scores, 0) - scores * labels + np.log1p(np.exp(-np.abs(scores)))
        return np.asarray(losses.mean(1), dtype=np.float64)


def f1_of(hits: Values, said: Values, images: Values) -> Values:
    """F1 from counts of right answers, of answers and of images, all of one shape; 0 where there are none."""
    import numpy as np

    return np.asarray(2 * hits / np.maximum(said + images, 1), dtype=np.float64)


def _micro_f1(scores: Scores, labels: Labels) -> float:
    """F1 over all answers: each class of each image is one."""
    said, true = scores > 0, labels > 0
    return float(f1_of((said & true).sum(), said.sum(), true.sum()))


def _macro_f1_of_answers(scores: Scores, labels: Labels) -> float:
    """Mean F1 over the classes that occur as a label or as an answer."""
    said, true = scores > 0, labels > 0
    present = (said | true).any(0)
    found = f1_of((said & true).sum(0), said.sum(0), true.sum(0))[present]
    return float(found.mean()) if len(found) else 0.0


def _named(*metrics: Metric) -> Mapping[str, Metric]:
    return {one.name: one for one in metrics}


SINGLE_LABEL_METRICS = _named(
    Metric(name="val_accuracy", mode="max", label="validation accuracy", per_image=_hits, is_share=True),
    Metric(name="val_loss", mode="min", label="validation loss", per_image=_losses),
    Metric(
        name="val_macro_f1",
        mode="max",
        label="validation macro F1",
        whole=_macro_f1,
        note="Every class counts alike; the accuracy would be good for a model that ignores the rare ones.",
    ),
    Metric(name="val_balanced_accuracy", mode="max", label="validation balanced accuracy", per_image=_balanced_hits),
    Metric(
        name="val_top5_accuracy",
        mode="max",
        label="validation top-5 accuracy",
        per_image=_top5_hits,
        is_share=True,
        min_classes=10,
    ),
)
MULTI_LABEL_METRICS = _named(
    Metric(
        name="val_map",
        mode="max",
        label="validation mAP",
        whole=_mean_average_precision,
        note="The mean over the classes of how well each one ranks its images before the others, at any threshold.",
    ),
    Metric(name="val_loss", mode="min", label="validation loss", per_image=_binary_losses),
    Metric(name="val_micro_f1", mode="max", label="validation micro F1", whole=_micro_f1),
    Metric(name="val_macro_f1", mode="max", label="validation macro F1", whole=_macro_f1_of_answers),
)
# What a model costs whatever it learns, and in what unit; less is better.
COSTS: Mapping[str, str] = {
    "params_millions": "million parameters",
    "checkpoint_mb": "MB",
    "latency_ms": "ms an image",
}
METRICS: Mapping[str, Metric] = {**SINGLE_LABEL_METRICS, **MULTI_LABEL_METRICS, **SINGLE_LABEL_METRICS}  # mode, label


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A metric or a cost that a search looks at, and whether a larger or a smaller value of it is better."""

    metric: str
    mode: Mode = "max"

    @classmethod
    def of(cls, metric: str) -> Objective:
        """The objective of a metric or a cost by its name; one that this version does not know is maximised."""
        if metric in COSTS:
            return cls(metric=metric, mode="min")
        return cls(metric=metric, mode=METRICS[metric].mode if metric in METRICS else "max")

    def gain(self, value: Number) -> Number:
        """The value or its negative, so that larger is better; its own inverse."""
        return value if self.mode == "max" else -value

    def better(self, value: float, other: float) -> bool:
        """Whether ``value`` is strictly better than ``other``."""
        return self.gain(value) > self.gain(other)

    def ranked(
        self,
        items: Iterable[Item],
        value: Callable[[Item], float | None],
        *,
        last: Callable[[Item], bool] = lambda item: False,
    ) -> list[Item]:
        """The items that have a value, best first; equal ones keep their order.

        Args:
            last: Items that come after all others, whatever their value.
        """
        ranked = sorted(_valued(items, value), key=lambda pair: (last(pair[0]), -self.gain(pair[1])))
        return [item for item, _ in ranked]

    def best(self, items: Iterable[Item], value: Callable[[Item], float | None]) -> Item | None:
        """The first of ``ranked``; None where no item has a value."""
        return max(_valued(items, value), key=lambda pair: self.gain(pair[1]), default=(None, 0.0))[0]

    def front(
        self, items: Iterable[Item], value: Callable[[Item], float | None], cost: Callable[[Item], float | None]
    ) -> list[Item]:
        """The items for which no other is both as cheap and as good, and better in one of these; the cheapest first.

        Of equal items the first one is there. Items without a value or a cost are not.
        """
        known = [
            (price, -self.gain(worth), item)
            for item, worth in _valued(items, value)
            if (price := cost(item)) is not None
        ]
        front, best = list[Item](), float("inf")
        for _, loss, item in sorted(known, key=lambda one: one[:2]):
            if loss < best:
                front.append(item)
                best = loss
        return front


def _valued(items: Iterable[Item], value: Callable[[Item], float | None]) -> list[tuple[Item, float]]:
    return [(item, known) for item in items if (known := value(item)) is not None]
