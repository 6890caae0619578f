"""Whether an MLflow store can be used from here, and what its refusals mean; without mlflow, in seconds."""

from __future__ import annotations

import base64
import configparser
import os
import re
import sqlite3
import urllib.error
import urllib.request
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from urllib.parse import quote, unquote

from tlsearch.config import missing_driver, with_driver
from tlsearch.core.files import first_existing
from tlsearch.core.secrets import remember
from tlsearch.core.trusted_hosts import is_trusted, origin, without_credentials
from tlsearch.core.types import Finding
from tlsearch.tracking.mlflow_database import (
    Problem,
    Rows,
    database_problem,
    deleted_problem,
    sqlite_path,
    tried_writing,
)

_TIMEOUT_S = 10.0
_TEXT_BYTES = 4000  # an experiment with its tags
_ANOTHER = "name another file, or a server, as tracking.uri"
CREDENTIALS = _USER, _PASSWORD, _TOKEN = (
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
)


def tracking_finding(uri: str, experiment: str = "") -> Finding:
    """What an MLflow store answers to this user.

    Args:
        uri: As in ``tracking.uri``, absolute.
        experiment: A search's, which must not have been deleted; empty does not ask for one.
    """
    remember(uri)
    if uri.startswith(("http://", "https://")):
        return _server(uri.rstrip("/"), experiment)[0]
    path = sqlite_path(uri)
    if path is not None:
        return _file(path, experiment)
    return _database(uri, experiment)


def refusal(uri: str, experiment: str) -> Finding | None:
    """Why a search cannot be recorded in a store, now or later; None for one that can be used, or may just be away.

    Args:
        uri: As in ``tracking.uri``, absolute.
        experiment: The search's.
    """
    if uri.startswith(("http://", "https://")):
        found, away = _server(uri.rstrip("/"), experiment)
        return None if away or found.status == "ok" else found
    found = tracking_finding(uri, experiment)
    return found if found.status == "fail" else None


def _finding(problem: Problem) -> Finding:
    return Finding(name="mlflow", status="fail", text=problem[0], advice=problem[1])


def _database(uri: str, experiment: str) -> Finding:
    """A database that MLflow is given without a server before it."""
    import sqlalchemy

    if wrong := missing_driver(uri, "MLflow"):
        return _finding(wrong)
    try:
        engine = sqlalchemy.create_engine(without_credentials(with_driver(uri)), poolclass=sqlalchemy.pool.NullPool)
        with engine.connect() as connection:
            tables = sqlalchemy.inspect(connection).get_table_names()

            def query(sql: str, name: str) -> Rows:
                return connection.execute(sqlalchemy.text(sql), {"name": name} if name else {}).all()

            problem = database_problem(tables, query, shown=uri, experiment=experiment)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError) as error:  # two hosts with ports, say
        text = f"{uri} cannot be looked at now: {getattr(error, 'orig', None) or error}"
        advice = "a server in front of the database (`mlflow server`) keeps its password off the machines"
        return Finding(name="mlflow", status="warn", text=" ".join(text.split()), advice=advice)
    return _finding(problem) if problem else Finding(name="mlflow", status="ok", text=f"{uri} answers")


def _file(path: Path, experiment: str) -> Finding:
    if not path.exists() or path.stat().st_size == 0:
        folder = first_existing(path.parent)
        if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
            return Finding(name="mlflow", status="ok", text=f"{path} is made by the first search")
        return _finding((f"{path} cannot be made: {folder} is not a folder that can be written", _ANOTHER))
    try:
        with tried_writing(path, mode="rw", timeout_s=5) as database:
            rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()

            def query(sql: str, name: str) -> Rows:
                return database.execute(sql, {"name": name} if name else {}).fetchall()

            tables = [str(name) for (name,) in rows if not str(name).startswith("sqlite_")]
            problem = database_problem(tables, query, shown=str(path), experiment=experiment)
    except sqlite3.DatabaseError as error:
        busy = "locked" in str(error)
        return Finding(
            name="mlflow",
            status="warn" if busy else "fail",
            text=f"{path}: {error}",
            advice="another process writes to it now" if busy else _ANOTHER,
        )
    return _finding(problem) if problem else Finding(name="mlflow", status="ok", text=f"{path} can be written")


def _server(uri: str, experiment: str) -> tuple[Finding, bool]:
    """First whether anybody is there, then whether this user may look at an experiment; and whether it is just away."""
    status, text = _get(f"{uri}/api/2.0/mlflow/experiments/search?max_results=1", _credentials(uri))
    if status == 200:
        problem = _deleted(uri, experiment) if experiment else None
        found = (
            _finding(problem) if problem else Finding(name="mlflow", status="ok", text=f"{uri} answers{_as_whom(uri)}")
        )
        return found, False
    away = status in (0, 429) or status >= 500  # a search goes on without a server that comes back
    return _finding(_meaning(uri, status, text)), away


