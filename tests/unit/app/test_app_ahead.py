"""What runs beside the start of a search: observers hear everything once, in order, whenever they are ready."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tlsearch.app.ahead import UntilReady, ray_ahead
from tlsearch.errors import TrackingError
from tlsearch.types import Decision, EpochReport, TrialConfig, TrialOutcome, TrialState

CONFIG = TrialConfig(backbone="resnet18")
REPORT = EpochReport(epoch=1, metrics={"val_accuracy": 0.5}, timestamp=0.0)
OUTCOME = TrialOutcome(state=TrialState.COMPLETE, reason="completed", epochs_run=1)


class Heard:
    """Notes what it hears."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def trial_started(self, number: int, config: TrialConfig) -> None:
        self.calls.append(("started", number))

    def trial_reported(self, number: int, report: EpochReport, decision: Decision) -> None:
        self.calls.append(("reported", number, report.epoch, decision))

    def trial_ended(self, number: int, outcome: TrialOutcome) -> None:
        self.calls.append(("ended", number, outcome.state))


def test_nothing_is_heard_before_it_is_ready_and_all_of_it_in_order_afterwards() -> None:
    gate, first, second = threading.Event(), Heard(), Heard()
    kept = UntilReady((first, second), lambda: gate.wait(60) and None, failed=pytest.fail)
    kept.trial_started(0, CONFIG)
    kept.trial_reported(0, REPORT, Decision.CONTINUE)
    assert first.calls == []
    gate.set()
    kept.finish()
    kept.trial_ended(0, OUTCOME)
    expected = [("started", 0), ("reported", 0, 1, Decision.CONTINUE), ("ended", 0, TrialState.COMPLETE)]
    assert first.calls == second.calls == expected


def test_a_preparation_that_fails_stops_the_search_and_is_raised_at_its_end() -> None:
    stopped, heard = threading.Event(), Heard()

    def fail() -> None:
        raise TrackingError("no such store")

    kept = UntilReady((heard,), fail, failed=stopped.set)
    assert stopped.wait(60)
    kept.trial_started(0, CONFIG)
    with pytest.raises(TrackingError, match="no such store"):
        kept.finish()
    assert heard.calls == []


def test_a_cluster_is_not_connected_to_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlsearch.search.connect.connected", pytest.fail)
    with ray_ahead("10.0.0.1:6379"):
        pass


def test_an_observer_that_fails_keeps_nothing_from_the_others() -> None:
    class Failing(Heard):
        def trial_started(self, number: int, config: TrialConfig) -> None:
            raise RuntimeError("a bug")

    heard = Heard()
    kept = UntilReady((Failing(), heard), lambda: None, failed=pytest.fail)
    kept.trial_started(0, CONFIG)
    kept.trial_ended(0, OUTCOME)
    kept.finish()
    assert heard.calls == [("started", 0), ("ended", 0, TrialState.COMPLETE)]
