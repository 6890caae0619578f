"""Which parameters mattered: PED-ANOVA over all trials at one common epoch.

Optuna's evaluator handles conditional parameters, but reads COMPLETE trials only and takes their last
values: after successive halving that is a biased third. So all trials that reached a common epoch (the first
rung, where there are rungs) enter an in-memory study with their best value up to that epoch.
"""

from __future__ import annotations

import logging
import math
import random
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from tlsearch.core.layout import SearchFolder
from tlsearch.core.text import agree, plural
from tlsearch.core.types import EndReason, Objective, ParameterImportance
from tlsearch.search.study.storage import open_for_reading
from tlsearch.search.study.stored_reports import REPORT
from tlsearch.space.conditions import dimension_of

logger = logging.getLogger(__name__)

MIN_TRIALS = 10  # with fewer the top group is two or three trials, and any ranking is chance
_TOP_SHARE = 0.1
_MIN_TOP = 5  # of PED-ANOVA's own advice
_RESAMPLES = 11
_RESAMPLED_TRIALS = 150  # enough to see the spread of a large search, in a fraction of the time
_REGULAR = (EndReason.ASHA, EndReason.COMPLETED, EndReason.PLATEAUED)  # ended by the search itself


def parameter_importance(directory: Path, moved: Callable[[str], str] | None = None) -> ParameterImportance:
    """The importance of each parameter that the search varied; reads only.

    Args:
        directory: The search's folder.
        moved: As for ``open_for_reading``.

    Returns:
        Shares that sum to 1, largest first; without values, but with the reason, where there is too little
        to tell.

    Raises:
        StorageError: The study is damaged.
    """
    study = open_for_reading(SearchFolder(root=Path(directory)), moved)
    if study is None:
        return ParameterImportance(reason="the search has not started")
    return importance_of(study.trials(), Objective.of(str(study.attrs.get("metric"))))


def importance_of(trials: Sequence[FrozenTrial], objective: Objective) -> ParameterImportance:
    """As ``parameter_importance``, of trials of a study."""
    usable = [trial for trial in trials if _value_known(trial)]
    if len(usable) < MIN_TRIALS:
        return ParameterImportance(
            num_trials=len(usable),
            reason=f"{plural(len(usable), 'trial')} {agree(len(usable), 'has', 'have')} results; "
            f"at least {MIN_TRIALS} are needed",
        )
    epoch = _common_epoch(usable)
    scored = _scored(usable, epoch, objective)
    if len({trial.value for trial in scored}) < 2:
        return ParameterImportance(epoch=epoch, num_trials=len(scored), reason="all trials have the same value")
    if len(scored) < MIN_TRIALS:
        return ParameterImportance(
            epoch=epoch,
            num_trials=len(scored),
            reason=f"{plural(len(scored), 'trial')} reached epoch {epoch}; at least {MIN_TRIALS} are needed",
        )
    values = _evaluate(scored, objective)
    if not values:
        return ParameterImportance(epoch=epoch, num_trials=len(scored), reason="the search varied no parameter")
    return ParameterImportance(
        values=dict(sorted(values.items(), key=lambda item: -item[1])),
        spread=_spread(scored, objective, values),
        epoch=epoch,
        num_trials=len(scored),
        num_top=math.ceil(_top_share(len(scored)) * len(scored)),
    )


def _value_known(trial: FrozenTrial) -> bool:
    """Failed trials say nothing; diverged ones say that theirs was a bad place."""
    if trial.state in (OptunaState.FAIL, OptunaState.WAITING) or trial.user_attrs.get("reason") == EndReason.MEMORY:
        return False
    return bool(trial.intermediate_values) or _diverged(trial)


def _diverged(trial: FrozenTrial) -> bool:
    return trial.user_attrs.get("reason") == EndReason.DIVERGED


def _common_epoch(trials: Sequence[FrozenTrial]) -> int:
    """The last epoch that every trial reached which the search itself let end."""
    regular = [trial for trial in trials if trial.user_attrs.get("reason") in _REGULAR]
    reached = [max(t.intermediate_values) for t in regular or trials if t.intermediate_values]
    return min(reached, default=1)


def _scored(trials: Sequence[FrozenTrial], epoch: int, objective: Objective) -> list[FrozenTrial]:
    """Each trial, as complete with its best value up to the epoch; a diverged one has the worst of all."""
    scored = []
    for trial in trials:
        if not _diverged(trial) and max(trial.intermediate_values) >= epoch:
            values = [value for step, value in sorted(trial.intermediate_values.items()) if step <= epoch]
            if trial.user_attrs.get(f"{REPORT}{epoch}", {}).get("folds"):
                values = values[-1:]  # the mean over the most folds
            scored.append((trial, max(values, key=objective.gain)))
    if not scored:
        return []
    worst = min((value for _, value in scored), key=objective.gain)
    scored += [(trial, worst) for trial in trials if _diverged(trial)]
    return [
        optuna.trial.create_trial(value=value, params=trial.params, distributions=trial.distributions)
        for trial, value in scored
    ]


def _top_share(num_trials: int) -> float:
    return min(0.5, max(_TOP_SHARE, _MIN_TOP / num_trials))


def _evaluate(scored: Sequence[FrozenTrial], objective: Objective) -> dict[str, float]:
    """Shares by the user's names; a parameter under several names of the study gets the sum of them.

    Each of them is active where the others are not, and PED-ANOVA's importance is a sum over such regimes.
    """
    from optuna.importance import PedAnovaImportanceEvaluator  # seconds, that `status` need not wait for

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a rare branch of a conditional space: its spread shows it
        study = optuna.create_study(direction="maximize" if objective.mode == "max" else "minimize")
        study.add_trials(scored)
        evaluator = PedAnovaImportanceEvaluator(target_quantile=_top_share(len(scored)))
        found = evaluator.evaluate(study)
    values: dict[str, float] = {}
    for name, value in found.items():
        shown = dimension_of(name)  # two names of the study are one for a user
        values[shown] = values.get(shown, 0.0) + value
    total = sum(values.values())
    return {name: value / total if total > 0 else 1 / len(values) for name, value in values.items()}


def _spread(
    scored: Sequence[FrozenTrial], objective: Objective, values: dict[str, float]
) -> dict[str, tuple[float, float]]:
    """From the 10 % to the 90 % quantile over trials drawn again: how much of a ranking is chance."""
    rng = random.Random(0)
    drawn = min(len(scored), _RESAMPLED_TRIALS)
    found: dict[str, list[float]] = {name: [] for name in values}
    for _ in range(_RESAMPLES):
        again = _evaluate(rng.choices(scored, k=drawn), objective)
        for name, shares in found.items():
            shares.append(again.get(name, 0.0))
    # The second lowest and the second highest of eleven: the 10 % and the 90 % quantile.
    ranges = {name: (sorted(shares)[1], sorted(shares)[-2]) for name, shares in found.items()}
    return {name: (min(low, values[name]), max(high, values[name])) for name, (low, high) in ranges.items()}
