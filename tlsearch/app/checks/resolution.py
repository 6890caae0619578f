"""What a validation split can tell apart: said before a trial is spent."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tlsearch.core.label_tasks import TASKS, class_counts
from tlsearch.core.printable import printable
from tlsearch.core.text import agree, plural
from tlsearch.data import ImageIndex

DISAGREEMENT = 0.25  # fraction of the images that one of two models gets right and the other wrong
_COARSE = 0.05  # a difference from which more images are worth having
_FOLDS, _FOLDS_BELOW = 5, 20  # folds to advise, below this number of validation images a class
_FEW = 2  # validation images of a class
_MAX_NAMED = 5
_SPREAD = (
    0.03  # of true accuracies around the solved head's: fine-tuning gains or loses a few points (emoji, 996 images)
)
_WORTH = 0.015  # a solved head's gain from being solved again on train and val: 0.009, 0.010 and 0.027 on tiny sets


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """What a validation split can resolve.

    Attributes:
        num_images: Validation images.
        chance: Differences of two accuracies below this are chance: one standard error of the difference of two models
            that disagree on a quarter of the images, sqrt(0.25 / num_images). None of a multi-label task, whose mAP
            depends on more than the number of images.
        few: By class its validation images, where these are at most 2.
        folds: How many the search has: each image of train and val is then a validation image once; 0 for none.
        advice: On folds; empty where there is none.
    """

    num_images: int
    chance: float | None
    few: Mapping[str, int]
    folds: int = 0
    advice: str = ""

    def as_json(self) -> dict[str, Any]:
        """{images, chance, few, folds, advice}."""
        return {
            "images": self.num_images,
            "chance": None if self.chance is None else round(self.chance, 4),
            "few": dict(self.few),
            "folds": self.folds,
            "advice": self.advice,
        }

    def lines(self) -> list[str]:
        """In words, with what to do about it."""
        images = plural(self.num_images, "validation image") + (f" in {self.folds} folds" if self.folds else "")
        advice = ""
        if self.chance is None:
            lines = [f"{images}: `tlsearch report` gives the mAP with its interval, and the average precision by class"]
        else:
            if self.chance > _COARSE and not self.folds:
                advice = (
                    ": a larger validation split (data.split.val, or more in val/) tells more, and `tlsearch confirm` "
                    "trains the best trials again with several seeds"
                )
            lines = [f"{images}: differences of accuracy under {self.chance:.2f} are chance{advice}"]
        if self.few:
            named = ", ".join(f"{printable(name)} ({count})" for name, count in list(self.few.items())[:_MAX_NAMED])
            more = f" and {len(self.few) - _MAX_NAMED} more" if len(self.few) > _MAX_NAMED else ""
            lines.append(f"classes with {_FEW} validation images or fewer, which say little of them: {named}{more}")
        return [*lines, self.advice] if self.advice else lines


def resolution(index: ImageIndex, folds: int = 0) -> Resolution:
    """What the validation images of a data set can resolve.

    Args:
        folds: Of the search; 0 for none.
    """
    labels = index.splits["val"].labels + (index.splits["train"].labels if folds else ())
    counts = class_counts(labels)
    few = {name: counts[label] for label, name in enumerate(index.classes) if counts[label] <= _FEW}
    return Resolution(
        num_images=len(labels),
        chance=resolution_of(len(labels)) if TASKS[index.task].per_image else None,
        few=dict(sorted(few.items(), key=lambda one: one[1])),
        folds=folds,
        advice=folds_advice(index, folds),
    )


def advised_folds(num_val: int, counts: Collection[int]) -> int:
    """How many folds to search with; 0 where there are enough validation images, or too few images of a class.

    Args:
        num_val: Validation images.
        counts: Images of each class that can be cut into folds.
    """
    most = min(_FOLDS, *counts)
    return 0 if num_val >= _FOLDS_BELOW * len(counts) or most < 2 else most


def folds_advice(index: ImageIndex, folds: int = 0) -> str:
    """Advice to search with folds, where that is worth it and there are none yet; else empty."""
    num_val = len(index.splits["val"])
    counts = class_counts(index.splits["val"].labels + index.splits["train"].labels)
    advised = 0 if folds else advised_folds(num_val, [counts[label] for label in range(len(index.classes))])
    if not advised:
        return ""
    mean = f"{num_val / len(index.classes):.3g}"
    choose = agree(1 if mean == "1" else 2, "image a class, on average, chooses", "images a class, on average, choose")
    return (
        f"{mean} validation {choose} mostly the luckiest trial: with search.folds: {advised} each image of train and "
        "val is a validation image once, and values have an error"
    )


def resolution_of(num_images: int) -> float:
    """The difference of two accuracies below which it is chance: see ``Resolution``."""
    return math.sqrt(DISAGREEMENT / num_images)


def convincing_difference(num_images: int) -> float:
    """How much better than the solved head a trial has to look on validation to be expected to be worth taking.

    The true differences are taken for normal with deviation ``_SPREAD``; what is observed adds the noise of
    ``Resolution``. The expected true difference is the observed one, shrunk by spread^2 / (spread^2 + noise^2)
    (Efron and Morris, 1975), and shrunk values allow for having chosen the largest of many trials. The line is where
    it exceeds ``_WORTH``: 0.19 for 24 images, 0.06 for 100, 0.03 for 348.
    """
    noise = resolution_of(num_images)
    return _WORTH * (1.0 + (noise / _SPREAD) ** 2)
