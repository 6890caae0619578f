"""A secret in a space file is seen in no output, log, artifact or file that others may read, whatever the command."""

from __future__ import annotations

import json
import logging
import random
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from preparing import prepare
from search_doubles import drive
from secret_urls import SecretUrl, secret_url
from typer.testing import CliRunner

import tlsearch.cli.commands  # noqa: F401  # its modules add their commands
from tlsearch.app.catalog.provenance import keep_evidence, record_start
from tlsearch.app.catalog.stored import search_log
from tlsearch.app.searches.execute import search_plan
from tlsearch.app.searches.prepare import RunOptions
from tlsearch.cli.root import app
from tlsearch.core import secrets, user_folders
from tlsearch.core.errors import TlsearchError
from tlsearch.doctor import environment
from tlsearch.testing.memory_tracker import MemoryTracker

_COMMANDS = (
    *(("status",), ("list", "--json"), ("results", "--json"), ("sync",), ("results",), ("status", "--json"), ("list",)),
    *(("report", "--no-log", "--no-model"), ("results", "--details", "--json"), ("sync", "--json"), ("stop", "one")),
    *(("rerun", "0"), ("compare", "one", "one"), ("predict", "one", "."), ("promote",), ("export", "one")),
    *(("confirm", "one"), ("cache",), ("remove", "one", "--yes")),
)
_WHERE = ("tracking.uri", "search.study", "storage", "weights.resnet18", "data.path", "data.name", "name")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    rows = ["path,label"]
    for number in range(12):
        (root / f"{number}.png").write_bytes(bytes([number]))  # no trial of a double opens one
        rows.append(f"{number}.png,{'ab'[number % 2]}")
    (root / "images.csv").write_text("\n".join(rows))
    return root / "images.csv"


@pytest.fixture(autouse=True)
def _nothing_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "ray_findings", lambda address: [])
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    monkeypatch.setenv("NO_PROXY", "*")


def space(images: Path, place: str, url: str) -> dict[str, Any]:
    """A space file's tree with an address at a place."""
    tree: dict[str, Any] = {
        "name": "small",
        "data": {"source": "manifest", "path": str(images)},
        "weights": {"squeezenet1_1": "none"},
        "space": {"backbone": "squeezenet1_1", "head_lr": {"log": [1.0e-3, 1.0e-2]}},
        "search": {"trials": 1, "max_epochs": 1},
        "tracking": {"uri": "http://127.0.0.1:1"},
        "storage": "./runs",
    }
    section, _, key = place.partition(".")
    if key:
        tree.setdefault(section, {})[key] = url
    else:
        tree[section] = url
    return tree


def command(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise AssertionError(f"{arguments}: {secrets.mask(repr(done.exception))}") from done.exception
    return f"{' '.join(arguments[:1])}: {done.output}\n{done.stderr}"


def before_a_search(file: Path) -> Iterator[str]:
    """The output of commands on a file; what cannot be right is refused, and nothing is sent."""
    for extra in ((), ("--json",)):
        yield command("check", str(file), "--no-model", *extra)
        yield command("doctor", str(file), *extra)
    submitted = command("submit", str(file), "--address", "http://127.0.0.1:1")
    assert "a secret would be copied" in submitted
    yield submitted


def of_a_search(file: Path, part: slice) -> Iterator[str]:
    """What commands on a search print, and what they log, record and write for others to read."""
    prepared = prepare(RunOptions(file=file, name="one", overrides=["search.seed=1"]))
    entry, text = prepared.entry, file.read_text()
    private = [entry.path / name for name in ("search.json", "resolved.yaml", "space.yaml")]
    assert all(stat.S_IMODE(one.stat().st_mode) == 0o600 for one in private), text
    assert drive(search_plan(prepared)) == "finished"
    keep_evidence(entry, prepared.index)
    tracker = MemoryTracker(metric="val_accuracy")
    record_start(tracker, entry, prepared.file)
    tracker.search_ended("finished", {"notes.txt": f"was {text}"})
    yield f"MLflow: {tracker.search}"
    with search_log(entry):
        try:
            raise RuntimeError(f"no connection to {prepared.file.tracking.uri}")
        except RuntimeError:
            logging.getLogger("tlsearch.test").exception("at %s", prepared.file.tracking.uri)
    for arguments in _COMMANDS[part]:
        yield command(*arguments)
    for path in sorted(one for root in (entry.path, user_folders.state_directory()) for one in root.rglob("*")):
        if path.is_file() and path not in private:
            yield f"{path.name}: {path.read_text(errors='replace')}"


def outcomes(made: SecretUrl, place: str, images: Path, root: Path, part: slice) -> Iterator[str]:
    file = root / "space.yaml"
    text = json.dumps(space(images, place, made.url), indent=2, ensure_ascii=False)
    file.write_text(f"# {made.url}\n{text}\n")
    yield from before_a_search(file)
    try:
        yield from of_a_search(file, part)
    except TlsearchError as error:
        yield str(error)


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
@pytest.mark.parametrize("count", [4, pytest.param(1000, marks=pytest.mark.slow)])
def test_no_secret_is_seen(
    count: int, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "tlsearch.app.searches.prepare.require_places", lambda file, address: None
    )  # nothing answers there
    whole = 0
    for seed in range(count):
        secrets._remembered.clear()
        rng = random.Random(seed)
        made = secret_url(rng, host="127.0.0.1")
        place = "tracking.uri" if seed % 2 and "sqlite" not in made.url else rng.choice(_WHERE[1:])
        root = tmp_path / str(seed)
        root.mkdir()
        monkeypatch.chdir(root)
        monkeypatch.setenv("TLSEARCH_STATE_DIR", str(root / "state"))
        part = slice(None) if count > 4 else slice(seed % 4, None, 4)  # every command, on some of a few addresses
        for text in outcomes(made, place, images, root, part):
            seen = [one for one in made.hidden if one in text]
            assert not seen, f"seed {seed}, {place}: {made}\n{text}"
            whole += text.startswith("MLflow: ")
        shutil.rmtree(root)
    assert whole >= count // 4  # so many became searches
    streams = "".join(capfd.readouterr())
    assert "127.0.0.1:***" not in streams


def test_what_a_process_prints_by_itself_is_masked(capsys: pytest.CaptureFixture[str]) -> None:
    """Warnings, tracebacks and the output of other processes go through the command's own streams."""
    import io

    from tlsearch.cli.streams import EndingStream

    made: Mapping[str, SecretUrl] = {str(seed): secret_url(random.Random(seed), encoded=True) for seed in range(20)}
    stream = io.StringIO()
    for one in made.values():
        EndingStream(stream).write(f"UserWarning: {one.url} is away\n")
    assert not [one for one in made.values() if one.hidden & set(stream.getvalue().split())]
    assert not any(form in stream.getvalue() for one in made.values() for form in one.hidden)
