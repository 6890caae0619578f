"""Trains one trial again, alone and without Ray, and compares its curve with the stored one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.catalog.provenance import environment, kept_environment
from tlsearch.app.catalog.stored import read_record
from tlsearch.app.searches.input_digests import unchanged_inputs
from tlsearch.core.errors import StorageError, UserError
from tlsearch.core.text import plural
from tlsearch.core.types import (
    SYSTEM,
    Decision,
    EpochReport,
    Reporter,
    TrialAssignment,
    TrialOutcome,
    TrialRecord,
    TrialState,
    repeatable,
)
from tlsearch.core.user_folders import scratch_folder


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """A figure that is not what it was; ``now`` is None where there is none, ``stored`` where there was none."""

    epoch: int
    metric: str
    stored: float | None
    now: float | None


@dataclass(frozen=True, kw_only=True)
class Rerun:
    """A trial trained again.

    Attributes:
        trial: As the study has it.
        outcome: How it ended now; where it was stopped at its last stored epoch, it is pruned.
        num_epochs: Epochs that were compared.
        deviations: Every figure that differs in any bit, by epoch; times and the machine's load are not compared.
        versions: What the search began with and what is installed now, where they differ.
        may_differ: The trial was trained on a GPU, and without ``resources.deterministic``.
    """

    entry: SearchEntry
    trial: TrialRecord
    outcome: TrialOutcome
    num_epochs: int
    deviations: Sequence[Deviation]
    versions: Mapping[str, tuple[str, str]]
    may_differ: bool = False

    @property
    def equal(self) -> bool:
        """Every figure is the same to the bit."""
        return not self.deviations

    def as_json(self) -> dict[str, Any]:
        """{search_id, trial, equal, epochs, deviations, versions, stored, now}."""
        return {
            "search_id": self.entry.search_id,
            "trial": self.trial.number,
            "seed": self.trial.seed,
            "equal": self.equal,
            "epochs": self.num_epochs,
            "deviations": [asdict(one) for one in self.deviations],
            "versions": {name: {"then": then, "now": now} for name, (then, now) in self.versions.items()},
            "stored": {"best_value": self.trial.best_value, "reason": self.trial.reason, "error": self.trial.error},
            "now": {"best_value": self.outcome.best_value, "error": self.outcome.error},
        }


def rerun_trial(
    entry: SearchEntry, number: int, *, reporter: Reporter | None = None, directory: Path | None = None
) -> Rerun:
    """Trains a trial again with its stored configuration and seed, for as many epochs as it ran.

    A trial that failed is taken one epoch further, to where it failed.

    Args:
        entry: The search; it may run meanwhile.
        number: The trial.
        reporter: Hears each epoch; its answers are not asked for.
        directory: Where the trial's checkpoints go and stay; a temporary folder if left out.

    Raises:
        StorageError: The trial does not exist, or ``directory`` is not empty.
        UserError: Data or weights cannot be had any more, or have changed.
    """
    from tlsearch.trial import run_trial

    trial = _find(entry, number)
    file, _ = unchanged_inputs(entry, purpose="its trials cannot be trained again")
    if directory is not None and directory.exists() and any(directory.iterdir()):
        raise StorageError(f"a trial is trained again in a folder of its own; {directory} is not empty")
    last = trial.epochs_run + (trial.reason in ("diverged", "memory", "error"))
    listener = _Listener(min(last, file.search.num_reports), reporter)
    with _folder(directory) as folder:
        assignment = TrialAssignment(
            number=number, seed=trial.seed, config=trial.config, setup=file.trial_setup(), directory=str(folder)
        )
        outcome = run_trial(assignment, listener)
    if outcome.state is TrialState.FAILED and trial.state is not TrialState.FAILED and not listener.reports:
        raise UserError(f"trial {number} cannot be trained again: {outcome.error}")
    then, now = kept_environment(entry), environment()
    return Rerun(
        entry=entry,
        trial=trial,
        outcome=outcome,
        num_epochs=len(trial.reports),
        deviations=deviations(trial.reports, listener.reports[: max(trial.epochs_run, 0)]),
        versions={name: (then[name], now.get(name, "-")) for name in then if then[name] != now.get(name)},
        may_differ=not file.resources.deterministic and any(map(_on_gpu, trial.reports)),
    )


def deviations(stored: Sequence[EpochReport], now: Sequence[EpochReport]) -> list[Deviation]:
    """Every figure that differs between two curves, times and the machine's load excepted."""
    found = []
    fresh = dict(_figures(now))
    for epoch, metrics in _figures(stored):
        other = fresh.get(epoch, {})
        for name in dict.fromkeys((*metrics, *other)):
            if repeatable(name) and metrics.get(name) != other.get(name):
                found.append(Deviation(epoch=epoch, metric=name, stored=metrics.get(name), now=other.get(name)))
    return found


def _on_gpu(report: EpochReport) -> bool:
    return any(name.startswith(f"{SYSTEM}gpu_") for name in report.metrics)


def _figures(reports: Sequence[EpochReport]) -> Iterator[tuple[int, Mapping[str, float]]]:
    """By epoch; those before the first step as epoch 0."""
    for report in reports:
        if report.start is not None:
            yield 0, report.start.metrics
        yield report.epoch, report.metrics


class _Listener:
    """Lets a trial run to an epoch."""

    def __init__(self, last_epoch: int, reporter: Reporter | None) -> None:
        self._last_epoch, self._reporter = last_epoch, reporter
        self.reports: list[EpochReport] = []

    def report(self, report: EpochReport) -> Decision:
        """Keeps the report; stops after the last epoch."""
        self.reports.append(report)
        if self._reporter is not None:
            self._reporter.report(report)
        return Decision.CONTINUE if report.epoch < self._last_epoch else Decision.STOP


def _find(entry: SearchEntry, number: int) -> TrialRecord:
    trials = {trial.number: trial for trial in read_record(entry).trials}
    if number not in trials:
        raise StorageError(
            f"the search {entry.search_id} has {plural(len(trials), 'trial')}; trial {number} does not exist"
        )
    trial = trials[number]
    if not trial.reports and trial.state is not TrialState.FAILED and trial.reason not in ("diverged", "memory"):
        raise StorageError(f"trial {number} of {entry.search_id} has no epoch yet ({trial.reason or 'it runs'})")
    return trial


def _folder(directory: Path | None) -> AbstractContextManager[str | Path]:
    return scratch_folder("rerun") if directory is None else nullcontext(directory)
