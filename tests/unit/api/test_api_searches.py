"""Searches from Python: what a script and a notebook see. Trials are doubles; Ray has its own test."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from search_doubles import QuickTrial, drive

import tlsearch
from tlsearch.api import search as api_search
from tlsearch.core.types import EpochReport, SearchObserver


class StopAfter(SearchObserver):
    """Interrupts a search at a report, as Ctrl-C does."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def trial_reported(self, number: int, report: EpochReport, decision: Any) -> None:
        if number == 1:
            self._stop.set()


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, bool]:
    """Runs trials in this process, and interrupts the search where ``interrupt`` is set."""
    wanted = {"interrupt": False}

    def run_search(plan: Any, *, factory: Any, observers: Any, stop: threading.Event, lock: Any) -> str:
        assert not list(tmp_path.glob(".space-*")), "the file of a dict is gone before a trial begins"
        more = (StopAfter(stop),) if wanted["interrupt"] else ()
        return drive(plan, factory=QuickTrial, observers=[*observers, *more], stop=stop, lock=lock)

    monkeypatch.setattr("tlsearch.app.searches.execute.run_search", run_search)
    monkeypatch.setattr("tlsearch.app.searches.prepare.require_places", lambda file, address: None)
    monkeypatch.setattr("tlsearch.search.starting_ray", lambda address: nullcontext())
    monkeypatch.chdir(tmp_path)
    return wanted


TREE: dict[str, Any] = {
    "name": "small",
    "data": {"source": "digits"},
    "weights": {"squeezenet1_1": "none"},
    "space": {"backbone": "squeezenet1_1", "head_lr": {"log": [1e-4, 1e-2]}},
    "search": {"trials": 3, "max_epochs": 2},
}


def test_run_gives_a_search_that_can_be_looked_at(engine: dict[str, bool], tmp_path: Path) -> None:
    search = tlsearch.run(TREE, name="one", trials=4, progress=False)
    assert (search.id, search.status, search.directory) == ("one", "finished", tmp_path / "tlsearch_runs" / "one")
    assert search.best is not None and search.trials()[0] == search.best and len(search.trials()) == 4
    assert repr(search).startswith("Search('one', finished, 4 trials, best val_accuracy 0.")
    assert len(search.study.trials) == 4 and search.study.best_trial.number == search.best.number
    table = search.trials().to_pandas()
    assert list(table["trial"]) == [trial.number for trial in search.trials()] and "head_lr" in table.columns
    for shown in (search, search.trials(), search.best):
        assert "<table>" in shown._repr_html_()
    again = tlsearch.open_search("one")
    assert again.best == search.best and tlsearch.open_search().id == "one"
    assert not list(tmp_path.glob(".space-*"))
    plots = search.plots()
    assert plots["history"]._repr_png_().startswith(b"\x89PNG")  # type: ignore[union-attr]

    more = tlsearch.resume(search, trials="+2", progress=False)
    assert len(more.trials()) == 6 and len(tlsearch.resume("one", progress=False).trials()) == 6


def test_an_interrupted_search_is_returned_and_resumed(engine: dict[str, bool]) -> None:
    engine["interrupt"] = True
    search = tlsearch.run(TREE, name="one", progress=False)
    assert search.status == "interrupted" and len(search.trials()) < 3
    engine["interrupt"] = False
    assert tlsearch.resume(search, progress=False).status == "finished" and len(search.trials()) == 3


def test_errors_are_those_of_the_command_line(engine: dict[str, bool], tmp_path: Path) -> None:
    with pytest.raises(tlsearch.TlsearchError, match="no search was found in the catalogue"):
        tlsearch.open_search("none")
    with pytest.raises(tlsearch.SpaceError, match="does not exist|cannot be opened|No such file"):
        tlsearch.run("none.yaml")
    with pytest.raises(tlsearch.SpaceError, match="search.trials"):
        tlsearch.run(TREE, trials=0)
    with pytest.raises(tlsearch.SpaceError, match="^weights.squeezenet1_1: ") as caught:
        tlsearch.run({**TREE, "weights": {"squeezenet1_1": "none.pth"}})
    assert ".space-" not in str(caught.value) and not list(tmp_path.glob(".space-*"))
    assert not (tmp_path / "tlsearch_runs").exists()


def test_what_the_command_line_refuses_is_refused_before_anything_begins(engine: dict[str, bool]) -> None:
    search = tlsearch.run(TREE, name="one", trials=1, progress=False)
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: search.confirm(top=0), "top must be at least 1, not 0"),
        (lambda: search.confirm(seeds=1), "seeds must be at least 2, not 1"),
        (lambda: search.ensemble(max_models=0), "max_models must be at least 1, not 0"),
        (lambda: search.soup(max_models=1), "max_models must be at least 2, not 1"),
        (lambda: search.soup(runs=-1), "runs must be at least 0, not -1"),
        (lambda: search.promote(combined="both"), "a combination is ensemble, soup or distilled, not 'both'"),  # type: ignore[arg-type]
    ]
    for call, words in calls:
        with pytest.raises(tlsearch.TlsearchError, match=words):
            call()
    assert [path.name for path in search.directory.parent.iterdir()] == ["one"]


def test_a_thread_that_gets_no_signals_can_run_a_search(engine: dict[str, bool]) -> None:
    found: list[tlsearch.Search] = []
    thread = threading.Thread(target=lambda: found.append(tlsearch.run(TREE, name="one", trials=1, progress=False)))
    thread.start()
    thread.join()
    assert found[0].status == "finished"


def test_the_public_names_are_pinned() -> None:
    assert sorted(tlsearch.__all__) == [
        *("LoadedSpace", "Search", "SpaceError", "TlsearchError", "Trials", "__version__", "init_space", "load_model"),
        *("load_space", "open_search", "plan", "predict", "resume", "run"),
    ]
    assert all(hasattr(tlsearch, name) for name in tlsearch.__all__)


def test_every_public_function_and_method_is_documented() -> None:
    members = [getattr(tlsearch, name) for name in tlsearch.__all__ if name != "__version__"]
    methods = [one for name, one in vars(api_search.Search).items() if not name.startswith("_") and name != "entry"]
    assert all(inspect.getdoc(one) for one in [*members, *methods])
