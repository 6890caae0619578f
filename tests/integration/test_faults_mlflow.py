"""An MLflow server that dies in the middle of a search: the search goes on, and nothing is missing afterwards."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import crashing
import pytest
from mortal_server import Server
from search_doubles import drive, with_factory

from tlsearch.app.catalog import catalog
from tlsearch.app.searches import execute, prepare
from tlsearch.app.searches.execute import SearchEnd
from tlsearch.app.searches.sync import sync_search
from tlsearch.core.types import Decision, EpochReport
from tlsearch.testing.replay import Replay

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

RECORDED = Path(__file__).parents[2] / "benchmarks" / "curves" / "emoji_few.json"
AWAY_S = float(os.environ.get("TLSEARCH_TEST_AWAY_S", "15"))  # 60 shows what a minute costs
TRIALS = 40


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "server").mkdir()
    found = Server(tmp_path / "server")
    try:
        found.start()
        yield found
    finally:
        found.stop()


class Clock:
    """Does something at a trial's first report, in a thread of its own; notes how long reports took."""

    def __init__(self, number: int, act: Any) -> None:
        self._number, self._act = number, act
        self.thread: threading.Thread | None = None
        self.times: list[float] = []

    def trial_started(self, number: int, config: Any) -> None:
        """Not of interest."""

    def trial_reported(self, number: int, report: EpochReport, decision: Decision) -> None:
        self.times.append(time.monotonic())
        if number == self._number and self.thread is None:
            self.thread = threading.Thread(target=self._act)
            self.thread.start()

    def trial_ended(self, number: int, outcome: Any) -> None:
        """Not of interest."""

    @property
    def lasted_s(self) -> float:
        """From the first report to the last."""
        return self.times[-1] - self.times[0]


def search(root: Path, uri: str, monkeypatch: pytest.MonkeyPatch, clock: Clock, *, speed: float | None) -> SearchEnd:
    root.mkdir()
    crashing.prepare_root(root, TRIALS, f"{crashing.REPLAYED}tracking: {{uri: '{uri}'}}\n")
    shutil.copy(RECORDED, root / "curves.json")
    factory = Replay(path=str(root / "curves.json"), speed=speed)
    monkeypatch.setattr(execute, "run_search", with_factory(drive, factory))
    with prepare.prepare(prepare.RunOptions(file=root / "space.yaml", name=crashing.NAME)) as prepared:
        return execute.execute(prepared, observers=[clock], stop=threading.Event())


def test_away_for_a_while(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """What it cost is printed, not asserted: the replayed epochs take their time, so waiting would show."""

    def outage() -> None:
        server.stop()
        time.sleep(AWAY_S)
        server.start()

    speed = 250 / (AWAY_S * 1.5)
    calm, rough = Clock(-1, None), Clock(3, outage)
    search(tmp_path / "calm", server.uri, monkeypatch, calm, speed=speed)
    monkeypatch.setattr(crashing, "NAME", "killed-again")
    end = search(tmp_path / "rough", server.uri, monkeypatch, rough, speed=speed)
    assert rough.thread is not None
    rough.thread.join()
    if end.unsent:  # the server was still starting when the search ended
        assert sync_search(catalog.find("killed-again")).unsent == 0
    check_experiment(tmp_path / "rough")
    assert [t.number for t in end.record.trials] == list(range(TRIALS))
    with capsys.disabled():
        print(f"\nsearch without an outage {calm.lasted_s:.1f} s, with {AWAY_S:g} s of it {rough.lasted_s:.1f} s")


def check_experiment(root: Path) -> None:
    """As ``check_mlflow``; both searches share an experiment."""
    from mlflow import MlflowClient

    entry = catalog.find("killed-again", root / "tlsearch_runs")
    client = MlflowClient(tracking_uri=entry.tracking_uri)
    experiment = client.get_experiment_by_name(entry.experiment)
    other = client.search_runs([experiment.experiment_id], "tags.`tlsearch.search_id` = 'killed'", max_results=1000)
    for one in other:
        client.delete_run(one.info.run_id)
    crashing.check_mlflow(root, models=False)


def test_gone_for_good_then_sync(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(3, server.stop)
    end = search(tmp_path / "s", server.uri, monkeypatch, clock, speed=None)
    assert end.reason == "finished" and end.unsent > 0 and len(end.record.trials) == TRIALS
    server.start()
    sent = sync_search(end.entry)
    assert (sent.unsent, sorted(sent.run_ids)) == (0, list(range(TRIALS)))
    crashing.check_mlflow(tmp_path / "s", models=False)
