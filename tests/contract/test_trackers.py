"""What every tracker records, whichever it is: the same calls give the same runs, once or twice."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from tlsearch.core.types import (
    Decision,
    EndReason,
    EpochReport,
    Objective,
    SearchRecord,
    Tracker,
    TrialConfig,
    TrialOutcome,
    TrialRecord,
    TrialState,
)
from tlsearch.testing.memory_tracker import MemoryTracker
from tlsearch.tracking import BestKeeper, MlflowTracker, TrackedSearch

METRIC = "val_accuracy"
SERVED = """
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

class Stub(PythonModel):
    def predict(self, context, model_input: pd.DataFrame, params=None):
        return ["stub"] * len(model_input)

set_model(Stub())
"""


@dataclass(frozen=True)
class Seen:
    """A run as a reader sees it; points are (key, value, time in ms, step)."""

    status: str
    state: str
    params: Mapping[str, str]
    points: tuple[tuple[str, float, int, int], ...]


@dataclass(frozen=True)
class Bench:
    """A tracker under test: ``open`` starts a new process's tracker, ``see`` reads what is recorded."""

    open: Callable[[], Tracker]
    see: Callable[[], tuple[Seen | None, dict[int, Seen]]]
    models: Callable[[], set[int]]


def _memory_bench() -> Bench:
    tracker = MemoryTracker(metric=METRIC)

    def seen(run: Any) -> Seen:
        points = sorted((p.key, p.value, p.time_ms, p.step) for p in run.points)
        return Seen(run.status, run.state, dict(run.params), tuple(points))

    def see() -> tuple[Seen | None, dict[int, Seen]]:
        search = seen(tracker.search) if tracker.search else None
        return search, {number: seen(run) for number, run in tracker.trials.items()}

    return Bench(open=lambda: tracker, see=see, models=lambda: set(tracker.models))


def _mlflow_bench(uri: str, name: str, folder: Path) -> Bench:
    served = folder / "served_stub.py"
    served.write_text(SERVED)

    def start() -> Tracker:
        return MlflowTracker(TrackedSearch(uri=uri, experiment=name, search_id=name, metric=METRIC, served_code=served))

    def client() -> tuple[Any, str]:
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        return client, client.get_experiment_by_name(name).experiment_id

    def seen(client: Any, run: Any) -> Seen:
        points = [p for key in run.data.metrics for p in client.get_metric_history(run.info.run_id, key)]
        plain = sorted((p.key, p.value, p.timestamp, p.step) for p in points)
        return Seen(run.info.status, run.data.tags.get("tlsearch.state", ""), run.data.params, tuple(plain))

    def see() -> tuple[Seen | None, dict[int, Seen]]:
        mlflow, experiment_id = client()
        search, trials = None, {}
        for run in mlflow.search_runs([experiment_id]):
            if run.data.tags["tlsearch.kind"] == "search":
                assert search is None
                search = seen(mlflow, run)
            else:
                number = int(run.data.tags["tlsearch.trial"])
                assert number not in trials
                trials[number] = seen(mlflow, run)
        return search, trials

    def models() -> set[int]:
        mlflow, experiment_id = client()
        return {int(m.tags["tlsearch.trial"]) for m in mlflow.search_logged_models([experiment_id])}

    return Bench(open=start, see=see, models=models)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


_names = (f"search-{number}" for number in itertools.count())


@pytest.fixture(params=["memory", "mlflow"])
def bench(request: pytest.FixtureRequest, store: str, tmp_path: Path) -> Iterator[Bench]:
    yield _memory_bench() if request.param == "memory" else _mlflow_bench(store, next(_names), tmp_path)


def _report(epoch: int, accuracy: float) -> EpochReport:
    metrics = {"val_accuracy": accuracy, "val_loss": 1.5 - accuracy, "train_loss": 1.0 / epoch}
    return EpochReport(epoch=epoch, metrics=metrics, timestamp=1_700_000_000.25 + epoch)


CONFIG = TrialConfig(backbone="resnet18", unfreeze_depth=2, head_lr=0.01, backbone_lr=1e-4)
CURVES = {0: (0.3, 0.6, 0.5), 1: (0.2,), 2: (0.4, 0.7), 3: ()}
ENDS = {
    0: (TrialState.COMPLETE, EndReason.COMPLETED),
    1: (TrialState.PRUNED, EndReason.ASHA),
    2: (TrialState.INFEASIBLE, EndReason.MEMORY),
    3: (TrialState.FAILED, EndReason.ERROR),
}


def _outcome(number: int) -> TrialOutcome:
    curve = CURVES[number]
    best = max(curve) if curve else None
    _, reason = ENDS[number]
    return TrialOutcome(
        reason=reason,
        epochs_run=len(curve),
        best_value=best,
        best_epoch=curve.index(best) + 1 if best is not None else None,
        error="KeyError: 'x'" if reason == "error" else "",
    )


