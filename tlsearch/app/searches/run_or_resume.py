"""Finds the search that an earlier start of the same command began, and whether a resume has nothing to do.

Imports neither torch, Ray nor MLflow.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tlsearch.app.catalog.bucket_searches import folder_of, is_bucket, take_over
from tlsearch.app.catalog.catalog import MANIFEST, RESOLVED, SOURCE, SearchEntry, find
from tlsearch.app.catalog.gather_facts import FACTS
from tlsearch.app.catalog.screen_file import decided_screen
from tlsearch.app.catalog.search_names import check_name
from tlsearch.app.catalog.space_diff import refuse_changes
from tlsearch.app.catalog.stored import read_record, search_state
from tlsearch.app.checks.feasibility import total_trials
from tlsearch.app.searches.input_digests import INPUTS
from tlsearch.app.searches.moved_data import follow_data
from tlsearch.config import SpaceFile, parse_space_file
from tlsearch.core.errors import UsageError
from tlsearch.core.text import agree, command, format_s, plural
from tlsearch.core.trusted_hosts import trust
from tlsearch.results.leaderboard.search_facts import plateau_text
from tlsearch.search import SearchLock, holding

_UNBORN = (SOURCE, RESOLVED, INPUTS, FACTS, "lock")  # written before the search is entered in the catalogue


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A search that exists, with its lock."""

    entry: SearchEntry
    lock: SearchLock


@contextmanager
def begun(file: SpaceFile, *, name: str | None, data_path: Path | None = None) -> Iterator[Begun | None]:
    """The search of this name in the file's storage, held while the body runs; None where there is none yet.

    Args:
        data_path: As for ``follow_data``, which it is taken through.

    Raises:
        UsageError: No name was given, so that a second start could not find the first; or it breaks a rule.
        DataError: See ``follow_data``.
        StorageError: Another process holds the search.
    """
    if not name:
        raise UsageError("--or-resume finds the search by its --name: give one")
    name = check_name(name)
    trust(file.tracking.uri, file.search.study)
    storage = folder_of(file.storage)
    if is_bucket(file.storage):
        take_over(file.storage, name)
    if (storage / name / MANIFEST).is_file():
        with holding(storage / name, "run") as lock:
            yield Begun(entry=follow_data(find(name, storage), data_path=data_path), lock=lock)
        return
    _clear_unborn(storage / name)
    yield None


def _clear_unborn(directory: Path) -> None:
    """Removes the folder of a start that ended before its search was entered anywhere."""
    if not directory.is_dir() or not _is_unborn(directory):
        return
    with holding(directory, "run"):
        if _is_unborn(directory):  # still: another start may have made it meanwhile
            for path in directory.iterdir():
                path.unlink()
            with suppress(OSError):
                directory.rmdir()


def _is_unborn(directory: Path) -> bool:
    names = [path.name for path in directory.iterdir()]
    return all(name in _UNBORN or name.endswith(".tmp") for name in names)


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
    if record.plateau is not None and search.stop == "auto" and wanted <= record.plateau.limit:
        return f"nothing to do: the search {plateau_text(record, record.plateau)}"
    if record.space_tried:
        return (
            f"nothing to do: the {plural(begun, 'trial')} that ended are all configurations of the space; widen it in "
            f"the space file, then {changed}"
        )
    spent_s = record.spent_s + (screen.seconds if (screen := decided_screen(entry)) else 0.0)
    if search.time_budget_s is not None and spent_s >= search.time_budget_s:
        return (
            f"nothing to do: the time budget of {format_s(search.time_budget_s)} is spent ({begun} of "
            f"{plural(wanted, 'trial')} have ended); raise search.time_budget in the space file, then "
            f"{changed}"
        )
    return ""


def _more_than(begun: int, wanted: int) -> str:
    return f"{plural(begun, 'trial')} ended already, and {wanted:,} {agree(wanted, 'is', 'are')} asked for"
