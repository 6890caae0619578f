"""Goes on with a search whose space file has changed: ``resume --changed``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from tlsearch.app.catalog.catalog import RESOLVED, SOURCE, SearchEntry, register
from tlsearch.app.catalog.gather_facts import gather_facts, write_facts
from tlsearch.app.catalog.screen_file import forget_screen, read_screen, write_screen
from tlsearch.app.catalog.space_diff import Difference, differences, file_now
from tlsearch.app.catalog.stored import settle, stored_file
from tlsearch.app.checks.feasibility import limit_problems, model_sizes, weights_problems
from tlsearch.app.searches.execute import search_plan
from tlsearch.app.searches.input_digests import keep_inputs, refuse_changed_inputs, tried_backbones
from tlsearch.app.searches.prepare import Prepared, with_trials
from tlsearch.app.searches.screen_backbones import screen
from tlsearch.config import SpaceFile, dump_resolved
from tlsearch.core.errors import SpaceError, SpaceProblem, StorageError
from tlsearch.core.files import write_atomically
from tlsearch.core.types import Screen, ScreenObserver
from tlsearch.data import load_index
from tlsearch.search import Carried, SearchLock, supersede
from tlsearch.space import is_screened, with_backbones

# What all trials of a search have in common, or where they are.
_LASTING = (
    "name",
    "data",
    "storage",
    "search.metric",
    "search.objectives",
    "search.max_epochs",
    "search.folds",
    "search.study",
    "tracking.uri",
)
# Of a search that runs a list: which entry a trial's number stands for.
_LISTED = ("space", "search.start_with", "search.seeds", "search.sampler")


@dataclass(frozen=True, kw_only=True)
class ChangedSearch:
    """A search that is ready to go on with its changed file; ``carried`` is None where its space is the same."""

    prepared: Prepared
    changes: Sequence[Difference]
    carried: Carried | None = None


def prepare_changed(
    entry: SearchEntry,
    *,
    lock: SearchLock,
    connection: ExitStack,
    trials: str | None = None,
    address: str = "local",
    screen_observer: ScreenObserver | None = None,
) -> ChangedSearch:
    """Takes over the user's file as it is now: a new study supersedes the old one where the space has changed.

    Args:
        entry: The search.
        lock: The search's, held.
        connection: Takes the connection to Ray where backbones that are new are screened: the search may use it, too.
        trials: As for ``prepare_resume``.
        address: Of that Ray.
        screen_observer: Hears of that.

    Raises:
        SpaceError: The file has errors, or a change that one search cannot hold.
        DataError: The images; or they, or weights that trials began from, have changed.
        StorageError: The file is gone.
    """
    if entry.parent:
        raise StorageError(f"{entry.search_id} was made by another search and has no file of its own")
    stored, _ = stored_file(entry, "so it cannot be resumed")
    file, space = file_now(entry, stored)
    if trials is not None:
        file, entry = with_trials(file, entry, trials)
    changes = differences(stored, file)
    index = load_index(file.data)
    problems = lasting_problems(stored, file, changes, tried_backbones(entry)) + weights_problems(file, space)
    problems += limit_problems(file, model_sizes(file, space, len(index.classes)))
    if problems:
        raise SpaceError(problems)
    refuse_changed_inputs(entry, file, index, purpose="the search cannot go on")
    entry = settle(entry)
    prepared = Prepared(entry=entry, file=file, space=space, index=index, address=address, lock=lock, resumed=True)
    in_space = any(one.path[0] == "space" or one.dotted == "search.start_with" for one in changes)
    decided = _screened_again(prepared, connection, screen_observer, again=in_space)
    if decided is not None:
        prepared = replace(prepared, space=with_backbones(space, decided.kept))
    carried = supersede(search_plan(prepared), lock=lock) if in_space else None
    if decided is not None:
        write_screen(entry, decided)
    elif not is_screened(space):
        forget_screen(entry)
    write_atomically(entry.path / SOURCE, Path(entry.source).read_text(encoding="utf-8"))
    write_atomically(entry.path / RESOLVED, dump_resolved(file))
    keep_inputs(entry, file, space, index)
    write_facts(entry, gather_facts(file, (), index))
    register(entry)
    return ChangedSearch(prepared=prepared, changes=changes, carried=carried)


def _screened_again(
    prepared: Prepared, connection: ExitStack, observer: ScreenObserver | None, *, again: bool
) -> Screen | None:
    """Which backbones the changed search goes on with; None where none are to be screened, or not yet.

    What is known of a backbone is not measured again. Backbones with trials stay, whatever their probe says.

    Args:
        again: False for the earlier decision, which the study was begun by.
    """
    folder = prepared.entry.folder
    begun = folder.journal.exists() or folder.pointer.exists()
    if not is_screened(prepared.space) or prepared.file.search.listed or not begun:
        return None
    earlier = read_screen(prepared.entry)
    if earlier is not None and earlier.decided and not again:
        return earlier
    return screen(prepared, connection, tried=tried_backbones(prepared.entry), observer=observer)


def lasting_problems(
    stored: SpaceFile, file: SpaceFile, changes: Sequence[Difference], tried: Sequence[str]
) -> list[SpaceProblem]:
    """Changes after which the old trials could not be compared with the new ones, or not be found."""
    listed = stored.search.listed or file.search.listed
    kept = _LASTING + (_LISTED if listed else ())
    problems = []
    for change in changes:
        place = next((one for one in kept if f"{change.dotted}.".startswith(f"{one}.")), None)
        if place is not None:
            message = f"one search has one {place}; it began with {str(change).partition(': ')[2]}: start a new search"
            problems.append(file.document.problem(change.path, message))
    for backbone in tried:
        if stored.weights_of(backbone) != file.weights_of(backbone):
            message = f"trials of {backbone} have begun from other weights: start a new search"
            problems.append(file.document.problem(("weights", backbone), message))
    return problems
