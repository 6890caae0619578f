"""A study in a database of the user's: opened, and found again from the search's folder.

The search's lock stays in its folder: also a study in a database has one writer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage

from tlsearch.config import without_password
from tlsearch.errors import StorageError

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
        return Pointer(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise StorageError(f"{path} says where the study is and cannot be read: {error}") from error


def write_pointer(path: Path, pointer: Pointer) -> None:
    """Replaces it; only its owner may read it, since a URL may hold a password."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(asdict(pointer), file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def connect(url: str, *, writable: bool) -> BaseStorage:
    """Opens the database; a writer makes Optuna's tables where they are missing.

    Raises:
        StorageError: It cannot be reached, its driver is not installed, or its tables are of another Optuna.
    """
    from optuna.storages import RDBStorage, get_storage

    options = {"timeout": _BUSY_S} if url.startswith("sqlite") else {}
    with database_errors(url):
        try:
            storage = RDBStorage(
                _with_driver(url),
                engine_kwargs={"pool_pre_ping": True, "connect_args": options},
                skip_table_creation=not writable,
            )
        except ImportError as error:
            cause = str(error.__cause__ or error)
            raise StorageError(
                f"the database {without_password(url)} needs a driver that is not installed ({cause}); "
                "for PostgreSQL: pip install 'tlsearch[cluster]', which brings psycopg2"
            ) from error
        except RuntimeError as error:  # Optuna's word for tables of another version
            raise StorageError(f"the database {without_password(url)} cannot hold the study: {error}") from error
        return get_storage(storage)


def _with_driver(url: str) -> str:
    """``postgresql://`` means another driver in each version of SQLAlchemy; ours is psycopg2, where it is installed."""
    plain = "postgresql://"
    if url.startswith(plain) and find_spec("psycopg2") is not None:
        return f"postgresql+psycopg2://{url.removeprefix(plain)}"
    return url


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
        first = without_password(str(cause).strip().partition("\n")[0])
        raise StorageError(f"the study's database {without_password(url)} failed: {first}") from error
