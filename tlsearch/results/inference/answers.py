"""What a model says of one image: its most probable classes, and of a multi-label model those that the image has.

C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Score:
    """A class with its probability, a fraction."""

    label: str
    score: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the model says of one image.

    Attributes:
        path: The image's path as given; ``image N``, N its position from 0, for bytes and arrays.
        label: The most probable class.
        score: Its probability, in [0, 1].
        top: The most probable classes, at most 5, best first.
    """

    path: str
    label: str
    score: float
    top: tuple[Score, ...]


@dataclass(frozen=True, kw_only=True)
class MultiLabelPrediction(Prediction):
    """What a multi-label model says of one image; ``label`` is the most probable class, even if the image lacks it.

    Attributes:
        labels: The classes that the image has: those above their thresholds, the most probable first; perhaps none.
    """

    labels: tuple[Score, ...]


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """An image without a prediction.

    Attributes:
        path: As in `Prediction`.
        error: What is wrong with it; names it.
    """

    path: str
    error: str


def prediction(
    path: str, probabilities: Tensor, classes: Sequence[str], *, top: int, thresholds: Sequence[float] = ()
) -> Prediction:
    """The answer for one image.

    Args:
        probabilities: (C,).
        top: How many classes it lists, from 1.
        thresholds: Of a multi-label model, C; empty of another.
    """
    ranked = _ranked(probabilities, classes, len(classes) if thresholds else min(top, len(classes)))
    plain = Prediction(path=path, label=ranked[0].label, score=ranked[0].score, top=ranked[:top])
    if not thresholds:
        return plain
    limits = dict(zip(classes, thresholds, strict=True))
    return MultiLabelPrediction(**vars(plain), labels=tuple(one for one in ranked if one.score > limits[one.label]))


def _ranked(probabilities: Tensor, classes: Sequence[str], count: int) -> tuple[Score, ...]:
    values, indices = probabilities.topk(count)
    pairs = zip(values.tolist(), indices.tolist(), strict=True)
    return tuple(Score(label=classes[index], score=value) for value, index in pairs)
