"""Prepares a search, new or resumed: file, data, weights and folder are checked before a trial is spent."""

from __future__ import annotations

import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tlsearch.app.catalog.bucket_searches import address_of, folder_of, refuse_taken
from tlsearch.app.catalog.catalog import RESOLVED, SOURCE, SearchEntry, register
from tlsearch.app.catalog.gather_facts import gather_facts, write_facts
from tlsearch.app.catalog.search_names import check_name, new_search_id
from tlsearch.app.catalog.space_diff import refuse_changes
from tlsearch.app.catalog.stored import settle, stored_file
from tlsearch.app.checks.data_defaults import fitted_to_data
from tlsearch.app.checks.feasibility import data_problems, total_trials, weights_problems
from tlsearch.app.checks.outputs import cannot_be_made
from tlsearch.app.searches.input_digests import keep_inputs, refuse_changed_inputs
from tlsearch.config import SpaceFile, bucket_address, dump_resolved
from tlsearch.core.errors import SpaceError
from tlsearch.core.files import write_atomically
from tlsearch.core.trusted_hosts import trust
from tlsearch.core.user_folders import state_directory
from tlsearch.data import ImageIndex, load_index, require_ready
from tlsearch.doctor.environment import require_places
from tlsearch.search import SearchLock, holding
from tlsearch.space import Space, load
from tlsearch.tracking.reach import credentials_note

logger = logging.getLogger(__name__)

Step = Callable[[str], None]


