"""MLflow's database: whether a SQLite file can be written, how it is made, and whether this MLflow can use its tables.

MLflow compares its tables when it opens a database, which is when the first trials run already; and one that lacks a
table it changes without asking, after which older versions cannot open it any more.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, unquote

from filelock import FileLock, Timeout

from tlsearch.config.document.wording import split_sqlite
from tlsearch.core.errors import TlsearchError, TrackingError
from tlsearch.tracking._private import make_tables

Problem = tuple[str, str]  # what is wrong, and what to do
Rows = Sequence[Sequence[object]]

_REVISION = re.compile(r"^(revision|down_revision)\b[^=\n]*=\s*[\"'](\w+)[\"']", re.MULTILINE)
_OWN_TABLE, _VERSION_TABLE = "experiments", "alembic_version"
_LOCK_TIMEOUT_S = 120.0


class Away(TlsearchError):
    """The store does not answer now; what was to be sent stays."""


class Refused(TlsearchError):
    """The store answers, and will never take this entry."""


def sqlite_path(uri: str) -> Path | None:
    """The absolute path of a SQLite URI's file; None for other stores and databases in memory."""
    parts = split_sqlite(uri)
    return None if parts is None or parts[1] in ("", ":memory:") else Path(unquote(parts[1])).absolute()


@contextmanager
def tried_writing(path: Path, *, mode: str, timeout_s: float) -> Iterator[sqlite3.Connection]:
    """A connection to a SQLite file that has taken a write, which is taken back.

    Raises:
        sqlite3.DatabaseError: It is none, or does not take one now.
    """
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode={mode}", uri=True, timeout=timeout_s)) as database:
        database.isolation_level = None
        for statement in ("BEGIN IMMEDIATE", "CREATE TABLE tlsearch_tries_to_write (x)", "ROLLBACK"):
            database.execute(statement)
        yield database


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
        with tried_writing(path, mode="ro" if "mode=ro" in uri else "rwc", timeout_s=20):
            pass
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
    path, parts = sqlite_path(uri), split_sqlite(uri)
    if path is None or parts is None or _is_made(path):
        return
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool  # no connection outlives its use: it would point to a file that has moved

    with _making(path):
        if _is_made(path):
            return
        new = path.with_name(f"{path.name}.new")
        _remove(new)  # of a process that was killed
        try:
            scheme, name, options = parts
            make_tables(create_engine(f"{scheme}{name}.new{options}", poolclass=NullPool))
            new.replace(path)
        finally:
            _remove(new)


def _is_made(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0  # reading a missing SQLite file creates an empty one


@contextmanager
def _making(path: Path) -> Iterator[None]:
    lock = path.with_name(f"{path.name}.lock")
    try:
        with FileLock(lock, timeout=_LOCK_TIMEOUT_S):
            yield
            lock.unlink(missing_ok=True)  # the next holder of any lock finds the database made
    except Timeout as error:
        raise Away(f"the MLflow database {path} is being made by another process") from error


def _remove(new: Path) -> None:
    for name in (new.name, f"{new.name}-journal"):
        new.with_name(name).unlink(missing_ok=True)


def database_problem(
    tables: Sequence[str], query: Callable[[str, str], Rows], *, shown: str, experiment: str = ""
) -> Problem | None:
    """Why a search cannot be recorded in a database; None where it can, or before it has tables.

    Args:
        tables: Names of all tables.
        query: Runs SQL that may name the parameter ``:name``, given as its second argument.
        shown: The database, for messages.
        experiment: The search's; empty leaves out whether it was deleted.
    """
    if not tables:
        return None
    if _OWN_TABLE not in tables or _VERSION_TABLE not in tables:
        names = ", ".join(sorted(tables)[:3])
        return f"{shown} is a database of another program (tables {names})", "name another file as tracking.uri"
    found = [str(row[0]) for row in query(f"SELECT version_num FROM {_VERSION_TABLE}", "")]
    problem = _version_problem(found[0] if found else "", shown)
    if problem is not None or not experiment:
        return problem
    deleted = query(
        f"SELECT experiment_id FROM {_OWN_TABLE} WHERE name = :name AND lifecycle_stage <> 'active'", experiment
    )
    return deleted_problem(experiment, str(deleted[0][0]), shown) if deleted else None


def deleted_problem(experiment: str, experiment_id: str, shown: str) -> Problem:
    """What an experiment that was deleted and not yet removed means: its name cannot be used."""
    return (
        f"the MLflow experiment of a search must be active; {experiment!r} (id {experiment_id}) was deleted in {shown}",
        f"restore it with `mlflow experiments restore --experiment-id {experiment_id}`, or choose another `name`",
    )


def _version_problem(found: str, shown: str) -> Problem | None:
    newest, known = _revisions()
    if not newest or found == newest:
        return None
    installed = f"MLflow {version('mlflow')}, which is installed"
    if found in known:
        return (
            f"{shown} was made by an older MLflow (its tables are of version {found}; {installed}, needs {newest})",
            "back it up, then run `mlflow db upgrade` with its URI (older versions cannot open it afterwards), "
            "or name another database as tracking.uri",
        )
    return (
        f"{shown} was made by a newer MLflow (its tables are of version {found or 'unknown'}, which {installed}, "
        "does not know)",
        "install the version of MLflow that made it, or name another database as tracking.uri",
    )


@cache
def _revisions() -> tuple[str, frozenset[str]]:
    """The version of the tables that the installed MLflow needs, and all it knows; read without importing it."""
    spec = find_spec("mlflow")
    folder = Path(spec.origin or "").parent / "store" / "db_migrations" / "versions" if spec else Path()
    known: set[str] = set()
    older: set[str] = set()
    for file in folder.glob("*.py"):
        for name, revision in _REVISION.findall(file.read_text(encoding="utf-8")):
            (known if name == "revision" else older).add(revision)
    newest = known - older
    return (newest.pop() if len(newest) == 1 else ""), frozenset(known)
