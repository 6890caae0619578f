"""A secret in a space file is seen in no output, log, artifact or file that others may read, whatever the command."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import random
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
from preparing import prepare
from search_doubles import drive
from secret_urls import SecretUrl, secret_url

import tlsearch.cli.commands  # noqa: F401  # its modules add their commands
from tlsearch.app.catalog.provenance import keep_evidence, record_start
from tlsearch.app.catalog.stored import search_log
from tlsearch.app.searches.execute import search_plan
from tlsearch.app.searches.prepare import RunOptions
from tlsearch.cli.root import app
from tlsearch.core import secrets, user_folders
from tlsearch.core.errors import TlsearchError
from tlsearch.doctor import environment
from tlsearch.search import SearchPlan
from tlsearch.search.study.lock import SearchLock
from tlsearch.testing.memory_tracker import MemoryTracker

_COMMANDS = (
    *(("status",), ("list", "--json"), ("results", "--json"), ("sync",), ("results",), ("status", "--json"), ("list",)),
    *(("report", "--no-log", "--no-model"), ("results", "--details", "--json"), ("sync", "--json"), ("stop", "one")),
    *(("rerun", "0"), ("compare", "one", "one"), ("predict", "one", "."), ("promote",), ("export", "one")),
    *(("confirm", "one"), ("cache",), ("resume", "one"), ("resume", "one", "--trials", "+1")),
    *(("run", "space.yaml", "--name", "two"), ("remove", "one", "--yes")),
)
_PRIVATE = ("search.json", "study.json", "resolved.yaml", "space.yaml")  # and the catalogue: for their owner alone
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
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
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


@functools.cache
def whole_command() -> Any:
    """The command line, made once: making it takes longer than most commands."""
    return typer.main.get_command(app)


def command(*arguments: str) -> str:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            whole_command().main(args=arguments, prog_name="tlsearch")
        except SystemExit:
            pass
        except Exception as error:
            raise AssertionError(f"{arguments}: {secrets.mask(repr(error))}") from error
    return f"{' '.join(arguments[:1])}: {out.getvalue()}\n{err.getvalue()}"


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
    if file.parent.name.endswith("0"):  # it takes as long as all others
        yield command("plan", str(file))
    roots = (entry.path, file.parent / "runs", user_folders.state_directory())
    for path in sorted({one for root in roots for one in root.rglob("*") if one.is_file()}):
        its_own = path.name in _PRIVATE or path.parent == user_folders.state_directory()
        if not (its_own and stat.S_IMODE(path.stat().st_mode) == 0o600):
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


def draw_nothing(figure: Any, file: Any, format: str = "png", **options: Any) -> None:
    file.write("<svg></svg>" if format == "svg" else b"")


def run_here(plan: SearchPlan, *, lock: SearchLock, **others: Any) -> str:
    """Trials of doubles in this process in place of a search on Ray."""
    return drive(plan, lock=lock)


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    "seeds",
    [range(4), *(pytest.param(range(at, at + 100), marks=pytest.mark.slow) for at in range(0, 1000, 100))],
    ids=lambda seeds: f"{seeds.start}-{seeds.stop}",
)
def test_no_secret_is_seen(
    seeds: range, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "tlsearch.app.searches.prepare.require_places", lambda file, address: None
    )  # nothing answers there
    monkeypatch.setattr("tlsearch.app.searches.execute.run_search", run_here)
    monkeypatch.setattr("tlsearch.search.starting_ray", lambda address: contextlib.nullcontext())
    if len(seeds) > 4:  # their texts are drawn as outlines, and take most of the time
        monkeypatch.setattr("matplotlib.figure.Figure.savefig", draw_nothing)
    whole, leaks = 0, []
    for seed in seeds:
        secrets._remembered.clear()
        rng = random.Random(seed)
        made = secret_url(rng, host="127.0.0.1")
        place = "tracking.uri" if seed % 2 and "sqlite" not in made.url else rng.choice(_WHERE[1:])
        root = tmp_path / str(seed)
        root.mkdir()
        monkeypatch.chdir(root)
        monkeypatch.setenv("TLSEARCH_STATE_DIR", str(root / "state"))
        few = len(seeds) == 4
        part = slice(seed % 4, None, 4) if few else slice(None)  # every command, on some of a few addresses
        for text in outcomes(made, place, images, root, part):
            if any(one in text for one in made.hidden):
                leaks.append(f"seed {seed}, {place}: {made}\n{text}")
            whole += text.startswith("MLflow: ")
        shutil.rmtree(root)
    assert not leaks, "\n\n".join(leaks)
    assert whole >= len(seeds) // 4  # became searches
    streams = "".join(capfd.readouterr())
    assert "127.0.0.1:***" not in streams


def test_what_a_process_prints_by_itself_is_masked(capsys: pytest.CaptureFixture[str]) -> None:
    """Warnings, tracebacks and the output of other processes go through the command's own streams."""
    from tlsearch.cli.streams import EndingStream

    made: Mapping[str, SecretUrl] = {str(seed): secret_url(random.Random(seed), encoded=True) for seed in range(20)}
    stream = io.StringIO()
    for one in made.values():
        EndingStream(stream).write(f"UserWarning: {one.url} is away\n")
    assert not [one for one in made.values() if one.hidden & set(stream.getvalue().split())]
    assert not any(form in stream.getvalue() for one in made.values() for form in one.hidden)
