"""A study in a database of the user's: opened, and found again from the search's folder.

The search's lock stays in its folder: also a study in a database has one writer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage

from tlsearch.config import missing_driver, with_driver
from tlsearch.core.codec import from_plain, read_json
from tlsearch.core.errors import StorageError
from tlsearch.core.files import write_atomically
from tlsearch.core.secrets import remember
from tlsearch.core.trusted_hosts import without_credentials
from tlsearch.search.study.database_storage import DatabaseStorage

_BUSY_S = 60.0  # how long SQLite waits for a reader


@dataclass(frozen=True, kw_only=True)
class Pointer:
    """Where a search's study is: a database's URL and the study's name there."""

    url: str
    name: str


def read_pointer(path: Path) -> Pointer | None:
    """What a search's folder says of its study; None where the study is the journal.

    Raises:
        StorageError: The file cannot be understood.
    """
    try:
        pointer = from_plain(Pointer, read_json(path))
        remember(pointer.url)
        return pointer
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StorageError(f"{path} says where the study is and cannot be read: {error}") from error


def write_pointer(path: Path, pointer: Pointer) -> None:
    """Replaces it."""
    write_atomically(path, json.dumps(asdict(pointer)))


def connect(url: str, *, writable: bool) -> DatabaseStorage:
    """Opens the database; a writer makes Optuna's tables where they are missing.

    Raises:
        StorageError: It cannot be reached, its driver is not installed, or its tables are of another Optuna.
    """
    remember(url)
    if wrong := missing_driver(url, "the study"):
        raise StorageError("; ".join(wrong))
    options = {"timeout": _BUSY_S} if url.startswith("sqlite") else {}
    with database_errors(url):
        try:
            storage = RDBStorage(
                without_credentials(with_driver(url)),
                engine_kwargs={"pool_pre_ping": True, "connect_args": options},
                skip_table_creation=not writable,
            )
        except (ImportError, RuntimeError, ValueError) as error:  # no library; tables of another Optuna; no address
            raise StorageError(f"the database {url} cannot hold the study: {error}") from error
        return DatabaseStorage(storage)


@contextmanager
def database_errors(url: str) -> Iterator[None]:
    """Errors of the database in the body become ours.

    Raises:
        StorageError: With the database's own first line.
    """
    try:
        yield
    except Exception as error:
        from sqlalchemy.exc import SQLAlchemyError  # takes long to import: most studies are journals

        if not isinstance(error, SQLAlchemyError | StorageInternalError):
            raise
        cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
        first = str(cause).strip().partition("\n")[0]
        raise StorageError(f"the study's database {url} failed: {first}") from error
