"""How ``status`` looks: a few lines, and a table of the trials that run."""

from __future__ import annotations

import time

from tlsearch.app.catalog.stored import ending_text
from tlsearch.app.views.status import Overview, trial_doing
from tlsearch.core.text import format_s, number_text, plural
from tlsearch.core.types import TrialRecord, TrialState
from tlsearch.display.console import Table
from tlsearch.results.leaderboard.front_rows import front_sentence
from tlsearch.results.leaderboard.leaderboard import epoch_text
from tlsearch.results.leaderboard.screen_notes import screen_sentences
from tlsearch.search import Holder


def status_lines(seen: Overview) -> list[str]:
    """Whether the search runs, its trials by state, its time, the best trial, and where to see more."""
    front = front_sentence(seen.status.record)
    found = [_best(seen), *([front] if front else [])]
    return [_running(seen), *_screen(seen), _trials(seen), _time(seen), *found, *_places(seen)]


def running_table(seen: Overview) -> Table:
    """One line for each trial that runs or waits for a resume."""
    record = seen.status.record
    table = Table(box=None, pad_edge=False)
    last = seen.settings.num_reports if seen.settings else "?"
    unit = "fold" if seen.settings and seen.settings.num_folds else "epoch"
    for title in ("trial", unit, record.metric, "best", "for"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("configuration")
    now = time.time()
    for trial in seen.unfinished:
        value = trial.reports[-1].metrics.get(record.metric) if trial.reports else None
        table.add_row(
            str(trial.number),
            f"{trial.epochs_run}/{last}",
            number_text(value),
            number_text(trial.best_value),
            _age(trial, seen.status.holder, now),
            "  ".join(filter(None, (trial.config.short, trial_doing(seen.status.record.directory, trial.number)))),
        )
    return table


def _age(trial: TrialRecord, holder: Holder | None, now: float) -> str:
    """How long a trial has run, without the time between two starts of its search."""
    if holder is None or trial.started is None:
        return "-"
    earlier = [one for one in trial.reports if one.timestamp < holder.since]
    before = sum(one.metrics.get("epoch_seconds", 0.0) for one in earlier)
    return format_s(max(now - max(trial.started, holder.since), 0) + (before if trial.started < holder.since else 0))


def _running(seen: Overview) -> str:
    record, holder = seen.status.record, seen.status.holder
    if holder is not None:
        return f"{record.search_id} is running: {holder}"
    return f"{record.search_id} {ending_text(record, seen.state)}"


def _screen(seen: Overview) -> list[str]:
    screen = seen.screen
    if screen is None:
        return []
    if not screen.decided:
        return [f"{screen.num_done} of {plural(len(screen.backbones), 'backbone')} screened, before the first trial"]
    return [next(screen_sentences(screen))]


def _trials(seen: Overview) -> str:
    ended = sum(count for state, count in seen.counts.items() if state is not TrialState.RUNNING)
    planned = f"{ended} of {plural(seen.settings.trials, 'trial')}" if seen.settings else plural(ended, "trial")
    states = "  ".join(f"{_state(state, seen)} {seen.counts[state]}" for state in TrialState if seen.counts[state])
    return f"{planned} ended   {states}".rstrip()


def _state(state: TrialState, seen: Overview) -> str:
    return "interrupted" if state is TrialState.RUNNING and seen.status.holder is None else state.value


def _time(seen: Overview) -> str:
    parts = []
    if seen.running_s is not None:
        parts.append(f"running for {format_s(seen.running_s)}")
    parts.append(f"{format_s(seen.status.record.spent_s)} spent up to the last report")
    if seen.settings and seen.settings.time_budget_s is not None:
        parts.append(f"of {format_s(seen.settings.time_budget_s)}")
    if seen.status.last_report is not None:
        parts.append(f"which came {format_s(max(time.time() - seen.status.last_report, 0))} ago")
    return ", ".join(parts)


def _best(seen: Overview) -> str:
    best = seen.best
    if best is None or best.best_value is None:
        return "no report yet"
    value = f"{seen.status.record.metric} {best.best_value:.4f} {epoch_text(best.best_epoch, best.folds)}"
    return f"best so far: trial {best.number} with {value}  {best.config.short}"


def _places(seen: Overview) -> list[str]:
    status = seen.status
    places = [f"Ray dashboard: {status.dashboard}, as the head sees it"] if status.dashboard else []
    return [*places, f"log: {status.log}"] if status.log else places
