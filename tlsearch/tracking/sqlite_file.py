"""MLflow's store in a SQLite file: where it is, whether it can be written, and how it is made."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

from filelock import FileLock, Timeout

from tlsearch.errors import TrackingError
from tlsearch.tracking.worker import Away

_PATH = re.compile(r"(sqlite(?:\+\w+)?:///(?:file:)?)([^?]+)")
_LOCK_TIMEOUT_S = 120.0


def sqlite_path(uri: str) -> Path | None:
    """The absolute path of a SQLite URI's file; None for other stores and databases in memory."""
    match = _PATH.match(uri)
    if match is None or match[2] == ":memory:":
        return None
    return Path(unquote(match[2])).absolute()


def check_sqlite(uri: str) -> None:
    """Writes, and takes it back: MLflow itself would try to open the file for minutes.

    Raises:
        TrackingError: It cannot be written.
        Away: Another process has locked it, or the disk is full.
    """
    path = sqlite_path(uri)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = "ro" if "mode=ro" in uri else "rwc"
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode={mode}", uri=True, timeout=20)) as database:
            database.isolation_level = None
            database.execute("BEGIN IMMEDIATE")
            database.execute("CREATE TABLE tlsearch_tries_to_write (x)")
            database.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise Away(f"the MLflow database {path} is locked by another process") from error
        if "full" in str(error):
            raise Away(f"the MLflow database {path} cannot grow: {error}") from error
        raise TrackingError(f"tracking.uri must name a database that can be written; {path}: {error}") from error
    except (OSError, sqlite3.DatabaseError) as error:
        raise TrackingError(f"tracking.uri must name a database that can be written; {path}: {error}") from error


def make_sqlite(uri: str) -> None:
    """Makes the database where there is none, whole or not at all.

    MLflow makes its tables in many commits. A process that is killed between two of them would leave a file that no
    MLflow opens again, so it is made under another name first.

    Raises:
        Away: Another process is making it, and takes long.
        OperationalError: The disk is full.
    """
    path = sqlite_path(uri)
    if path is None or _is_made(path):
        return
    from mlflow.store.db.utils import _initialize_tables
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool  # no connection outlives its use: it would point to a file that has moved

    with _making(path):
        if _is_made(path):
            return
        new = path.with_name(f"{path.name}.new")
        _remove(new)  # of a process that was killed
        try:
            _initialize_tables(create_engine(_PATH.sub(r"\g<1>\g<2>.new", uri, count=1), poolclass=NullPool))
            new.replace(path)
        finally:
            _remove(new)


def _is_made(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0  # whoever only looks at SQLite's file leaves an empty one


@contextmanager
def _making(path: Path) -> Iterator[None]:
    lock = path.with_name(f"{path.name}.lock")
    try:
        with FileLock(lock, timeout=_LOCK_TIMEOUT_S):
            yield
            lock.unlink(missing_ok=True)  # whoever waits for it, or makes another, finds the database made
    except Timeout as error:
        raise Away(f"the MLflow database {path} is being made by another process") from error


def _remove(new: Path) -> None:
    for name in (new.name, f"{new.name}-journal"):
        new.with_name(name).unlink(missing_ok=True)
