"""What is tried next: the portfolio, and the greatest expected gain per second."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial
from search_doubles import QuickTrial, drive, make_plan
from test_search_supersede import space as real_space

from tlsearch.search import experience as experience_module
from tlsearch.search import read_search
from tlsearch.search.allocation import Allocation, alone
from tlsearch.search.costs import Costs, Kind
from tlsearch.search.drawing import Point, draw, nearest
from tlsearch.search.experience import Experience
from tlsearch.search.first_points import first_look
from tlsearch.search.starting_points import RECIPES, recipe
from tlsearch.search.surrogate import Encoder, Surrogate, expected_gain, likely_kernels
from tlsearch.space import Choice, Fixed, FloatRange, IntRange
from tlsearch.types import Mode, TrialConfig

WIDE = real_space(
    backbone=Choice(values=("resnet18", "mobilenet_v2")),
    unfreeze_depth=IntRange(low=0, high=5),
    head_lr=FloatRange(low=1e-4, high=1e-1, log=True),
    backbone_lr=FloatRange(low=1e-6, high=1e-3, log=True),
)
ONE = real_space(
    backbone=Fixed(value="resnet18"),
    unfreeze_depth=IntRange(low=0, high=5),
    head_lr=FloatRange(low=1e-4, high=1e-1, log=True),
    backbone_lr=FloatRange(low=1e-6, high=1e-3, log=True),
)
SEEDS = range(10, 14)
SURE = Allocation(random_every=0)
ALL = {"portfolio": True, "expected_gain": True, "cost_aware": True}


def proposals(root: Path, starts: tuple[int, ...], slots: int = 1, **search: Any) -> list[dict[str, Any]]:
    for trials in starts:
        plan = replace(make_plan(root, max_epochs=3, trials=trials, **search), space=WIDE)
        assert drive(plan, slots=slots, factory=QuickTrial) == "finished"
    return [dict(trial.params) for trial in read_search(root).trials]


def trial(number: int, point: Point, values: list[float], seconds: float, **config: Any) -> FrozenTrial:
    """A trial that is over, with these values by epoch."""
    plain = vars(TrialConfig(backbone="resnet18", **config))
    reports = {f"report:{e}": {"metrics": {"epoch_seconds": seconds}} for e in range(1, len(values) + 1)}
    made = create_trial(
        state=TrialState.PRUNED,
        params=dict(point.values),
        distributions=dict(point.domains),
        user_attrs={"config": plain, **reports},
        intermediate_values=dict(enumerate(values, start=1)),
    )
    made.number = number
    return made


def test_a_restart_goes_on_with_the_same_proposals(tmp_path: Path) -> None:
    whole = proposals(tmp_path / "whole", (18,), seed=3, **ALL)
    parts = proposals(tmp_path / "parts", (5, 9, 18), seed=3, **ALL)
    assert whole == parts
    assert len({str(point) for point in whole}) == 18
    assert whole != proposals(tmp_path / "other", (18,), seed=4, **ALL)
    assert whole != proposals(tmp_path / "free", (18,), seed=3, **{**ALL, "cost_aware": False})


def test_first_the_default_then_every_backbone_then_recipes(tmp_path: Path) -> None:
    points = proposals(tmp_path / "a", (3 + len(RECIPES),), **ALL)
    assert points[0].items() >= WIDE.default_point().items()
    assert (points[1]["backbone"], points[1]["unfreeze_depth"]) == ("mobilenet_v2", 0)
    recipes = [one["unfreeze_depth"] for one in RECIPES]
    assert [point["unfreeze_depth"] for point in points[2:]] == [recipes[0], *recipes], "the first on both backbones"


def test_recipes_are_on_the_backbone_that_is_best(tmp_path: Path) -> None:
    class Lopsided(QuickTrial):
        def step(self) -> Any:
            report = super().step()
            good = self._assignment.config.backbone == "mobilenet_v2"
            return type(report)(epoch=report.epoch, metrics={"val_accuracy": 0.9 if good else 0.1}, timestamp=0.0)

    plan = replace(make_plan(tmp_path / "a", max_epochs=3, trials=6, portfolio=True), space=WIDE)
    assert drive(plan, factory=Lopsided) == "finished"
    backbones = [one.config.backbone for one in read_search(tmp_path / "a").trials]
    assert backbones[2:] == ["mobilenet_v2", "resnet18", "mobilenet_v2", "mobilenet_v2"]


def test_the_expected_gain_chooses_where_the_portfolio_is_off_unless_told(tmp_path: Path) -> None:
    def found(name: str, **search: Any) -> list[dict[str, Any]]:
        return proposals(tmp_path / name, (12,), **search)

    without = found("without", portfolio=False)
    assert without == found("auto", portfolio=False, expected_gain=None)
    assert without == found("on", portfolio=False, expected_gain=True)
    assert without != found("off", portfolio=False, expected_gain=False)
    after = found("after")
    assert after == found("after off", expected_gain=False) != found("after on", expected_gain=True)


def test_costs_count_in_the_expected_gain(tmp_path: Path) -> None:
    rest = {"portfolio": False, "expected_gain": True}
    aware = proposals(tmp_path / "a", (8,), **rest, cost_aware=True)
    assert aware != proposals(tmp_path / "b", (8,), **rest, cost_aware=False)


def test_the_first_ten_points_are_cheap_ones_where_costs_count(tmp_path: Path) -> None:
    def depths(counts: bool) -> list[list[int]]:
        return [
            [
                point["unfreeze_depth"]
                for point in proposals(
                    tmp_path / f"{counts}{seed}",
                    (14,),
                    seed=seed,
                    portfolio=False,
                    cost_aware=counts,
                    expected_gain=False,
                )
            ]
            for seed in range(12)
        ]

    aware, free = depths(True), depths(False)
    lowest = 1.62  # what the lowest of three draws from 0 to 5 that lean to the middle is on average
    assert np.mean([row[2:10] for row in aware]) == pytest.approx(lowest, abs=0.4)
    assert np.mean([row[2:10] for row in free]) > lowest + 0.5
    assert np.mean([row[10:] for row in aware]) > lowest + 0.2, "then TPE proposes, at any cost"


def test_a_cheap_point_is_a_new_one() -> None:
    few = real_space(
        backbone=Fixed(value="resnet18"), unfreeze_depth=IntRange(low=0, high=1), bn_policy=Fixed(value="frozen")
    )
    few = replace(
        few, dimensions={**few.dimensions, "head_lr": replace(few.dimensions["head_lr"], domain=Fixed(value=1e-3))}
    )
    tried = [trial(0, nearest(few, {"unfreeze_depth": 0}), [0.5], 0.1)]
    experience = Experience("max")
    chosen = [
        Allocation().early_point(few, tried, rng=random.Random(seed), experience=experience) for seed in range(16)
    ]
    assert None in chosen, "all that was drawn had been tried"
    assert all(one is None or one["unfreeze_depth"] == 1 for one in chosen)


@pytest.mark.parametrize("sampler", ["random", "fixed"])
def test_other_samplers_propose_for_themselves(tmp_path: Path, sampler: str) -> None:
    start = {"sampler": sampler, "start_with": tuple({"unfreeze_depth": depth} for depth in range(4))}
    mine = proposals(tmp_path / "a", (6,), **start, portfolio=True, cost_aware=True)
    off = {"portfolio": False, "expected_gain": False}
    assert mine == proposals(tmp_path / "b", (6,), **start, **off)


def test_recipes_are_moved_into_the_space() -> None:
    narrow = real_space(
        backbone=Choice(values=("resnet18", "mobilenet_v2")),
        unfreeze_depth=IntRange(low=0, high=2),
        head_lr=FloatRange(low=1e-4, high=2e-3, log=True),
        backbone_lr=FloatRange(low=1e-6, high=5e-5, log=True),
    )
    assert recipe(narrow, 3, "resnet18") is None  # depth 5
    point = recipe(narrow, 0, "mobilenet_v2")
    assert point is not None and point["backbone"] == "mobilenet_v2"
    assert (point["head_lr"], point["backbone_lr"]) == pytest.approx((1e-3, 5e-5))
    assert [first_look(narrow, one)["backbone"] for one in narrow.backbones()] == ["resnet18", "mobilenet_v2"]


def test_points_are_drawn_inside_the_space() -> None:
    rng = random.Random(0)
    for _ in range(200):
        parent = draw(WIDE, rng)
        child = draw(WIDE, rng, parent.values)
        config = WIDE.to_config(child.values)  # raises where it is outside
        assert (config.backbone_lr is None) == (config.unfreeze_depth == 0)
        assert nearest(WIDE, child.values).values == child.values


def test_central_points_lean_to_the_middle_of_every_range_of_numbers() -> None:
    rng = random.Random(0)
    points = [draw(WIDE, rng, central=True) for _ in range(400)]
    rates = [math.log10(float(point.values["head_lr"])) for point in points]
    depths = [point.values["unfreeze_depth"] for point in points]
    assert np.mean([-3.25 <= rate <= -1.75 for rate in rates]) == pytest.approx(0.75, abs=0.07), "the inner half"
    assert np.mean([depth in (2, 3) for depth in depths]) == pytest.approx(0.64, abs=0.07)
    assert len({point.values["backbone"] for point in points}) == len(WIDE.backbones()), "choices have no middle"


def test_costs_are_measured_else_counted() -> None:
    head = Kind(backbone="resnet18", depth=0, stored=True)
    deep = replace(head, depth=5)
    counted = Costs(())
    assert counted.of(deep) > 20 * counted.of(head)
    costs = Costs([(head, (0.1, 0.1)), (deep, (9.0, 6.0, 6.0))])
    assert (costs.of(head), costs.of(deep)) == (0.1, 6.0)
    assert 0.1 < costs.of(replace(head, depth=2)) < 6.0
    assert costs.of(replace(deep, backbone="mobilenet_v2")) == 6.0
    assert Kind.of({"backbone": "resnet18"}) == head
    augmented = Kind.of({"backbone": "resnet18", "unfreeze_depth": 0, "augmentation": "light"})
    assert augmented.passes > 10 * head.passes
    light = {"backbone": "resnet18", "augmentation": "light"}
    assert Kind.of(light, views=4) == head, "fixed views are stored"
    assert Kind.of({**light, "mixup": 0.2}, views=4) == augmented


def test_the_surrogate_finds_the_top_and_hopes_for_more_where_it_is_unsure() -> None:
    rng = np.random.default_rng(0)
    seen = rng.random((40, 2)) * 0.5
    values = 0.7 - ((seen - 0.3) ** 2).sum(axis=1)
    surrogate = Surrogate(seen, values, np.zeros(40))
    asked = np.array([[0.3, 0.3], [0.0, 0.0], [0.95, 0.95]])
    expected = surrogate.expected(asked)
    assert expected[0] > expected[1] and expected[0] == pytest.approx(0.7, abs=0.02)
    gains = surrogate.gain(asked, 0.75)
    assert gains[2] > 3 * gains[0] > 0
    assert surrogate.believing(asked[2:]).gain(asked, 0.75)[2] < 0.5 * gains[2], "there a trial runs already"
    gains = expected_gain(np.array([0.5, 0.5, 0.9]), np.array([1e-6, 0.1, 1e-6]), 0.6)
    assert gains[0] == pytest.approx(0.0, abs=1e-9) and 0 < gains[1] < gains[2] == pytest.approx(0.3)


def test_what_matters_is_learned_from_few_points() -> None:
    """Lengths of the likely kernels are short where values change."""
    rng = np.random.default_rng(1)
    seen = rng.random((30, 4))
    for index in range(4):
        values = np.sin(6 * seen[:, index])
        kernels = likely_kernels(seen, (values - values.mean()) / values.std(), np.zeros(30))
        assert sum(kernel.weight for kernel in kernels) == pytest.approx(1.0)
        assert np.argmin(sum(kernel.weight * np.log(kernel.lengths) for kernel in kernels)) == index


def test_choices_are_equally_far_and_absence_is_told() -> None:
    rng = random.Random(1)
    points = [draw(WIDE, rng) for _ in range(40)]
    domains = {name: domain for point in points for name, domain in point.domains.items()}
    rows = Encoder(domains).encode(points)
    assert rows.min() >= 0 and rows.max() <= 1
    head = [index for index, point in enumerate(points) if "backbone_lr" not in point.values]
    assert head and len({tuple(row) for row in rows.tolist()}) == len(points)


def _half(costs: tuple[float, float]) -> list[FrozenTrial]:
    """Shallow and deep trials that reached the same, at these seconds per epoch."""
    rng, trials = random.Random(2), []
    for number in range(12):
        depth = 0 if number % 2 else 5
        point = draw(ONE, rng)
        while point.values["unfreeze_depth"] != depth:
            point = draw(ONE, rng)
        config = dict(vars(ONE.to_config(point.values)))
        config.pop("backbone")
        values = [0.5 + 0.01 * (number // 2), 0.55 + 0.01 * (number // 2)]
        trials.append(trial(number, point, values, costs[depth > 0], **config))
    return trials


def _mean_depth(trials: Sequence[FrozenTrial], allocation: Allocation, mode: Mode = "max") -> float:
    chosen = []
    for seed in range(8):
        values = allocation.point(ONE, trials, mode=mode, max_epochs=3, rng=random.Random(seed))
        assert values is not None
        chosen.append(float(values["unfreeze_depth"] or 0))  # type: ignore[arg-type]
    return sum(chosen) / len(chosen)


def test_costs_decide_between_equal_promises() -> None:
    dear_depth, dear_head = _half((0.1, 50.0)), _half((50.0, 0.1))
    assert _mean_depth(dear_depth, SURE) + 1 < _mean_depth(dear_head, SURE)
    unmoved = replace(SURE, cooling=0.0)
    assert _mean_depth(dear_depth, unmoved) == _mean_depth(dear_head, unmoved)
    counted = replace(SURE, measured=False)
    assert _mean_depth(dear_depth, counted) == _mean_depth(dear_head, counted)


def test_every_third_point_is_drawn_whatever_trials_have_shown() -> None:
    one, other = _half((0.1, 50.0)), _half((50.0, 0.1))[::-1]

    def chosen(trials: Sequence[FrozenTrial]) -> list[Any]:
        return [Allocation().point(ONE, trials, mode="max", max_epochs=3, rng=random.Random(seed)) for seed in SEEDS]

    assert chosen(one) == chosen(other) == [draw(ONE, random.Random(seed)).values for seed in SEEDS]
    assert chosen(one[:11]) != chosen(other[:11]), "others follow from what is known"


def test_one_trial_at_a_time_looks_at_no_clock() -> None:
    trials = _half((0.1, 50.0))
    assert not alone(Allocation(), trials).measured
    trials[3].state = TrialState.RUNNING
    assert alone(Allocation(), trials).measured


def test_while_too_little_is_known_the_cheapest_of_three_is_tried_or_the_sampler_proposes() -> None:
    trials = _half((0.1, 50.0))[:3]
    assert Allocation(cooling=0.0).point(ONE, trials, mode="max", max_epochs=3, rng=random.Random(0)) is None
    for few in ([], trials):
        for seed in range(10, 18):  # others than the trials' own
            values = Allocation().point(ONE, few, mode="max", max_epochs=3, rng=random.Random(seed))
            rng = random.Random(seed)
            depths = [draw(ONE, rng, central=True).values["unfreeze_depth"] for _ in range(3)]
            assert values is not None and values["unfreeze_depth"] == min(depths), "deeper is dearer"


def _at_depth(depth: int, seed: int) -> Point:
    rng = random.Random(seed)
    while (point := draw(ONE, rng)).values["unfreeze_depth"] != depth:
        pass
    return point


def test_what_does_not_fit_is_kept_away_from() -> None:
    trials = _half((1.0, 1.0))
    unmoved = replace(SURE, cooling=0.0)
    deep = [trial(n, _at_depth(5, n), [], 1.0, unfreeze_depth=5, backbone_lr=1e-4) for n in range(12, 20)]
    for one in deep:
        one.system_attrs["constraints"] = [1.0]
    assert _mean_depth([*trials, *deep], unmoved) < _mean_depth(trials, unmoved) - 1


def test_beside_what_runs_another_point_is_tried() -> None:
    trials = _half((1.0, 1.0))
    first = Allocation().point(ONE, trials, mode="max", max_epochs=3, rng=random.Random(0))
    assert first is not None
    running = trial(12, nearest(ONE, first), [], 1.0)
    running.state = TrialState.RUNNING
    assert Allocation().point(ONE, [*trials, running], mode="max", max_epochs=3, rng=random.Random(0)) != first


def test_the_direction_follows_the_mode() -> None:
    def best(mode: Mode, values: Sequence[float]) -> float:
        trials = [trial(n, _at_depth(n % 6, n), [value], 1.0) for n, value in enumerate(values)]
        return _mean_depth(trials, replace(SURE, cooling=0.0), mode)

    rising = [0.1 * (number % 6) for number in range(18)]
    assert best("max", rising) > 3.5 > 2.0 > best("min", rising)


def _many(count: int) -> list[FrozenTrial]:
    """Trials of all kinds: ended, cut, infeasible, failed by a bug, and the last few still running."""
    rng, trials = random.Random(5), []
    for number in range(count):
        point = draw(ONE, rng)
        config = dict(vars(ONE.to_config(point.values)))
        config.pop("backbone")
        values = [0.1 + 0.6 * rng.random() for _ in range(rng.randint(1, 3))]
        one = trial(number, point, values if number % 11 else [], 0.5, **config)
        if number % 11 == 0:
            one.system_attrs["constraints"] = [1.0]
        one.state = TrialState.FAIL if number % 17 == 3 else TrialState.PRUNED
        trials.append(one)
    for one in trials[-4:]:
        one.state = TrialState.RUNNING
    trials[-1].intermediate_values.clear()
    return trials


@pytest.mark.parametrize("count", [12, 60, 100])
def test_what_was_read_before_changes_no_proposal(count: int) -> None:
    """A resumed search, which has read nothing before, proposes what the uninterrupted one would."""
    trials, experience = _many(count), Experience("max")
    early = [copy(one) for one in trials[: count // 2]]
    early[-1].state = TrialState.RUNNING  # it was read before it ended
    early[-1].intermediate_values = dict(list(early[-1].intermediate_values.items())[:1])
    for known in (early, trials):
        points = [
            Allocation().point(ONE, known, mode="max", max_epochs=3, rng=random.Random(count), experience=read)
            for read in (experience, None)
        ]
        assert points[0] is not None and points[0] == points[1]


def test_a_trial_that_has_ended_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read, encoded = Counter[int](), Counter[int]()
    parse, row = experience_module._tried, Encoder.row
    numbers = {}

    def parsed(one: FrozenTrial, mode: Mode, views: int) -> Any:
        read[one.number] += 1
        found = parse(one, mode, views)
        if found is not None:
            numbers[id(found.point)] = one.number
        return found

    def coded(encoder: Encoder, point: Point) -> list[float]:
        if id(point) in numbers:
            encoded[numbers[id(point)]] += 1
        return row(encoder, point)

    monkeypatch.setattr(experience_module, "_tried", parsed)
    monkeypatch.setattr(Encoder, "row", coded)
    trials, experience = _many(60), Experience("max")
    for seed in range(5):
        Allocation().point(ONE, trials, mode="max", max_epochs=3, rng=random.Random(seed), experience=experience)
    assert {read[one.number] for one in trials[:-4]} == {1} and {read[one.number] for one in trials[-4:]} == {5}
    assert {encoded[one.number] for one in trials[:-4]} <= {0, 1} and encoded[1] == 1


def test_the_surrogate_is_a_mean_of_gaussian_processes() -> None:
    """Against the formulas, with a plain inverse."""
    rng = np.random.default_rng(4)
    seen, asked, noise = rng.random((25, 3)), rng.random((6, 3)), rng.random(25) * 0.01
    values = np.sin(4 * seen).sum(axis=1)
    mean, scale = values.mean(), values.std()
    scaled, extra = (values - mean) / scale, noise / scale**2
    kernels = likely_kernels(seen, scaled, extra)

    def covariance(one: Any, other: Any, lengths: Any) -> Any:
        apart = np.sqrt(5) * np.linalg.norm((one[:, None] - other[None]) / lengths, axis=2)
        return (1 + apart + apart**2 / 3) * np.exp(-apart)

    expected, gain, likelihoods = np.zeros(6), np.zeros(6), []
    for kernel in kernels:
        matrix = covariance(seen, seen, kernel.lengths) + np.diag(kernel.noise + extra + 1e-8)
        inverse = np.linalg.inv(matrix)
        likelihoods.append(-0.5 * scaled @ inverse @ scaled - 0.5 * np.linalg.slogdet(matrix)[1])
        cross = covariance(asked, seen, kernel.lengths)
        means = mean + scale * cross @ inverse @ scaled
        deviations = scale * np.sqrt(1 - np.einsum("ij,jk,ik->i", cross, inverse, cross))
        expected += kernel.weight * means
        gain += kernel.weight * expected_gain(means, deviations, 2.0)
    shares = np.exp(np.array(likelihoods) - max(likelihoods))
    assert [kernel.weight for kernel in kernels] == pytest.approx(shares / shares.sum(), rel=1e-6)
    surrogate = Surrogate(seen, values, noise)
    assert surrogate.expected(asked) == pytest.approx(expected, rel=1e-6)
    assert surrogate.gain(asked, 2.0) == pytest.approx(gain, rel=1e-6)


def test_from_the_hundredth_trial_on_tpe_proposes() -> None:
    def asked(count: int) -> Mapping[str, Any] | None:
        return Allocation().point(ONE, _many(count), mode="max", max_epochs=3, rng=random.Random(0))

    assert asked(100) is not None and asked(120) is None, "of them some say nothing"
