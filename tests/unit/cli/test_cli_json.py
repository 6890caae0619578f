"""``--json`` of each command that needs no Ray, on one finished search: one document on standard output, always."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
import typer
from small_search import small_search
from typer.testing import CliRunner

import tlsearch.cli.commands  # noqa: F401  # its modules add their commands
from tlsearch.app.catalog.catalog import register
from tlsearch.cli.root import app

SUCCEED = [
    "cache",
    "check space.yaml",
    "check space.yaml --dry-run",
    "check space.yaml --no-model",
    "compare small other",
    "compare small:0 small:1",
    "doctor space.yaml",
    "ensemble small",
    "export small --format torch -o model.pt2",
    "init images -o new.yaml",
    "list",
    "plan space.yaml",
    "predict small images/test/circle",
    "report small --out page --no-log",
    "rerun small --trial 1",
    "results small",
    "results small --details",
    "status small",
    "stop small",
]
FAIL = [
    "compare small nosuch",
    "confirm nosuch",
    "ensemble nosuch",
    "export small --format torch -o nosuch/model.pt2",
    "init nosuch",
    "plan nosuch.yaml",
    "predict small nosuch.png",
    "promote nosuch",
    "remove nosuch",
    "report nosuch",
    "rerun small --trial 99",
    "results nosuch",
    "resume nosuch",
    "run nosuch.yaml",
    "soup small",
    "status nosuch",
    "stop nosuch",
    "sync nosuch",
]
NOT_HERE = {"submit"}  # needs a cluster


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("json")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("TLSEARCH_STATE_DIR", str(root / "state"))
        patch.setenv("TLSEARCH_CACHE_DIR", str(root / "cache"))
        for name in ("small", "other"):
            register(small_search(root, name=name))
    return root


@pytest.fixture(autouse=True)
def at_home(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("TLSEARCH_STATE_DIR", str(home / "state"))
    monkeypatch.setenv("TLSEARCH_CACHE_DIR", str(home / "cache"))
    for name in ("new.yaml", "model.pt2"):
        (home / name).unlink(missing_ok=True)
    shutil.rmtree(home / "page", ignore_errors=True)


@pytest.mark.parametrize("words", SUCCEED)
def test_a_success_is_one_document(words: str) -> None:
    done = CliRunner().invoke(app, [*shlex.split(words), "--json"])
    assert done.exit_code == 0, done.output
    assert isinstance(json.loads(done.stdout), dict | list)


@pytest.mark.parametrize("words", FAIL)
def test_a_failure_is_one_document_that_says_why(words: str) -> None:
    done = CliRunner().invoke(app, [*shlex.split(words), "--json"])
    assert done.exit_code in (1, 2), done.output
    assert json.loads(done.stdout)["error"], done.stdout
    assert isinstance(done.exception, SystemExit)  # an exception that nothing catches has exit code 1 here, too


def test_every_command_with_json_is_called_here() -> None:
    command = typer.main.get_command(app)
    named = {name for name, one in command.commands.items() if any("--json" in p.opts for p in one.params)}  # type: ignore[attr-defined]
    called = {words.split()[0] for words in (*SUCCEED, *FAIL)}
    assert named - called <= NOT_HERE
