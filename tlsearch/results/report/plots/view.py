"""A search as the plots see it: which trials to show, in which colour, on which axis."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from tlsearch.core.metrics import METRICS
from tlsearch.core.printable import printable
from tlsearch.core.text import NumberForm
from tlsearch.core.types import Objective, ParameterImportance, Scalar, SearchRecord, TrialRecord, TrialState
from tlsearch.results.combine.alternatives import Alternative
from tlsearch.results.combine.default_gain import DefaultGain
from tlsearch.results.leaderboard.leaderboard import LeaderboardRow, number_forms
from tlsearch.results.leaderboard.search_facts import SearchFacts
from tlsearch.results.report.plots.style import BAD, CUT, DONE, OTHER

# How a trial ended -> words of the legends, colour; drawn in this order, so that the first are below.
ENDINGS = {
    "asha": ("cut by ASHA", CUT),
    "budget": ("cut by the budget", "#c9b36a"),
    "failed": ("failed", BAD),
    "diverged": ("diverged", BAD),
    "interrupted": ("interrupted", OTHER),
    "running": ("running", OTHER),
    "completed": ("ran to its end", DONE),
}
RATES = frozenset({"head_lr", "backbone_lr", "weight_decay"})
_WHISKERS = 3.0


@dataclass(frozen=True, kw_only=True)
class View:
    """All that the plots of one search are drawn from.

    Attributes:
        rows: The search's leaderboard.
        log_scaled: Names of the dimensions that the space draws on a logarithmic scale.
        alternatives: The best trial beside the soup and the ensemble; empty where they were not compared.
        gain: By how much the choice beats the default trial; None where that is not known.
    """

    record: SearchRecord
    rows: Sequence[LeaderboardRow]
    facts: SearchFacts = field(default_factory=SearchFacts)
    importance: ParameterImportance = field(default_factory=ParameterImportance)
    log_scaled: frozenset[str] = frozenset()
    alternatives: Sequence[Alternative] = ()
    gain: DefaultGain | None = None

    @property
    def label(self) -> str:
        """The metric's name for axes."""
        return METRICS[self.record.metric].label if self.record.metric in METRICS else self.record.metric

    @property
    def step(self) -> str:
        """What a report is of: an epoch or a fold."""
        return "fold" if self.facts.folds else "epoch"

    @property
    def one_step(self) -> str:
        """The same with its article."""
        return "a fold" if self.facts.folds else "an epoch"

    @cached_property
    def best(self) -> TrialRecord | None:
        """The search's best trial."""
        return self.record.best

    @cached_property
    def valued(self) -> tuple[TrialRecord, ...]:
        """Trials with a value, whatever became of them, by number."""
        return tuple(trial for trial in self.record.trials if trial.best_value is not None)

    @cached_property
    def counting(self) -> tuple[TrialRecord, ...]:
        """Trials whose value counts as a result, by number."""
        return tuple(trial for trial in self.record.trials if trial.result is not None)

    @cached_property
    def by_trial(self) -> dict[int, LeaderboardRow]:
        """The rows by trial number."""
        return {row.trial: row for row in self.rows}

    @cached_property
    def forms(self) -> Mapping[str, NumberForm]:
        """By parameter how its values are written, the same in every place of the page."""
        return number_forms(self.record)

    def is_rate(self, parameter: str) -> bool:
        """Whether ratios of a parameter matter, so that its axis is logarithmic, however few its values."""
        return parameter in RATES or parameter in self.log_scaled

    def texts(self, params: Mapping[str, Scalar]) -> dict[str, str]:
        """The parameters of one trial as text."""
        return {name: self.forms[name].text(value) for name, value in params.items()}

    def best_of(self, trials: Iterable[TrialRecord]) -> TrialRecord | None:
        """The best of some trials; ties: the earlier."""
        return self.record.objective.best(trials, value_of)

    def top(self, trials: Iterable[TrialRecord], count: int) -> list[TrialRecord]:
        """The best ``count`` of some trials, best first."""
        return self.record.objective.ranked(trials, value_of)[:count]


