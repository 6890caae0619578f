"""Reads what a search has found: its results, and which of its models a name means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlsearch.app.catalog.catalog import SearchEntry, find, names_search
from tlsearch.app.catalog.gather_facts import read_facts
from tlsearch.app.catalog.stored import SearchState, ending_text, read_record, search_state
from tlsearch.app.checks.outputs import check_output, write_output
from tlsearch.core.errors import StorageError, UsageError
from tlsearch.core.types import SearchRecord
from tlsearch.results.combine.combination import NAMES, combined_model, not_made, read_combination
from tlsearch.results.combine.default_gain import DefaultGain, default_gain
from tlsearch.results.leaderboard.filters import select_rows
from tlsearch.results.leaderboard.front_rows import front_json
from tlsearch.results.leaderboard.leaderboard import LeaderboardRow, leaderboard, rows_csv, rows_json
from tlsearch.results.leaderboard.leaderboard_notes import leaderboard_notes
from tlsearch.results.leaderboard.screen_notes import screen_json
from tlsearch.results.leaderboard.search_facts import SearchFacts

if TYPE_CHECKING:
    from tlsearch.results.combine.alternatives import Alternative


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """A search's rows as asked for, with what it takes to show them."""

    record: SearchRecord
    facts: SearchFacts
    rows: Sequence[LeaderboardRow]
    state: SearchState
    gain: DefaultGain | None = None

    def as_json(self, *, details: bool = False) -> dict[str, Any]:
        """The published shape, the search's state, its gain over the default trial, its screen and its front.

        ``details`` adds standard errors, sizes, times and notes.
        """
        shape = rows_json(self.record, self.rows, self.facts if details else None)
        gain = None if self.gain is None else self.gain.as_json()
        screen, front = screen_json(self.facts.screen), front_json(self.record)
        return {**shape, "state": self.state, "better_than_default": gain, "screen": screen, "front": front}

    def notes(self) -> list[str]:
        """Sentences about all trials of the search, those too that were not asked for."""
        ended = self.state in ("finished", "running")
        state = [] if ended else [f"the search {ending_text(self.record, self.state)}"]
        gain = [] if self.gain is None else [self.gain.sentence]
        return state + gain + leaderboard_notes(self.record, leaderboard(self.record, {}, self.facts), self.facts)


def read_leaderboard(
    entry: SearchEntry,
    *,
    run_ids: bool,
    states: Sequence[str] = (),
    conditions: Sequence[str] = (),
    top: int | None = None,
) -> Leaderboard:
    """The trials of a search, best first, as the study has them.

    Args:
        entry: The search.
        run_ids: Also ask MLflow for the run ID of each trial. A table shows none, and importing MLflow takes seconds.
        states: Only trials in one of these states; empty for all.
        conditions: Only trials that meet all of these: ``backbone=resnet18``, ``unfreeze_depth>=2``.
        top: At most this many of these.

    Raises:
        UserError: A state or condition that cannot be understood.
    """
    record, facts = read_record(entry), read_facts(entry)
    known: Mapping[int, str] = {}
    if run_ids:
        from tlsearch.tracking import find_run_ids  # imports MLflow

        known = find_run_ids(entry.recorded)
    rows = select_rows(leaderboard(record, known, facts), states=states, conditions=conditions)
    gain = default_gain(entry.path, record)
    return Leaderboard(record=record, facts=facts, rows=rows[:top], state=search_state(entry, record), gain=gain)


def write_csv(found: Leaderboard, path: Path) -> None:
    """Writes the rows with all their columns.

    Raises:
        StorageError: The file cannot be written.
    """
    check_output(path, "--csv")
    write_output(path, rows_csv(found.rows), "--csv")


def search_alternatives(
    entry: SearchEntry, record: SearchRecord | None = None, facts: SearchFacts | None = None
) -> tuple[Alternative, ...]:
    """The best trial of a search beside its soup and its ensemble, from what its folder holds; opens no model.

    Raises:
        StorageError: A file of a combination is damaged.
    """
    from tlsearch.results.combine.alternatives import alternatives

    record = record or read_record(entry)
    facts = facts or read_facts(entry)
    return alternatives(entry.path, record, parameters=facts.parameters, latency_ms=facts.latency_ms)


def find_checkpoint(model: str, storage: Path | None = None) -> str:
    """What ``model`` names: an existing folder or an MLflow URI as it is, else a search's checkpoint.

    Args:
        model: Folder, ``models:/...``, ``runs:/...``, a search's ID or folder (its best trial), or one with ``:TRIAL``,
            ``:ensemble``, ``:soup`` or ``:distilled``.
        storage: Where to look for the search instead of the catalogue.

    Raises:
        UsageError: The trial is not a number.
        StorageError: No such search, trial or checkpoint.
    """
    if not names_search(model):
        return model
    search_id, _, number = model.partition(":")
    try:
        entry = find(search_id, storage)
    except StorageError:
        if Path(model).is_file():
            return model  # the loader says what is wrong with it
        raise
    if kind := next((one for one in NAMES if one == number), None):
        if read_combination(entry.path, kind) is None:
            raise StorageError(not_made(kind, entry.search_id))
        return str(combined_model(entry.path, kind))
    if number:
        if not number.isdigit():
            raise UsageError(
                "a model of a search is named ID, ID:TRIAL with a trial's number, ID:ensemble, ID:soup or "
                f"ID:distilled, not {model!r}"
            )
        trial = int(number)
    else:
        best = read_record(entry).best
        if best is None:
            raise StorageError(f"the search {entry.search_id} has no trial with a result yet")
        trial = best.number
    folder = entry.folder.best(trial)
    if not folder.is_dir():
        if any(one.folds for one in read_record(entry).trials):
            raise StorageError(
                f"{entry.search_id}:{trial} must name a model that is kept, and a search with folds keeps no models: "
                "`tlsearch promote` trains one on all images of train and val"
            )
        kept = sorted(int(one.parent.name) for one in entry.path.glob("trials/*/best") if one.parent.name.isdigit())
        names = ", ".join(f"{entry.search_id}:{one}" for one in kept) or "none"
        raise StorageError(
            f"{entry.search_id}:{trial} must name a model that is kept, those of the tracking.keep_best best trials "
            f"and of the Pareto front: {names}; `tlsearch rerun` trains a trial again"
        )
    return str(folder)
