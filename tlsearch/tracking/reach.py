"""Whether an MLflow store can be used from here, and what its refusals mean; without mlflow, in seconds."""

from __future__ import annotations

import base64
import os
import sqlite3
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, urlsplit

from tlsearch.tracking.sqlite_file import sqlite_path
from tlsearch.tracking.store import shown
from tlsearch.types import Finding

_TIMEOUT_S = 10.0
_USER, _PASSWORD, _TOKEN = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"


def tracking_finding(uri: str) -> Finding:
    """What an MLflow store answers to this user.

    Args:
        uri: As in ``tracking.uri``, absolute.
    """
    if uri.startswith(("http://", "https://")):
        return _server(uri.rstrip("/"))
    path = sqlite_path(uri)
    if path is not None:
        return _file(path)
    return Finding(
        name="mlflow",
        status="warn",
        text=f"{shown(uri)} is opened when the search starts, not now",
        advice="a server in front of the database (`mlflow server`) keeps its password off the machines",
    )


def _file(path: Path) -> Finding:
    if not path.exists():
        folder = next(one for one in (path.parent, *path.parent.parents) if one.exists())
        if folder.is_dir() and os.access(folder, os.W_OK):
            return Finding(name="mlflow", status="ok", text=f"{path} is made by the first search")
        return Finding(name="mlflow", status="fail", text=f"{path} cannot be made: {folder} is not writable")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=5)) as database:
            database.execute("PRAGMA schema_version").fetchone()
            database.execute("BEGIN IMMEDIATE")
            database.execute("ROLLBACK")
    except sqlite3.DatabaseError as error:
        busy = "locked" in str(error)
        return Finding(
            name="mlflow",
            status="warn" if busy else "fail",
            text=f"{path}: {error}",
            advice="another process writes to it now" if busy else "name another file, or a server, as tracking.uri",
        )
    return Finding(name="mlflow", status="ok", text=f"{path} can be written")


def _server(uri: str) -> Finding:
    """First whether anybody is there, then whether this user may look at an experiment."""
    status, text = _get(f"{uri}/api/2.0/mlflow/experiments/search?max_results=1", _credentials())
    if status == 200:
        return Finding(name="mlflow", status="ok", text=f"{uri} answers{_as_whom()}")
    text, advice = _meaning(uri, status, text)
    return Finding(name="mlflow", status="fail", text=text, advice=advice)


def _meaning(uri: str, status: int, text: str) -> tuple[str, str]:
    host = urlsplit(uri).netloc.rpartition("@")[2]
    if status == 0:
        return f"nothing answers at {uri}: {text}", "is it the address that this machine reaches it by?"
    if status == 401 and _credentials():
        return f"{uri} does not know this user or password (401){_as_whom()}", f"check {_USER} and {_PASSWORD}"
    if status == 401:
        return (
            f"{uri} wants a user and a password (401)",
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
        return f"{uri} does not allow this{_as_whom()} (403: {text})", "ask its admin for the permission EDIT"
    if status == 404:
        return f"{uri} answers, but is no MLflow server (404)", "is the path or the port another one?"
    return f"{uri} answers {status}: {text}", "see the server's log"


def _credentials() -> dict[str, str]:
    """The header that MLflow's own clients would send."""
    token = os.environ.get(_TOKEN)
    user, password = os.environ.get(_USER), os.environ.get(_PASSWORD)
    if user and password:
        return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
    return {"Authorization": f"Bearer {token}"} if token else {}


def _as_whom() -> str:
    user = os.environ.get(_USER)
    return f" to {user!r}" if user and _credentials() else ""


def _get(url: str, headers: dict[str, str]) -> tuple[int, str]:
    """Status and the beginning of the text; status 0 where nothing answered."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_S) as answer:
            return int(answer.status), answer.read(300).decode(errors="replace").strip()
    except urllib.error.HTTPError as error:
        return error.code, " ".join(error.read(300).decode(errors="replace").split())
    except (OSError, ValueError) as error:
        return 0, str(getattr(error, "reason", error))
