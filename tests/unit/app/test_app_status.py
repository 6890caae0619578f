"""``status`` and ``stop`` as the commands give them."""

from __future__ import annotations

import cProfile
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from flat_trials import Flat
from preparing import stub_entry
from search_doubles import QuickTrial, drive, make_plan, start_trial, step_once
from typer.testing import CliRunner

from tlsearch.app.catalog import catalog
from tlsearch.app.catalog.stored import Status, forget_end, keep_end, search_log
from tlsearch.app.searches.run_or_resume import nothing_left
from tlsearch.app.views.status import overview
from tlsearch.search.controller.controller import Controller
from tlsearch.search.inspect.running_status import telling_dashboard
from tlsearch.search.plan import SearchPlan
from tlsearch.search.study.storage import open_for_writing, study_attrs
from tlsearch.search.study.study import Study

RESOLVED = """
name: stub
data: {source: digits}
weights: {resnet18: none}
space: {backbone: resnet18}
search: {trials: 9, max_epochs: 4, time_budget: 2h}
"""


@pytest.fixture
def entry(tmp_path: Path) -> catalog.SearchEntry:
    return stub_entry(tmp_path / "one", RESOLVED)


def _command(*arguments: str, code: int = 0) -> str:
    import tlsearch.cli.commands  # noqa: F401  # its modules add their commands
    from tlsearch.cli.root import app

    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == code, done.output
    return done.output


def _in_its_middle(plan: SearchPlan) -> Study:
    """The study of a search that is held open, with a trial that has ended and one that runs."""
    study = open_for_writing(plan.folder, attrs=study_attrs(plan))
    controller = Controller(plan, study)
    for steps in (4, 2):
        handout = controller.next_trial()
        assert handout is not None
        runner = start_trial(handout, QuickTrial)
        for _ in range(steps):
            step_once(controller, handout.assignment.number, runner)
    return study


def test_status_of_a_search_in_its_middle(entry: catalog.SearchEntry) -> None:
    plan = make_plan(entry.path, trials=9, scheduler=None)
    study = _in_its_middle(plan)
    told: dict[str, Any] = overview(entry).as_json()
    assert told["running"] and told["process"]["pid"] == study.holder.pid
    assert told["planned"] == 9 and told["max_epochs"] == 4 and told["time_budget_s"] == 7200
    assert told["trials"] == {
        "running": 1,
        "complete": 1,
        "pruned": 0,
        "failed": 0,
        "infeasible": 0,
        "waiting": 0,
    }
    (live,) = told["running_trials"]
    assert (live["trial"], live["epoch"]) == (1, 2)
    assert live["value"] is not None and live["params"]["backbone"] in ("resnet18", "mobilenet_v2")
    assert told["best"]["trial"] in (0, 1)
    assert 0 <= told["running_s"] < 60
    assert json.loads(json.dumps(told)) == told
    text = " ".join(_command("status", "one").split())
    assert "one is running: process" in text and "1 of 9 trials ended running 1 complete 1" in text
    assert "2/4" in text and "best so far: trial" in text
    assert told["dashboard"] is None and told["log"] is None and "dashboard" not in text
    with telling_dashboard(plan.folder.dashboard, "http://10.0.0.1:8265"), search_log(entry):
        logging.getLogger("tlsearch").warning("something")
        told = json.loads(_command("status", "--json"))
        assert told["dashboard"] == "http://10.0.0.1:8265" and told["log"] == str(entry.path / "log.jsonl")
        text = _command("status")
        assert "Ray dashboard: http://10.0.0.1:8265" in text and f"log: {entry.path}/log.jsonl" in text
    assert json.loads(_command("status", "--json"))["dashboard"] is None
    with telling_dashboard(plan.folder.dashboard, "http://10.0.0.1:8265"):
        study.close()  # as by kill -9: the file stays, the lock does not
        assert json.loads(_command("status", "--json"))["dashboard"] is None
    assert "one was interrupted with 1 unfinished trial; go on with `tlsearch resume one`" in _command("status")
    shown = json.loads(_command("status", "--json"))
    assert not shown["running"] and shown["state"] == "interrupted"


def test_status_before_the_first_report(entry: catalog.SearchEntry) -> None:
    text = _command("status", "one")
    assert (
        "one was interrupted before its first trial" in text
        and "0 of 9 trials ended" in text
        and "no report yet" in text
    )


def test_stop_says_where_nothing_runs(entry: catalog.SearchEntry) -> None:
    assert "the search one is not running" in _command("stop", "one")
    assert json.loads(_command("stop", "--json")) == {"search_id": "one", "was_running": False, "stopped": True}


def test_stop_says_where_the_search_goes_on(entry: catalog.SearchEntry) -> None:
    plan = make_plan(entry.path)
    study = open_for_writing(plan.folder, attrs=study_attrs(plan))  # nobody heeds requests here
    assert "still runs after 0.2 s: process" in _command("stop", "one", "--timeout", "0.2", code=1)
    study.close()


