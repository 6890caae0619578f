"""A trial's reports as the study holds them, one attribute for each epoch, checked against the sampler's values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from tlsearch.core.codec import from_plain, to_plain
from tlsearch.core.errors import StorageError
from tlsearch.core.types import EpochReport
from tlsearch.search.scheduling.stopping_rules import Verdict

REPORT = "report:"  # before the epoch, in the name of the attribute


@dataclass(frozen=True, kw_only=True)
class StoredReport:
    """A report as the study holds it; ``spent_s`` is how long the search had run by then."""

    seq: int
    verdict: Verdict
    report: EpochReport
    value: float
    spent_s: float

    @property
    def plain(self) -> dict[str, Any]:
        """What the attribute holds; the epoch is in its name."""
        report, verdict = self.report, self.verdict
        extra: dict[str, Any] = {} if report.start is None else {"start": to_plain(report.start)}
        if report.folds:
            extra["folds"] = report.folds
        if report.last:
            extra["last"] = True
        return {
            "seq": self.seq,
            "decision": verdict.decision.value,
            "reason": verdict.reason,
            "value": self.value,
            "spent_s": self.spent_s,
            "timestamp": report.timestamp,
            "metrics": dict(report.metrics),
            "source": report.source,
            "source_reason": report.source_reason,
            **extra,
        }


def stored_reports(trial: FrozenTrial) -> list[StoredReport]:
    """The trial's reports by epoch.

    Raises:
        StorageError: One is missing or damaged.
    """
    with naming_damage(trial):
        keys = [key for key in trial.user_attrs if key.startswith(REPORT)]
        found = sorted((_stored(key, trial.user_attrs[key]) for key in keys), key=lambda stored: stored.report.epoch)
        _check_values(trial, found)
    return found


@contextmanager
def naming_damage(trial: FrozenTrial) -> Iterator[None]:
    """What the body cannot read of a trial becomes a StorageError that names the trial."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"trial {trial.number} of the study is damaged: {error}") from error


def _stored(key: str, plain: Mapping[str, Any]) -> StoredReport:
    report = {**plain, "epoch": int(key.removeprefix(REPORT))}
    return from_plain(StoredReport, {**plain, "report": report, "verdict": plain})


def _check_values(trial: FrozenTrial, found: Sequence[StoredReport]) -> None:
    """A report is stored twice, as ours and as the value that the sampler reads; a crash may cut off the last value."""
    values = {stored.report.epoch: stored.value for stored in found}
    if list(values) != list(range(1, len(found) + 1)):
        raise ValueError(f"it has reports of the epochs {', '.join(map(str, values))}: one is missing")
    read = trial.intermediate_values
    cut = {len(found)} if trial.state is OptunaState.RUNNING else set()
    if not values.keys() - cut <= read.keys() <= values.keys():
        raise ValueError(f"it has {len(found)} reports, and values of {len(read)}")
    for epoch, value in read.items():
        if value != values[epoch] and not math.isnan(value):
            raise ValueError(f"epoch {epoch} has the values {values[epoch]!r} and {value!r}")
