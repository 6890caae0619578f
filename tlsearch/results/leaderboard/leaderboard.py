"""The trials of a search, best first, as rows, JSON and CSV."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tlsearch.core.printable import csv_text
from tlsearch.core.text import NumberForm
from tlsearch.core.types import Objective, Scalar, SearchRecord, TrialRecord, TrialState
from tlsearch.results.leaderboard.leaderboard_notes import leaderboard_notes
from tlsearch.results.leaderboard.search_facts import SearchFacts, plateau_json
from tlsearch.results.stats.intervals import standard_error, wilson_interval

_NO_FACTS = SearchFacts()
# Of a row: the fields that every `--json` has.
_PUBLISHED = ("trial", "state", "params", "best_value", "best_epoch", "epochs_run", "mlflow_run_id", "reason")
_CSV_DETAILS = (
    "rank",
    "standard_error",
    "within_one_se",
    "parameters",
    "trainable_parameters",
    "latency_ms",
    "seconds",
    "error",
)


@dataclass(frozen=True, kw_only=True)
class LeaderboardRow:
    """One trial.

    Attributes:
        trial: The trial's number.
        state: running, complete, pruned, failed or infeasible.
        params: The active dimensions.
        best_value: The metric at the best epoch; None before the first report.
        best_epoch: From 1; 0 where no epoch was better than the solved head before the first step.
        epochs_run: The last epoch reported. Of a trial with folds this and ``best_epoch`` count folds.
        mlflow_run_id: None where MLflow does not know the trial.
        reason: Why it ended; None while it runs, ``interrupted`` where no process runs the search.
        rank: From 1 among the trials that count; equal values have equal ranks. None for the others.
        tied: Another trial that counts has exactly this value.
        standard_error: Of best_value, on this validation set; None where it does not follow from the value. Of a mean
            over folds, that of their values.
        interval: Wilson's, 95 %; None as above, and for a mean over folds.
        within_one_se: Whether the best trial's value is at most its standard error away; None where that
            is unknown. This validation set cannot distinguish such trials from the best.
        parameters: Of the model.
        trainable_parameters: Of the model at the trial's depth.
        latency_ms: Of one image, where it was measured.
        seconds: Time of all epochs, training and evaluation.
        error: The message of a failed trial.
    """

    trial: int
    state: str
    params: Mapping[str, Scalar]
    best_value: float | None
    best_epoch: int | None
    epochs_run: int
    mlflow_run_id: str | None
    reason: str | None
    rank: int | None = None
    tied: bool = False
    standard_error: float | None = None
    interval: tuple[float, float] | None = None
    within_one_se: bool | None = None
    parameters: int | None = None
    trainable_parameters: int | None = None
    latency_ms: float | None = None
    seconds: float | None = None
    error: str = ""

    @property
    def rank_text(self) -> str:
        """``3``, or ``=3`` where another trial has this value; empty without a rank."""
        return "" if self.rank is None else f"={self.rank}" if self.tied else str(self.rank)

    def as_json(self) -> dict[str, Any]:
        """The row in the published shape."""
        return {name: value for name, value in asdict(self).items() if name in _PUBLISHED}

    def details(self) -> dict[str, Any]:
        """What ``results --json --details`` adds to the published shape."""
        details = {name: value for name, value in asdict(self).items() if name not in _PUBLISHED}
        return {**details, "interval": None if self.interval is None else list(self.interval)}


def leaderboard(
    record: SearchRecord, run_ids: Mapping[int, str], facts: SearchFacts = _NO_FACTS
) -> list[LeaderboardRow]:
    """All trials of a search, best first.

    Trials that count (complete or pruned, not diverged) come first by their best epoch's value, of equal
    values the earlier trial; then running ones, then the others. So the first row is ``record.best``. Of trials with
    folds those that have seen all of them come before those that were stopped earlier.

    Args:
        run_ids: MLflow's runs by trial number; may lack trials.
        facts: Sizes of data and backbones, for what goes beyond the study.
    """
    ranked = sorted(record.trials, key=lambda trial: _rank(trial, record.objective))
    values = [(trial.partial, trial.best_value) for trial in ranked if trial.result is not None]
    times = Counter(values)
    ranks = {value: place for place, value in reversed(list(enumerate(values, start=1)))}
    best = ranked[0].result if values else None
    best_error = _standard_error(ranked[0], record, facts) if values else None
    rows = []
    for trial in ranked:
        tied, rank, near = False, None, None
        if trial.result is not None and best is not None:
            place = (trial.partial, trial.result)
            rank, tied = ranks[place], times[place] > 1
            near = None if best_error is None or trial.partial else abs(best - trial.result) <= best_error
        row = _row(trial, record, run_ids.get(trial.number), facts)
        rows.append(replace(row, rank=rank, tied=tied, within_one_se=near))
    return rows


def number_forms(record: SearchRecord) -> dict[str, NumberForm]:
    """By parameter how its values are written, one way for all trials."""
    names = {name for trial in record.trials for name in trial.params}
    return {name: NumberForm.of(trial.params.get(name) for trial in record.trials) for name in names}


def results_json(record: SearchRecord, run_ids: Mapping[int, str]) -> dict[str, Any]:
    """What ``tlsearch results --json`` prints; ``best`` is a trial's number or None."""
    return rows_json(record, leaderboard(record, run_ids))


