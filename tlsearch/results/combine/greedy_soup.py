"""Which trials to average the weights of: greedily, from the best on (Wortsman et al. 2022), and what that is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlsearch.core.label_tasks import task_of
from tlsearch.core.metrics import Objective
from tlsearch.results.combine.combination import Worth
from tlsearch.results.combine.cross_fitting import Rows, cross_fitted

SPLITS = 5  # of the validation images; each average that a half leads to takes a pass over them
Scores = NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class SoupChoice(Worth):
    """The average that was chosen on all validation images, and what choosing so is worth; see ``Worth``.

    Where it does not help, ``value`` is that of the best single model.

    Attributes:
        members: Trials, in the order in which they were taken: the best first.
    """

    members: tuple[int, ...]


def choose_soup(
    candidates: Sequence[int],
    logits: Callable[[tuple[int, ...]], Scores],
    labels: NDArray[Any],
    metric: str,
    *,
    start: Sequence[int] = (),
    singles: Sequence[int] | None = None,
) -> SoupChoice:
    """The greedy soup of some trials, against the best single one.

    It starts from the best candidate, or from the average of ``start``; a candidate joins where the average with it is
    not worse than without. Both the soup and the best single trial are chosen again on each half. Which trials are
    candidates was decided on all images: that favours both alike.

    Args:
        candidates: Trials whose weights may be averaged; of equal ones the first counts as the better.
        logits: What the average of some candidates, or one single, says of the N images: (N, C). Called once for each
            set of trials.
        start: Those that are averaged unseen: trainings that differ in nothing but their seeds, among which a choice by
            few images would be chance.
        labels: int (N,), or float (N, C) of 0 and 1.
        metric: By its name, as in ``search.metric``.
        singles: The models of which the soup must beat the best one; the candidates where left out.
    """
    objective, figure = Objective.of(metric), task_of(labels).metrics[metric]
    known = cache(logits)

    def score(members: tuple[int, ...], rows: Rows) -> float:
        return figure.value(known(tuple(sorted(members)))[rows], labels[rows])

    def best_single(rows: Rows, numbers: Sequence[int]) -> tuple[int, ...]:
        return (max(numbers, key=lambda number: objective.gain(score((number,), rows))),)

    def greedy(rows: Rows) -> tuple[int, ...]:
        first = tuple(start) or best_single(rows, candidates)
        members, value = first, score(first, rows)
        ranked = sorted(candidates, key=lambda number: -objective.gain(score((number,), rows)))
        for number in (one for one in ranked if one not in first):
            joined = score((*members, number), rows)
            if not objective.better(value, joined):
                members, value = (*members, number), joined
        return members

    everyone = candidates if singles is None else singles
    rows = np.arange(len(labels))
    members, best = greedy(rows), best_single(rows, everyone)
    soup_value = cross_fitted(labels, greedy, score, SPLITS)
    best_value = cross_fitted(labels, lambda half: best_single(half, everyone), score, SPLITS)
    helps = len(members) > 1 and objective.better(soup_value, best_value)
    return SoupChoice(
        members=members,
        value=score(members if helps else best, rows),
        cross_fitted=soup_value,
        best_trial=best[0],
        best_value=score(best, rows),
        best_cross_fitted=best_value,
        helps=helps,
    )
