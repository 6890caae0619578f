"""Two models on the same images, or the best of two searches: what differs, and whether it could be chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tlsearch.core.errors import DataError
from tlsearch.core.metrics import is_share
from tlsearch.core.types import Objective, Scalar, SearchRecord
from tlsearch.results.answer_comparison import AnswerComparison
from tlsearch.results.inference.labelled import Evaluation, check_same_images
from tlsearch.results.leaderboard.leaderboard import LeaderboardRow, leaderboard
from tlsearch.results.leaderboard.search_facts import SearchFacts
from tlsearch.results.stats.intervals import Interval, PairedTest, compare_paired, unpaired_interval, wilson_interval

ALPHA = 0.05


@dataclass(frozen=True, kw_only=True)
class ModelScore:
    """One model: its accuracy on the N images, with Wilson's 95 % interval."""

    name: str
    accuracy: float
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class ClassComparison:
    """One class: its images, and how many of them each model gets right."""

    name: str
    images: int
    right_a: int
    right_b: int


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """An image for which the two models say different classes; scores are those of what each says."""

    key: str
    label: str
    a: str
    b: str
    score_a: float
    score_b: float


@dataclass(frozen=True, kw_only=True)
class ModelComparison:
    """Two models on the same images.

    Attributes:
        both_right: Images that both get right; ``both_wrong`` likewise.
        paired: McNemar's test and the interval of the difference, A less B.
        classes: Those where the two differ most come first.
        disagreements: Those where one is right and surest against the other come first.
    """

    a: ModelScore
    b: ModelScore
    both_right: int
    both_wrong: int
    paired: PairedTest
    classes: Sequence[ClassComparison]
    disagreements: Sequence[Disagreement]

    @property
    def metric(self) -> str:
        """What the verdict rests on."""
        return "val_accuracy"

    @property
    def verdict(self) -> str:
        """One sentence."""
        test = self.paired
        if test.p_value >= ALPHA:
            alone = test.only_a + test.only_b
            return f"no difference shown: p = {test.p_value:.2g} from {alone} images that only one gets right"
        better = self.a if test.difference > 0 else self.b
        return f"{better.name} is better: by {abs(test.difference):.4f}, p = {test.p_value:.2g}"

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "verdict": self.verdict}


def compare_models(names: tuple[str, str], a: Evaluation, b: Evaluation) -> ModelComparison:
    """Compares what two models say of the same images.

    Raises:
        DataError: The images differ.
    """
    check_same_images(a, b)
    right_a, right_b = a.right, b.right
    num = len(a.keys)
    return ModelComparison(
        a=ModelScore(name=names[0], accuracy=a.accuracy, interval=wilson_interval(a.accuracy, num)),
        b=ModelScore(name=names[1], accuracy=b.accuracy, interval=wilson_interval(b.accuracy, num)),
        both_right=int((right_a & right_b).sum()),
        both_wrong=int((~right_a & ~right_b).sum()),
        paired=compare_paired(right_a, right_b),
        classes=_classes(a, b),
        disagreements=_disagreements(a, b),
    )


def _classes(a: Evaluation, b: Evaluation) -> list[ClassComparison]:
    found = []
    for place, name in enumerate(a.classes):
        of_class = a.labels == place
        right_a, right_b = int(a.right[of_class].sum()), int(b.right[of_class].sum())
        found.append(ClassComparison(name=name, images=int(of_class.sum()), right_a=right_a, right_b=right_b))
    return sorted(found, key=lambda one: (-abs(one.right_a - one.right_b), one.name))


def _disagreements(a: Evaluation, b: Evaluation) -> list[Disagreement]:
    said_a, said_b, names = a.predicted, b.predicted, a.classes
    found = []
    for i in (said_a != said_b).nonzero()[0]:
        one = Disagreement(
            key=a.keys[i],
            label=names[a.labels[i]],
            a=names[said_a[i]],
            b=names[said_b[i]],
            score_a=float(a.probabilities[i, said_a[i]]),
            score_b=float(b.probabilities[i, said_b[i]]),
        )
        found.append(one)
    return sorted(found, key=_weight, reverse=True)


def _weight(one: Disagreement) -> tuple[bool, float]:
    """One right against a sure wrong one first."""
    wrong = one.score_b if one.a == one.label else one.score_a
    return (one.label in (one.a, one.b), wrong)


