"""What must hold of a search's study, whatever happened to it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState
from search_doubles import read_log

from tlsearch.core.layout import SearchFolder
from tlsearch.core.types import Decision
from tlsearch.search import SearchPlan
from tlsearch.search.scheduling.stopping_rules import Judge, Observation, Rules, Verdict
from tlsearch.search.study.storage import open_for_reading
from tlsearch.search.study.stored_reports import StoredReport, stored_reports


def replay(rules: Rules, observations: Iterable[Observation]) -> list[Verdict]:
    """What a new judge answers to a stored sequence of reports."""
    judge = Judge(rules)
    return [judge.observe(one) for one in observations]


def behave(root: Path, rules: dict[str, Any]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "behaviour.json").write_text(json.dumps(rules))


def study_trials(root: Path) -> list[FrozenTrial]:
    study = open_for_reading(SearchFolder(root=root))
    assert study is not None
    return study.trials()


def observed(stored: StoredReport, trial: FrozenTrial, cost: str = "") -> Observation:
    """A stored report as the rules saw it."""
    return Observation(
        trial=trial.number,
        bracket=trial.user_attrs["bracket"],
        epoch=stored.report.epoch,
        value=stored.value,
        uncut=trial.user_attrs.get("first_look", False),
        cost=trial.user_attrs.get("measured", {}).get(cost, 0.0),
        head_only=trial.user_attrs["config"].get("unfreeze_depth", 0) == 0,
    )


def check_decisions(plan: SearchPlan) -> None:
    """A fresh judge gives the stored decisions to the stored sequence."""
    pairs = [(stored, trial) for trial in study_trials(Path(plan.directory)) for stored in stored_reports(trial)]
    pairs.sort(key=lambda pair: pair[0].seq)
    assert [stored.seq for stored, _ in pairs] == list(range(len(pairs)))
    seen = [observed(s, t, plan.search.cost) for s, t in pairs]
    assert [stored.verdict for stored, _ in pairs] == replay(plan.rules, seen)


def check_agreement(plan: SearchPlan) -> None:
    """Every report is in the study once, in order, with the decision of a fresh judge; the ends follow from them."""
    root = Path(plan.directory)
    trials = study_trials(root)
    logged = {(line["number"], line["epoch"]): line["value"] for line in read_log(root) if line["what"] == "epoch"}
    everything = sorted(
        ((stored, trial) for trial in trials for stored in stored_reports(trial)), key=lambda pair: pair[0].seq
    )
    assert [stored.seq for stored, _ in everything] == list(range(len(everything)))
    fresh = replay(
        plan.rules,
        [observed(s, t, plan.search.cost) for s, t in everything],
    )
    assert [stored.verdict for stored, _ in everything] == fresh
    for trial in trials:
        reports = stored_reports(trial)
        assert [stored.report.epoch for stored in reports] == list(range(1, len(reports) + 1))
        assert trial.intermediate_values == {stored.report.epoch: stored.value for stored in reports}
        for stored in reports:
            assert logged[trial.number, stored.report.epoch] == stored.value
        if trial.state is OptunaState.COMPLETE:
            assert reports[-1].verdict.decision is Decision.COMPLETE
            assert trial.value == trial.user_attrs["best_value"] == max(trial.intermediate_values.values())
        if trial.user_attrs.get("reason") == "asha":
            assert trial.state is OptunaState.PRUNED and reports[-1].verdict.decision is Decision.STOP
