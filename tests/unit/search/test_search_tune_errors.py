"""Errors that end Tune: a node whose memory ran out, and results that Tune cannot list."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import OutOfMemoryError
from search_checks import check_agreement
from search_doubles import Recorder, drive, make_plan

from tlsearch.core.errors import ClusterError
from tlsearch.core.types import TrialState
from tlsearch.search import read_search
from tlsearch.search.ray_tune import tuner


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many trials were live at each start of Tune, none of which survives its first trial's handout."""
    found: list[int] = []

    class Dying:
        def __init__(self, trainable: Any, *, tune_config: Any, run_config: Any) -> None:
            self._searcher = tune_config.search_alg

        def fit(self) -> None:
            controller = self._searcher._controller
            found.append(len(controller._going_on))
            assert controller.next_trial() is not None
            # as Tune's actor manager says it
            raise RuntimeError("Caught unexpected exception: 1 worker(s) were killed") from OutOfMemoryError("killed")

    monkeypatch.setattr(tuner.tune, "Tuner", Dying)
    monkeypatch.setattr(tuner, "connected", lambda address: nullcontext())
    monkeypatch.setattr(tuner, "alive_nodes", list)
    monkeypatch.setattr(tuner, "Room", lambda *arguments: lambda live, share: not live)
    return found


def test_it_begins_again_so_often_and_says_what_to_do(
    tmp_path: Path, starts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(tmp_path / "s", trials=3, max_failures=2)
    read = []
    begin = tuner.Controller
    monkeypatch.setattr(tuner, "Controller", lambda *args, **rest: read.append(1) or begin(*args, **rest))
    with pytest.raises(ClusterError, match="ran out 3 times.*max_concurrent.*killed"):
        tuner.run(plan, observers=(log := Recorder(),))
    assert len(read) == 3  # the study is read once for each start
    assert starts == [0, 1, 1]  # the trial that ran goes on, and no second one takes its place
    assert [number for _, number, _ in log.of("started")] == [0, 0, 0]
    assert [trial.state for trial in read_search(tmp_path / "s").trials] == [TrialState.RUNNING]


def test_afterwards_the_search_can_be_resumed(tmp_path: Path, starts: list[int]) -> None:
    plan = make_plan(tmp_path / "s", trials=3, max_failures=0)
    with pytest.raises(ClusterError):
        tuner.run(plan)
    assert drive(plan) == "finished"
    check_agreement(plan)
    assert len(read_search(tmp_path / "s").trials) == 3


def test_other_errors_of_tune_are_raised_as_they_are(
    tmp_path: Path, starts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(self: object) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(tuner.tune.Tuner, "fit", fit)
    with pytest.raises(RuntimeError, match="something else"):
        tuner.run(make_plan(tmp_path / "s", trials=3))


def test_results_that_tune_cannot_list_are_not_missed(
    tmp_path: Path, starts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(self: object) -> None:
        tuner.ResultGrid(SimpleNamespace(trials=[object()]))  # a trial that ended before it had a folder

    monkeypatch.setattr(tuner.tune.Tuner, "fit", fit)
    stop = threading.Event()
    stop.set()
    with pytest.raises(AttributeError):
        fit(None)
    plan = make_plan(tmp_path / "s", trials=3)
    monkeypatch.setattr(tuner.Controller, "exhausted", property(lambda self: False))
    assert tuner.run(plan, stop=stop) == "interrupted"