def test_a_trial_costs_status_few_calls(tmp_path: Path) -> None:
    """Counted, since a clock would say how busy the machine is. 1,000 trials of 3,400 calls take under a second."""
    calls = {}
    for trials in (10, 110):
        shutil.rmtree(tmp_path / "one", ignore_errors=True)
        entry = stub_entry(tmp_path / "one", RESOLVED)
        drive(make_plan(entry.path, trials=trials, sampler="random", max_epochs=9), factory=QuickTrial)
        with cProfile.Profile() as profile:
            shown = json.loads(_command("status", "one", "--json"))
        assert sum(shown["trials"].values()) == trials
        calls[trials] = sum(entry.callcount for entry in profile.getstats())
    assert calls[110] - calls[10] < 100 * 4000, calls


def test_every_view_says_that_a_killed_search_is_interrupted(entry: catalog.SearchEntry) -> None:
    import tlsearch.cli.commands  # noqa: F401  # its modules add their commands

    plan = make_plan(entry.path, trials=9, scheduler=None)
    study = _in_its_middle(plan)
    shown = json.loads(_command("results", "--json"))
    assert shown["state"] == "running" and [trial["reason"] for trial in shown["trials"]] == ["completed", None]
    study.close()  # as by kill -9
    keep_end(entry, "finished")  # an earlier start's word, which the unfinished trial outweighs
    shown = json.loads(_command("results", "--json"))
    assert shown["state"] == "interrupted"
    assert [(trial["state"], trial["reason"]) for trial in shown["trials"]] == [
        ("complete", "completed"),
        ("running", "interrupted"),
    ]
    text = " ".join(_command("results").split())  # however wide the terminal is
    assert "the search was interrupted with 1 unfinished trial; go on with `tlsearch resume one`" in text
    page = Path(json.loads(_command("report", "--no-model", "--json"))["page"]).read_text()
    assert "1 interrupted, 1 complete" in page and "The search was interrupted with 1 unfinished trial" in page


@pytest.mark.parametrize(("ended", "state"), [("finished", "has finished"), ("failed", "has failed; go on with")])
def test_how_the_last_start_ended(entry: catalog.SearchEntry, ended: Status, state: str) -> None:
    drive(make_plan(entry.path, trials=2, scheduler=None), factory=QuickTrial)
    keep_end(entry, ended)
    assert f"one {state}" in _command("status")
    forget_end(entry)
    assert "one was interrupted; go on with" in _command("status")


def test_a_search_that_plateaued_says_so_and_has_nothing_to_do(tmp_path: Path) -> None:
    plateaus = stub_entry(tmp_path / "one", RESOLVED.replace("trials: 9", "trials: 60, stop: auto"))
    drive(make_plan(plateaus.path, trials=60, scheduler=None, stop="auto", max_epochs=1), factory=Flat)
    keep_end(plateaus, "finished")
    shown = json.loads(_command("status", "--json"))
    assert shown["state"] == "finished" and shown["plateau"]["limit"] == 60 and shown["plateau"]["chance"] < 0.1
    ended = f"plateaued after {shown['plateau']['trials']} of 60 trials: the chance that "
    assert f"one has finished: it {ended}" in " ".join(_command("status").split())
    assert json.loads(_command("results", "--json"))["plateau"] == shown["plateau"]
    assert f"The search {ended}" in Path(json.loads(_command("report", "--no-model", "--json"))["page"]).read_text()
    assert nothing_left(plateaus).startswith(f"nothing to do: the search {ended}")
    assert nothing_left(plateaus, trials="+12") == ""


def test_a_resume_with_nothing_to_do_says_so_without_torch_or_ray(entry: catalog.SearchEntry) -> None:
    drive(make_plan(entry.path, trials=9, scheduler=None), factory=QuickTrial)
    assert nothing_left(entry) == ""  # how it ended is not known: a resume finds out
    keep_end(entry, "finished")
    code = """
import sys
import tlsearch.cli.commands
from tlsearch.cli.root import app
try:
    app(args=["resume", "one"])
except SystemExit as end:
    assert not end.code, end.code
assert not {"torch", "ray", "mlflow"} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "nothing to do: 9 of 9 trials ended; `tlsearch resume one --trials +12` searches on"
    assert "9 trials ended already, and 3 are asked for" in nothing_left(entry, trials="3")
    assert nothing_left(entry, trials="+1") == "" and nothing_left(entry, trials="10") == ""


def test_a_spent_time_budget_is_named(entry: catalog.SearchEntry) -> None:
    (entry.path / "resolved.yaml").write_text(RESOLVED.replace("time_budget: 2h", "time_budget: 1s"))
    drive(make_plan(entry.path, trials=2, scheduler=None), factory=QuickTrial, timer=iter(range(10**6)).__next__)
    keep_end(entry, "finished")
    assert "the time budget of 1s is spent (2 of 9 trials have ended)" in nothing_left(entry)