def _play(tracker: Tracker, *, ends: bool = True) -> None:
    tracker.search_started({"trials": 4, "seed": 0, "time_budget": None}, {"space.yaml": "name: x\n"})
    for number, curve in CURVES.items():
        tracker.trial_started(number, CONFIG)
        for epoch, accuracy in enumerate(curve, 1):
            tracker.trial_reported(number, _report(epoch, accuracy), Decision.CONTINUE)
        if ends:
            tracker.trial_ended(number, _outcome(number))


def _record(*, running: int | None = None) -> SearchRecord:
    trials = []
    for number, curve in CURVES.items():
        outcome = _outcome(number)
        trials.append(
            TrialRecord(
                number=number,
                state=TrialState.RUNNING if number == running else outcome.state,
                reason="" if number == running else outcome.reason,
                params={"backbone": "resnet18"},
                config=CONFIG,
                seed=number,
                best_value=outcome.best_value,
                best_epoch=outcome.best_epoch,
                reports=tuple(_report(epoch, value) for epoch, value in enumerate(curve, 1)),
                error=outcome.error,
            )
        )
    return SearchRecord(search_id="x", experiment="x", metric=METRIC, directory="/nowhere", trials=tuple(trials))


def test_a_search_is_recorded_as_it_went(bench: Bench) -> None:
    tracker = bench.open()
    _play(tracker)
    tracker.search_ended("finished", {"leaderboard.csv": "trial\n"})
    assert tracker.close() == 0
    search, trials = bench.see()
    assert search is not None
    assert (search.status, search.state, search.params) == ("FINISHED", "finished", {"trials": "4", "seed": "0"})
    states = {number: (run.status, run.state) for number, run in trials.items()}
    assert states == {
        0: ("FINISHED", "complete"),
        1: ("FINISHED", "pruned"),
        2: ("FINISHED", "infeasible"),
        3: ("FAILED", "failed"),
    }
    assert trials[0].params == {name: str(value) for name, value in asdict(CONFIG).items() if value is not None}
    assert trials[0].params["backbone_lr"] == "0.0001" and "bn_policy" not in trials[0].params
    assert set(tracker.run_ids()) == {0, 1, 2, 3}


def _progress(points: tuple[tuple[str, float, int, int], ...]) -> dict[int, dict[str, float]]:
    """Values by step and key; every step has each key once, all at one time."""
    found: dict[int, dict[str, float]] = {}
    for key, value, _, step in points:
        assert key not in found.setdefault(step, {})
        found[step][key] = value
    for step in found:
        assert len({point[2] for point in points if point[3] == step}) == 1
    return found


def test_the_searchs_run_shows_how_far_it_is(bench: Bench) -> None:
    tracker = bench.open()
    _play(tracker)
    tracker.close()
    assert (search := bench.see()[0]) is not None
    none = {"trials_complete": 0.0, "trials_pruned": 0.0, "trials_failed": 0.0, "trials_running": 0.0}
    first = {**none, "trials_complete": 1.0, "best_val_accuracy": 0.6, "best_trial": 0.0}
    assert _progress(search.points) == {
        1: first,
        2: {**first, "trials_pruned": 1.0},
        3: {**first, "trials_pruned": 1.0, "trials_infeasible": 1.0},  # of no effect on the best: it did not count
        4: {**first, "trials_pruned": 1.0, "trials_infeasible": 1.0, "trials_failed": 1.0},
    }


def test_trials_that_run_beside_the_one_that_ends_are_counted(bench: Bench) -> None:
    tracker = bench.open()
    tracker.search_started({}, {})
    for number in range(3):
        tracker.trial_started(number, CONFIG)
    for number in (2, 0):
        tracker.trial_ended(number, _outcome(number))
    tracker.close()
    assert (search := bench.see()[0]) is not None
    assert [_progress(search.points)[step]["trials_running"] for step in (1, 2)] == [2.0, 1.0]


def test_the_best_of_equal_trials_is_the_earlier_one_and_a_diverged_one_never(bench: Bench) -> None:
    tracker = bench.open()
    tracker.search_started({}, {})
    for number, value, reason in ((3, 0.7, "completed"), (1, 0.7, "completed"), (2, 0.9, "diverged")):
        tracker.trial_started(number, CONFIG)
        tracker.trial_ended(
            number, TrialOutcome(reason=EndReason(reason), epochs_run=1, best_value=value, best_epoch=1)
        )
    tracker.close()
    assert (search := bench.see()[0]) is not None
    assert [_progress(search.points)[step]["best_trial"] for step in (1, 2, 3)] == [3.0, 1.0, 1.0]


