"""Starts and resumes searches: joins space file, data, weights, search, tracking and results."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tlsearch.app.catalog.bucket_searches import Through, address_of, folder_of, refuse_taken, through_bucket
from tlsearch.app.catalog.catalog import RESOLVED, SOURCE, SearchEntry, new_uid, read_entry, register, write_atomically
from tlsearch.app.catalog.ending import Status, forget_end, keep_end
from tlsearch.app.catalog.gather_facts import gather_facts, write_facts
from tlsearch.app.catalog.provenance import keep_evidence, record_end, record_start
from tlsearch.app.catalog.search_names import check_name, new_search_id
from tlsearch.app.catalog.space_diff import refuse_changes
from tlsearch.app.catalog.stored import settle, stored_file
from tlsearch.app.checks.data_defaults import fit_defaults
from tlsearch.app.checks.error_places import place_faults
from tlsearch.app.checks.feasibility import backbone_sizes, limit_faults, metric_faults, total_trials
from tlsearch.app.checks.weights_found import weights_digests, weights_faults
from tlsearch.app.searches.input_digests import keep_inputs, refuse_changed_inputs
from tlsearch.app.searches.retention import Tidier
from tlsearch.config import SpaceFile, bucket_address, dump_resolved
from tlsearch.core.errors import ConfigError, StorageError
from tlsearch.core.trusted_hosts import trust
from tlsearch.core.types import SearchObserver, SearchRecord, TrialSetup
from tlsearch.core.user_folders import state_directory
from tlsearch.data import ImageIndex, load_index, require_ready, seen_digest
from tlsearch.doctor.report import require_places
from tlsearch.results import SERVED_CODE
from tlsearch.search import SearchLock, SearchPlan, holding, read_search, run_search
from tlsearch.search.json_logs import TrialTeller
from tlsearch.space import Space, load
from tlsearch.tracking import BestKeeper, MlflowTracker
from tlsearch.tracking.reach import credentials_note

logger = logging.getLogger(__name__)


Step = Callable[[str], None]


def no_step(text: str) -> None:
    """Nobody waits to hear."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What the user said on the command line of ``run``."""

    file: Path
    overrides: Sequence[str] = ()
    data_path: Path | None = None
    address: str = "local"
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class SearchEnd:
    """How a start of a search ended; ``unsent`` counts the records that MLflow did not get."""

    entry: SearchEntry
    reason: str
    record: SearchRecord
    run_ids: Mapping[int, str]
    unsent: int = 0


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A search whose file, data and weights are known to be good; nothing has run yet.

    Attributes:
        lock: The search's, held by whoever prepared it.
    """

    entry: SearchEntry
    file: SpaceFile
    space: Space
    index: ImageIndex
    address: str
    lock: SearchLock
    resumed: bool = False


@contextmanager
def prepare(options: RunOptions, *, step: Step = no_step) -> Iterator[Prepared]:
    """Checks everything that can be checked before a trial, then makes the search's folder; holds its lock meanwhile.

    Args:
        options: What is to run.
        step: Hears what is done now.

    Raises:
        ConfigError: Every fault of the file, or of the weights it names; a constraint that no backbone keeps.
        DataError: The images.
        StorageError: The name breaks a rule or is taken, or the folder cannot be made.
    """
    name = None if options.name is None else check_name(options.name)
    file, space = load(options.file, overrides=options.overrides, data_path=options.data_path)
    own = (file.tracking.uri, file.search.study)
    trust(*own)
    if note := credentials_note(file.tracking.uri):
        step(note)
        logger.info("%s", note)
    index = _index(file, step)
    require_ready(index)
    file, space = fit_defaults(file, space, len(index.splits["train"]))
    step("checking the weights of the backbones")
    faults = weights_faults(file, space)
    faults += limit_faults(file, backbone_sizes(file, space, len(index.classes)))
    faults += metric_faults(file, len(index.classes))
    if faults:
        raise ConfigError(place_faults(faults, options.file, overrides=options.overrides, data_path=options.data_path))
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
        uid=new_uid(),
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
        raise StorageError(f"the search's folder {entry.path} cannot be made: {error.strerror}") from error
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
        ConfigError, DataError: As for ``prepare``: the data may have gone since, or changed.
        StorageError: The user's file has changed.
    """
    file, space = stored_file(entry, "so it cannot be resumed")
    if not stored:
        refuse_changes(entry, file)
    index = _index(file, step)
    step("checking the weights of the backbones")
    faults = weights_faults(file, space)
    if faults:
        raise ConfigError(place_faults(faults, entry.path / RESOLVED))
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


def trial_setup(file: SpaceFile) -> TrialSetup:
    """What all trials of the search share."""
    return TrialSetup(
        data=file.data,
        weights=file.weights,
        max_epochs=file.search.max_epochs,
        metric=file.search.metric,
        num_threads=file.resources.cpus_per_trial,
        precision=file.resources.precision,
        compiled=file.resources.compile,
        cache=file.cache,
    )


