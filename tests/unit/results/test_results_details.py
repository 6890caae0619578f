"""What goes beyond the study: ranks and ties, standard errors, filters, facts; and what plots are drawn from."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
from search_records import make_facts, make_record, make_trial, record_of

from tlsearch.core.errors import UserError
from tlsearch.core.types import Objective, TrialConfig, TrialState
from tlsearch.results.leaderboard.filters import parse_condition, select_rows
from tlsearch.results.leaderboard.leaderboard import (
    leaderboard,
    leaderboard_csv,
    rows_csv,
    rows_json,
)
from tlsearch.results.leaderboard.leaderboard_notes import leaderboard_notes, probe_accuracies
from tlsearch.results.leaderboard.search_facts import SearchFacts
from tlsearch.results.report.findings import by_backbone, by_depth, cheaper_equal, findings, shared_by_the_best
from tlsearch.results.report.plots.parallel import parameter_scale
from tlsearch.results.report.plots.view import View, clock_of, robust_limits, varied_parameters

LITE = {"backbone": "mobilenet_v2", "unfreeze_depth": 3, "backbone_lr": 1e-4}
TRIALS = [
    make_trial(0, [0.60, 0.70]),
    make_trial(1, [0.69, 0.70], params=LITE),
    make_trial(2, [0.60], state=TrialState.PRUNED, reason="asha"),
    make_trial(3, [0.60], state=TrialState.PRUNED, reason="asha", params={"head_lr": 0.02}),
    make_trial(4, [0.99], state=TrialState.PRUNED, reason="diverged"),
    make_trial(5, [], state=TrialState.FAILED, reason="error", error="out of luck"),
    make_trial(6, [0.80], state=TrialState.RUNNING, reason=""),
]
RECORD = record_of(TRIALS)
FACTS = make_facts(num_validation=100)
ROWS = leaderboard(RECORD, {}, FACTS)


def test_equal_values_share_a_rank_and_say_so() -> None:
    assert [(row.trial, row.rank, row.tied) for row in ROWS] == [
        (0, 1, True),
        (1, 1, True),
        (2, 3, True),
        (3, 3, True),
        (6, None, False),
        (4, None, False),
        (5, None, False),
    ]
    notes = leaderboard_notes(RECORD, ROWS, FACTS)
    assert notes == [
        "tied for first with exactly the same val_accuracy: trials 0, 1; the earliest is listed first",
        "trials ran for 1 to 2 epochs: the value of one that was stopped is its best until then",
    ]


def test_standard_errors_and_what_lies_within_one() -> None:
    assert ROWS[0].standard_error == pytest.approx((0.7 * 0.3 / 100) ** 0.5)
    assert ROWS[0].interval is not None and ROWS[0].interval[0] < 0.7 < ROWS[0].interval[1]
    assert [row.within_one_se for row in ROWS] == [True, True, False, False, None, None, None]
    few = leaderboard(RECORD, {}, make_facts(num_validation=10))
    assert [row.within_one_se for row in few[:4]] == [True] * 4
    assert (
        "2 more trials are within one standard error of the best (~): "
        in leaderboard_notes(RECORD, few, make_facts(10))[1]
    )
    assert all(row.standard_error is None and row.within_one_se is None for row in leaderboard(RECORD, {}))


@pytest.mark.parametrize("metric", ["val_loss", "val_macro_f1", "val_balanced_accuracy"])
def test_no_standard_error_where_the_metric_is_no_share(metric: str) -> None:
    record = record_of([make_trial(0, [0.4, 0.5], metric=metric)], metric=metric)
    rows = leaderboard(record, {}, FACTS)
    assert rows[0].standard_error is None and rows[0].rank == 1
    assert "no standard error" in leaderboard_notes(record, rows, FACTS)[-1]


def test_sizes_times_and_latency() -> None:
    assert ROWS[1].parameters == FACTS.parameters["mobilenet_v2"] and ROWS[1].trainable_parameters == 4000
    assert ROWS[0].seconds == pytest.approx(2.0) and ROWS[-1].seconds is None
    assert all(row.latency_ms is None for row in ROWS)
    measured = record_of([replace(TRIALS[0], measured={"latency_ms": 7.5, "params_millions": 11.2}), TRIALS[1]])
    facts = replace(FACTS, latency_ms={"resnet18": 20.0, "mobilenet_v2": 9.0})
    assert {row.trial: row.latency_ms for row in leaderboard(measured, {}, facts)} == {0: 7.5, 1: 9.0}
    assert {row.trial: row.parameters for row in leaderboard(measured, {})} == {0: 11_200_000, 1: None}


def test_details_are_added_to_the_published_shape() -> None:
    plain, full = rows_json(RECORD, ROWS), rows_json(RECORD, ROWS, FACTS)
    assert set(full) - set(plain) == {"validation_images", "notes"}
    for short, long in zip(plain["trials"], full["trials"], strict=True):
        assert short.items() <= long.items()
    assert json.loads(json.dumps(full)) == full
    assert full["trials"][-1]["error"] == "out of luck"


def test_csv_with_details() -> None:
    rows = list(csv.DictReader(rows_csv(ROWS[:2]).splitlines()))
    assert [row["rank"] for row in rows] == ["1", "1"]
    assert rows[1]["backbone_lr"] == "0.0001" and rows[0]["backbone_lr"] == ""
    assert float(rows[0]["standard_error"]) == ROWS[0].standard_error
    assert "standard_error" not in leaderboard_csv(RECORD, {}).splitlines()[0]
    assert "standard_error" in leaderboard_csv(RECORD, {}, FACTS).splitlines()[0]


@pytest.mark.parametrize(
    ("states", "conditions", "trials"),
    [
        ([], ["backbone=mobilenet_v2"], [1]),
        ([], ["backbone=resnet*", "best_value>=0.6"], [0, 2, 3, 6, 4]),
        ([], ["backbone!=resnet18"], [1]),
        ([], ["unfreeze_depth>=2"], [1]),
        ([], ["head_lr<=0.001"], [0, 1, 2, 6, 4, 5]),
        ([], ["head_lr = 2e-2"], [3]),
        ([], ["backbone_lr=none"], [0, 2, 3, 6, 4, 5]),
        ([], ["reason=asha"], [2, 3]),
        (["complete"], [], [0, 1]),
        (["failed", "running"], [], [6, 5]),
        (["pruned"], ["head_lr>0.01"], [3]),
        ([], ["parameters>4000000"], [1]),
    ],
)
def test_filters(states: list[str], conditions: list[str], trials: list[int]) -> None:
    assert [row.trial for row in select_rows(ROWS, states=states, conditions=conditions)] == trials


@pytest.mark.parametrize(
    ("states", "conditions", "message"),
    [
        (["done"], [], "a trial's state is one of running, complete"),
        (["complet"], [], "did you mean 'complete'"),
        ([], ["backbon=resnet18"], "did you mean 'backbone'"),
        ([], ["resnet18"], "a condition is NAME=VALUE"),
        ([], ["unfreeze_depth>=deep"], "compares with a number"),
    ],
)
def test_filters_that_cannot_be_understood(states: list[str], conditions: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        select_rows(ROWS, states=states, conditions=conditions)


def test_a_condition_may_have_spaces_and_an_empty_value() -> None:
    assert parse_condition(" note = a b ").value == "a b"
    assert parse_condition("note=").value == ""


def test_facts_survive_their_file() -> None:
    assert SearchFacts.from_json(json.loads(json.dumps(FACTS.to_json()))) == FACTS
    with pytest.raises(ValueError, match="format"):
        SearchFacts.from_json({"format": 99})


def _view(record: object = RECORD, facts: SearchFacts = FACTS) -> View:
    return View(record=record, rows=leaderboard(record, {}, facts), facts=facts)  # type: ignore[arg-type]


def test_summaries_by_backbone_and_depth() -> None:
    backbones = {group.name: group for group in by_backbone(_view())}
    assert list(backbones) == ["resnet18", "mobilenet_v2"]
    resnet = backbones["resnet18"]
    assert (resnet.trials, resnet.completed, resnet.epochs) == (6, 1, 6)
    assert resnet.best is not None and resnet.best.trial == 0 and resnet.median == 0.60
    assert [group.name for group in by_depth(_view())] == ["0", "3"]
    failed = by_depth(_view(record_of([TRIALS[5]])))
    assert failed[0].best is None and failed[0].median is None


def test_a_cheaper_trial_that_is_as_good_is_named() -> None:
    trials = [make_trial(0, [0.69]), make_trial(1, [0.70], params=LITE), make_trial(2, [0.50])]
    assert [row.trial for row in [cheaper_equal(_view(record_of(trials)))] if row] == [0]
    assert any(
        "trial 0 (resnet18) has 2.5 million parameters instead of 5.5" in s for s in findings(_view(record_of(trials)))
    )
    assert cheaper_equal(_view(record_of(trials), make_facts(num_validation=100_000))) is None
    assert cheaper_equal(_view(record_of(trials), SearchFacts())) is None


def test_what_the_best_share() -> None:
    shared = {name: (best, spread) for name, best, spread in shared_by_the_best(_view(), 3)}
    assert shared["backbone"] == ("resnet18", "resnet18 (2), mobilenet_v2 (1)")
    assert shared["unfreeze_depth"] == ("0", "0 (2), 3 (1)")
    assert "backbone_lr" not in shared  # has one value


def test_only_parameters_with_two_values_are_plotted() -> None:
    record = make_record(40)
    assert set(varied_parameters(_view(record))) == {
        "backbone",
        "unfreeze_depth",
        "head_lr",
        "backbone_lr",
        "bn_policy",
        "augmentation",
    }
    assert varied_parameters(_view(record_of(TRIALS[:1]))) == []


def test_limits_leave_out_only_what_is_far_worse() -> None:
    values = [0.6, 0.62, 0.65, 0.7, 0.71, 0.05]
    low, high = robust_limits(values, Objective.of("val_accuracy"))
    assert 0.05 < low < 0.6 and high > 0.71
    low, high = robust_limits([1.0, 1.1, 1.2, 50.0, 0.01], Objective.of("val_loss"))
    assert low < 0.01 and 1.2 < high < 50.0
    for same in ([0.5], [0.0, 0.0], [1.0] * 5):
        low, high = robust_limits(same, Objective.of("val_accuracy"))
        assert low < same[0] < high


def test_a_scale_orders_numbers_and_spaces_wide_ones_by_power() -> None:
    trials = [
        make_trial(n, [0.5], params={"head_lr": 10.0 ** (-4 + 3 * n / 19), "bs": 16 * 2 ** (n % 3)}) for n in range(20)
    ]
    scale = parameter_scale(trials, "head_lr", log=True)
    assert scale.heights[1e-4] == 0.0 and scale.heights[1e-1] == pytest.approx(1.0)
    assert scale.heights[trials[10].params["head_lr"]] == pytest.approx(10 / 19)
    assert [label for _, label in scale.labels] == ["1e-4", "1e-3", "1e-2", "1e-1"]
    assert parameter_scale(trials, "bs", log=False).heights == {16: 0.0, 32: 0.5, 64: 1.0}


def test_a_clock_stands_still_between_two_starts() -> None:
    record = record_of([make_trial(0, [0.5, 0.6]), make_trial(9000, [0.7])])
    clock = clock_of(replace(record, pauses=((1.7e9 + 2, 90_000 - 2),)))
    assert clock(1.7e9) == 0.0 and clock(1.7e9 + 2) == 2.0
    assert clock(1.7e9 + 90_000 + 1) == pytest.approx(3.0)
    assert clock_of(record_of([])).pauses == ()


def test_the_linear_probe_stands_beside_the_trials() -> None:
    trials = []
    for number, (backbone, accuracy) in enumerate(
        [("resnet18", 0.61), ("vgg11", 0.5), ("resnet18", 0.65), ("alexnet", None)]
    ):
        trial = RECORD.trials[number]
        first = trial.reports[0]
        metrics = dict(first.metrics) | ({} if accuracy is None else {"probe_accuracy": accuracy})
        reports = (replace(first, metrics=metrics), *trial.reports[1:])
        trials.append(replace(trial, config=TrialConfig(backbone=backbone), reports=reports))
    record = replace(RECORD, trials=tuple(trials))
    assert probe_accuracies(record) == {"resnet18": 0.65, "vgg11": 0.5}
    notes = leaderboard_notes(record, leaderboard(record, {}, FACTS), FACTS)
    assert any("resnet18 0.6500, vgg11 0.5000" in note for note in notes)
    small, large = (
        replace(trials[n], config=TrialConfig(backbone="vgg11", image_size=s)) for n, s in ((0, 32), (2, 64))
    )
    sized = replace(RECORD, trials=(small, large))
    assert probe_accuracies(sized) == {"vgg11 at 64 px": 0.65, "vgg11 at 32 px": 0.61}
