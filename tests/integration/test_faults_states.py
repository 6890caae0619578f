"""A search whose trials end in every way there is: study, MLflow and results say what the trials' own log says."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
from acting import ActingTrial, what_happened, write_acts
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from search_doubles import drive, with_factory
from small_search import write_shapes
from typer.testing import CliRunner

import tlsearch.cli.commands  # noqa: F401  # its modules add their commands
from tlsearch.app.searches import execute, prepare
from tlsearch.cli.root import app
from tlsearch.search import run_search

pytestmark = pytest.mark.timeout(600)

MAX_EPOCHS, PATIENCE, RETRIES = 4, 2, 1
GOOD, STANDS_STILL = 1e-2, 1e-30  # a rate at which no weight moves in float32
RATES = [STANDS_STILL, *[GOOD] * 7, *[STANDS_STILL] * 3]
RATES = [rate * (1 + number * 1e-9) for number, rate in enumerate(RATES)]  # no configuration is trained twice
ACTS: dict[int, dict[str, Any]] = {
    2: {"kind": "nan", "epoch": 2},
    3: {"kind": "error", "epoch": 2},
    4: {"kind": "room", "rows": 0},
    5: {"kind": "room", "rows": 4},  # it fits with a smaller micro-batch
    6: {"kind": "error", "epoch": 2, "times": 1},  # a second try helps
}
SPACE = """
name: states
data: {{source: folder, path: ./images, image_size: 32}}
weights: {{mobilenet_v3_small: none}}
space:
  {{backbone: mobilenet_v3_small, unfreeze_depth: {{int: [0, 1]}}, head_lr: {{log: [1.0e-30, 1.0e-1]}}, batch_size: 32}}
search:
  sampler: fixed
  start_with: {points}
  max_epochs: 4
  metric: val_loss
  patience: 2
  max_failures: 1
  scheduler: {{asha: {{reduction_factor: 2}}}}
tracking: {{keep_best: 1}}
resources: {{max_concurrent: 1}}
"""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What became of a trial, by its own log alone."""

    state: str
    reason: str
    values: Mapping[int, float]
    constraints: Mapping[str, float]

    @property
    def best_epoch(self) -> int | None:
        return min(self.values, key=lambda epoch: (self.values[epoch], epoch), default=None)


def truth_of(lines: Sequence[Mapping[str, Any]]) -> Truth:
    values: dict[int, float] = {}
    for line in lines:
        if line["what"] == "epoch":
            assert values.setdefault(line["epoch"], line["value"]) == line["value"]  # a repetition is the same
    last = lines[-1]["what"]
    told: dict[str, float] = {}
    if last == "Diverged":
        state, reason, told = "pruned", "diverged", {"finite": 1.0}
    elif last == "Infeasible":
        state, reason, told = "infeasible", "memory", {"memory": 1.0}
    elif last == "RuntimeError":
        state, reason = "failed", "error"
        assert sum(line["what"] == last for line in lines) == RETRIES + 1
    elif max(values) == MAX_EPOCHS:
        state, reason = "complete", "completed"
    elif max(values) > PATIENCE and min(values.values()) == min(
        values[e] for e in range(1, max(values) - PATIENCE + 1)
    ):
        state, reason = "complete", "plateaued"
    else:
        state, reason = "pruned", "asha"
    return Truth(state=state, reason=reason, values=values, constraints=told)


@pytest.mark.parametrize("where", ["here", pytest.param("ray", marks=[pytest.mark.slow, pytest.mark.ray])])
def test_all_that_is_told_is_what_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, where: str
) -> None:
    if where == "ray":
        request.getfixturevalue("local_ray")
        search = with_factory(run_search, ActingTrial)
    else:
        search = with_factory(drive, ActingTrial, retries=RETRIES)
    monkeypatch.setattr(execute, "run_search", search)
    write_shapes(tmp_path / "images")
    points = [{"head_lr": rate, "unfreeze_depth": int("rows" in ACTS.get(n, {}))} for n, rate in enumerate(RATES)]
    (tmp_path / "space.yaml").write_text(SPACE.format(points=json.dumps(points)))
    with prepare.prepare(prepare.RunOptions(file=tmp_path / "space.yaml", name="states")) as prepared:
        folder = prepared.entry.path
        write_acts(folder, ACTS)
        end = execute.execute(prepared, stop=threading.Event())
    assert (end.reason, end.unsent) == ("finished", 0)

    lines = what_happened(folder)
    truth = {n: truth_of([line for line in lines if line["number"] == n]) for n in range(len(RATES))}
    reasons = {number: found.reason for number, found in truth.items()}
    assert [reasons[number] for number in range(5)] == ["plateaued", "completed", "diverged", "error", "memory"]
    assert "asha" in reasons.values() and {reasons[5], reasons[6]} <= {"completed", "plateaued", "asha"}
    check_study(folder, truth)
    check_results(truth)
    check_mlflow(prepared.entry.tracking_uri, truth)


def check_study(folder: Path, truth: Mapping[int, Truth]) -> None:
    """As stock Optuna reads it."""
    study = optuna.load_study(
        study_name="states", storage=JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    )
    assert [trial.number for trial in study.trials] == sorted(truth)
    states = {"complete": "COMPLETE", "pruned": "PRUNED", "infeasible": "PRUNED", "failed": "FAIL"}
    for trial in study.trials:
        told = truth[trial.number]
        assert trial.state.name == states[told.state]
        assert trial.intermediate_values == told.values
        assert trial.constraints == told.constraints
        assert trial.value == (min(told.values.values()) if told.state == "complete" else trial.value)
        assert trial.user_attrs.get("best_epoch") == told.best_epoch
        assert ("error" in trial.user_attrs) == (told.reason in ("error", "memory", "diverged"))


def check_results(truth: Mapping[int, Truth]) -> None:
    done = CliRunner().invoke(app, ["results", "states", "--json"])
    assert done.exit_code == 0, done.output
    rows = {row["trial"]: row for row in json.loads(done.stdout)["trials"]}
    assert sorted(rows) == sorted(truth)
    for number, told in truth.items():
        row = rows[number]
        assert (row["state"], row["epochs_run"]) == (told.state, max(told.values, default=0))
        assert row["best_value"] == min(told.values.values(), default=None)
        assert row["best_epoch"] == told.best_epoch


def check_mlflow(uri: str, truth: Mapping[int, Truth]) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("states")
    runs = client.search_runs([experiment.experiment_id], filter_string="tags.`tlsearch.kind` = 'trial'")
    by_number = {int(run.data.tags["tlsearch.trial"]): run for run in runs}
    assert len(runs) == len(by_number) == len(truth)
    for number, told in truth.items():
        run = by_number[number]
        assert run.info.status == ("FAILED" if told.state == "failed" else "FINISHED")
        tags = run.data.tags
        assert (tags["tlsearch.state"], tags["tlsearch.reason"]) == (told.state, told.reason)
        assert ("no such thing" in tags.get("tlsearch.error", "")) == (told.state == "failed")
        points = client.get_metric_history(run.info.run_id, "val_loss")
        assert {point.step: point.value for point in points} == told.values and len(points) == len(told.values)
        best = run.data.metrics.get("best_val_loss")
        assert best == min(told.values.values(), default=None)
