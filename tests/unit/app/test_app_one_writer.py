"""One writer: a command that is refused, because another process has the search or for an error, changes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import sqlite3
from pathlib import Path

import pytest
from small_search import small_search
from typer.testing import CliRunner

import tlsearch.cli.commands  # noqa: F401  # its modules add their commands
from tlsearch.app.catalog import catalog
from tlsearch.app.catalog.stored import keep_end
from tlsearch.app.searches.sync import sync_search
from tlsearch.cli.root import app
from tlsearch.search import holding

RUNS = ""  # what a lock says of a process that runs trials


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of three trials that is in MLflow, and in the catalogue."""
    root = tmp_path_factory.mktemp("locked") / "home"
    root.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLSEARCH_STATE_DIR", str(root / "state"))
        patch.setenv("TLSEARCH_CACHE_DIR", str(root.parent / "cache"))
        entry = small_search(root)
        sync_search(entry)
    return root


@pytest.fixture
def root(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TLSEARCH_STATE_DIR", str(made / "state"))
    monkeypatch.setenv("TLSEARCH_CACHE_DIR", str(made.parent / "cache"))
    monkeypatch.chdir(made.parent)
    return made


@pytest.fixture
def entry(root: Path) -> catalog.SearchEntry:
    return catalog.find("small")


def digests(root: Path) -> dict[str, str]:
    """Every file's content: the storage, MLflow's database and artifacts, the catalogue, the data, the space file."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "a folder"
        for path in sorted(root.rglob("*"))
    }


def tlsearch_(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.output.split())


@pytest.mark.parametrize(
    "arguments",
    [
        "run home/space.yaml --name small",
        "run home/space.yaml --name small --or-resume",
        "resume small",
        "resume small --trials +5",
        "resume small --stored --trials 9",
        "resume small --changed --trials +5",
        "sync small",
        "confirm small",
        "promote small",
        "promote small --without-test --refit",
        "report small",
        "report small --latency --out home/tlsearch_runs/small/elsewhere",
        "remove small --yes --mlflow",
    ],
)
def test_a_search_that_another_process_has_stays_as_it_is(
    root: Path, entry: catalog.SearchEntry, arguments: str
) -> None:
    held_for = "promote" if arguments.startswith("re") else RUNS
    with holding(entry.path, held_for):
        before = digests(root)
        code, text = tlsearch_(*arguments.split())
        assert digests(root) == before
    assert code == 2 and f"process {os.getpid()} on {socket.gethostname()}, since 20" in text, text
    if arguments.startswith("run home/space.yaml --name small") and "--or-resume" not in arguments:
        assert "choose another --name" in text
    else:
        assert ("`tlsearch stop small` ends it" if held_for == RUNS else "wait until it has ended") in text
    assert held_for == RUNS or "(tlsearch promote)" in text


@pytest.mark.parametrize(
    "arguments",
    [
        "results small --csv rows.csv",
        "status small",
        "list",
        "compare small:0 small:1",
        "rerun small --trial 0 --to repeated",
        "report small --out reported",
    ],
)
def test_a_running_search_can_be_looked_at(
    root: Path, entry: catalog.SearchEntry, arguments: str, caplog: pytest.LogCaptureFixture
) -> None:
    (entry.path / "facts.json").unlink(missing_ok=True)  # what a reader counts itself it keeps for itself
    with holding(entry.path, RUNS):
        before = digests(root)
        code, text = tlsearch_(*arguments.split())
        assert digests(root) == before
    assert code == 0, text
    assert "report small" not in arguments or (root.parent / "reported/report.html").is_file()
    assert "report small" not in arguments or "not added to the search's MLflow run" in caplog.text


def test_what_another_command_does_is_no_run(entry: catalog.SearchEntry) -> None:
    keep_end(entry, "finished")
    with holding(entry.path, "promote") as lock:
        assert "finished" in tlsearch_("status", "small")[1]
        assert "not running" in tlsearch_("stop", "small")[1] and not (entry.path / "stop").exists()
        lock.run()
        assert "running" in tlsearch_("status", "small")[1]
        lock.release()


_REFUSED = {
    "resume small --trials 0": "whole numbers from 1 on",
    "resume small --trials +²": "whole numbers from 1 on",
    "resume small --trials +999999999": "at most",
    "resume small --trials -3": "whole numbers from 1 on",
    "resume small --stored --changed": "Invalid value for --changed",
    "resume small --trials +5 --address 127.0.0.1:9": "cannot run on this cluster",
    "resume small --trials +5": "has changed since the search began",
    "resume small --changed --trials +5": "one search has one search.metric",
    "promote small --alias v1": "MLflow's own names",
    "promote small --trial 99": "has no trial 99",
    "promote small --max-params 1": "within the limits",
}


@pytest.mark.parametrize("arguments", _REFUSED)
def test_a_refusal_leaves_everything_as_it_was(root: Path, entry: catalog.SearchEntry, arguments: str) -> None:
    space = root / "space.yaml"
    text = space.read_text()
    if "changed since" in _REFUSED[arguments] or "search.metric" in _REFUSED[arguments]:
        space.write_text(text.replace("max_epochs: 2", "max_epochs: 2\n  metric: val_loss"))
    try:
        before = digests(root)
        code, said = tlsearch_(*arguments.split())
        assert digests(root) == before
    finally:
        space.write_text(text)
    assert code != 0 and _REFUSED[arguments] in said, said


@pytest.mark.parametrize(
    "arguments", ["resume small --stored --trials +5", "resume small --changed", "confirm small", "promote small"]
)
def test_changed_images_leave_everything_as_it_was(root: Path, entry: catalog.SearchEntry, arguments: str) -> None:
    new = root / "images/train/circle/new.png"
    shutil.copy(root / "images/train/circle/00.png", new)
    try:
        before = digests(root)
        code, text = tlsearch_(*arguments.split())
        assert digests(root) == before
    finally:
        new.unlink()
    assert code == 2 and "images have changed" in text, text


@pytest.mark.parametrize("away", ["the database is gone", "the server is dead", "the experiment was deleted"])
def test_what_a_search_has_found_is_shown_without_mlflow(
    root: Path, entry: catalog.SearchEntry, tmp_path: Path, away: str, caplog: pytest.LogCaptureFixture
) -> None:
    uri = "http://127.0.0.1:9" if "server" in away else f"sqlite:///{tmp_path}/mlflow.db"
    if "deleted" in away:
        shutil.copy(root / "mlflow.db", tmp_path / "mlflow.db")
        with sqlite3.connect(tmp_path / "mlflow.db") as database:
            database.execute("UPDATE experiments SET lifecycle_stage = 'deleted' WHERE name = 'shapes'")
    manifest = entry.path / catalog.MANIFEST
    text = manifest.read_text()
    manifest.write_text(text.replace(entry.tracking_uri, uri))
    try:
        asking = ("results small --json", "report small --no-model --out reported")
        for arguments in (*asking, "results small", "status small"):
            caplog.clear()
            code, said = tlsearch_(*arguments.split())
            assert code == 0 and ("mobilenet" in said or "report" in said), said
            lines = [one.getMessage() for one in caplog.records if "MLflow runs are left out" in one.getMessage()]
            assert len(lines) == (arguments in asking), "a table shows no run IDs"
        found = json.loads(CliRunner().invoke(app, ["results", "small", "--json"]).stdout)
        assert [one["mlflow_run_id"] for one in found["trials"]] == [None] * 3
    finally:
        manifest.write_text(text)
