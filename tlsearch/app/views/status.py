"""Looks at a running search, and ends it, from another terminal; imports neither torch, Ray nor MLflow."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlsearch.app.catalog.catalog import RESOLVED, SearchEntry
from tlsearch.app.catalog.screen_file import read_screen
from tlsearch.app.catalog.stored import SearchState, search_state
from tlsearch.config import SearchSpec, parse_space_file
from tlsearch.core.codec import read_json
from tlsearch.core.layout import SearchFolder
from tlsearch.core.types import Screen, TrialRecord, TrialState
from tlsearch.results.leaderboard.front_rows import front_json
from tlsearch.results.leaderboard.screen_notes import screen_json
from tlsearch.results.leaderboard.search_facts import plateau_json
from tlsearch.search import Holder, SearchStatus, read_status, request_stop, wait_until_stopped


@dataclass(frozen=True, kw_only=True)
class Overview:
    """A search at one moment, with what its file asks for.

    Attributes:
        settings: None where they cannot be read any more.
        screen: Of its backbones, as far as it has gone; None where none has begun.
    """

    status: SearchStatus
    settings: SearchSpec | None
    state: SearchState
    screen: Screen | None = None

    @property
    def counts(self) -> Mapping[TrialState, int]:
        """Trials by state."""
        return Counter(trial.state for trial in self.status.record.trials)

    @property
    def unfinished(self) -> list[TrialRecord]:
        """Trials that run, or, where no process runs the search, wait for a resume."""
        return [trial for trial in self.status.record.trials if trial.state is TrialState.RUNNING]

    @property
    def best(self) -> TrialRecord | None:
        """The best trial so far, running ones too; the earlier one where equal."""
        record = self.status.record
        ranked = record.objective.ranked(
            record.trials,
            lambda trial: trial.best_value if trial.state is TrialState.RUNNING else trial.result,
            last=lambda trial: trial.partial,
        )
        return next(iter(ranked), None)

    @property
    def running_s(self) -> float | None:
        """Seconds since the running process took the search; None where none runs it."""
        holder = self.status.holder
        return None if holder is None else max(time.time() - holder.since, 0.0)

    def as_json(self) -> dict[str, Any]:
        """{search_id, experiment, state, running, process, trials, best, running_trials, times, dashboard, ...}."""
        status, record, settings = self.status, self.status.record, self.settings
        return {
            "search_id": record.search_id,
            "experiment": record.experiment,
            "directory": record.directory,
            "state": self.state,
            "plateau": plateau_json(record),
            "running": status.holder is not None,
            "process": None if status.holder is None else status.holder.plain(),
            "metric": record.metric,
            "mode": record.objective.mode,
            "planned": settings.trials if settings else None,
            "max_epochs": settings.max_epochs if settings else None,
            "folds": settings.num_folds if settings else None,
            "trials": {state.value: self.counts[state] for state in TrialState} | {"waiting": status.num_waiting},
            "best": None if self.best is None else _best_json(self.best),
            "running_trials": [_live_json(trial, record.metric) for trial in self.unfinished],
            "running_s": self.running_s,
            "spent_s": status.record.spent_s,
            "time_budget_s": settings.time_budget_s if settings else None,
            "last_report": status.last_report,
            "dashboard": status.dashboard or None,
            "log": None if status.log is None else str(status.log),
            "screen": screen_json(self.screen),
            "front": front_json(record),
        }


@dataclass(frozen=True, kw_only=True)
class StopAnswer:
    """What became of a request to stop.

    Attributes:
        holder: The process that ran the search; None: it did not run.
        stopped: Whether it runs no more.
    """

    holder: Holder | None
    stopped: bool


def overview(entry: SearchEntry) -> Overview:
    """The search as its study tells it now, and who runs it."""
    status = read_status(
        entry.path,
        search_id=entry.search_id,
        experiment=entry.experiment,
        metric=entry.metric,
        moved=entry.moved,
    )
    file = parse_space_file(entry.path / RESOLVED, stored=True)[0]
    state = search_state(entry, status.record)
    screen = read_screen(entry)
    return Overview(status=status, settings=file.search if file else None, state=state, screen=screen)


def stop_search(entry: SearchEntry, *, timeout_s: float = 60.0) -> StopAnswer:
    """Ends a running search as Ctrl-C in its own terminal does; it can be resumed.

    Args:
        timeout_s: How long to wait for its end.
    """
    holder = request_stop(entry.path)
    if holder is None:
        return StopAnswer(holder=None, stopped=True)
    return StopAnswer(holder=holder, stopped=wait_until_stopped(entry.path, holder, timeout_s))


def _best_json(trial: TrialRecord) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "value": trial.best_value,
        "epoch": trial.best_epoch,
        "state": trial.state.value,
        "params": dict(trial.params),
    }


def _live_json(trial: TrialRecord, metric: str) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "epoch": trial.epochs_run,
        "value": trial.reports[-1].metrics.get(metric) if trial.reports else None,
        "best_value": trial.best_value,
        "best_epoch": trial.best_epoch,
        "started": trial.started,
        "params": dict(trial.params),
    }


def trial_doing(directory: str, number: int) -> str:
    """What a running trial does before its next epoch: ``packing train images, 512 of 996``; empty where nothing long.

    Args:
        directory: The search's folder.
    """
    path = SearchFolder(root=Path(directory)).doing(number)
    try:
        progress = read_json(path)
        done = f", {progress['done']} of {progress['total']}" if "total" in progress else ""
        return f"{progress['what']}{done}" if isinstance(progress["what"], str) else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""
