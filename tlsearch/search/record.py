"""Reads a search from its study, while it runs or afterwards; writes nothing, needs no Ray."""

from __future__ import annotations

from pathlib import Path

from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from tlsearch.search.folder import SearchFolder
from tlsearch.search.opening import open_for_reading
from tlsearch.search.study import StoredReport, Study, stored_reports
from tlsearch.search.wire import from_plain
from tlsearch.types import METRIC_MODES, Mode, SearchRecord, TrialConfig, TrialRecord, TrialState

_STATES = {
    OptunaState.RUNNING: TrialState.RUNNING,
    OptunaState.COMPLETE: TrialState.COMPLETE,
    OptunaState.PRUNED: TrialState.PRUNED,
    OptunaState.FAIL: TrialState.FAILED,
}


def state_and_reason(state: OptunaState, reason: str) -> tuple[TrialState, str]:
    """The state a user sees: PRUNED for lack of memory, or by a constraint of the user's, is infeasible."""
    shown = TrialState.INFEASIBLE if reason in ("memory", "constraint") else _STATES[state]
    return shown, reason


def read_search(directory: Path, *, search_id: str = "", experiment: str = "", metric: str = "") -> SearchRecord:
    """The search as its study tells it at this moment.

    Args:
        directory: The search's folder.
        search_id: These three are taken from the study where it exists; they describe a search
            that has not started yet.
        experiment: As above.
        metric: As above.

    Raises:
        StorageError: The study is damaged.
    """
    study = open_for_reading(SearchFolder(root=Path(directory)))
    return record_of(study, directory, search_id=search_id, experiment=experiment, metric=metric)


def record_of(study: Study | None, directory: Path, *, search_id: str, experiment: str, metric: str) -> SearchRecord:
    """As ``read_search``, of a study that is open already; None is a search that has not started."""
    attrs = study.attrs if study else {}
    metric = str(attrs.get("metric", metric))
    mode: Mode = METRIC_MODES.get(metric, "max")
    trials = study.trials() if study else []
    return SearchRecord(
        search_id=str(attrs.get("search_id", search_id)),
        experiment=str(attrs.get("experiment", experiment)),
        metric=metric,
        mode=mode,
        directory=str(directory),
        trials=tuple(_trial_record(trial, mode) for trial in trials if "config" in trial.user_attrs),
    )


def _trial_record(trial: FrozenTrial, mode: Mode) -> TrialRecord:
    attrs = trial.user_attrs
    state, reason = state_and_reason(trial.state, attrs.get("reason", ""))
    reports = stored_reports(trial)
    best = _best(reports, mode)
    return TrialRecord(
        number=trial.number,
        state=state,
        reason=reason,
        params=attrs["params"],
        config=from_plain(TrialConfig, attrs["config"]),
        seed=attrs["seed"],
        best_value=best.value if best else None,
        best_epoch=best.report.epoch if best else None,
        reports=tuple(stored.report for stored in reports),
        error=attrs.get("error", ""),
        started=attrs.get("started"),
        ended=attrs.get("ended"),
        measured=attrs.get("measured", {}),
    )


def _best(reports: list[StoredReport], mode: Mode) -> StoredReport | None:
    """The report with the best value; the earliest of equal ones."""
    sign = 1 if mode == "max" else -1
    return max(reports, key=lambda stored: (sign * stored.value, -stored.report.epoch), default=None)
