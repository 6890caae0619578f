"""The search on a real Ray: what the study says is what the workers did."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
import search_doubles
from search_checks import behave, check_agreement, study_trials
from search_doubles import Recorder, StubTrial, make_plan, read_log

from tlsearch.core.errors import SearchStopped
from tlsearch.core.types import Decision, EpochReport, TrialState
from tlsearch.search import read_search, read_status, request_stop, run_search

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

LONG_S = 500.0  # an epoch that no test waits for
SUPPORT = Path(search_doubles.__file__).parent  # what workers must be able to import


def test_a_search_is_what_its_workers_did(tmp_path: Path, local_ray: None) -> None:
    plan, recorder = make_plan(tmp_path / "s", trials=12), Recorder()
    assert run_search(plan, factory=StubTrial, observers=[recorder]) == "finished"
    check_agreement(plan)
    record = read_search(tmp_path / "s")
    assert [trial.number for trial in record.trials] == list(range(12))
    assert {trial.reason for trial in record.trials} == {"completed", "asha"}
    log = read_log(tmp_path / "s")
    trained = Counter(line["number"] for line in log if line["what"] == "epoch")
    assert trained == {trial.number: trial.epochs_run for trial in record.trials}
    assert len({line["pid"] for line in log}) <= 2  # workers are reused
    assert Counter(line["what"] for line in log)["open"] == Counter(line["what"] for line in log)["close"] == 12
    assert len(recorder.of("started")) == len(recorder.of("ended")) == 12


def test_faults_and_dying_workers(tmp_path: Path, local_ray: None) -> None:
    root = tmp_path / "s"
    rules = {1: "diverge", 2: "memory", 3: "error", 4: "error_once", 5: "die_once"}
    behave(root, {str(number): {"kind": kind, "epoch": 2} for number, kind in rules.items()})
    plan = make_plan(root, trials=7, scheduler=None, max_failures=1)
    assert run_search(plan, factory=StubTrial) == "finished"
    check_agreement(plan)
    states = {t.number: (t.state.value, t.reason, t.epochs_run) for t in read_search(root).trials}
    assert states == {
        0: ("complete", "completed", 4),
        1: ("pruned", "diverged", 1),
        2: ("infeasible", "memory", 1),
        3: ("failed", "error", 1),
        4: ("complete", "completed", 4),
        5: ("complete", "completed", 4),
        6: ("complete", "completed", 4),
    }
    log = read_log(root)
    tries = Counter((line["number"], line["what"]) for line in log)
    assert tries[3, "error"] == 2 and tries[4, "error_once"] == 1  # one retry each
    assert tries[5, "epoch"] == 4 and tries[5, "open"] == 2  # it went on from its checkpoint in another worker
    assert len({line["pid"] for line in log if line["number"] == 5}) == 2


def test_a_worker_that_always_dies_fails_its_trial(
    tmp_path: Path, local_ray: None, capfd: pytest.CaptureFixture[str]
) -> None:
    behave(tmp_path / "s", {"0": {"kind": "die"}})
    plan = make_plan(tmp_path / "s", trials=2, scheduler=None, max_failures=1)
    assert run_search(plan, factory=StubTrial) == "finished"
    first, second = read_search(tmp_path / "s").trials
    assert first.state is TrialState.FAILED and first.error.startswith("the worker died: ")
    assert second.state is TrialState.COMPLETE
    assert Counter(line["what"] for line in read_log(tmp_path / "s"))["die"] == 2
    assert capfd.readouterr().out == ""  # standard output belongs to --json


def test_the_same_error_stops_the_search(tmp_path: Path, local_ray: None) -> None:
    behave(tmp_path / "s", {"all": {"kind": "error"}})
    with pytest.raises(SearchStopped, match="the same error ended 3 trials in a row"):
        run_search(make_plan(tmp_path / "s", trials=20, max_failed_trials=3, max_failures=0), factory=StubTrial)
    assert 3 <= sum(trial.state.is_finished() for trial in study_trials(tmp_path / "s")) <= 4


def test_a_trial_that_hangs_is_killed_and_tried_again(tmp_path: Path, local_ray: None) -> None:
    root = tmp_path / "s"
    behave(root, {"1": {"kind": "hang_once", "epoch": 3}, "2": {"kind": "hang", "epoch": 1}})
    plan = make_plan(root, trials=4, scheduler=None, max_failures=1, trial_timeout_s=8.0)
    assert run_search(plan, factory=StubTrial) == "finished"
    check_agreement(plan)
    trials = read_search(root).trials
    assert [(t.state.value, t.epochs_run) for t in trials] == [
        ("complete", 4),
        ("complete", 4),
        ("failed", 0),
        ("complete", 4),
    ]
    assert trials[2].error == "the worker died: killed after 8 s without a report (search.trial_timeout)"
    log = read_log(root)
    tries = Counter((line["number"], line["what"]) for line in log)
    assert tries[1, "hang_once"] == 1 and tries[1, "epoch"] == 4 and tries[2, "hang"] == 2


class StopInTheMiddle(Recorder):
    """Sets the event, as Ctrl-C does, at a report of trial 0 while trial 1 is in its first epoch."""

    def __init__(self, root: Path, stop: threading.Event) -> None:
        super().__init__()
        self._root, self._stop = root, stop
        self.asked = False

    def trial_reported(self, number: int, report: EpochReport, decision: Decision) -> None:
        super().trial_reported(number, report, decision)
        if not self._stop.is_set() and any(line["number"] == 1 for line in read_log(self._root)):
            self._stop.set()


def test_an_interruption_ends_within_seconds_and_is_resumed(tmp_path: Path, local_ray: None) -> None:
    root = tmp_path / "s"
    behave(root, {"0": {"sleep": 0.2}, "1": {"sleep": LONG_S}})
    plan, stop = make_plan(root, trials=3, max_epochs=40, scheduler=None), threading.Event()
    observer = StopInTheMiddle(root, stop)
    assert run_search(plan, factory=StubTrial, observers=[observer], stop=stop) == "interrupted"
    first, second = read_search(root).trials
    assert first.state is second.state is TrialState.RUNNING
    assert 0 < first.epochs_run < 40 and second.epochs_run == 0
    behave(root, {})
    recorder = Recorder()
    assert run_search(plan, factory=StubTrial, observers=[recorder]) == "finished"
    check_agreement(plan)
    assert [(t.state, t.epochs_run) for t in read_search(root).trials] == [(TrialState.COMPLETE, 40)] * 3
    assert [event[1] for event in recorder.of("started")] == [0, 1, 2]
    trained = Counter((line["number"], line["epoch"]) for line in read_log(root) if line["what"] == "epoch")
    assert set(trained.values()) == {1}  # every epoch was trained once


class AskToStop(StopInTheMiddle):
    """Asks as ``tlsearch stop`` in another terminal does."""

    def trial_reported(self, number: int, report: EpochReport, decision: Decision) -> None:
        Recorder.trial_reported(self, number, report, decision)
        if not self.asked and any(line["number"] == 1 for line in read_log(self._root)):
            self.asked = True
            assert request_stop(self._root) is not None


def test_a_request_to_stop_ends_as_ctrl_c_does(tmp_path: Path, local_ray: None) -> None:
    root = tmp_path / "s"
    behave(root, {"0": {"sleep": 0.2}, "1": {"sleep": LONG_S}})
    observer = AskToStop(root, threading.Event())
    plan = make_plan(root, trials=3, max_epochs=400, scheduler=None)
    assert run_search(plan, factory=StubTrial, observers=[observer]) == "interrupted"
    assert {trial.state for trial in read_search(root).trials} == {TrialState.RUNNING}
    assert read_search(root).trials[1].epochs_run == 0  # its epoch was not waited for
    assert read_status(root).holder is None and not (root / "stop").exists()


_DRIVER = """
import sys
from pathlib import Path
from search_doubles import StubTrial, make_plan
from tlsearch.search import run_search
run_search(make_plan(Path(sys.argv[1]), trials=8), factory=StubTrial)
"""


@pytest.mark.slow
def test_a_driver_killed_between_two_reports_is_resumed(tmp_path: Path, local_ray: None) -> None:
    root = tmp_path / "s"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "HOME": str(tmp_path),
        "PYTHONPATH": str(SUPPORT),
        "TLSEARCH_CRASH_AT": "after_report_write:6",
    }
    with open(tmp_path / "output", "w+") as output:  # a pipe would wait for all of Ray's processes
        command = [sys.executable, "-c", _DRIVER, str(root)]
        done = subprocess.run(command, env=environment, stdout=output, stderr=output, check=False)
    assert done.returncode == -signal.SIGKILL, (tmp_path / "output").read_text()
    assert not (tmp_path / ".ray" / "auth_token").exists()
    before = study_trials(root)
    assert sum(len(trial.intermediate_values) for trial in before) == 6
    plan = make_plan(root, trials=8)
    assert run_search(plan, factory=StubTrial) == "finished"
    trials = study_trials(root)
    assert [trial.number for trial in trials] == list(range(8))
    assert all(trial.state.is_finished() for trial in trials)
    for old, new in zip(before, trials, strict=False):
        assert old.params == new.params
        assert old.intermediate_values.items() <= new.intermediate_values.items()
    check_agreement(plan)
