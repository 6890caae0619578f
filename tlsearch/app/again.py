"""Starts a search, or goes on with it where it has begun: one command for schedulers that start a job again."""

from __future__ import annotations

from pathlib import Path

from tlsearch.app.bucket import folder_of, is_bucket, take_over
from tlsearch.app.catalog import MANIFEST, RESOLVED, SOURCE, find
from tlsearch.app.names import check_name
from tlsearch.app.run import Prepared, RunOptions, Step, no_step, prepare, prepare_resume
from tlsearch.config import load_space_file
from tlsearch.errors import StorageError
from tlsearch.trust import trust


def prepare_or_resume(options: RunOptions, *, step: Step = no_step) -> Prepared:
    """As ``prepare``; a search of this name that exists in the storage is resumed as it was started.

    Raises:
        StorageError: No name was given, so that a second start could not find the first; or it breaks a rule.
        ConfigError, DataError: As for ``prepare``.
    """
    if not options.name:
        raise StorageError("only a search with a --name can be found again")
    name = check_name(options.name)
    loaded = load_space_file(options.file, overrides=options.overrides, data_path=options.data_path)
    trust(loaded.file.tracking.uri, loaded.file.search.study)
    storage = folder_of(loaded.file.storage)
    directory = storage / name
    if is_bucket(loaded.file.storage):
        take_over(loaded.file.storage, name)
    if (directory / MANIFEST).is_file():
        return prepare_resume(find(name, storage), address=options.address, step=step)
    _clear_unborn(directory)
    return prepare(options, step=step)


def _clear_unborn(directory: Path) -> None:
    """Removes the folder of a start that ended before its search was entered anywhere."""
    if not directory.is_dir():
        return
    names = {path.name for path in directory.iterdir()}
    if any(name not in (SOURCE, RESOLVED) and not name.endswith(".tmp") for name in names):
        return
    for name in names:
        (directory / name).unlink()
    directory.rmdir()
