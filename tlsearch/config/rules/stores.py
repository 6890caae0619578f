"""Where the study, MLflow and the search's files may be, and the paths of those that are files made absolute."""

from __future__ import annotations

import re
from dataclasses import replace

from tlsearch.config.document.positions import Keys
from tlsearch.config.rules.collector import Checker, first_existing, holds
from tlsearch.config.rules.wording import is_url, show
from tlsearch.config.schema import TrackingSpec

_SQLITE = re.compile(r"(sqlite(?:\+\w+)?:///(?:file:)?)([^?]*)(.*)", re.DOTALL)
_TRACKING = re.compile(r"(https?|postgresql(\+\w+)?|mysql(\+\w+)?|mssql(\+\w+)?|databricks)://.+|databricks", re.DOTALL)
_DATABASE = re.compile(r"(postgresql|mysql)(\+\w+)?://.+", re.DOTALL)


def check_study(text: str, checker: Checker) -> str:
    """``search.study``: auto, or a database."""
    at: Keys = ("search", "study")
    if text == "auto" or _DATABASE.fullmatch(text):
        return text
    if _SQLITE.fullmatch(text):
        return _sqlite(text, "a study", at, checker)
    message = f"a study is auto, sqlite:///FILE, postgresql:// or mysql://, not {show(text)}"
    checker.require(False, at, message)
    return "auto"


def check_tracking(tracking: TrackingSpec, checker: Checker) -> TrackingSpec:
    """``tracking.uri``: a server, a database, or a file that can be made."""
    at: Keys = ("tracking", "uri")
    if _SQLITE.fullmatch(tracking.uri):
        return replace(tracking, uri=_sqlite(tracking.uri, "an MLflow store", at, checker))
    checker.require(
        _TRACKING.fullmatch(tracking.uri) is not None,
        at,
        "an MLflow store is sqlite:///FILE, http(s)://, postgresql://, mysql://, mssql:// or databricks, "
        f"not {show(tracking.uri)}",
    )
    return tracking


def check_storage(text: str, checker: Checker) -> str:
    """``storage``: a folder that is there or can be made, or a bucket."""
    if is_url(text):
        message = f"storage is a folder or s3://BUCKET/PREFIX, not {show(text)}"
        checker.require(re.fullmatch(r"s3://[^/@?#]+(/.*)?", text) is not None, ("storage",), message)
        return text
    path = checker.absolute(text, ("storage",))
    folder = first_existing(path)
    checker.require(holds(folder.is_dir), ("storage",), f"storage must be a folder; {str(folder)!r} is none")
    return str(path)


def _sqlite(uri: str, what: str, at: Keys, checker: Checker) -> str:
    """The URI with its file's path made absolute."""
    match = _SQLITE.fullmatch(uri)
    assert match is not None
    scheme, name, options = match.groups()
    if not checker.require(
        bool(name) and name != ":memory:", at, f"{what} needs a file: sqlite:///FILE, not {show(uri)}"
    ):
        return uri
    path = checker.absolute(name, at)
    checker.require(not holds(path.is_dir), at, f"{what} is a file; {str(path)!r} is a folder")
    folder = first_existing(path.parent)
    checker.require(holds(folder.is_dir), at, f"{what} needs a folder; {str(folder)!r} is none")
    return f"{scheme}{path}{options}"
