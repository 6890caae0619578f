"""Databases that the installed MLflow cannot use are found before it opens them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tlsearch.config import SpaceFile
from tlsearch.core.errors import TrackingError
from tlsearch.doctor.environment import require_places
from tlsearch.space import load
from tlsearch.tracking import mlflow_database
from tlsearch.tracking.mlflow_database import make_sqlite
from tlsearch.tracking.reach import refusal, tracking_finding

NEWEST, KNOWN = mlflow_database._revisions()
OLDER = sorted(KNOWN - {NEWEST})[0]


def database(path: Path, version: str, *, deleted: str = "") -> str:
    """A database with what is looked at of MLflow's; gives its URI."""
    with closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE alembic_version (version_num)")
        made.execute("CREATE TABLE experiments (experiment_id, name, lifecycle_stage)")
        made.execute("INSERT INTO alembic_version VALUES (?)", (version,))
        made.executemany(
            "INSERT INTO experiments VALUES (?, ?, ?)", [(0, "Default", "active"), (7, deleted or "x", "deleted")]
        )
        made.commit()
    return f"sqlite:///{path}"


def space_file(folder: Path, uri: str) -> SpaceFile:
    path = folder / "space.yaml"
    path.write_text(
        f"name: emoji\ndata: {{source: digits}}\nweights: {{resnet18: none}}\nspace: {{backbone: resnet18}}\n"
        f'tracking: {{uri: "{uri}"}}\n'
    )
    return load(path)[0]


def test_the_newest_version_is_the_one_that_mlflow_makes(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    make_sqlite(uri)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as made:
        assert made.execute("SELECT version_num FROM alembic_version").fetchall() == [(NEWEST,)]
    assert refusal(uri, "emoji") is None
    require_places(space_file(tmp_path, uri), "local")


@pytest.mark.parametrize(
    ("version", "text", "advice"),
    [
        (OLDER, "was made by an older MLflow (its tables are of version", "`mlflow db upgrade`"),
        ("0123456789ab", "was made by a newer MLflow (its tables are of version 0123456789ab", "install the version"),
    ],
)
def test_another_version_is_told_before_a_search(version: str, text: str, advice: str, tmp_path: Path) -> None:
    uri = database(tmp_path / "m.db", version)
    before = (tmp_path / "m.db").read_bytes()
    found = tracking_finding(uri)  # as doctor looks
    assert found.status == "fail" and text in found.text and advice in found.advice
    with pytest.raises(TrackingError, match="MLflow cannot be used") as caught:
        require_places(space_file(tmp_path, uri), "local")
    assert text in str(caught.value) and advice in str(caught.value)
    assert (tmp_path / "m.db").read_bytes() == before


def test_a_deleted_experiment_is_told_with_its_remedy(tmp_path: Path) -> None:
    uri = database(tmp_path / "m.db", NEWEST, deleted="emoji")
    found = refusal(uri, "emoji")
    assert found is not None and f"'emoji' (id 7) was deleted in {tmp_path}/m.db" in found.text
    assert "mlflow experiments restore --experiment-id 7" in found.advice
    assert refusal(uri, "another") is None and tracking_finding(uri).status == "ok"


def test_a_database_of_another_program(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "m.db")) as made:
        made.execute("CREATE TABLE films (name)")
    found = refusal(f"sqlite:///{tmp_path}/m.db", "emoji")
    assert found is not None and "is a database of another program (tables films)" in found.text


@pytest.mark.parametrize("kind", ["text", "folder", "below a file"])
def test_what_is_no_database_is_told_before_a_search(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    if kind == "folder":
        path.mkdir()
        (path / "file").write_text("")
    else:
        path.write_text("not a database, but long enough to be read as one " * 40)
    found = refusal(f"sqlite:///{path / 'm.db' if kind == 'below a file' else path}", "emoji")
    assert found is not None and found.advice == "name another file, or a server, as tracking.uri"


def test_a_server_that_is_away_refuses_nothing(tmp_path: Path) -> None:
    assert tracking_finding("http://127.0.0.1:1").status == "fail"  # as doctor tells it
    assert refusal("http://127.0.0.1:1", "emoji") is None  # a search goes on without it
