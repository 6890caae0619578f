"""Database servers: by which driver each is reached, from the study and from MLflow alike."""

from __future__ import annotations

import re
from importlib.util import find_spec

_URL = re.compile(r"(postgresql|postgres|mysql|mariadb|mssql)(?:\+(\w+))?(://.*)", re.DOTALL)
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


def with_driver(url: str) -> str:
    """The address of a database server with its driver named; any other address as it is."""
    match = _URL.fullmatch(url)
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
    match = _URL.fullmatch(with_driver(url))
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
