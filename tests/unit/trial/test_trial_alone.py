"""run_trial: how a trial ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tlsearch.core.errors import FrozenMoved, Infeasible
from tlsearch.core.types import Decision, EpochReport, TrialAssignment, TrialState
from tlsearch.trial import FineTuning, finetuning, run_trial

Assign = Callable[..., TrialAssignment]


class Recorder:
    """Keeps the reports; answers ``decision`` from an epoch on."""

    def __init__(self, decision: Decision = Decision.CONTINUE, from_epoch: int = 1) -> None:
        self.decision = decision
        self.from_epoch = from_epoch
        self.reports: list[EpochReport] = []

    def report(self, report: EpochReport) -> Decision:
        self.reports.append(report)
        return self.decision if report.epoch >= self.from_epoch else Decision.CONTINUE


@pytest.mark.parametrize(
    ("decision", "from_epoch", "state", "reason", "epochs"),
    [
        (Decision.CONTINUE, 1, TrialState.COMPLETE, "completed", 3),
        (Decision.COMPLETE, 3, TrialState.COMPLETE, "completed", 3),
        (Decision.COMPLETE, 2, TrialState.COMPLETE, "plateaued", 2),
        (Decision.STOP, 1, TrialState.PRUNED, "stopped", 1),
    ],
)
def test_the_reporter_decides(
    assign: Assign, decision: Decision, from_epoch: int, state: TrialState, reason: str, epochs: int
) -> None:
    recorder = Recorder(decision, from_epoch)
    outcome = run_trial(assign(), recorder)
    assert (outcome.state, outcome.reason, outcome.epochs_run, outcome.error) == (state, reason, epochs, "")
    values = [report.metrics["val_accuracy"] for report in recorder.reports]
    assert (outcome.best_value, outcome.best_epoch) == (max(values), values.index(max(values)) + 1)


def test_a_diverged_trial_is_pruned(assign: Assign) -> None:
    outcome = run_trial(assign(depth=5, policy="train", head_lr=1e30, backbone_lr=1e30), Recorder())
    assert (outcome.state, outcome.reason) == (TrialState.PRUNED, "diverged")
    assert "must be finite" in outcome.error


@pytest.mark.parametrize(
    ("error", "state", "reason", "message"),
    [
        (Infeasible("out of memory"), TrialState.INFEASIBLE, "memory", "out of memory"),
        (FrozenMoved("stem moved"), TrialState.FAILED, "error", "FrozenMoved: stem moved"),
        (ZeroDivisionError("a bug"), TrialState.FAILED, "error", "ZeroDivisionError: a bug"),
    ],
)
def test_faults_become_outcomes(
    assign: Assign, monkeypatch: pytest.MonkeyPatch, error: Exception, state: TrialState, reason: str, message: str
) -> None:
    def step(trial: FineTuning) -> EpochReport:
        if trial.epochs_done == 1:
            raise error
        return original(trial)

    original = FineTuning.step
    monkeypatch.setattr(FineTuning, "step", step)
    outcome = run_trial(assign(), Recorder())
    assert (outcome.state, outcome.reason, outcome.error) == (state, reason, message)
    assert outcome.epochs_run == 1 and outcome.best_epoch == 1


def test_an_interrupted_trial_goes_on_and_reports_again(
    assign: Assign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetuning, "RUNNING_INTERVAL_S", 0.0)

    class Interrupting(Recorder):
        def report(self, report: EpochReport) -> Decision:
            super().report(report)
            if report.epoch == 2:
                raise KeyboardInterrupt
            return Decision.CONTINUE

    first, second = Interrupting(), Recorder()
    with pytest.raises(KeyboardInterrupt):
        run_trial(assign(), first)
    outcome = run_trial(assign(), second)
    assert outcome.state is TrialState.COMPLETE
    assert second.reports[:2] == first.reports
    assert [report.epoch for report in second.reports] == [1, 2, 3]
    assert not (tmp_path / "trial/running").exists()
