"""Greedy selection of an ensemble from the kept predictions of a search's trials; nothing is trained or decoded.

Caruana et al., "Ensemble selection from libraries of models" (ICML 2004): with replacement, from a sorted start, and
bagged. T trials, N validation images, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlsearch.core.label_tasks import task_of
from tlsearch.core.metrics import Objective
from tlsearch.results.combine.combination import Member, Worth
from tlsearch.results.combine.cross_fitting import Rows, cross_fitted
from tlsearch.results.stats.calibration import fit_temperature

Floats = NDArray[np.float64]
Labels = NDArray[Any]
Counts = NDArray[np.int64]  # of each of T trials
Fits = Callable[[frozenset[int]], bool]  # whether trials, by their numbers, make a model within the limits

MAX_MODELS = 5
_BAGS = 10
_ROUNDS = 20  # of one bag: the smallest weight in it is one in twenty
_CALIBRATED_ON = 2000  # images: more change a temperature by less than it matters
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Selected(Worth):
    """An ensemble with its estimate.

    Attributes:
        members: By falling count. The best single trial alone where no ensemble ``helps``.
        temperatures: Of each member: what its logits are divided by before they are averaged as probabilities.
        thresholds: Of a multi-label task; see ``EnsembleMeta``.
    """

    members: tuple[Member, ...]
    temperatures: tuple[float, ...]
    thresholds: tuple[float, ...] = ()


def select_ensemble(
    trials: Sequence[int],
    logits: Floats,
    labels: Labels,
    *,
    metric: str,
    max_models: int = MAX_MODELS,
    fits: Fits = lambda _: True,
) -> Selected | None:
    """Selects the members and their counts, and estimates what they are worth by cross-fitting.

    The single best trial is chosen and scored on the same halves. The ensemble is given only where it is better by this
    estimate. The temperatures, one number a trial, are fitted on all images for both.

    Args:
        trials: T numbers; of equally good ones the first counts as the better.
        logits: float (T, N, C), of validation images.
        labels: int (N,), or float (N, C) of 0 and 1.
        metric: That the members are selected by; of equal values the better cross-entropy decides.
        max_models: The most members.
        fits: A set that fits stays within the limits when a member is taken out.

    Returns:
        None where no trial fits.
    """
    places = [place for place, trial in enumerate(trials) if fits(frozenset([trial]))]
    if not places:
        return None
    numbers = [trials[place] for place in places]
    temperatures = [_temperature(logits[place], labels) for place in places]
    # float32 halves the time: the averages are compared, not kept.
    pairs, as_probabilities = zip(places, temperatures, strict=True), task_of(labels).probabilities
    probabilities = np.stack([as_probabilities(logits[place] / t).astype(np.float32) for place, t in pairs])
    library = _Library(probabilities, labels, metric)

    def choose(rows: Rows) -> Counts:
        return library.bagged(rows, max_models, lambda some: fits(frozenset(numbers[place] for place in some)))

    everything = np.arange(len(labels))
    counts, single = choose(everything), library.single(everything)
    estimate = cross_fitted(labels, choose, library.value, seed=_SEED)
    best_estimate = cross_fitted(labels, library.single, library.value, seed=_SEED)
    helps = len(np.flatnonzero(counts)) > 1 and Objective.of(metric).better(estimate, best_estimate)
    if not helps:
        counts, estimate = single, best_estimate
    order = sorted(np.flatnonzero(counts).tolist(), key=lambda place: (-counts[place], place))
    return Selected(
        members=tuple(Member(trial=numbers[place], count=int(counts[place])) for place in order),
        temperatures=tuple(temperatures[place] for place in order),
        thresholds=library.thresholds(counts),
        value=library.value(counts, everything),
        cross_fitted=estimate,
        best_trial=numbers[int(single.argmax())],
        best_value=library.value(single, everything),
        best_cross_fitted=best_estimate,
        helps=helps,
    )


def _temperature(logits: Floats, labels: Labels) -> float:
    step = max(1, math.ceil(len(labels) / _CALIBRATED_ON))
    return fit_temperature(logits[::step], labels[::step])


class _Library:
    """The trials' probabilities, float (T, N, C), and what averages of them are worth."""

    def __init__(self, probabilities: NDArray[np.float32], labels: Labels, metric: str) -> None:
        self._probabilities, self._labels = probabilities, labels
        self._task, self._objective = task_of(labels), Objective.of(metric)
        self._metric = self._task.metrics[metric]

    def value(self, counts: Counts, rows: Rows) -> float:
        """The metric of a weighted mean on the images of some rows."""
        return self._metric.value(self.scores(counts, rows), self._labels[rows])

    def scores(self, counts: Counts, rows: Rows) -> Floats:
        """Those of a weighted mean, float (M, C), on the images of M rows."""
        chosen = np.flatnonzero(counts)
        mean = np.tensordot(counts[chosen].astype(np.float32), self._probabilities[chosen][:, rows], axes=1)
        return self._task.scores(mean / counts.sum())

    def thresholds(self, counts: Counts) -> tuple[float, ...]:
        """Of a weighted mean; see ``Task``."""
        return self._task.thresholds(self.scores(counts, np.arange(len(self._labels))), self._labels)

    def single(self, rows: Rows) -> Counts:
        """The best trial alone, by the metric; of equal ones the first."""
        labels = self._labels[rows]
        values = [self._metric.value(self._task.scores(one[rows]), labels) for one in self._probabilities]
        counts = np.zeros(len(values), dtype=np.int64)
        counts[int(np.argmax(self._objective.gain(np.array(values))))] = 1
        return counts

    def bagged(self, rows: Rows, max_models: int, fits: Callable[[frozenset[int]], bool]) -> Counts:
        """The sum of the selections on images drawn again with replacement, cut to the members that are counted most.

        Few images do not overfit it: a trial that only looks good on a few of them is in few of the selections.
        """
        rng = np.random.default_rng(_SEED)
        counts = np.zeros(len(self._probabilities), dtype=np.int64)
        for _ in range(_BAGS):
            drawn = np.sort(rng.choice(rows, len(rows)))
            counts += self._greedy(self._probabilities[:, drawn], self._labels[drawn], max_models, fits)
        kept: frozenset[int] = frozenset()
        for place in sorted(np.flatnonzero(counts).tolist(), key=lambda one: (-counts[one], one)):
            if len(kept) < max_models and fits(kept | {place}):
                kept |= {place}
        counts[[place for place in range(len(counts)) if place not in kept]] = 0
        found: Counts = counts // np.gcd.reduce(counts)
        return found

    def _greedy(
        self,
        probabilities: NDArray[np.float32],
        labels: Labels,
        max_models: int,
        fits: Callable[[frozenset[int]], bool],
    ) -> Counts:
        """Adds the trial that makes the mean best, again and again, until none makes it better."""
        alone = {place: self._key(one, labels) for place, one in enumerate(probabilities)}
        order = sorted(alone, key=lambda place: alone[place], reverse=True)
        chosen, best = [order[0]], alone[order[0]]
        total = probabilities[order[0]].copy()
        running, prefix = total.copy(), [order[0]]
        for place in order[1:max_models]:  # sorted start: as many of the best as make the best mean
            if not fits(frozenset([*prefix, place])):
                continue
            prefix = [*prefix, place]
            running = running + probabilities[place]
            key = self._key(running / len(prefix), labels)
            if key > best:
                chosen, best, total = prefix, key, running
        while len(chosen) < _ROUNDS:
            inside = frozenset(chosen)
            open_to = [
                place for place in order if place in inside or (len(inside) < max_models and fits(inside | {place}))
            ]
            keys = {place: self._key((total + probabilities[place]) / (len(chosen) + 1), labels) for place in open_to}
            place = max(open_to, key=lambda one: keys[one])
            if keys[place] <= best:
                break
            chosen, best, total = [*chosen, place], keys[place], total + probabilities[place]
        counts: Counts = np.bincount(chosen, minlength=len(probabilities))
        return counts

    def _key(self, mean: NDArray[np.float32], labels: Labels) -> tuple[float, float]:
        """The metric, larger is better; then the cross-entropy, which tells equal accuracies apart."""
        likelihood = self._task.likelihood(mean, labels)
        if self._metric.name == "val_loss":
            return likelihood, 0.0
        # Other metrics look at the order and the sign of scores alone: no logarithm of all of them is needed.
        return self._objective.gain(self._metric.value(self._task.ranks(mean), labels)), likelihood
