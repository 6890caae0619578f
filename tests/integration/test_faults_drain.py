"""Nodes with a drain warning: their trials write checkpoints and lose no epoch, and no further trial begins there."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import drained
import pytest
from search_checks import check_agreement
from search_doubles import read_log
from test_faults_nodes import run_apart

from tlsearch.core.types import TrialState
from tlsearch.search import read_search

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(900)]


def test_a_warned_node_loses_no_epoch_and_gets_no_trial(tmp_path: Path) -> None:
    root = tmp_path / "s"
    found, told = run_apart(Path(drained.__file__), root, tmp_path)
    assert found["reason"] == "finished"
    lost, kept, saved = found["lost"], found["kept"], found["saved"]
    log = read_log(root)
    places: dict[str, set[int]] = {}
    for line in log:
        if line["what"].startswith("node:"):
            places.setdefault(line["what"].removeprefix("node:"), set()).add(line["number"])
    assert places[found["killed"]] == {lost} and places[found["spared"]] == {kept}
    opened = [line["epoch"] for line in log if line["number"] == lost and line["what"] == "open"]
    assert opened == [0, max(opened)] and max(opened) >= saved  # it went on from the last epoch before the node ended
    trained = Counter((line["number"], line["epoch"]) for line in log if line["what"] == "epoch")
    assert set(trained.values()) == {1}
    assert {line["number"] for line in log if line["what"] == "save"} == {lost, kept}

    assert f"the worker of trial {lost} died (0 of them counted)" in told
    assert "no trial begins on a node that is about to go" in told  # the warm worker was offered one
    trials = read_search(root).trials
    assert [trial.number for trial in trials] == list(range(drained.TRIALS))
    assert {(trial.state, trial.epochs_run) for trial in trials} == {(TrialState.COMPLETE, drained.MAX_EPOCHS)}
    check_agreement(drained.made_plan(root))