@dataclass(frozen=True, kw_only=True)
class SearchSide:
    """One search: its best trial, and the best of each backbone."""

    record: SearchRecord
    facts: SearchFacts
    best: LeaderboardRow
    backbones: Mapping[str, LeaderboardRow]

    @property
    def search_id(self) -> str:
        """Its name."""
        return self.record.search_id


@dataclass(frozen=True, kw_only=True)
class SearchComparison:
    """Two searches over the same data with the same metric.

    Attributes:
        num_validation: Images that judged the trials of each; the smaller number where they differ.
        difference: The best value of A less that of B.
        interval: Of the difference, as if each had been measured on images of its own; None where the metric is
            no share of the images.
        models: Both best models on the validation images; None where one is not kept.
        models_missing: Why.
    """

    objective: Objective
    num_validation: int | None
    a: SearchSide
    b: SearchSide
    difference: float
    interval: Interval | None
    models: ModelComparison | AnswerComparison | None
    models_missing: str = ""

    @property
    def verdict(self) -> str:
        """One sentence; it rests on the paired test where there is one."""
        if self.models is not None and self.objective.metric == self.models.metric:
            return self.models.verdict
        names = self.a.search_id, self.b.search_id
        ahead = names[0] if self.objective.better(self.difference, 0.0) else names[1]
        if self.difference == 0:
            return "the best values are equal"
        if self.interval is None:
            return f"{ahead} has the better value by {abs(self.difference):.4f}; how sure that is cannot be said"
        if self.interval.low <= 0 <= self.interval.high:
            return (
                f"no difference shown: {self.num_validation} validation images cannot tell {abs(self.difference):.4f}"
            )
        return f"{ahead} is better: by {abs(self.difference):.4f}"

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        plain = {
            "metric": self.objective.metric,
            "validation_images": self.num_validation,
            "difference": self.difference,
            "interval": None if self.interval is None else asdict(self.interval),
            "verdict": self.verdict,
            "models": None if self.models is None else self.models.as_json(),
            "models_missing": self.models_missing,
        }
        for name, side in (("a", self.a), ("b", self.b)):
            backbones = {backbone: _row_json(row) for backbone, row in side.backbones.items()}
            best = _row_json(side.best)
            plain[name] = {
                "search_id": side.search_id,
                "trials": len(side.record.trials),
                "best": best,
                "backbones": backbones,
            }
        return plain


def _row_json(row: LeaderboardRow) -> dict[str, Any]:
    return {**row.as_json(), **row.details()}


def search_side(record: SearchRecord, facts: SearchFacts) -> SearchSide:
    """One side of a comparison.

    Raises:
        DataError: No trial has a result.
    """
    ranked = [row for row in leaderboard(record, {}, facts) if row.rank is not None]
    if not ranked:
        raise DataError(f"searches are compared by their results; no trial of {record.search_id} has one")
    backbones: dict[str, LeaderboardRow] = {}
    for row in ranked:
        backbones.setdefault(_text(row.params.get("backbone")), row)
    return SearchSide(record=record, facts=facts, best=ranked[0], backbones=backbones)


def compare_searches(
    a: SearchSide,
    b: SearchSide,
    models: ModelComparison | AnswerComparison | None = None,
    models_missing: str = "",
) -> SearchComparison:
    """Compares the results of two searches.

    Raises:
        DataError: They searched on other data, or for another metric.
    """
    ids, metric = f"{a.search_id} and {b.search_id}", a.record.metric
    if metric != b.record.metric:
        metrics = f"{metric} and {b.record.metric}"
        raise DataError(f"searches are compared by one metric; {ids} went for {metrics}: compare their best models")
    if a.facts.digest and b.facts.digest and a.facts.digest != b.facts.digest:
        raise DataError(f"searches are compared on one data set; the images of {ids} differ: compare their best models")
    value_a, value_b = a.best.best_value, b.best.best_value
    assert value_a is not None and value_b is not None
    nums = [one.facts.num_validation for one in (a, b)]  # not equal where one of both has folds
    num_a, num_b = nums[0] or nums[1], nums[1] or nums[0]
    interval = unpaired_interval(value_a, num_a, value_b, num_b) if num_a and num_b and is_share(metric) else None
    return SearchComparison(
        objective=a.record.objective,
        num_validation=min(filter(None, nums), default=None),
        a=a,
        b=b,
        difference=value_a - value_b,
        interval=interval,
        models=models,
        models_missing=models_missing,
    )


def _text(value: Scalar) -> str:
    return "–" if value is None else str(value)