def search_plan(prepared: Prepared) -> SearchPlan:
    """What the engine is given."""
    entry, file = prepared.entry, prepared.file
    setup = replace(
        trial_setup(file),
        depths=_depths(file, prepared.space),
        data_digest=seen_digest(prepared.index),
        weights_digests=weights_digests(file, prepared.space.backbones()),
    )
    return SearchPlan(
        search_id=entry.search_id,
        uid=entry.uid,
        experiment=entry.experiment,
        directory=entry.directory,
        space=prepared.space,
        setup=setup,
        search=file.search,
        resources=file.resources,
        address=prepared.address,
        sizes=backbone_sizes(file, prepared.space, len(prepared.index.classes)),
    )


def _depths(file: SpaceFile, space: Space) -> tuple[int, ...]:
    """The unfreeze depths that the search may try."""
    if not file.search.listed:
        return space.depths()
    configs = [space.to_config(space.complete(entry)) for entry in file.search.start_with]
    return tuple(sorted({config.unfreeze_depth for config in configs}))


def read_record(entry: SearchEntry) -> SearchRecord:
    """The search as its study tells it; works while it runs."""
    return read_search(
        entry.path,
        search_id=entry.search_id,
        experiment=entry.experiment,
        metric=entry.metric,
        moved=entry.moved,
    )


def execute(prepared: Prepared, *, observers: Sequence[SearchObserver] = (), stop: threading.Event) -> SearchEnd:
    """Runs or goes on with a prepared search until its budget ends or ``stop`` is set.

    A search made for another one (``confirm``) keeps the checkpoints of all its trials: they are compared afterwards.

    Raises:
        SearchStopped: One error came too often in a row.
        ClusterError: Ray cannot be reached.
        TrackingError: MLflow cannot be used at the start.
    """
    entry = prepared.entry
    forget_end(entry)
    tracker, through = make_tracker(entry), through_bucket(entry)
    recorders = _recorders(prepared, tracker, through)
    status: Status = "failed"
    reason = "failed"
    try:
        plan = search_plan(prepared)
        logger.info("the search %s on the Ray at %s", "goes on" if prepared.resumed else "begins", plan.address)
        with _opening(prepared, tracker, failed=stop.set):
            everyone: tuple[SearchObserver, ...] = (*recorders, TrialTeller(entry.metric), *observers)
            reason = run_search(plan, factory=through.factory, observers=everyone, stop=stop, lock=prepared.lock)
        status = "interrupted" if reason == "interrupted" else "finished"
    finally:
        logger.info("the search has ended: %s", reason)
        keep_end(entry, status)
        record = read_record(entry)
        record_end(tracker, entry, record, status)
        unsent = tracker.close()
        through.save()
    return SearchEnd(entry=entry, reason=reason, record=record, run_ids=tracker.run_ids(), unsent=unsent)


@contextmanager
def _opening(prepared: Prepared, tracker: MlflowTracker, *, failed: Callable[[], None]) -> Iterator[None]:
    """Opens MLflow beside the body, since it takes seconds, as the first trials do; raises its error after the body.

    Args:
        failed: Called at once where MLflow cannot be used.
    """

    def begin() -> None:
        try:
            keep_evidence(prepared.entry, prepared.index)
            record_start(tracker, prepared.entry, prepared.file)
        except BaseException:
            failed()
            raise

    with ThreadPoolExecutor(1, thread_name_prefix="search-start") as pool:
        opened = pool.submit(begin)
        try:
            yield
        finally:
            opened.result()


def _recorders(prepared: Prepared, tracker: MlflowTracker, through: Through) -> tuple[SearchObserver, ...]:
    """The observers that keep what happens, in the order in which they need each other.

    The bucket's fetcher brings an ended trial's model, the tracker and the keeper record it, the tidier deletes what
    the keeper does not keep, and the bucket's dropper deletes it there.
    """
    entry, file = prepared.entry, prepared.file
    keeper = BestKeeper(tracker, directory=entry.path, keep=file.tracking.keep_best, mode=trial_setup(file).mode)
    tidiers = () if entry.parent else (Tidier(keeper, directory=entry.path),)
    if prepared.resumed:
        earlier = read_record(entry)
        tracker.record_search(earlier)
        keeper.restore(earlier)
        for tidier in tidiers:
            tidier.restore(earlier)
    return (*through.before, tracker, keeper, *tidiers, *through.after)


def make_tracker(entry: SearchEntry) -> MlflowTracker:
    """Records the search in MLflow."""
    parent = read_entry(entry.path.parent / entry.parent) if entry.parent else None
    return MlflowTracker(
        uri=entry.tracking_uri,
        experiment=entry.experiment,
        search_id=entry.search_id,
        metric=entry.metric,
        served_code=SERVED_CODE,
        uid=entry.uid,
        parent_search=entry.parent,
        parent_uid=parent.uid if parent else "",
    )
