"""One driver for each kind of database, from the study and from MLflow alike."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tlsearch.config import missing_driver, with_driver
from tlsearch.config.rules import stores

ROOT = Path(__file__).parents[3]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    modules: set[str] = set()
    monkeypatch.setattr(stores, "find_spec", lambda name: name if name in modules else None)
    return modules


@pytest.mark.parametrize(
    ("url", "modules", "driver"),
    [
        ("postgresql://me@h/db", {"psycopg2", "psycopg"}, "postgresql+psycopg2://me@h/db"),
        ("postgresql://me@h/db", {"psycopg"}, "postgresql+psycopg://me@h/db"),
        ("postgres://me@h/db", set(), "postgresql+psycopg2://me@h/db"),
        ("postgresql+pg8000://me@h/db", {"psycopg2"}, "postgresql+pg8000://me@h/db"),
        ("mysql://me@h/db", {"pymysql"}, "mysql+pymysql://me@h/db"),
        ("mysql://me@h/db", {"MySQLdb", "pymysql"}, "mysql+mysqldb://me@h/db"),
        ("sqlite:///a.db", set(), "sqlite:///a.db"),
        ("http://h:5000", set(), "http://h:5000"),
        ("auto", set(), "auto"),
    ],
)
def test_the_driver_of_an_address(url: str, modules: set[str], driver: str, installed: set[str]) -> None:
    installed |= modules
    assert with_driver(url) == driver


@pytest.mark.parametrize(
    ("url", "text", "advice"),
    [
        ("postgresql://me@h/db", "the study is in a postgresql database", "pip install 'tlsearch[postgresql]'"),
        ("postgresql+psycopg://h/db", "whose driver psycopg is not installed here", "pip install 'psycopg[binary]'"),
        ("mysql://h/db", "whose driver mysqldb is not", "pip install mysqlclient"),
        ("mssql+pyodbc:///?odbc_connect=x", "whose driver pyodbc is not", "pip install pyodbc"),
        ("mysql+nothing://h/db", "whose driver nothing is not", "leave it out, mysql://"),
    ],
)
def test_a_driver_that_is_missing(url: str, text: str, advice: str, installed: set[str]) -> None:
    found = missing_driver(url, "the study")
    assert found is not None and text in found[0] and advice in found[1]


def test_what_needs_no_driver(installed: set[str]) -> None:
    installed.add("psycopg2")
    assert not any(missing_driver(url, "x") for url in ("auto", "sqlite:///a.db", "http://h", "postgresql://h/db"))


def test_the_extra_brings_the_driver_and_so_does_every_image() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert [re.split("[>=]", one)[0] for one in extras["postgresql"]] == ["psycopg2-binary"]
    assert "tlsearch[postgresql]" in extras["cluster"]
    dockerfile = (ROOT / "cluster/docker/Dockerfile").read_text()
    assert "psycopg2-binary==" in dockerfile and ".[cluster,timm]" in dockerfile