def value_of(trial: TrialRecord) -> float:
    """The best value of a trial that has one."""
    assert trial.best_value is not None
    return trial.best_value


def ending_of(trial: TrialRecord) -> str:
    """The key of ENDINGS for a trial."""
    if trial.state is TrialState.RUNNING:
        return "interrupted" if trial.interrupted else "running"
    if trial.reason in ("asha", "budget", "diverged"):
        return trial.reason
    return "completed" if trial.reason in ("completed", "plateaued") else "failed"


def varied_parameters(view: View) -> list[str]:
    """Names of the parameters with more than one value among the counting trials, most important first.

    A parameter that only some trials have counts as varied if those differ.
    """
    trials = view.counting
    names = list(dict.fromkeys(name for trial in trials for name in trial.params))
    varied = [n for n in names if len({str(t.params[n]) for t in trials if n in t.params}) > 1]
    order = {name: place for place, name in enumerate(view.importance.values)}
    return sorted(varied, key=lambda name: order.get(name, len(order)))


def chosen_text(view: View, shown: int, count: int) -> str:
    """What to say where some of the varied parameters are left out."""
    if shown == count:
        return ""
    return (
        f" The {shown} most important of {count} parameters."
        if view.importance.values
        else f" {shown} of {count} parameters."
    )


def is_number(values: Iterable[Scalar]) -> bool:
    """Whether all values are numbers, bools aside."""
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)


def robust_limits(values: Sequence[float], objective: Objective) -> tuple[float, float]:
    """The axis of the metric: all good values, but not bad ones far outside of the bulk.

    Returns:
        Ends with a little room; values beyond them are to be drawn at the edge.
    """
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    q1, q3 = (ordered[round(q * (len(ordered) - 1))] for q in (0.25, 0.75))
    spread = max(q3 - q1, 1e-3 * max(abs(q1), abs(q3), 1e-3))
    if objective.mode == "max":
        low = max(low, q1 - _WHISKERS * spread)
    else:
        high = min(high, q3 + _WHISKERS * spread)
    room = 0.06 * (high - low) or 0.05 * max(abs(high), 0.1)
    return low - room, high + room


def clamp(value: float, limits: tuple[float, float]) -> float:
    """The value, or where a mark for one beyond the limits is to be drawn: at the edge, but inside."""
    low, high = limits
    inset = 0.02 * (high - low)
    return min(max(value, low + inset), high - inset)


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Wall time since the search began, without the time between its starts.

    Attributes:
        origin: Unix time of the first trial's start.
        pauses: (Unix time where it began, seconds), in order.
    """

    origin: float
    pauses: tuple[tuple[float, float], ...] = ()

    def __call__(self, timestamp: float) -> float:
        return (
            timestamp
            - self.origin
            - sum(min(length, timestamp - began) for began, length in self.pauses if timestamp > began)
        )


def clock_of(record: SearchRecord) -> Clock:
    """A clock that stands still while no process ran the search."""
    times = [report.timestamp for trial in record.trials for report in trial.reports]
    times += [t for trial in record.trials for t in (trial.started, trial.ended) if t is not None]
    return Clock(origin=min(times, default=0.0), pauses=record.pauses)


def time_unit(longest_s: float) -> tuple[float, str]:
    """Seconds of the unit that suits a span, and its name."""
    for seconds, name in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if longest_s >= 3 * seconds:
            return seconds, name
    return 1.0, "seconds"


def jitter(number: int, width: float) -> float:
    """A shift that depends on the trial alone, within +-width: points at one place stay apart."""
    return width * (2 * math.modf(number * 0.6180339887)[0] - 1)


def short(text: object, length: int = 22) -> str:
    """A label that fits; the end of a long name says more than its middle."""
    text = printable(str(text))
    return text if len(text) <= length else f"{text[: length // 2]}…{text[-(length - length // 2 - 1) :]}"
