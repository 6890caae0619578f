"""The leaderboard: the order of trials, and the published shapes."""

from __future__ import annotations

import csv
import json

import pytest

from tlsearch.core.types import EpochReport, Mode, SearchRecord, TrialConfig, TrialRecord, TrialState
from tlsearch.results import LeaderboardRow, leaderboard, leaderboard_csv, results_json

C, P, F, R = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED, TrialState.RUNNING


def _trial(
    number: int, state: TrialState, value: float | None, reason: str = "completed", epochs: int = 2
) -> TrialRecord:
    return TrialRecord(
        number=number,
        state=state,
        reason=reason,
        params={"backbone": "resnet18", "head_lr": 0.01} | ({"bn_policy": "frozen"} if number else {}),
        config=TrialConfig(backbone="resnet18"),
        seed=0,
        best_value=value,
        best_epoch=None if value is None else 1,
        reports=tuple(EpochReport(epoch=n, metrics={}, timestamp=0.0) for n in range(1, epochs + 1)),
    )


def _record(*trials: TrialRecord, mode: Mode = "max") -> SearchRecord:
    metric = "val_accuracy" if mode == "max" else "val_loss"
    return SearchRecord(search_id="s", experiment="e", metric=metric, directory="/d", trials=trials)


MIXED = (
    _trial(0, C, 0.5),
    _trial(1, P, 0.9, "diverged"),
    _trial(2, R, 0.99, ""),
    _trial(3, P, 0.7, "asha", 1),
    _trial(4, F, None, "error", 0),
    _trial(5, C, 0.7),
    _trial(6, R, None, "", 0),
)


def test_the_first_row_is_the_best_trial_and_ties_go_to_the_earlier() -> None:
    record = _record(*MIXED)
    rows = leaderboard(record, {})
    assert [row.trial for row in rows] == [3, 5, 0, 2, 6, 1, 4]
    assert record.best is not None and rows[0].trial == record.best.number


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_smaller_is_better_where_the_mode_says_so(order: tuple[int, ...]) -> None:
    trials = [_trial(0, C, 0.5), _trial(1, C, 0.2), _trial(2, P, 0.2, "asha")]
    record = _record(*(trials[n] for n in order), mode="min")
    assert [row.trial for row in leaderboard(record, {})] == [1, 2, 0]


def test_json_has_the_published_shape() -> None:
    found = results_json(_record(*MIXED), {3: "abc", 77: "of another search"})
    assert json.loads(json.dumps(found)) == found
    assert {key: found[key] for key in ("search_id", "experiment", "metric", "mode", "best")} == {
        "search_id": "s",
        "experiment": "e",
        "metric": "val_accuracy",
        "mode": "max",
        "best": 3,
    }
    assert found["trials"][0] == {
        "trial": 3,
        "state": "pruned",
        "params": {"backbone": "resnet18", "head_lr": 0.01, "bn_policy": "frozen"},
        "best_value": 0.7,
        "best_epoch": 1,
        "epochs_run": 1,
        "mlflow_run_id": "abc",
        "reason": "asha",
    }
    running = next(trial for trial in found["trials"] if trial["trial"] == 2)
    assert running["reason"] is None and running["mlflow_run_id"] is None


def test_a_search_without_results_has_no_best() -> None:
    assert results_json(_record(), {}) == {
        "search_id": "s",
        "experiment": "e",
        "metric": "val_accuracy",
        "mode": "max",
        "best": None,
        "plateau": None,
        "trials": [],
    }
    assert results_json(_record(_trial(0, F, None, "error", 0)), {})["best"] is None


def test_csv_has_one_column_for_each_parameter() -> None:
    rows = list(csv.DictReader(leaderboard_csv(_record(*MIXED), {3: "abc"}).splitlines()))
    assert [int(row["trial"]) for row in rows] == [3, 5, 0, 2, 6, 1, 4]
    assert rows[0] == {
        "trial": "3",
        "state": "pruned",
        "reason": "asha",
        "best_value": "0.7",
        "best_epoch": "1",
        "epochs_run": "1",
        "backbone": "resnet18",
        "bn_policy": "frozen",
        "head_lr": "0.01",
        "mlflow_run_id": "abc",
    }
    assert rows[2]["bn_policy"] == "" and rows[-1]["best_value"] == ""


def test_a_row_is_frozen() -> None:
    row = leaderboard(_record(_trial(0, C, 0.5)), {})[0]
    assert isinstance(row, LeaderboardRow)
    with pytest.raises(AttributeError):
        row.trial = 1  # type: ignore[misc]
