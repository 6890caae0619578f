"""Which models are kept: the best K of the ended trials and the Pareto front, whatever the order."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlsearch.core.types import EndReason, Objective, SearchRecord, TrialConfig, TrialOutcome, TrialRecord, TrialState
from tlsearch.testing.memory_tracker import MemoryTracker
from tlsearch.tracking import BestKeeper
from tlsearch.tracking.sink.best_models import Progress

ACCURACY = Objective.of("val_accuracy")
FOLDER = Path("/runs/search")


def _keeper(tracker: MemoryTracker, keep: int = 2, objective: Objective = ACCURACY) -> BestKeeper:
    return BestKeeper(tracker, directory=FOLDER, keep=keep, objective=objective)


def _ended(value: float | None, reason: EndReason = EndReason.COMPLETED, *, cost: float | None = None) -> TrialOutcome:
    return TrialOutcome(reason=reason, epochs_run=1, best_value=value, best_epoch=1 if value else None, cost=cost)


@given(
    values=st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), max_size=12),
    keep=st.integers(0, 4),
    metric=st.sampled_from(["val_accuracy", "val_loss"]),
    seed=st.integers(0, 100),
)
def test_the_best_are_kept_whatever_the_order(values: list[float], keep: int, metric: str, seed: int) -> None:
    sign = 1 if metric == "val_accuracy" else -1
    expected = sorted(range(len(values)), key=lambda n: (-sign * values[n], n))[:keep]
    tracker = MemoryTracker()
    keeper = _keeper(tracker, keep, Objective.of(metric))
    order = list(range(len(values)))
    random.Random(seed).shuffle(order)
    for number in order:
        keeper.trial_ended(number, _ended(values[number]))
    assert keeper.kept == tuple(expected)
    assert set(tracker.models) == set(expected)


@given(
    points=st.lists(
        st.tuples(st.sampled_from([0.1, 0.2, 0.3, 0.4]), st.sampled_from([None, 1.0, 2.0, 3.0])), max_size=12
    ),
    keep=st.integers(0, 3),
    seed=st.integers(0, 100),
)
def test_the_front_is_kept_beside_the_best(points: list[tuple[float, float | None]], keep: int, seed: int) -> None:
    def beaten(number: int) -> bool:
        value, cost = points[number]
        rivals = [(-v, c, n) for n, (v, c) in enumerate(points) if c is not None and n != number]
        return cost is None or any(
            v <= -value and c <= cost and (v, c, n) < (-value, cost, number) for v, c, n in rivals
        )

    best = sorted(range(len(points)), key=lambda n: (-points[n][0], n))[:keep]
    front = [number for number in range(len(points)) if not beaten(number)] if keep else []
    tracker, order = MemoryTracker(), list(range(len(points)))
    keeper = _keeper(tracker, keep)
    random.Random(seed).shuffle(order)
    for number in order:
        keeper.trial_ended(number, _ended(points[number][0], cost=points[number][1]))
    assert set(keeper.kept) == set(tracker.models) == {*best, *front}


def test_models_come_from_the_trials_best_checkpoint() -> None:
    tracker = MemoryTracker()
    _keeper(tracker).trial_ended(7, _ended(0.5))
    assert tracker.models == {7: FOLDER / "trials" / "7" / "best"}


def test_a_model_is_fetched_before_the_tracker_reads_it_and_only_if_it_is_kept() -> None:
    tracker, fetched = MemoryTracker(), list[int]()

    def fetch(number: int) -> None:
        assert number not in tracker.models
        fetched.append(number)

    keeper = BestKeeper(tracker, directory=FOLDER, keep=1, objective=ACCURACY, fetch=fetch)
    for number, value in enumerate((0.5, 0.4, 0.6, 0.1)):
        keeper.trial_ended(number, _ended(value))
    assert fetched == [0, 2] and set(tracker.models) == {2}


@pytest.mark.parametrize(
    "outcome",
    [
        _ended(0.9, EndReason.ERROR),
        _ended(0.9, EndReason.MEMORY),
        _ended(0.9, EndReason.DIVERGED),
        _ended(None),
    ],
)
def test_a_trial_without_a_sound_result_is_not_kept(outcome: TrialOutcome) -> None:
    tracker = MemoryTracker()
    keeper = _keeper(tracker)
    keeper.trial_started(0, TrialConfig(backbone="resnet18"))
    keeper.trial_ended(0, outcome)
    assert keeper.kept == () and tracker.models == {}


def test_a_pruned_trial_counts_and_a_repeated_end_changes_nothing() -> None:
    tracker = MemoryTracker()
    keeper = _keeper(tracker, keep=1)
    for _ in range(2):
        keeper.trial_ended(0, _ended(0.9, EndReason.ASHA))
        keeper.trial_ended(1, _ended(0.5))
    assert set(tracker.models) == {0}


def test_restore_keeps_the_best_of_the_study_and_drops_the_others() -> None:
    values = {0: 0.2, 1: 0.8, 2: 0.5, 3: 0.9}
    states = {3: TrialState.RUNNING}
    record = SearchRecord(
        search_id="s",
        experiment="e",
        metric="val_accuracy",
        directory=str(FOLDER),
        trials=tuple(
            TrialRecord(
                number=number,
                state=states.get(number, TrialState.COMPLETE),
                reason="completed",
                params={},
                config=TrialConfig(backbone="resnet18"),
                seed=0,
                best_value=value,
                best_epoch=1,
            )
            for number, value in values.items()
        ),
    )
    tracker = MemoryTracker()
    tracker.models = {0: FOLDER, 1: FOLDER}  # as a killed driver left them
    keeper = _keeper(tracker)
    keeper.restore(record)
    assert set(tracker.models) == {1, 2} and keeper.kept == (1, 2)
    keeper.trial_ended(3, _ended(0.9))
    assert set(tracker.models) == {1, 3}


@given(
    events=st.lists(st.tuples(st.integers(0, 9), st.sampled_from([None, 0.1, 0.2, 0.3])), max_size=30),
    metric=st.sampled_from(["val_accuracy", "val_loss"]),
)
def test_progress_counts_what_has_ended_last(events: list[tuple[int, float | None]], metric: str) -> None:
    """A trial may start again and end otherwise; each end is compared with a count of all."""
    progress, ended = Progress(metric), dict[int, TrialOutcome]()
    for at, (number, value) in enumerate(events):
        progress.trial_started(number)
        ended.pop(number, None)
        if value is None and at % 2:
            continue  # it runs on
        ended[number] = _ended(value, EndReason.ERROR if value is None else EndReason.ASHA)
        found = progress.trial_ended(number, ended[number], at=float(at))
        values = {one: outcome.result for one, outcome in ended.items() if outcome.result is not None}
        states = Counter(outcome.state for outcome in ended.values())
        assert found.ended == len(ended)
        assert found.metrics["trials_failed"] == states[TrialState.FAILED]
        assert found.metrics["trials_pruned"] == states[TrialState.PRUNED]
        best = Objective.of(metric).ranked(sorted(values), values.get)[:1]
        assert [found.metrics.get("best_trial")] == (best or [None])
        assert found.metrics.get(f"best_{metric}") == (values[best[0]] if best else None)
