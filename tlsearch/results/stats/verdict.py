"""Which of several configurations to take: the best one, or a cheaper one that is as good as far as the data show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tlsearch.core.types import Mode, Objective, Scalar
from tlsearch.results.stats.seed_tests import (
    ALPHA,
    Difference,
    Mean,
    Values,
    difference_over_both,
    difference_over_images,
    difference_over_seeds,
    mean_over_seeds,
)

MIN_SEEDS = 2
Step = Literal["epoch", "fold"]  # of a training: what a report is of
_WITH_ARTICLE: Mapping[Step, str] = {"epoch": "an epoch", "fold": "a fold"}
_NOTABLE = 0.9  # of rank 1's seconds an epoch, below which an equally large model counts as cheaper


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """A configuration that was trained with several seeds.

    Attributes:
        trial: Its trial in the search that it comes from; ``first_value`` is the metric there.
        values: The metric by seed; a training that failed has none.
        trials: The trainings, by seed: numbers in the search that repeated them.
        scores: By seed, what each validation image adds to the metric (float (N,), larger is better); may be absent.
        parameters: Of the whole model.
        epoch_seconds: Of an epoch, or of a fold with all its epochs: mean over the trainings. None where the head is
            solved: it has no epochs, and what it takes is the first computation of features that others then read.
    """

    trial: int
    params: Mapping[str, Scalar]
    first_value: float | None
    values: Mapping[int, float]
    trials: Mapping[int, int]
    parameters: int
    epoch_seconds: float | None
    scores: Mapping[int, Values] | None = None

    @property
    def mean(self) -> Mean:
        """Over its seeds; larger or smaller is better as the metric says."""
        return mean_over_seeds(list(self.values.values()))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two configurations; differences are positive where ``first`` is better.

    Attributes:
        better: Whether ``first`` is really better.
        decisive: The one that the verdict rests on: over both where it exists, else over seeds; None where fewer
            than two seeds are common to both, and where each seed alone gives the same difference: that happens on few
            images, and always with heads that are solved, and says nothing of other images.
    """

    first: int
    second: int
    better: bool = False
    decisive: Difference | None = None
    over_seeds: Difference | None = None
    over_images: Difference | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the repetition says.

    Attributes:
        ranking: Best mean first; configurations without any result are left out.
        comparisons: The first of the ranking with each of the others.
        outcome: ``better``: rank 1 is better than rank 2; ``equal``: the data cannot distinguish them; ``unknown``: too
            few trainings to tell.
        recommended: The trial to take: rank 1, or the cheapest that the data cannot distinguish from it.
        text: In words.
    """

    ranking: tuple[Repeated, ...]
    comparisons: tuple[Comparison, ...]
    outcome: Literal["better", "equal", "unknown"]
    recommended: int
    text: str


@dataclass(frozen=True, kw_only=True)
class SeedValue:
    """One training of a candidate: its seed, its trial in the search that repeated it, and the metric."""

    seed: int
    trial: int
    value: float


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A configuration of the ranking.

    Attributes:
        rank: From 1.
        trial: Its trial in the search that it comes from; ``first_value`` is the metric there.
        mean: Over the seeds, as are ``deviation`` and ``interval``, None for a single seed.
        best_trial: The best of its trainings, whose model is kept.
    """

    rank: int
    trial: int
    params: Mapping[str, Scalar]
    first_value: float | None
    mean: float
    deviation: float
    interval: tuple[float, float] | None
    values: tuple[SeedValue, ...]
    best_trial: int
    parameters: int
    epoch_seconds: float | None

    @classmethod
    def of(cls, one: Repeated, rank: int, objective: Objective) -> Candidate:
        """A configuration of a verdict's ranking."""
        mean, best = one.mean, objective.best(sorted(one.values), one.values.get)
        assert best is not None, "a configuration of the ranking has a value"
        return cls(
            rank=rank,
            trial=one.trial,
            params=dict(one.params),
            first_value=one.first_value,
            mean=mean.value,
            deviation=mean.deviation,
            interval=(mean.interval.low, mean.interval.high) if mean.interval else None,
            values=tuple(SeedValue(seed=seed, trial=one.trials[seed], value=v) for seed, v in one.values.items()),
            best_trial=one.trials[best],
            parameters=one.parameters,
            epoch_seconds=one.epoch_seconds,
        )


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """The result of ``confirm``, as ``confirm.json`` holds it.

    Attributes:
        search_id: The search whose best configurations were trained again, by ``confirm_search_id``.
        ended: Unix time.
        step: What ``epoch_seconds`` of a candidate is the time of.
        outcome: As in ``Verdict``, as are ``recommended`` and ``verdict``, its text.
    """

    format: int = 1
    search_id: str
    confirm_search_id: str
    experiment: str
    metric: str
    mode: Mode
    data_digest: str
    num_val_images: int
    seeds: int
    step: Step = "epoch"
    ended: float
    candidates: tuple[Candidate, ...]
    comparisons: tuple[Comparison, ...]
    outcome: Literal["better", "equal", "unknown"]
    recommended: int
    verdict: str