def test_points_carry_epoch_and_the_reports_own_time(bench: Bench) -> None:
    tracker = bench.open()
    _play(tracker)
    tracker.close()
    points = bench.see()[1][0].points
    assert [p for p in points if p[0] == METRIC] == [
        (METRIC, 0.3, 1_700_000_001_250, 1),
        (METRIC, 0.5, 1_700_000_003_250, 3),
        (METRIC, 0.6, 1_700_000_002_250, 2),
    ]
    assert ("best_val_accuracy", 0.6, 1_700_000_002_250, 2) in points
    assert ("best_epoch", 2.0, 1_700_000_002_250, 2) in points
    assert len(points) == 3 * 3 + 2


def test_sending_all_again_changes_nothing(bench: Bench) -> None:
    tracker = bench.open()
    _play(tracker)
    tracker.close()
    before = bench.see()
    again = bench.open()
    _play(again)
    again.record_search(_record())
    again.close()
    resumed = bench.open()
    resumed.search_started({}, {})
    resumed.record_search(_record())
    resumed.close()
    assert bench.see() == before


def test_a_record_alone_gives_the_same_runs(bench: Bench) -> None:
    tracker = bench.open()
    tracker.search_started({}, {})
    tracker.record_search(_record())
    tracker.close()
    alone = bench.see()
    _play(again := bench.open())
    again.close()
    played = bench.see()
    assert alone[1] == played[1] and len(alone[1]) == len(CURVES)
    assert alone[0] is not None and played[0] is not None and alone[0].points == played[0].points
    assert set(_progress(alone[0].points)) == {1, 2, 3, 4}


def test_a_killed_search_goes_on_in_the_same_runs(bench: Bench) -> None:
    tracker = bench.open()
    _play(tracker, ends=False)
    tracker.close()
    assert {run.status for run in bench.see()[1].values()} == {"RUNNING"}
    resumed = bench.open()
    resumed.search_started({"trials": 5}, {})
    resumed.record_search(_record(running=0))
    resumed.trial_started(0, CONFIG)
    resumed.trial_reported(0, _report(3, 0.5), Decision.CONTINUE)  # an epoch that ran again
    resumed.trial_reported(0, _report(4, 0.9), Decision.COMPLETE)
    resumed.trial_ended(0, TrialOutcome(reason=EndReason.COMPLETED, epochs_run=4, best_value=0.9, best_epoch=4))
    resumed.search_ended("finished", {})
    resumed.close()
    search, trials = bench.see()
    assert search is not None and search.params["trials"] == "4"  # MLflow cannot change a param
    assert sorted(p[3] for p in trials[0].points if p[0] == METRIC) == [1, 2, 3, 4]
    assert ("best_val_accuracy", 0.9, 1_700_000_004_250, 4) in trials[0].points
    assert trials[1].state == "pruned" and len(trials) == len(CURVES)
    progress = _progress(search.points)
    assert sorted(progress) == [1, 2, 3, 4]
    assert [progress[step]["trials_running"] for step in (3, 4)] == [1.0, 0.0]
    assert (progress[4]["best_trial"], progress[4]["best_val_accuracy"]) == (0.0, 0.9)


def test_an_ended_trial_that_goes_on_is_running_again(bench: Bench) -> None:
    tracker = bench.open()
    _play(tracker)
    tracker.search_ended("interrupted", {})
    tracker.close()
    assert (search := bench.see()[0]) is not None and (search.status, search.state) == ("KILLED", "interrupted")
    again = bench.open()
    again.search_started({}, {})
    again.trial_started(3, CONFIG)
    again.close()
    search, trials = bench.see()
    assert search is not None and (search.status, search.state) == ("RUNNING", "running")
    assert (trials[3].status, trials[3].state) == ("RUNNING", "running")
    assert (trials[0].status, trials[0].state) == ("FINISHED", "complete")


def _write_checkpoint(folder: Path, value: float) -> None:
    folder.mkdir(parents=True)
    meta = {"backbone": "resnet18", "epoch": 1, "metric": METRIC, "value": value, "weights_file": "w.safetensors"}
    (folder / "checkpoint.json").write_text(json.dumps(meta))
    (folder / "w.safetensors").write_bytes(b"weights")


def test_only_the_best_models_are_kept(bench: Bench, tmp_path: Path) -> None:
    values = {0: 0.5, 1: 0.7, 2: 0.7, 3: 0.1, 4: 0.9}
    tracker = bench.open()
    keeper = BestKeeper(tracker, directory=tmp_path, keep=2, objective=Objective.of(METRIC))
    tracker.search_started({}, {})
    kept = []
    for number, value in values.items():
        _write_checkpoint(tmp_path / "trials" / str(number) / "best", value)
        outcome = TrialOutcome(reason=EndReason.COMPLETED, epochs_run=1, best_value=value, best_epoch=1)
        for observer in (tracker, keeper):
            observer.trial_started(number, CONFIG)
            observer.trial_reported(number, _report(1, value), Decision.COMPLETE)
            observer.trial_ended(number, outcome)
        tracker.flush(30)
        kept.append(bench.models())
    tracker.close()
    assert kept == [{0}, {0, 1}, {1, 2}, {1, 2}, {1, 4}]
