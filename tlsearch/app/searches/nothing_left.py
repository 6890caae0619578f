"""Finds a finished search that a resume would have nothing to do for; imports neither torch, Ray nor MLflow."""

from __future__ import annotations

from tlsearch.app.catalog.catalog import RESOLVED, SearchEntry
from tlsearch.app.catalog.ending import search_state
from tlsearch.app.catalog.space_diff import refuse_changes
from tlsearch.app.catalog.stored import read_record
from tlsearch.app.checks.feasibility import total_trials
from tlsearch.config import parse_space_file
from tlsearch.core.text import agree, command, format_s, plural


def nothing_left(entry: SearchEntry, *, trials: str | None = None, stored: bool = False) -> str:
    """Why a resume of the search would do nothing; empty where it would do something, or where that is not known.

    Args:
        entry: The search.
        trials: As for ``prepare_resume``.
        stored: As for ``prepare_resume``.

    Raises:
        StorageError: The user's space file has changed since.
    """
    record = read_record(entry)
    file = parse_space_file(entry.path / RESOLVED, moved=entry.moved, stored=True)[0]
    if file is None or search_state(entry, record) != "finished":
        return ""
    if not stored:
        refuse_changes(entry, file)
    changed = command("resume", entry.search_id, "--changed")
    search, begun = file.search, len(record.trials)
    wanted = search.trials if trials is None else total_trials(trials, search.trials)
    if begun >= wanted:
        ended = f"{begun:,} of {plural(wanted, 'trial')} ended" if begun == wanted else _more_than(begun, wanted)
        return f"nothing to do: {ended}; {command('resume', entry.search_id, '--trials', '+12')} searches on"
    if record.space_tried:
        return (
            f"nothing to do: the {plural(begun, 'trial')} that ended are all configurations of the space; widen it in "
            f"the space file, then {changed}"
        )
    if search.time_budget_s is not None and record.spent_s >= search.time_budget_s:
        return (
            f"nothing to do: the time budget of {format_s(search.time_budget_s)} is spent ({begun} of "
            f"{plural(wanted, 'trial')} have ended); raise search.time_budget in the space file, then "
            f"{changed}"
        )
    return ""


def _more_than(begun: int, wanted: int) -> str:
    return f"{plural(begun, 'trial')} ended already, and {wanted:,} {agree(wanted, 'is', 'are')} asked for"