def judge(candidates: Sequence[Repeated], objective: Objective, *, step: Step = "epoch") -> Verdict:
    """Ranks configurations by their mean and compares the best with the others.

    Args:
        candidates: At least one with a value.
        step: What their ``epoch_seconds`` are the time of.
    """
    valued = sorted((one for one in candidates if one.values), key=lambda one: one.trial)
    ranking = tuple(objective.ranked(valued, lambda one: one.mean.value))
    assert ranking, "a verdict needs a configuration with a value"
    best, others, metric = ranking[0], ranking[1:], objective.metric
    comparisons = tuple(compare_repeated(best, other, objective) for other in others)
    if not comparisons:
        text = f"trial {best.trial} is the only configuration with a result: there is nothing to compare it with"
        return Verdict(ranking=ranking, comparisons=(), outcome="unknown", recommended=best.trial, text=text)
    first = comparisons[0]
    if first.decisive is None:
        text = _nothing_shown(first, metric)
        return Verdict(ranking=ranking, comparisons=comparisons, outcome="unknown", recommended=best.trial, text=text)
    if first.better:
        text = f"rank 1 (trial {best.trial}) is better than rank 2 (trial {first.second}): {_figures(first, metric)}"
        return Verdict(ranking=ranking, comparisons=comparisons, outcome="better", recommended=best.trial, text=text)
    alike = [best, *(o for o, c in zip(others, comparisons, strict=True) if c.decisive is not None and not c.better)]
    cheapest = best
    for other in alike:
        cheapest = other if _is_cheaper(other, cheapest) else cheapest
    differ = any(_is_cheaper(cheapest, other) for other in alike)
    which = "the cheaper one is as good" if differ else "none is notably cheaper, so rank 1 stays"
    text = (
        f"rank 1 (trial {best.trial}) and rank 2 (trial {first.second}) do not differ by more than chance: "
        f"{_figures(first, metric)}; {which}: {_cost(cheapest, step)}"
    )
    return Verdict(ranking=ranking, comparisons=comparisons, outcome="equal", recommended=cheapest.trial, text=text)


def compare_repeated(first: Repeated, second: Repeated, objective: Objective) -> Comparison:
    """Compares two configurations over the seeds that both have."""
    seeds = sorted(first.values.keys() & second.values.keys())
    if len(seeds) < MIN_SEEDS:
        return Comparison(first=first.trial, second=second.trial)
    over_seeds = difference_over_seeds(
        *([objective.gain(one.values[seed]) for seed in seeds] for one in (first, second))
    )
    over_images = over_both = None
    if first.scores is not None and second.scores is not None:
        ours = np.stack([first.scores[seed] for seed in seeds])
        theirs = np.stack([second.scores[seed] for seed in seeds])
        over_images, over_both = difference_over_images(ours, theirs), difference_over_both(ours, theirs)
    decisive = over_both or (None if over_seeds.constant and over_seeds.value else over_seeds)
    return Comparison(
        first=first.trial,
        second=second.trial,
        better=decisive is not None and decisive.p_value < ALPHA and decisive.value > 0,
        decisive=decisive,
        over_seeds=over_seeds,
        over_images=over_images,
    )


def _is_cheaper(one: Repeated, other: Repeated) -> bool:
    """By parameters; equally large ones by the time of an epoch, if both have any: a few per cent are chance."""
    if one.parameters != other.parameters:
        return one.parameters < other.parameters
    if one.epoch_seconds is None or other.epoch_seconds is None:
        return False
    return one.epoch_seconds < _NOTABLE * other.epoch_seconds


def _nothing_shown(comparison: Comparison, metric: str) -> str:
    pair, over = f"trials {comparison.first} and {comparison.second}", comparison.over_seeds
    if over is None:
        return f"fewer than {MIN_SEEDS} seeds of {pair} have a result: nothing is shown"
    return (
        f"nothing is shown: {pair} differ by {over.value:.4f} in {metric} with every seed, so that the seeds say "
        f"nothing of chance, and {metric} has no values of single images that would"
    )


def _figures(comparison: Comparison, metric: str) -> str:
    test = comparison.decisive
    assert test is not None
    over = {"seeds": "over seeds", "both": "over seeds and validation images"}[test.over]
    interval = f"95 % interval {test.interval.low:+.4f} to {test.interval.high:+.4f}"
    return f"advantage in {metric} {test.value:+.4f} {over} ({interval}, p = {test.p_value:.2g})"


def _cost(one: Repeated, step: Step) -> str:
    time = "a solved head" if one.epoch_seconds is None else f"{one.epoch_seconds:.1f} s {_WITH_ARTICLE[step]}"
    return f"trial {one.trial} ({one.parameters:,} parameters, {time})"