def rows_json(record: SearchRecord, rows: Sequence[LeaderboardRow], facts: SearchFacts | None = None) -> dict[str, Any]:
    """Some rows of a leaderboard in the published shape; with ``facts`` their details too."""
    best = record.best
    found: dict[str, Any] = {
        "search_id": record.search_id,
        "experiment": record.experiment,
        "metric": record.metric,
        "mode": record.objective.mode,
        "best": None if best is None else best.number,
        "plateau": plateau_json(record),
        "trials": [row.as_json() for row in rows],
    }
    if facts is not None:
        found["trials"] = [{**row.as_json(), **row.details()} for row in rows]
        found["validation_images"] = facts.num_validation
        found["notes"] = leaderboard_notes(record, leaderboard(record, {}, facts), facts)
    return found


def leaderboard_csv(record: SearchRecord, run_ids: Mapping[int, str], facts: SearchFacts | None = None) -> str:
    """The leaderboard with one column for each parameter; a cell is empty where a value does not exist."""
    return rows_csv(leaderboard(record, run_ids, facts or _NO_FACTS), details=facts is not None)


def rows_csv(rows: Sequence[LeaderboardRow], *, details: bool = True) -> str:
    """Some rows of a leaderboard as CSV; ``details`` adds a column for each of them."""
    names = sorted({name for row in rows for name in row.params})
    fixed = ["trial", "state", "reason", "best_value", "best_epoch", "epochs_run"]
    extra = [name for name in _CSV_DETAILS if details]
    cells = ((row, {**row.as_json(), **row.details()}) for row in rows)
    return csv_text(
        [*fixed, *extra, *names, "mlflow_run_id"],
        (
            [*(own[name] for name in fixed + extra), *(row.params.get(name) for name in names), row.mlflow_run_id]
            for row, own in cells
        ),
    )


def epoch_text(epoch: int | None, folds: int = 0) -> str:
    """A trial's best epoch in a sentence: ``at epoch 3``, what stands for epoch 0, or over how many folds it is."""
    if folds:
        return f"over {epoch} of {folds} folds"
    return "before the first step, with the solved head" if epoch == 0 else f"at epoch {epoch}"


def _row(trial: TrialRecord, record: SearchRecord, run_id: str | None, facts: SearchFacts) -> LeaderboardRow:
    value, images = trial.best_value, facts.num_validation
    error = _standard_error(trial, record, facts)
    interval = None
    if error is not None and value is not None and images and not trial.folds:
        wilson = wilson_interval(value, images)
        interval = (wilson.low, wilson.high)
    return LeaderboardRow(
        trial=trial.number,
        state=trial.state.value,
        params=trial.params,
        best_value=value,
        best_epoch=trial.best_epoch,
        epochs_run=trial.epochs_run,
        mlflow_run_id=run_id,
        reason=trial.reason or None,
        standard_error=error,
        interval=interval,
        parameters=parameters_of(trial, facts),
        trainable_parameters=facts.trainable_of(trial.config),
        latency_ms=latency_of(trial, facts),
        seconds=seconds_of(trial),
        error=trial.error,
    )


def _standard_error(trial: TrialRecord, record: SearchRecord, facts: SearchFacts) -> float | None:
    if trial.best_value is None:
        return None
    if trial.folds:
        return trial.reports[-1].metrics.get(f"{record.metric}_se")
    return standard_error(record.metric, trial.best_value, facts.num_validation)


def latency_of(trial: TrialRecord, facts: SearchFacts) -> float | None:
    """Milliseconds for one image: the trial's own measurement, else its model's; None where neither was made."""
    return trial.measured.get("latency_ms", facts.latency_ms.get(trial.config.model))


def parameters_of(trial: TrialRecord, facts: SearchFacts) -> int | None:
    """Parameters of the trial's model, counted for the search or for its constraints; None where neither was done."""
    counted = facts.parameters_of(trial.config)
    if counted is None and "params_millions" in trial.measured:
        return round(1e6 * trial.measured["params_millions"])
    return counted


def seconds_of(trial: TrialRecord) -> float | None:
    """Time of all epochs of a trial; None before the first report."""
    return sum(trial.epoch_seconds) if trial.epoch_seconds else None


def _rank(trial: TrialRecord, objective: Objective) -> tuple[int, bool, float, int]:
    """Sorts best first: the trial's group, whole ones, then its value, then its number."""
    value = float("inf") if trial.best_value is None else -objective.gain(trial.best_value)
    return (_group(trial), trial.partial, value, trial.number)


def _group(trial: TrialRecord) -> int:
    if trial.state is TrialState.RUNNING:
        return 1
    return 2 if trial.result is None else 0
