"""A search as its study tells it: the truth that results are read from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tlsearch.core.errors import UsageError, UserError
from tlsearch.core.metrics import Objective
from tlsearch.core.text import html_table
from tlsearch.core.types.trial_config import Scalar, TrialConfig
from tlsearch.core.types.trials import (
    FOLD_EPOCH,
    INTERRUPTED,
    EndReason,
    EpochReport,
    Plateau,
    StartReport,
    TrialOutcome,
    TrialState,
    result_of,
)


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial as the study tells it; ``params`` are the active dimensions, Optuna's names merged.

    Attributes:
        reason: An ``EndReason`` once it has ended; empty while it runs, ``interrupted`` where it is unfinished and no
            process runs the search.
        best_epoch: From 1; 0 where no epoch was better than the solved head before the first step.
        measured: What the search's constraints and objectives look at: params_millions, checkpoint_mb, latency_ms.
        origin: Why it was tried: ``default`` for the default configuration, ``start_with``, ``sampler`` and others.
    """

    number: int
    state: TrialState
    reason: str
    params: Mapping[str, Scalar]
    config: TrialConfig
    seed: int
    best_value: float | None = None
    best_epoch: int | None = None
    reports: tuple[EpochReport, ...] = ()
    error: str = ""
    started: float | None = None
    ended: float | None = None
    measured: Mapping[str, float] = field(default_factory=dict)
    origin: str = ""

    @property
    def start(self) -> StartReport | None:
        """The model before the first step; None with a random head, and before the first report."""
        return self.reports[0].start if self.reports else None

    @property
    def epochs_run(self) -> int:
        """The last epoch reported; 0 before the first report."""
        return self.reports[-1].epoch if self.reports else 0

    @property
    def result(self) -> float | None:
        """The value that it is ranked by; None while it runs, and where it failed or diverged."""
        return result_of(self.state, self.reason, self.best_value)

    @property
    def epoch_seconds(self) -> list[float]:
        """What each epoch took, or fold, as far as it was measured."""
        return [one.metrics["epoch_seconds"] for one in self.reports if "epoch_seconds" in one.metrics]

    @property
    def folds(self) -> int:
        """Of how many folds its value is the mean once it is whole; 0 without folds."""
        return self.reports[-1].folds if self.reports else 0

    @property
    def model_epoch(self) -> int | None:
        """The epoch of the model that its value stands for: the best, or the common one of its folds; 0 as there."""
        return int(self.reports[-1].metrics[FOLD_EPOCH]) if self.folds else self.best_epoch

    @property
    def partial(self) -> bool:
        """Whether it has folds and was stopped before the last: it is ranked after those that have seen all."""
        return self.epochs_run < self.folds

    @property
    def outcome(self) -> TrialOutcome | None:
        """How it ended; None while it runs or is interrupted."""
        if self.state is TrialState.RUNNING:
            return None
        return TrialOutcome(
            reason=EndReason(self.reason),
            error=self.error,
            epochs_run=self.epochs_run,
            best_value=self.best_value,
            best_epoch=self.best_epoch,
            partial=self.partial,
        )

    @property
    def interrupted(self) -> bool:
        """Whether it waits for a resume of its search."""
        return self.state is TrialState.RUNNING and self.reason == INTERRUPTED

    @property
    def state_name(self) -> str:
        """Its state in a word for people."""
        return INTERRUPTED if self.interrupted else self.state.value

    def _repr_html_(self) -> str:
        found = [("best_value", self.best_value), ("best_epoch", self.best_epoch), ("epochs_run", self.epochs_run)]
        rows = [("state", self.state_name), ("reason", self.reason), *self.params.items(), *found]
        return html_table(("", f"trial {self.number}"), rows)


@dataclass(frozen=True, kw_only=True)
class SearchRecord:
    """A search as its study tells it: the truth that results are read from.

    Attributes:
        spent_s: Seconds of all its starts, up to the last report.
        cost: The objective beside the metric; empty where there is none.
        pauses: When no process ran it: (Unix time of the last report before, seconds), in order.
        space_tried: Whether it ended because its trials are all configurations of its space.
        plateau: Why it ended before its trials were spent; None where it did not, or has gone on since.
    """

    search_id: str
    experiment: str
    metric: str
    directory: str
    trials: tuple[TrialRecord, ...] = ()
    spent_s: float = 0.0
    pauses: tuple[tuple[float, float], ...] = ()
    space_tried: bool = False
    cost: str = ""
    plateau: Plateau | None = None

    @property
    def objective(self) -> Objective:
        """What its trials are ranked by."""
        return Objective.of(self.metric)

    @property
    def best(self) -> TrialRecord | None:
        """The trial with the best result; of equal ones the earlier."""
        return next(iter(self.ranked), None)

    def trial(self, number: int) -> TrialRecord:
        """A trial by its number.

        Raises:
            UsageError: There is none of that number.
        """
        found = next((one for one in self.trials if one.number == number), None)
        if found is None:
            raise UsageError(f"the search {self.search_id} has no trial {number}; it has {len(self.trials)}")
        return found

    def trial_with_result(self, number: int) -> TrialRecord:
        """A trial that has a value, by its number.

        Raises:
            UsageError: There is none of that number.
            UserError: It has no value.
        """
        found = self.trial(number)
        if found.best_epoch is None:
            raise UserError(f"trial {number} of {self.search_id} has no result: {found.state.value} {found.error}")
        return found

    @property
    def ranked(self) -> list[TrialRecord]:
        """The trials with a result, best first; of equal ones the earlier.

        Those that were stopped before their last fold come after all others: a mean over few folds is mostly luck.
        """
        return self.objective.ranked(self.trials, lambda trial: trial.result, last=lambda trial: trial.partial)

    @property
    def front(self) -> list[TrialRecord]:
        """The trials with a result that no other one dominates in metric and cost, the cheapest first.

        Of equal ones the earlier; of trials with folds only those that have seen all, where there are any. Empty
        without a second objective.
        """
        ranked = [trial for trial in self.ranked if self.cost in trial.measured]
        return self.objective.front(
            [trial for trial in ranked if trial.partial == ranked[0].partial],
            lambda trial: trial.best_value,
            lambda trial: trial.measured[self.cost],
        )


@dataclass(frozen=True, kw_only=True)
class ParameterImportance:
    """How much each parameter mattered for being among the best trials at one common epoch.

    Attributes:
        values: Shares that sum to 1, largest first; empty where there is too little to tell.
        spread: By parameter the range of its share over trials drawn again (10 % to 90 %).
        epoch: The epoch at which all trials are compared, from 1.
        num_trials: Trials compared.
        num_top: How many of them count as the best.
        reason: Why the values are missing.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    spread: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    epoch: int | None = None
    num_trials: int = 0
    num_top: int = 0
    reason: str = ""
