"""A search of replayed trials, killed -9 again and again at random moments: nothing is lost, nothing doubled."""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from search_checks import check_decisions
from search_doubles import drive, make_plan
from test_search_migrate import space

from tlsearch.search import SearchPlan, read_search
from tlsearch.space import Choice, FloatRange, IntRange
from tlsearch.testing.replay import Replay, read_curves

RECORDED = Path(__file__).parents[3] / "benchmarks" / "curves" / "emoji_few.json"
TRIALS = 60


def emoji_plan(root: Path, trials: int = TRIALS) -> SearchPlan:
    wide = space(
        backbone=Choice(values=("mobilenet_v2", "timm/tf_efficientnet_lite0")),
        unfreeze_depth=IntRange(low=0, high=5),
        head_lr=FloatRange(low=1e-3, high=1e-2, log=True),
        backbone_lr=FloatRange(low=1e-4, high=2e-3, log=True),
    )
    return replace(make_plan(root, trials=trials, max_epochs=6), space=wide)


def told(root: Path) -> list[tuple[object, ...]]:
    return [
        (t.number, t.state, t.reason, t.params, t.seed, [(r.epoch, r.metrics) for r in t.reports], t.best_value)
        for t in read_search(root).trials
    ]


@pytest.mark.parametrize("study", ["auto", pytest.param("sqlite", marks=pytest.mark.slow)])
def test_killed_twenty_times(tmp_path: Path, study: str) -> None:
    plan, chance = emoji_plan(tmp_path / "s"), random.Random(5)
    if study == "sqlite":
        plan = replace(plan, search=replace(plan.search, study=f"sqlite:///{tmp_path}/team.db", trials=20))
    factory = Replay(path=str(RECORDED), speed=400.0)  # an epoch takes some hundredths of a second
    kills = 0
    while kills < 20:
        child = os.fork()
        if child == 0:
            code = 7
            try:
                code = 0 if drive(plan, factory=factory) == "finished" else 8
            finally:
                os._exit(code)
        ended = _wait(child, chance.uniform(0.02, 0.25))
        if ended is not None:
            assert os.WIFEXITED(ended) and os.WEXITSTATUS(ended) == 0
            break
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1
    assert kills >= 8
    assert drive(plan, factory=factory) == "finished"
    check_decisions(plan)
    trials = read_search(tmp_path / "s").trials
    assert [trial.number for trial in trials] == list(range(plan.search.trials))
    curves = read_curves(RECORDED)
    for trial in trials:
        curve = curves.nearest(trial.config, trial.seed)
        assert [r.metrics["val_loss"] for r in trial.reports] == list(curve.columns["val_loss"][: trial.epochs_run])
    if study == "auto":  # in a database a proposal that was cut short is completed with other numbers
        whole = replace(plan, directory=str(tmp_path / "whole"))
        drive(whole, factory=factory)
        assert told(tmp_path / "s") == told(tmp_path / "whole")
    assert not list((tmp_path / "s").glob("trials/*/running"))


def _wait(child: int, seconds: float) -> int | None:
    """The child's status, if it ends in that time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        time.sleep(0.005)  # polls another process
    return None
