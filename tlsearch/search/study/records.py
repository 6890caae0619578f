"""Reads a search from its study, while it runs or afterwards; writes nothing, needs no Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from tlsearch.core.codec import from_plain
from tlsearch.core.layout import SearchFolder
from tlsearch.core.secrets import mask
from tlsearch.core.types import (
    INTERRUPTED,
    EndReason,
    Objective,
    SearchRecord,
    TrialConfig,
    TrialRecord,
    TrialState,
    best_seen,
)
from tlsearch.search.study.lock import is_running
from tlsearch.search.study.storage import open_for_reading
from tlsearch.search.study.stored_reports import StoredReport, naming_damage, stored_reports
from tlsearch.search.study.study import SPACE_TRIED, Study

_PROMPT_S = 2.0  # a report reaches the driver so soon, and clocks of nodes agree about as well

_STATES = {
    OptunaState.RUNNING: TrialState.RUNNING,
    OptunaState.COMPLETE: TrialState.COMPLETE,
    OptunaState.PRUNED: TrialState.PRUNED,
    OptunaState.FAIL: TrialState.FAILED,
}


def read_search(
    directory: Path,
    *,
    search_id: str = "",
    experiment: str = "",
    metric: str = "",
    moved: Callable[[str], str] | None = None,
) -> SearchRecord:
    """The search as its study tells it at this moment.

    Args:
        directory: The search's folder.
        search_id: The search's, the name of its folder; the study's where left out.
        experiment: Taken from the study where it exists: describes a search that has not started yet.
        metric: As ``experiment``.
        moved: As for ``open_for_reading``.

    Raises:
        StorageError: The study is damaged.
    """
    folder = SearchFolder(root=Path(directory))
    live = is_running(folder.lock)  # first: a trial that ends meanwhile was not interrupted
    study = open_for_reading(folder, moved)
    return record_of(study, directory, search_id=search_id, experiment=experiment, metric=metric, live=live)


def record_of(
    study: Study | None, directory: Path, *, search_id: str, experiment: str, metric: str, live: bool
) -> SearchRecord:
    """As ``read_search``, of a study that is open already; None is a search that has not started.

    Args:
        live: Whether a process runs the search.
    """
    attrs = study.attrs if study else {}
    metric = str(attrs.get("metric", metric))
    objective = Objective.of(metric)
    trials = [trial for trial in study.trials() if "config" in trial.user_attrs] if study else []
    reports = [stored_reports(trial) for trial in trials]
    plateau = study.plateau if study else None
    return SearchRecord(
        search_id=search_id or str(attrs.get("search_id", "")),
        experiment=str(attrs.get("experiment", experiment)),
        metric=metric,
        cost=str(attrs.get("cost", "")),
        directory=str(directory),
        trials=tuple(_trial_record(*pair, objective, live=live) for pair in zip(trials, reports, strict=True)),
        spent_s=max((one.spent_s for stored in reports for one in stored), default=0.0),
        pauses=pauses_of(one for stored in reports for one in stored),
        space_tried=bool(trials) and attrs.get(SPACE_TRIED) == len(trials),
        plateau=plateau if plateau is not None and plateau.trials == len(trials) else None,
    )


def pauses_of(reports: Iterable[StoredReport]) -> tuple[tuple[float, float], ...]:
    """Where the clock on the wall went on, and the search's own time, which each report carries, did not."""
    pauses: list[tuple[float, float]] = []
    ahead = began = None
    for one in sorted(reports, key=lambda one: one.seq):
        difference = one.report.timestamp - one.spent_s
        if ahead is None or began is None:
            ahead, began = difference, one.report.timestamp
        elif difference > ahead + _PROMPT_S:
            pauses.append((began, difference - ahead))
            ahead = difference
        began = max(began, one.report.timestamp)
    return tuple(pauses)


def _trial_record(
    trial: FrozenTrial, reports: Sequence[StoredReport], objective: Objective, *, live: bool
) -> TrialRecord:
    with naming_damage(trial):
        attrs = trial.user_attrs
        state, reason = _STATES[trial.state], attrs.get("reason", "")
        if reason in (EndReason.MEMORY, EndReason.CONSTRAINT):
            state = TrialState.INFEASIBLE
        if state is TrialState.RUNNING:
            reason = "" if live else INTERRUPTED
        best_value, best_epoch = best_seen([stored.report for stored in reports], objective)
        return TrialRecord(
            number=trial.number,
            state=state,
            reason=reason,
            params=dict(attrs["params"]),
            config=from_plain(TrialConfig, attrs["config"]),
            seed=int(attrs["seed"]),
            best_value=best_value,
            best_epoch=best_epoch,
            reports=tuple(stored.report for stored in reports),
            error=mask(attrs.get("error", "")),
            started=attrs.get("started"),
            ended=attrs.get("ended"),
            measured=attrs.get("measured", {}),
            origin=attrs.get("origin", ""),
        )
