"""What there is to record, as plain data: the items of the queue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from tlsearch.core.secrets import mask_tree
from tlsearch.core.types import DataSetFacts, EpochReport, Scalar, TrialConfig, TrialOutcome, TrialRecord
from tlsearch.space.conditions import active_values

# A metric's value is stored with its own time, so that a resend is the same point.
# All times are Unix time in seconds.


@dataclass(frozen=True, kw_only=True)
class SearchStart:
    """A search starts or goes on; ``artifacts`` are texts by file name, ``description`` is Markdown."""

    params: Mapping[str, str]
    artifacts: Mapping[str, str]
    at: float
    description: str = ""
    data: DataSetFacts | None = None


@dataclass(frozen=True, kw_only=True)
class SearchEnd:
    """A search ends: ``status`` is finished, interrupted or failed."""

    status: str
    artifacts: Mapping[str, str]
    at: float


@dataclass(frozen=True, kw_only=True)
class SearchProgress:
    """Where a search stands after the end of a trial.

    Attributes:
        ended: Trials that have ended, the step of the metrics.
        metrics: The best value so far, its trial, and trials by state.
    """

    ended: int
    metrics: Mapping[str, float]
    at: float


@dataclass(frozen=True, kw_only=True)
class TrialStart:
    """A trial starts or goes on."""

    number: int
    params: Mapping[str, str]
    at: float


@dataclass(frozen=True, kw_only=True)
class TrialReport:
    """One epoch of a trial."""

    number: int
    report: EpochReport


@dataclass(frozen=True, kw_only=True)
class TrialEnd:
    """A trial has ended."""

    number: int
    outcome: TrialOutcome
    at: float


@dataclass(frozen=True, kw_only=True)
class WholeTrial:
    """All there is to say of one trial, sent again from the study."""

    start: TrialStart
    reports: tuple[TrialReport, ...]
    end: TrialEnd | None


@dataclass(frozen=True, kw_only=True)
class KeepModel:
    """The trial is among the best: log its checkpoint folder as a model."""

    number: int
    checkpoint: str


@dataclass(frozen=True, kw_only=True)
class DropModel:
    """The trial is no longer among the best: delete its model and the model's files."""

    number: int


Entry = (
    SearchStart | SearchProgress | SearchEnd | TrialStart | TrialReport | TrialEnd | WholeTrial | KeepModel | DropModel
)


def text_params(values: Mapping[str, Scalar]) -> dict[str, str]:
    """Parameters as texts, secrets masked; those without a value are left out."""
    # As one tree: each call of `mask` looks at all variables of the environment.
    masked: dict[str, str] = mask_tree({name: str(value) for name, value in values.items() if value is not None})
    return masked


def trial_start(number: int, config: TrialConfig, *, at: float) -> TrialStart:
    """The start of a trial; a field of the config that has no effect is left out."""
    return TrialStart(number=number, params=text_params(active_values(asdict(config))), at=at)


def whole_trial(record: TrialRecord, *, now: float) -> WholeTrial:
    """A trial of the study, with its own times where the study knows them."""
    first, last = now, now
    if record.reports:
        first, last = (record.start or record.reports[0]).timestamp, record.reports[-1].timestamp
    end = None
    if record.outcome is not None:
        ended = last if record.ended is None else record.ended
        end = TrialEnd(number=record.number, outcome=record.outcome, at=ended)
    started = first if record.started is None else record.started
    reports = tuple(TrialReport(number=record.number, report=report) for report in record.reports)
    return WholeTrial(start=trial_start(record.number, record.config, at=started), reports=reports, end=end)
