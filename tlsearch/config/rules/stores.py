"""Where the study, MLflow and the search's files may be: paths made absolute, and the drivers of database servers."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.util import find_spec
from urllib.parse import unquote

from tlsearch.config.document.positions import Checker, Keys, holds
from tlsearch.config.document.wording import in_address, is_url, show, split_sqlite
from tlsearch.config.schema import TrackingSpec
from tlsearch.core.files import first_existing

_SERVER = re.compile(r"(postgresql|postgres|mysql|mariadb|mssql)(?:\+(\w+))?(://.*)", re.DOTALL)
# What SQLAlchemy takes where an address names no driver differs between its versions: the first that is installed.
_DRIVERS = {
    "postgresql": ("psycopg2", "psycopg"),
    "mysql": ("mysqldb", "pymysql"),
    "mariadb": ("mysqldb", "pymysql"),
    "mssql": ("pyodbc", "pymssql"),
}
_MODULES = {"mysqldb": "MySQLdb"}  # where a driver's module has another name
_INSTALL = {
    "psycopg2": "'tlsearch[postgresql]'",
    "psycopg": "'psycopg[binary]'",
    "mysqldb": "mysqlclient",
    **{name: name for name in ("pg8000", "pymysql", "pyodbc", "pymssql")},
}
_TRACKING = re.compile(r"(https?|postgresql(\+\w+)?|mysql(\+\w+)?|mssql(\+\w+)?|databricks)://.+|databricks", re.DOTALL)
_DATABASE = re.compile(r"(postgresql|mysql)(\+\w+)?://.+", re.DOTALL)


def check_study(text: str, checker: Checker) -> str:
    """``search.study``: auto, or a database."""
    at: Keys = ("search", "study")
    if text == "auto" or _DATABASE.fullmatch(text):
        return text
    if parts := split_sqlite(text):
        return _sqlite(parts, "a study", at, checker)
    message = f"a study is auto, sqlite:///FILE, postgresql:// or mysql://, not {show(text)}"
    checker.require(False, at, message)
    return "auto"


def check_tracking(tracking: TrackingSpec, checker: Checker) -> TrackingSpec:
    """``tracking.uri``: a server, a database, or a file that can be made."""
    at: Keys = ("tracking", "uri")
    if parts := split_sqlite(tracking.uri):
        return replace(tracking, uri=_sqlite(parts, "an MLflow store", at, checker))
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
    _refuse_variable(text, ("storage",), checker)
    path = checker.absolute(text, ("storage",))
    folder = first_existing(path)
    message = f"storage must be a folder; {str(folder)!r} is none"
    checker.require(holds(folder.is_dir), ("storage",), message, kind="absent")
    return str(path)


def _sqlite(parts: tuple[str, str, str], what: str, at: Keys, checker: Checker) -> str:
    """The URL with its file's path made absolute."""
    (scheme, name, options), url = parts, "".join(parts)
    message = f"{what} needs a file: sqlite:///FILE, not {show(url)}"
    if not checker.require(name not in ("", ":memory:"), at, message):
        return url
    _refuse_variable(name, at, checker)
    path = checker.absolute(unquote(name), at)
    checker.require(not holds(path.is_dir), at, f"{what} is a file; {str(path)!r} is a folder", kind="absent")
    folder = first_existing(path.parent)
    checker.require(holds(folder.is_dir), at, f"{what} needs a folder; {str(folder)!r} is none", kind="absent")
    return f"{scheme}{in_address(path)}{options}"


def _refuse_variable(path: str, at: Keys, checker: Checker) -> None:
    """A folder of that name would be made."""
    message = f"variables of the environment are not replaced, and {show(path)} begins with one: write the path itself"
    checker.require(re.match(r"\$\{?[A-Za-z_]", path) is None, at, message)


def with_driver(url: str) -> str:
    """The address of a database server with its driver named; any other address as it is."""
    match = _SERVER.fullmatch(url)
    if match is None:
        return url
    dialect, driver, rest = match.groups()
    dialect = "postgresql" if dialect == "postgres" else dialect
    if driver is None:
        drivers = _DRIVERS[dialect]
        driver = next((one for one in drivers if _installed(one)), drivers[0])
    return f"{dialect}+{driver}{rest}"


def missing_driver(url: str, what: str) -> tuple[str, str] | None:
    """What is wrong and what to do about it, where a database server's driver is not installed.

    Args:
        url: Any address.
        what: Has it: ``the study``, ``MLflow``.
    """
    match = _SERVER.fullmatch(with_driver(url))
    if match is None or _installed(match[2]):
        return None
    text = f"{what} is in a {match[1]} database, {url}, whose driver {match[2]} is not installed here"
    package = _INSTALL.get(match[2])
    return (
        text,
        f"pip install {package}" if package else f"leave it out, {match[1]}://, or name one that SQLAlchemy has",
    )


def _installed(driver: str) -> bool:
    return find_spec(_MODULES.get(driver, driver)) is not None