def _deleted(uri: str, experiment: str) -> Problem | None:
    name = quote(experiment, safe="")
    status, text = _get(f"{uri}/api/2.0/mlflow/experiments/get-by-name?experiment_name={name}", _credentials(uri))
    if status != 200:
        return None  # there is none of this name yet
    stage, number = (re.search(rf'"{key}":\s*"([^"]*)"', text) for key in ("lifecycle_stage", "experiment_id"))
    if stage is None or stage[1] == "active":
        return None
    return deleted_problem(experiment, number[1] if number else "?", uri)


def _meaning(uri: str, status: int, text: str) -> tuple[str, str]:
    host = uri.partition("://")[2].partition("/")[0].rpartition("@")[2]
    if status == 0:
        return f"nothing answers at {uri}: {text}", "is it the address that this machine reaches it by?"
    if status == 401 and _without_userinfo(uri)[1]:
        return f"{uri} does not know the user or the password in its address (401)", "correct them, or remove them"
    if status == 401 and _credentials(uri):
        return f"{uri} does not know this user or password (401){_as_whom(uri)}", f"check {_USER} and {_PASSWORD}"
    if status == 401 and not is_trusted(uri):
        return (
            f"{uri} requires a user and a password (401), and gets none: only the files of a search name this host",
            f"if it is your server, set MLFLOW_TRACKING_URI={uri}",
        )
    if status == 401:
        return (
            f"{uri} requires a user and a password (401)",
            f"set {_USER} and {_PASSWORD}, or {_TOKEN}, where the search runs; never in the space file",
        )
    if status == 403 and "host" in text.lower():
        bare = host.partition(":")[0]
        return (
            f"{uri} does not take requests for the name {host!r} (403: {text})",
            f"start the server with --allowed-hosts '{bare},{bare}:*' and, since that drops its defaults, "
            "'localhost:*,127.0.0.1:*' too",
        )
    if status == 403:
        return f"{uri} does not allow this{_as_whom(uri)} (403: {text})", "ask its admin for the permission EDIT"
    if status == 404:
        return f"{uri} answers, but is not an MLflow server (404)", "is the path or the port another one?"
    return f"{uri} answers {status}: {text}", "see the server's log"


def credentials_note(uri: str) -> str:
    """Which host gets this user's credentials; empty where none are sent."""
    return f"this user's MLflow credentials go to {origin(uri)}{_as_whom(uri)}" if _credentials(uri) else ""


def _credentials(uri: str) -> dict[str, str]:
    """The header that MLflow's own clients would send to a server; none where the address has a user of its own."""
    if not uri.startswith(("http://", "https://")) or not is_trusted(uri) or _without_userinfo(uri)[1]:
        return {}
    kept = configparser.ConfigParser(interpolation=None)
    with suppress(OSError, configparser.Error, RuntimeError):
        kept.read(Path("~/.mlflow/credentials").expanduser())
    user, password = (os.environ.get(one) or str(kept.get("mlflow", one, fallback="")) for one in (_USER, _PASSWORD))
    token = os.environ.get(_TOKEN)
    if user and password:
        return _basic(user, password)
    return {"Authorization": f"Bearer {token}"} if token else {}


def _as_whom(uri: str) -> str:
    user = os.environ.get(_USER)
    return f" to {user!r}" if user and _credentials(uri) else ""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Credentials are for the host that was named: urllib would send them on to any other."""

    def redirect_request(self, *request: object) -> None:
        """None: the redirection itself is the answer."""


def _get(url: str, headers: dict[str, str]) -> tuple[int, str]:
    """Status and the beginning of the text; status 0 where nothing answered."""
    opener = urllib.request.build_opener(_NoRedirect)
    bare, own = _without_userinfo(url)
    try:
        with opener.open(urllib.request.Request(bare, headers=headers | own), timeout=_TIMEOUT_S) as answer:
            return int(answer.status), answer.read(_TEXT_BYTES).decode(errors="replace").strip()
    except urllib.error.HTTPError as error:
        if error.code in range(300, 400):
            return error.code, f"it sends its clients to {error.headers.get('Location')}: name that address"
        return error.code, " ".join(error.read(300).decode(errors="replace").split())
    except (OSError, ValueError, HTTPException) as error:
        return 0, str(getattr(error, "reason", error))


def _without_userinfo(url: str) -> tuple[str, dict[str, str]]:
    """An address for urllib, which takes a user in it for the host, and the header that requests makes of that user."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    userinfo, at, host = host.rpartition("@")
    if not at:
        return url, {}
    user, _, password = userinfo.partition(":")
    return f"{scheme}://{host}{slash}{path}", _basic(unquote(user), unquote(password))


def _basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