def no_step(text: str) -> None:
    """Reports to nobody."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What the user said on the command line of ``run``."""

    file: Path
    overrides: Sequence[str] = ()
    data_path: Path | None = None
    address: str = "local"
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A search whose file, data and weights are known to be good; nothing has run yet.

    Attributes:
        lock: The search's, held since it was prepared.
    """

    entry: SearchEntry
    file: SpaceFile
    space: Space
    index: ImageIndex
    address: str
    lock: SearchLock
    resumed: bool = False


@contextmanager
def prepare(
    options: RunOptions,
    *,
    loaded: tuple[SpaceFile, Space] | None = None,
    step: Step = no_step,
    beside: Callable[[], object] = lambda: None,
) -> Iterator[Prepared]:
    """Checks everything that can be checked before a trial, then makes the search's folder; holds its lock meanwhile.

    Args:
        options: What is to run.
        loaded: What ``load`` gives for these options, where the caller has it already.
        step: Hears what is done now.
        beside: Called when the images are known to be good: begins what may run while the weights are checked. See
            ``starting_ray``.

    Raises:
        SpaceError: Every error of the file, or of the weights it names; a constraint that no backbone keeps.
        DataError: The images.
        StorageError: The name breaks a rule or is taken, or the folder cannot be made.
    """
    name = None if options.name is None else check_name(options.name)
    file, space = loaded or load(options.file, overrides=options.overrides, data_path=options.data_path)
    own = (file.tracking.uri, file.search.study)
    trust(*own)
    if note := credentials_note(file.tracking.uri):
        step(note)
        logger.info("%s", note)
    index = _index(file, step)
    require_ready(index)
    file, space, index = fitted_to_data(file, space, index)
    beside()
    step("checking the weights of the backbones")
    if problems := weights_problems(file, space) + data_problems(file, space, index):
        raise SpaceError(problems)
    require_places(file, options.address)
    search_id = name or new_search_id(file.name, folder_of(file.storage))
    # A link stays one: relative paths are relative to its folder, and a mounted ConfigMap's target changes.
    text, source = options.file.read_text(encoding="utf-8"), str(options.file.expanduser().absolute())
    given = options.data_path
    data_path = "" if given is None else bucket_address(given) or str(given.absolute())
    entry = new_entry(file, search_id=search_id, source=source)
    entry = replace(entry, overrides=tuple(options.overrides), data_path=data_path, cwd=os.getcwd())
    with make_folder(entry, file, text, space, index, command="run", own=own) as lock:
        yield Prepared(entry=entry, file=file, space=space, index=index, address=options.address, lock=lock)


def _index(file: SpaceFile, step: Step) -> ImageIndex:
    step(f"listing the images of {file.data.path or file.data.name or file.data.source}")
    return load_index(file.data)


def new_entry(file: SpaceFile, *, search_id: str, source: str, parent: str = "") -> SearchEntry:
    """A search that is to be made.

    Raises:
        StorageError: The name breaks a rule.
    """
    return SearchEntry(
        search_id=check_name(search_id),
        experiment=file.name,
        directory=str(folder_of(file.storage) / search_id),
        source=source,
        tracking_uri=file.tracking.uri,
        metric=file.search.metric,
        created=time.time(),
        parent=parent,
        remote=address_of(file.storage, search_id),
        uid=uuid.uuid4().hex,
    )


@contextmanager
def make_folder(
    entry: SearchEntry,
    file: SpaceFile,
    text: str,
    space: Space,
    index: ImageIndex,
    *,
    command: str,
    own: Sequence[str] = (),
) -> Iterator[SearchLock]:
    """Makes a new search's folder, enters it in the catalogue and holds its lock; a half-made folder is removed.

    Args:
        text: The space file as it was written.
        command: See ``Holder``.
        own: See ``register``.

    Raises:
        StorageError: The name is taken, or the folder cannot be made.
    """
    refuse_taken(file.storage, entry.search_id)
    state_directory(write=True)  # before anything is made
    try:
        entry.path.mkdir(parents=True, exist_ok=False)
    except OSError as error:
        raise cannot_be_made(entry.path, error) from error
    with holding(entry.path, command) as lock:
        with gone_unless_whole(entry.path):
            write_atomically(entry.path / SOURCE, text)
            write_atomically(entry.path / RESOLVED, dump_resolved(file))
            keep_inputs(entry, file, space, index)
            write_facts(entry, gather_facts(file, (), index))  # backbones are counted at the end: only those tried
            register(entry, own=own)  # last: what is in the catalogue is whole
        yield lock


@contextmanager
def gone_unless_whole(directory: Path) -> Iterator[None]:
    """Removes a new search's folder where the body fails: a half-made one would keep its name from the next start."""
    try:
        yield
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def prepare_resume(
    entry: SearchEntry,
    *,
    lock: SearchLock,
    trials: str | None = None,
    address: str = "local",
    stored: bool = False,
    step: Step = no_step,
) -> Prepared:
    """Reads a search back from its folder; where it refuses, nothing has changed.

    Args:
        entry: The search.
        lock: The search's, held.
        trials: ``N`` trials in all, or ``+N`` more than the file says; None as the file says.
        stored: Go on with the file as it was, though the user's has changed since.
        step: Hears what is done now.

    Raises:
        SpaceError, DataError: As for ``prepare``: the data may have gone since, or changed.
        StorageError: The user's file has changed.
    """
    file, space = stored_file(entry, "so it cannot be resumed")
    if not stored:
        refuse_changes(entry, file)
    index = _index(file, step)
    step("checking the weights of the backbones")
    problems = weights_problems(file, space)
    if problems:
        raise SpaceError(problems)
    refuse_changed_inputs(entry, file, index, purpose="the search cannot go on")
    require_places(file, address)
    entry = settle(entry)
    if trials is not None:
        file, entry = with_trials(file, entry, trials)
        write_atomically(entry.path / RESOLVED, dump_resolved(file))
    register(entry)
    return Prepared(entry=entry, file=file, space=space, index=index, address=address, lock=lock, resumed=True)


def with_trials(file: SpaceFile, entry: SearchEntry, trials: str) -> tuple[SpaceFile, SearchEntry]:
    """The file with another total, ``N`` or ``+N``; the entry remembers that it was given on the command line."""
    total = total_trials(trials, file.search.trials)
    kept = tuple(one for one in entry.overrides if not one.startswith("search.trials="))
    entry = replace(entry, overrides=(*kept, f"search.trials={total}"))
    return replace(file, search=replace(file.search, trials=total)), entry
