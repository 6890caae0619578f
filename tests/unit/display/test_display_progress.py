"""What a running search shows."""

from __future__ import annotations

import io
import random

import pytest
from rich.console import Console

from tlsearch.config import SearchSpec
from tlsearch.core.types import (
    Decision,
    EndReason,
    EpochReport,
    Objective,
    SearchRecord,
    StartReport,
    TrialConfig,
    TrialOutcome,
)
from tlsearch.display import live_progress as progress_module
from tlsearch.display.live_progress import Progress
from tlsearch.display.trial_rows import TrialRows

DEEP = TrialConfig(backbone="resnet18", unfreeze_depth=2, head_lr=1e-3, backbone_lr=2e-5, bn_policy="train")


def _progress(
    *, terminal: bool, metric: str = "val_accuracy", trials: int = 3, time_budget_s: float | None = None
) -> tuple[Progress, io.StringIO]:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=120, height=30)
    return Progress(console, SearchSpec(metric=metric, trials=trials, max_epochs=5, time_budget_s=time_budget_s)), text


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    return now


def _report(epoch: int, **metrics: float) -> EpochReport:
    return EpochReport(epoch=epoch, metrics=metrics, timestamp=0.0)


def test_plain_lines_where_there_is_no_terminal() -> None:
    progress, text = _progress(terminal=False)
    with progress:
        progress.trial_started(0, DEEP)
        progress.trial_reported(0, _report(1, val_accuracy=0.5), Decision.CONTINUE)
        progress.trial_ended(0, TrialOutcome(reason=EndReason.ASHA, epochs_run=1, best_value=0.5, best_epoch=1))
        progress.trial_started(1, DEEP)
        progress.trial_ended(1, TrialOutcome(reason=EndReason.ERROR, epochs_run=0, error="trace\nKeyError: 'x'"))
    phases, lines = text.getvalue().splitlines()[:2], text.getvalue().splitlines()[2:]
    assert phases == [
        "opening the study and MLflow, starting the search",
        "starting workers, then the first epoch of each",
    ]
    assert lines[0].startswith("[1/3] trial 0 pruned (asha) after 1 epoch: val_accuracy 0.5000")
    assert "resnet18 depth 2 lr 1.0e-03/2.0e-05 bn train" in lines[0]
    assert lines[1].startswith("[2/3] trial 1 failed (error) after 0 epochs") and lines[2].strip() == "KeyError: 'x'"
    assert "\x1b" not in text.getvalue()


def test_live_table_shows_running_trials_and_the_best() -> None:
    progress, text = _progress(terminal=True, metric="val_loss")
    with progress:
        for number, loss in ((0, 0.9), (1, 0.4)):
            progress.trial_started(number, DEEP)
            progress.trial_reported(number, _report(1, val_loss=loss), Decision.CONTINUE)
        progress.trial_reported(1, _report(2, val_loss=0.6), Decision.CONTINUE)
        progress.trial_ended(0, TrialOutcome(reason=EndReason.COMPLETED, epochs_run=1))
    shown = text.getvalue()
    assert "1 of 3 trials ended" in shown and "running 1" in shown and "complete 1" in shown
    assert "best so far: trial 1 with val_loss 0.4000" in shown  # the best epoch, and lower is better
    assert "2/5" in shown


def test_the_solved_head_is_among_the_best_so_far() -> None:
    progress, text = _progress(terminal=True)
    with progress:
        progress.trial_started(0, DEEP)
        start = StartReport(metrics={"val_accuracy": 0.9}, timestamp=0.0)
        first = EpochReport(epoch=1, metrics={"val_accuracy": 0.7}, timestamp=1.0, start=start)
        progress.trial_reported(0, first, Decision.CONTINUE)
        progress.trial_reported(0, _report(2, val_accuracy=0.8), Decision.CONTINUE)
    assert "best so far: trial 0 with val_accuracy 0.9000" in text.getvalue()


def test_short_texts() -> None:
    assert TrialConfig(backbone="vit_b_16", head_lr=0.01).short == "vit_b_16 depth 0 lr 1.0e-02"


def _run_trials(progress: Progress, clock: list[float], count: int, *, epoch_s: float = 20.0) -> None:
    for number in range(count):
        progress.trial_started(number, DEEP)
        for epoch in (1, 2, 3):
            clock[0] += epoch_s
            progress.trial_reported(number, _report(epoch, val_accuracy=0.5), Decision.CONTINUE)
        progress.trial_ended(number, TrialOutcome(reason=EndReason.ASHA, epochs_run=3, best_value=0.5, best_epoch=1))


def test_lines_say_how_long_it_will_take_once_that_is_known(clock: list[float]) -> None:
    progress, text = _progress(terminal=False, trials=14)
    with progress:
        _run_trials(progress, clock, 4)
    ends = [line for line in text.getvalue().splitlines() if line.startswith("[")]
    assert ends[0].startswith("[1/14] ") and ends[1].startswith("[2/14] ")
    assert ends[3].startswith("[4/14, about 10 min left] ")


