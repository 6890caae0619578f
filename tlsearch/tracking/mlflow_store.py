"""One MLflow store: how it is reached, what its errors mean, the names it takes, and the experiment of a search.

mlflow is imported inside of the functions: importing this room must stay cheap. The store's address
always goes in as an argument; mlflow's global tracking URI is neither read nor set.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tlsearch.config import missing_driver, with_driver
from tlsearch.core.errors import TrackingError
from tlsearch.core.imports import quick_import
from tlsearch.core.secrets import remember
from tlsearch.core.trusted_hosts import guard, without_credentials
from tlsearch.tracking.mlflow_database import Away, Refused, check_sqlite, deleted_problem, make_sqlite, sqlite_path

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

# Has MLflow's UI show an experiment's training runs, not the traces of a language model.
EXPERIMENT_KIND = ("mlflow.experimentKind", "custom_model_development")

# Of MLflow's error codes those that say "this can never be taken"; all others may pass with time.
_REFUSALS = frozenset(
    {
        "BAD_REQUEST",
        "INVALID_PARAMETER_VALUE",
        "INVALID_STATE",
        "MALFORMED_REQUEST",
        "NOT_IMPLEMENTED",
        "RESOURCE_ALREADY_EXISTS",
        "RESOURCE_DOES_NOT_EXIST",
    }
)
# At the start only these are taken for a store that will come back; all others are shown to the user.
_UNAVAILABLE = "TEMPORARILY_UNAVAILABLE"
_TRANSIENT = frozenset({"INTERNAL_ERROR", _UNAVAILABLE, "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED"})
_HOPELESS = re.compile(r"Failed to resolve|NameResolution|readonly database|Invalid url|No schema", re.IGNORECASE)

# Our own retries must not wait behind mlflow's (7 with back-off, minutes in all), and neither its
# progress bars nor its links may mix with our output. A user's own setting stays.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_UV_AUTO_DETECT": "false",  # requirements are given, never guessed from the current folder
}
_QUIET = {"mlflow.store.db.utils": logging.CRITICAL, "mlflow.pyfunc": logging.WARNING}


def quiet_mlflow() -> None:
    """Silences mlflow's own loggers and output where the user has not set them; the root logger stays as it is."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    quick_import("mlflow")  # which sets up the loggers that are turned down next

    if "MLFLOW_LOGGING_LEVEL" not in os.environ:
        for name, level in _QUIET.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turns what mlflow raises into Away (may pass with time) or Refused."""
    import requests
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        text = _in_a_line(error)
        if error.error_code in _REFUSALS:
            raise Refused(text) from error
        raise Away(f"MLflow at {uri} does not answer: {text}") from error
    except requests.RequestException as error:
        raise Away(f"MLflow at {uri} does not answer: {error}") from error
    except OSError as error:  # a file store that is not there, a full disk
        raise Refused(f"a file of MLflow cannot be written: {error}") from error


@contextmanager
def errors_told(uri: str) -> Iterator[None]:
    """Turns what mlflow raises into an error for the user.

    Raises:
        TrackingError: MLflow cannot be reached, or refuses.
    """
    try:
        with store_errors(uri):
            yield
    except (Away, Refused) as error:
        raise TrackingError(f"MLflow at {uri} cannot be used: {error}") from error


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]


def connect(uri: str) -> MlflowClient:
    """A client of the store, which exists and answers as far as is known without a request.

    Raises:
        TrackingError: The URI is wrong, or its database cannot be opened or written.
        Away: A database server does not answer, or a SQLite file is locked or has no room.
    """
    remember(uri)
    quiet_mlflow()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.utils import credentials
    from sqlalchemy.exc import OperationalError

    if wrong := missing_driver(uri, "MLflow"):
        raise TrackingError("; ".join(wrong))
    guard(credentials)
    place = without_credentials(with_driver(uri))
    if uri.startswith("sqlite"):
        check_sqlite(uri)
    elif re.match(r"(postgresql|mysql|mssql)\b", uri):
        _check_database(uri, place)
    try:
        make_sqlite(uri)
        return MlflowClient(tracking_uri=place, registry_uri=place)
    except MlflowException as error:
        if error.error_code == _UNAVAILABLE:  # a full disk again, where the tables are there already
            raise Away(f"MLflow at {uri} does not answer: {_in_a_line(error)}") from error
        raise TrackingError(f"tracking.uri must name an MLflow store, not {uri}: {error}") from error
    except ValueError as error:  # no address
        raise TrackingError(
            f"tracking.uri must name an MLflow store, not {uri}: {error}; in a password / [ @ are written %2F %5B %40"
        ) from error
    except OperationalError as error:  # another process is just making the tables; a full disk
        raise Away(f"MLflow at {uri} does not answer: {error.orig}") from error
    except OSError as error:
        raise Away(f"MLflow's file at {uri} cannot be made: {error.strerror or error}") from error


def told_at_start(uri: str, error: Away | Refused) -> TrackingError | None:
    """What to tell the user at the start of a search; None for a store that may just be away."""
    cause = error.__cause__
    code = getattr(cause, "error_code", "INTERNAL_ERROR")
    transient = isinstance(error, Away) and code in _TRANSIENT and not _HOPELESS.search(str(cause))
    return None if transient else TrackingError(f"MLflow at {uri} cannot be used: {error}")


def find_experiment(client: MlflowClient, name: str, uri: str) -> Experiment | None:
    """The experiment of this name, or None.

    Raises:
        TrackingError: It was deleted and not yet removed, so that its name cannot be used.
    """
    with store_errors(uri):
        found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage != "active":
        raise TrackingError("; ".join(deleted_problem(name, found.experiment_id, uri)))
    return found


def open_experiment(client: MlflowClient, name: str, uri: str) -> str:
    """The id of the active experiment of this name, which is made where there is none.

    Raises:
        TrackingError: It was deleted.
    """
    found = find_experiment(client, name, uri)
    key, value = EXPERIMENT_KIND
    if found is None:
        try:
            with store_errors(uri):
                location = artifact_location(uri, name)
                return str(client.create_experiment(name, artifact_location=location, tags={key: value}))
        except Refused:
            found = find_experiment(client, name, uri)  # another search was faster
            if found is None:
                raise
    if key not in found.tags:
        with store_errors(uri):
            client.set_experiment_tag(found.experiment_id, key, value)
    return str(found.experiment_id)


def artifact_location(uri: str, experiment: str) -> str | None:
    """Where a new experiment's files go; None leaves it to the store.

    Beside a SQLite file, since the default of MLflow would be ``./mlruns`` of the process that starts the search.
    """
    path = sqlite_path(uri)
    if path is None:
        return None
    return (path.parent / "mlartifacts" / folder_name(experiment)).as_uri()


def _check_database(uri: str, place: str) -> None:
    """Connects once: MLflow itself would retry for minutes."""
    import sqlalchemy

    try:
        engine = sqlalchemy.create_engine(place)
    except (sqlalchemy.exc.ArgumentError, ImportError, ValueError) as error:  # two hosts with ports, say
        raise TrackingError(f"tracking.uri {uri} cannot be used: {error}") from error
    try:
        with engine.connect():
            pass
    except sqlalchemy.exc.OperationalError as error:
        raise Away(f"the database {uri} does not answer: {error.orig}") from error
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise TrackingError(f"tracking.uri {uri} cannot be used: {error}") from error
    finally:
        engine.dispose()


def quoted(text: str) -> str:
    """A text as a value in an MLflow filter, which knows two kinds of quotes and no way to escape one.

    Raises:
        TrackingError: It has both kinds.
    """
    if "'" not in text:
        return f"'{text}'"
    if '"' in text:
        raise TrackingError(f"MLflow cannot look for a name that has both ' and \": {text}")
    return f'"{text}"'


def model_name(text: str) -> str:
    """The text as MLflow takes it for the name of a logged model."""
    return re.sub(r"""[/:.%"']""", "-", text)


def registered_name(experiment: str) -> str:
    """The name of an experiment's model in the registry: one that filters and ``models:/NAME@ALIAS`` can hold."""
    name = re.sub(r"[/:@#?]|^\.+$", "-", experiment)
    return name.replace('"', "-") if "'" in name else name


def folder_name(experiment: str) -> str:
    """The name of the folder that holds a new experiment's files: short, and the same in an address as on the disk."""
    plain = re.sub(r"[^A-Za-z0-9 ._-]+", "-", experiment).lstrip(".")
    if plain == experiment:
        return plain
    return f"{plain[:60]}-{hashlib.sha256(experiment.encode()).hexdigest()[:12]}"
