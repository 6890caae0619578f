"""MLflow's SQLite file is made whole or not at all."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError

from tlsearch.tracking import mlflow_store
from tlsearch.tracking.mlflow_database import Away, check_sqlite, make_sqlite
from tlsearch.tracking.mlflow_store import connect


@pytest.fixture(autouse=True)
def _no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """All databases of these tests are made as outside of tests."""
    monkeypatch.setattr(mlflow_store, "make_sqlite", make_sqlite)


def tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as database:
        return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def check_usable(path: Path) -> None:
    client = connect(f"sqlite:///{path}")
    assert client.create_experiment("mine") and "latest_metrics" in tables(path)
    assert [one.name for one in path.parent.iterdir()] == [path.name], "nothing is left beside it"


def make_in_a_process(path: Path) -> subprocess.Popen[bytes]:
    code = f"from tlsearch.tracking.mlflow_store import connect; connect('sqlite:///{path}')"
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_killed_while_it_is_made(tmp_path: Path) -> None:
    path, new = tmp_path / "mlflow.db", tmp_path / "mlflow.db.new"
    code = f"""
import sys
from mlflow.store.db import utils
def stands_still(engine):
    print("half made", flush=True)
    sys.stdin.read()
utils._upgrade_db = stands_still
from tlsearch.tracking.mlflow_store import connect
connect('sqlite:///{path}')
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as maker:
        assert maker.stdout is not None and maker.stdout.readline() == b"half made\n"
        maker.send_signal(signal.SIGKILL)
    assert tables(new) and (not path.exists() or path.stat().st_size == 0)
    check_usable(path)


def test_one_that_failed_is_made_again_by_the_same_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.store.db import utils

    def full(engine: object) -> None:
        raise OSError("no room")

    path = tmp_path / "mlflow.db"
    with monkeypatch.context() as patch, pytest.raises(Away, match="cannot be made: no room"):
        patch.setattr(utils, "_upgrade_db", full)  # the first tables are there by then
        connect(f"sqlite:///{path}")
    assert not list(tmp_path.glob("*.new*")) and path.stat().st_size == 0
    check_usable(path)


@pytest.mark.slow
def test_made_by_two_at_once(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    makers = [make_in_a_process(path) for _ in range(2)]
    assert [maker.wait() for maker in makers] == [0, 0]
    check_usable(path)


def test_made_by_two_threads_at_once(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    threads = [threading.Thread(target=make_sqlite, args=(f"sqlite:///{path}",)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check_usable(path)


@pytest.mark.parametrize("name", ["a name, 50 %, ü.db"])
def test_any_name(tmp_path: Path, name: str) -> None:
    check_usable(tmp_path / name)


def test_a_file_uri(tmp_path: Path) -> None:
    make_sqlite(f"sqlite:///file:{tmp_path}/mlflow.db?uri=true")
    check_usable(tmp_path / "mlflow.db")


def test_one_that_is_there_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    connect(f"sqlite:///{path}").create_experiment("before")
    inode = os.stat(path).st_ino
    assert connect(f"sqlite:///{path}").get_experiment_by_name("before") is not None
    assert os.stat(path).st_ino == inode


def test_a_full_disk_where_the_tables_are_there_already_may_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    make_sqlite(uri)  # without the experiment that MLflow adds when it first opens it
    execute = Connection.execute

    def full(self: Connection, statement: object, *rest: object, **more: object) -> object:
        if "INSERT INTO experiments" in str(statement):
            raise OperationalError(str(statement), {}, sqlite3.OperationalError("database or disk is full"))
        return execute(self, statement, *rest, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(Connection, "execute", full)
    with pytest.raises(Away, match="database or disk is full"):
        connect(uri)


def test_a_full_disk_while_it_is_tried_may_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(sqlite3.Connection):
        def execute(self, statement: str, *rest: Any) -> sqlite3.Cursor:
            if statement.startswith("CREATE"):
                raise sqlite3.OperationalError("database or disk is full")
            return super().execute(statement, *rest)

    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Full))
    with pytest.raises(Away, match=r"mlflow\.db cannot grow: database or disk is full"):
        check_sqlite(f"sqlite:///{tmp_path / 'mlflow.db'}")
