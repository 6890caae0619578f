"""Looking at a running search, and stopping it, from another process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from search_doubles import QuickTrial, StubTrial, make_plan, start_trial, step_once

from tlsearch.core.errors import StorageError
from tlsearch.core.types import TrialState
from tlsearch.search import read_status, request_stop, wait_until_stopped
from tlsearch.search.controller.controller import Controller
from tlsearch.search.study.lock import Holder, SearchLock, holder_of
from tlsearch.search.study.stop_request import heeding_stop_requests
from tlsearch.search.study.storage import open_for_writing, study_attrs

WAIT_S = 240  # for another thread, on a machine that has no time

_HOLD = """
import sys
from pathlib import Path
from tlsearch.search.study.lock import SearchLock
lock = SearchLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_the_holder_of_a_lock_is_who_holds_it_now(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert holder_of(path) is None
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == "held\n"
    holder = holder_of(path)
    assert holder is not None and holder.pid == process.pid
    assert abs(holder.since - time.time()) < 60
    with pytest.raises(StorageError, match=f"in use by process {process.pid} on "):
        SearchLock(path)
    process.kill()
    process.communicate()
    assert json.loads(path.read_text())["pid"] == process.pid  # the text of a killed process stays, its lock does not
    assert holder_of(path) is None


def test_looking_at_the_lock_does_not_keep_a_search_from_starting(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    SearchLock(path).release()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            holder_of(path)

    looker = threading.Thread(target=look)
    looker.start()
    try:
        for _ in range(30):
            SearchLock(path).release()
    finally:
        done.set()
        looker.join()


def test_a_lock_without_a_name_is_told(tmp_path: Path) -> None:
    lock = SearchLock(tmp_path / "lock")
    (tmp_path / "lock").write_text("")
    with pytest.raises(StorageError, match="without saying which"):
        holder_of(tmp_path / "lock")
    lock.release()


def test_a_request_stops_the_process_it_is_meant_for(tmp_path: Path) -> None:
    plan, stop = make_plan(tmp_path / "s"), threading.Event()
    plan.folder.root.mkdir()
    lock = SearchLock(plan.folder.lock, "resume").run()
    holder = lock.holder
    with heeding_stop_requests(plan.folder, holder, stop):
        earlier = Holder(pid=holder.pid, host=holder.host, since=holder.since - 1)
        plan.folder.stop_request.write_text(json.dumps(earlier.plain()))
        assert not stop.wait(0.6)
        assert request_stop(tmp_path / "s") == holder
        assert stop.wait(WAIT_S)
        assert not wait_until_stopped(tmp_path / "s", holder, timeout_s=0.3)
    assert not plan.folder.stop_request.exists()
    lock.release()  # the trials have stopped, the last records are sent
    assert request_stop(tmp_path / "s") is None and read_status(tmp_path / "s").holder is None
    assert not wait_until_stopped(tmp_path / "s", holder, timeout_s=0.3)
    lock.release()
    assert wait_until_stopped(tmp_path / "s", holder, timeout_s=0.0)


def test_a_search_that_does_not_run_is_not_asked(tmp_path: Path) -> None:
    plan = make_plan(tmp_path / "s")
    assert request_stop(tmp_path / "s") is None
    plan.folder.root.mkdir()
    SearchLock(plan.folder.lock).release()
    assert request_stop(tmp_path / "s") is None
    assert not plan.folder.stop_request.exists()


def test_the_status_in_the_middle_of_a_search(tmp_path: Path) -> None:
    plan = make_plan(tmp_path / "s", trials=5, start_with=({"unfreeze_depth": 3},), scheduler=None)
    before = read_status(tmp_path / "s", search_id="s", metric="val_accuracy")
    assert (before.holder, before.record.trials, before.last_report) == (None, (), None)
    study = open_for_writing(plan.folder, attrs=study_attrs(plan))
    times = iter(range(100, 1000))
    controller = Controller(plan, study, timer=lambda: float(next(times)))
    handout = controller.next_trial()
    assert handout is not None
    runner = start_trial(handout, QuickTrial)
    assert step_once(controller, 0, runner) and step_once(controller, 0, runner)
    seen = read_status(tmp_path / "s")
    assert seen.holder is not None and seen.holder.pid == os.getpid()
    assert [(t.number, t.state, t.epochs_run) for t in seen.record.trials] == [(0, TrialState.RUNNING, 2)]
    assert seen.num_waiting == 2 and seen.record.spent_s > 0
    assert seen.last_report == seen.record.trials[0].reports[-1].timestamp
    study.close()
    assert read_status(tmp_path / "s").holder is None


def test_a_killed_search_does_not_run(tmp_path: Path) -> None:
    plan = make_plan(tmp_path / "s", trials=2)
    child = os.fork()
    if child == 0:
        study = open_for_writing(plan.folder, attrs=study_attrs(plan))
        controller = Controller(plan, study)
        handout = controller.next_trial()
        assert handout is not None
        step_once(controller, 0, start_trial(handout, StubTrial))
        os._exit(0)
    os.waitpid(child, 0)
    seen = read_status(tmp_path / "s")
    assert seen.holder is None
    assert [(t.state, t.epochs_run) for t in seen.record.trials] == [(TrialState.RUNNING, 1)]