def test_nothing_is_left_once_all_trials_have_ended(clock: list[float]) -> None:
    progress, text = _progress(terminal=False, trials=4)
    with progress:
        _run_trials(progress, clock, 4)
    ends = [line for line in text.getvalue().splitlines() if line.startswith("[")]
    assert " left] " in ends[2], ends
    assert ends[3].startswith("[4/4] ")


@pytest.mark.parametrize(("trials", "begins"), [(5, False), (14, True)])
def test_only_a_search_that_takes_long_is_forecast(clock: list[float], trials: int, begins: bool) -> None:
    class Forecast:
        begun = False

        def begin(self) -> None:
            self.begun = True

        def __call__(self) -> None: ...

        def stop(self) -> None: ...

    forecast = Forecast()
    progress = Progress(
        Console(file=io.StringIO()),
        SearchSpec(trials=trials, max_epochs=5),
        forecast=forecast,  # type: ignore[arg-type]
    )
    with progress:
        _run_trials(progress, clock, 2)
        assert not forecast.begun, "too little is known"
        _run_trials(progress, clock, 4)
    assert forecast.begun is begins


def test_a_long_trial_says_at_most_once_a_minute_that_it_goes_on(clock: list[float]) -> None:
    progress, text = _progress(terminal=False)
    with progress:
        progress.trial_started(0, DEEP)
        for epoch in range(1, 61):
            clock[0] += 10
            progress.trial_reported(0, _report(epoch, val_accuracy=0.5), Decision.CONTINUE)
    told = [line for line in text.getvalue().splitlines() if "trial 0, epoch" in line]
    assert len(told) == 10 and told[0] == "0 of 3 trials ended; trial 0, epoch 6/5: val_accuracy 0.5000; 1m00s elapsed"


def test_the_time_budget_limits_the_estimate_over_all_starts(clock: list[float]) -> None:
    progress, _ = _progress(terminal=False, trials=50, time_budget_s=3600)
    progress.restore(SearchRecord(search_id="x", experiment="x", metric="val_accuracy", directory="/x", spent_s=3000.0))
    with progress:
        assert progress._times() == "50m00s elapsed, 10m00s of the time budget of 1h00m left"
        _run_trials(progress, clock, 4)
        assert progress._times() == "54m00s elapsed, about 6 min left, 6m00s of the time budget of 1h00m left"


def test_the_first_seconds_say_what_happens(clock: list[float]) -> None:
    progress, text = _progress(terminal=True)
    with progress:
        assert "starting the search" in text.getvalue()
        progress.trial_started(0, DEEP)
        clock[0] += 7
        shown = io.StringIO()
        Console(file=shown, width=120).print(progress._render())
        assert "starting workers, then the first epoch of each  7s" in shown.getvalue()
        assert "starting a worker" in shown.getvalue()
        progress.trial_reported(0, _report(1, val_accuracy=0.5), Decision.CONTINUE)
        shown = io.StringIO()
        Console(file=shown, width=120).print(progress._render())
        assert "best so far: trial 0" in shown.getvalue() and "starting" not in shown.getvalue()


def test_of_many_running_trials_the_table_shows_as_many_as_a_terminal_holds() -> None:
    asked: list[int] = []

    def doing(number: int) -> str:
        asked.append(number)
        return "packing images"

    console = Console(file=io.StringIO(), width=120)
    progress = Progress(console, SearchSpec(trials=2000, max_epochs=5), doing=doing)
    for number in range(1000):
        progress.trial_started(number, DEEP)
    progress.trial_reported(999, _report(1, val_accuracy=0.5), Decision.CONTINUE)
    shown = io.StringIO()
    Console(file=shown, width=120).print(progress._render())
    assert len(asked) == 40 and "and 960 more" in shown.getvalue() and "running 1000" in shown.getvalue()
    assert "best so far: trial 999" in shown.getvalue()


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
def test_the_best_of_all_trials_is_followed_whatever_the_order_of_their_ends(metric: str) -> None:
    rng = random.Random(0)
    rows, values = TrialRows(Objective.of(metric), num_reports=5, folds=False), dict[int, float]()
    for number in range(100):
        rows.start(number, DEEP)
    for number in rng.sample(range(100), 100):
        values[number] = round(rng.random(), 1)  # many are equal
        rows.report(number, _report(1, **{metric: values[number]}))
        if rng.random() < 0.7:
            rows.end(number, TrialOutcome(reason=EndReason.ASHA, epochs_run=1))
        best = (max if metric == "val_accuracy" else min)(values.values())
        found = rows.best()
        assert found is not None and found[0] == min(one for one, value in values.items() if value == best)
    assert rows.ended.total() + len(rows.running) == 100
