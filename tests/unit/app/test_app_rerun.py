"""A trial trained again, alone: to the bit what the search stored."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tlsearch.app.catalog import catalog, provenance
from tlsearch.app.catalog.stored import read_record
from tlsearch.app.searches import rerun
from tlsearch.app.searches.rerun import Deviation, deviations, rerun_trial
from tlsearch.core.errors import StorageError
from tlsearch.core.types import Decision, EpochReport, SearchRecord
from tlsearch.train import read_model_meta


@pytest.fixture
def entry(ended_search: catalog.SearchEntry) -> catalog.SearchEntry:
    return ended_search


class Heard:
    def __init__(self) -> None:
        self.epochs: list[int] = []

    def report(self, report: EpochReport) -> Decision:
        self.epochs.append(report.epoch)
        return Decision.CONTINUE


def _with_other_seed(record: SearchRecord) -> SearchRecord:
    first, *others = record.trials
    on_gpu = {"system/gpu_0_memory_usage_megabytes": 1.0}
    reports = tuple(replace(one, metrics={**one.metrics, **on_gpu}) for one in first.reports)
    return replace(record, trials=(replace(first, seed=first.seed + 1, reports=reports), *others))


def test_a_trial_repeats_its_curve(entry: catalog.SearchEntry, tmp_path: Path) -> None:
    record, heard = read_record(entry), Heard()
    done = rerun_trial(entry, 1, reporter=heard, directory=tmp_path / "again")
    assert done.equal and done.num_epochs == 2 and heard.epochs == [1, 2]
    assert done.outcome.best_value == record.trials[1].best_value
    assert read_model_meta(tmp_path / "again" / "best").value == record.trials[1].best_value
    assert not (tmp_path / "again" / "running").exists()
    assert read_record(entry) == record  # the study is as it was
    assert json.loads(json.dumps(done.as_json()))["equal"] is True
    with pytest.raises(StorageError, match="is not empty"):
        rerun_trial(entry, 1, directory=tmp_path / "again")
    with pytest.raises(StorageError, match="has 3 trials; trial 7 does not exist"):
        rerun_trial(entry, 7)


def test_the_command_says_where_a_trial_differs(entry: catalog.SearchEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    import tlsearch.cli.commands  # noqa: F401  # its modules add their commands
    from tlsearch.cli.root import app

    monkeypatch.setattr(rerun, "read_record", lambda entry: _with_other_seed(read_record(entry)))
    kept = {**provenance.environment(), "torch": "1.0"}
    (entry.path / provenance.ENVIRONMENT).write_text(json.dumps(kept))
    done = CliRunner().invoke(app, ["rerun", "small", "--trial", "0"])
    assert done.exit_code == 1, done.output
    assert "trial 0 differs from epoch 1 on, in " in done.output
    assert "epoch 1, train_loss: " in done.output and "epoch_seconds" not in done.output
    assert "torch was 1.0 and is " in done.output
    assert "only with `resources: {deterministic: true}`" in done.output  # its reports say that it had a GPU
    done = CliRunner().invoke(app, ["rerun", "small", "--trial", "2"])
    assert done.exit_code == 0 and "trial 2 repeats its 2 epochs to the bit" in done.output


def test_deviations_are_of_any_bit_but_not_of_times() -> None:
    def report(epoch: int, **metrics: float) -> EpochReport:
        return EpochReport(epoch=epoch, metrics=metrics, timestamp=float(epoch))

    one, other = {"system/cpu_utilization_percentage": 99.0}, {"system/cpu_utilization_percentage": 55.0}
    assert deviations([report(1, val_loss=0.5, **one)], [report(1, val_loss=0.5, **other)]) == []
    stored = [report(1, val_loss=0.5, epoch_seconds=1.0), report(2, val_loss=0.25, lr_head=0.1)]
    assert deviations(stored, [report(1, val_loss=0.5, epoch_seconds=9.0), report(2, val_loss=0.25, lr_head=0.1)]) == []
    assert deviations(stored, [report(1, val_loss=0.5000000000000001, epoch_seconds=1.0)]) == [
        Deviation(epoch=1, metric="val_loss", stored=0.5, now=0.5000000000000001),
        Deviation(epoch=2, metric="val_loss", stored=0.25, now=None),
        Deviation(epoch=2, metric="lr_head", stored=0.1, now=None),
    ]


def test_a_trial_that_failed_is_taken_to_where_it_failed(
    entry: catalog.SearchEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlsearch.core.types import TrialRecord, TrialState
    from tlsearch.trial import FineTuning

    stored = read_record(entry).trials[0]
    failed = replace(stored, state=TrialState.FAILED, reason="error", reports=stored.reports[:1], error="E: boom")
    monkeypatch.setattr(rerun, "_find", lambda entry, number: failed)
    step = FineTuning.step

    def broken(trial: FineTuning) -> EpochReport:
        if trial.epochs_done == 1:
            raise RuntimeError("boom")
        return step(trial)

    monkeypatch.setattr(FineTuning, "step", broken)
    done = rerun_trial(entry, 0)
    assert isinstance(done.trial, TrialRecord) and done.equal
    assert done.outcome.error == "RuntimeError: boom"
