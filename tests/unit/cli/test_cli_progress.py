"""What a running search shows."""

from __future__ import annotations

import io

from rich.console import Console

from tlsearch.cli.progress import Progress, short_config
from tlsearch.types import Decision, EpochReport, TrialConfig, TrialOutcome, TrialState

DEEP = TrialConfig(backbone="resnet18", unfreeze_depth=2, head_lr=1e-3, backbone_lr=2e-5, bn_policy="train")


def _progress(*, terminal: bool, metric: str = "val_accuracy") -> tuple[Progress, io.StringIO]:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=120, height=30)
    return Progress(console, metric=metric, trials=3, max_epochs=5, time_budget_s=None), text


def _report(epoch: int, **metrics: float) -> EpochReport:
    return EpochReport(epoch=epoch, metrics=metrics, timestamp=0.0)


def test_plain_lines_where_there_is_no_terminal() -> None:
    progress, text = _progress(terminal=False)
    with progress:
        progress.trial_started(0, DEEP)
        progress.trial_reported(0, _report(1, val_accuracy=0.5), Decision.CONTINUE)
        progress.trial_ended(
            0, TrialOutcome(state=TrialState.PRUNED, reason="asha", epochs_run=1, best_value=0.5, best_epoch=1)
        )
        progress.trial_started(1, DEEP)
        progress.trial_ended(
            1, TrialOutcome(state=TrialState.FAILED, reason="error", epochs_run=0, error="trace\nKeyError: 'x'")
        )
    lines = text.getvalue().splitlines()
    assert lines[0].startswith("[1/3] trial 0 pruned (asha) after 1 epochs: val_accuracy 0.5000")
    assert "resnet18 depth 2 lr 1.0e-03/2.0e-05 bn train" in lines[0]
    assert lines[1].startswith("[2/3] trial 1 failed (error)") and lines[2].strip() == "KeyError: 'x'"
    assert "\x1b" not in text.getvalue()


def test_live_table_shows_running_trials_and_the_best() -> None:
    progress, text = _progress(terminal=True, metric="val_loss")
    with progress:
        for number, loss in ((0, 0.9), (1, 0.4)):
            progress.trial_started(number, DEEP)
            progress.trial_reported(number, _report(1, val_loss=loss), Decision.CONTINUE)
        progress.trial_reported(1, _report(2, val_loss=0.6), Decision.CONTINUE)
        progress.trial_ended(0, TrialOutcome(state=TrialState.COMPLETE, reason="completed", epochs_run=1))
    shown = text.getvalue()
    assert "1 of 3 trials ended" in shown and "running 1" in shown and "complete 1" in shown
    assert "best so far: trial 1 with val_loss 0.4000" in shown  # the best epoch, and lower is better
    assert "2/5" in shown


def test_short_texts() -> None:
    assert short_config(TrialConfig(backbone="vit_b_16", head_lr=0.01)) == "vit_b_16 depth 0 lr 1.0e-02"
