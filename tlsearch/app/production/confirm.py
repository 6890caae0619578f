"""Trains the best configurations of a search again with several seeds: is rank 1 really better than rank 2?

The repetition is a search of its own (sampler fixed, no scheduler) in the same storage, through the same engine, stores
and MLflow experiment; its run is nested in that of the search. ``conclude`` judges it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from tlsearch.app.catalog.bucket_searches import folder_of
from tlsearch.app.catalog.catalog import SOURCE, SearchEntry, repetitions
from tlsearch.app.catalog.search_names import MAX_BYTES, free_name
from tlsearch.app.catalog.stored import read_record, settle, stored_file
from tlsearch.app.searches.input_digests import refuse_changed_inputs
from tlsearch.app.searches.prepare import Prepared, make_folder, new_entry, prepare_resume
from tlsearch.config import SpaceFile, dump_resolved
from tlsearch.core.errors import SpaceError, StorageError, UserError
from tlsearch.core.types import Scalar, SearchRecord, TrialConfig, TrialRecord
from tlsearch.data import load_index
from tlsearch.search import holding
from tlsearch.space import Fixed, Space
from tlsearch.space.bn_policies import bn_policy


@dataclass(frozen=True, kw_only=True)
class PreparedConfirm:
    """A repetition that is ready to run.

    Attributes:
        entry: The search whose candidates are repeated.
        candidates: Its trials, best first.
        prepared: The search that repeats them, seed by seed: its trial n is candidate n modulo their number.
    """

    entry: SearchEntry
    candidates: tuple[TrialRecord, ...]
    prepared: Prepared

    def name(self, number: int) -> str:
        """A training by the search's trial that it repeats: ``7, seed 2``."""
        rounds, place = divmod(number, len(self.candidates))
        return f"{self.candidates[place].number}, seed {rounds + 1}"


@contextmanager
def prepare_confirm(entry: SearchEntry, *, top: int, seeds: int, address: str = "local") -> Iterator[PreparedConfirm]:
    """Chooses the candidates and makes the search that repeats them, or finds the one that was interrupted.

    Both searches are held while the body runs.

    Raises:
        UserError: No candidate, or one that the search's file does not allow.
        DataError: The images, or weights, have changed since the search began.
        StorageError: The folder is not a search's, or cannot be written; or another process holds the search.
    """
    with holding(entry.path, "confirm"), ExitStack() as stack:
        yield _prepare(entry, stack, top=top, seeds=seeds, address=address)


def _prepare(entry: SearchEntry, stack: ExitStack, *, top: int, seeds: int, address: str) -> PreparedConfirm:
    candidates = best_candidates(read_record(entry), top)
    if not candidates:
        raise UserError(f"a search is confirmed by its best trials; {entry.search_id} has none with a result yet")
    file, space = stored_file(entry, "so it cannot be confirmed")
    file = replace(file, storage=entry.storage)
    wanted = repeating(file, [_entry_of(trial, space) for trial in candidates], seeds=seeds)
    earlier = _interrupted(entry, wanted)
    if earlier is not None:
        lock = stack.enter_context(holding(earlier.path, "confirm"))
        prepared = prepare_resume(earlier, lock=lock, address=address, stored=True)
        entry = settle(entry)
    else:
        index = load_index(wanted.data)
        refuse_changed_inputs(entry, file, index, purpose="it cannot be confirmed")
        entry = settle(entry)
        search_id = free_name(_confirm_name(entry.search_id), folder_of(wanted.storage))
        source = str(folder_of(wanted.storage) / search_id / SOURCE)  # written by this search alone
        text = dump_resolved(wanted)
        made = new_entry(wanted, search_id=search_id, source=source, parent=entry.search_id)
        lock = stack.enter_context(make_folder(made, wanted, text, space, index, command="confirm"))
        prepared = Prepared(entry=made, file=wanted, space=space, index=index, address=address, lock=lock)
    return PreparedConfirm(entry=entry, candidates=candidates, prepared=prepared)


def _entry_of(trial: TrialRecord, space: Space) -> Mapping[str, Scalar]:
    """What `start_with` must say to get this trial again: the dimensions that are not fixed anyway.

    Raises:
        UserError: The space has changed since, and does not hold the trial any more.
    """
    fixed = {name for name, one in space.dimensions.items() if isinstance(one.domain, Fixed)}
    entry = {name: value for name, value in trial.params.items() if name not in fixed}
    try:
        found = space.to_config(space.complete(entry))
    except ValueError as error:
        raise UserError(f"trial {trial.number} is outside of the search's space as it is now: {error}") from error
    if found != trial.config:
        raise UserError(f"trial {trial.number} is outside of the search's space as it is now: its fixed values differ")
    return entry


def best_candidates(record: SearchRecord, top: int, *, by_model: bool = True) -> tuple[TrialRecord, ...]:
    """The best trials with different configurations, at most ``top``; complete and pruned ones count.

    Of those that are best before their first step, with one and the same solved head, the first stands for all.

    Args:
        by_model: False gives all trials, those with the same configuration or head too.
    """
    chosen: list[TrialRecord] = []
    for trial in record.ranked:
        if not by_model or not any(_same_model(trial, other) for other in chosen):
            chosen.append(trial)
    return tuple(chosen[:top])


def _same_model(one: TrialRecord, other: TrialRecord) -> bool:
    if one.best_epoch == 0 == other.best_epoch:
        return _solved_head(one.config) == _solved_head(other.config)
    return dict(one.params) == dict(other.params)


def _solved_head(config: TrialConfig) -> tuple[Scalar, ...]:
    """What decides about a head that is solved on the frozen features."""
    return config.model, config.features, bn_policy(config.bn_policy).recalibrates, config.head, config.head_penalty


def repeating(file: SpaceFile, entries: Sequence[Mapping[str, Scalar]], *, seeds: int) -> SpaceFile:
    """The space file of a search that trains these configurations, and nothing else, with this number of seeds."""
    search = replace(
        file.search,
        trials=len(entries) * seeds,
        time_budget_s=None,
        sampler="fixed",
        scheduler=None,
        start_with=tuple(dict(entry) for entry in entries),
        seeds=seeds,
    )
    return replace(file, search=search)


def _interrupted(entry: SearchEntry, wanted: SpaceFile) -> SearchEntry | None:
    """The repetition of just this that an earlier call began."""
    for made in repetitions(entry):
        try:
            file, _ = stored_file(made, "so it cannot go on")
        except (SpaceError, StorageError):
            continue  # of another version, or half made
        if replace(file, storage=wanted.storage) == wanted:
            return made
    return None


def _confirm_name(search_id: str) -> str:
    """The name of the search that repeats another one's best trials; a long one is cut."""
    ending = "-confirm"
    room = MAX_BYTES - len(ending) - len("-999")
    return search_id.encode()[:room].decode(errors="ignore").rstrip("-._") + ending
