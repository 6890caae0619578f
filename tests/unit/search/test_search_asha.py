"""ASHA and the other rules: by hand, and as a pure function of the sequence of reports."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_checks import replay

from tlsearch.core.metrics import Mode
from tlsearch.core.types import Decision, Objective
from tlsearch.search.scheduling.asha import AshaRules, Rungs
from tlsearch.search.scheduling.stopping_rules import Judge, Observation, Rules, Verdict


def rules(max_epochs: int = 9, patience: int | None = None, asha: bool = True, **options: int) -> Rules:
    halving = AshaRules(max_epochs=max_epochs, **options) if asha else None
    return Rules(objective=Objective.of("val_accuracy"), max_epochs=max_epochs, asha=halving, patience=patience)


def seen(trial: int, epoch: int, value: float, bracket: int = 0) -> Observation:
    return Observation(trial=trial, bracket=bracket, epoch=epoch, value=value)


@pytest.mark.parametrize(
    ("options", "bracket", "expected"),
    [
        ({"grace_period": 1, "reduction_factor": 3, "max_epochs": 9}, 0, (1, 3)),
        ({"grace_period": 1, "reduction_factor": 3, "max_epochs": 10}, 0, (1, 3, 9)),
        ({"grace_period": 2, "reduction_factor": 2, "max_epochs": 20}, 0, (2, 4, 8, 16)),
        ({"grace_period": 1, "reduction_factor": 3, "max_epochs": 10, "brackets": 2}, 1, (3, 9)),
        ({"grace_period": 1, "reduction_factor": 3, "max_epochs": 1}, 0, ()),
        ({"grace_period": 5, "reduction_factor": 3, "max_epochs": 5}, 0, ()),
    ],
)
def test_milestones(options: dict[str, int], bracket: int, expected: tuple[int, ...]) -> None:
    assert AshaRules(**options).milestones(bracket) == expected  # type: ignore[arg-type]


def test_a_rung_keeps_the_best_third_rounded_up() -> None:
    rungs = Rungs(AshaRules(max_epochs=9), Objective(metric="x", mode="max"))
    entered = [(0, 0.5, True), (1, 0.4, False), (2, 0.6, True), (3, 0.55, True), (4, 0.52, False), (5, 0.7, True)]
    for trial, value, goes_on in entered:
        assert rungs.enter(bracket=0, epoch=1, best=value) is goes_on, trial


def test_the_direction_follows_the_mode() -> None:
    rungs = Rungs(AshaRules(max_epochs=9), Objective(metric="x", mode="min"))
    assert rungs.enter(bracket=0, epoch=1, best=0.5)
    assert not rungs.enter(bracket=0, epoch=1, best=0.6)
    assert rungs.enter(bracket=0, epoch=1, best=0.4)


def test_of_equal_values_a_third_goes_on() -> None:
    rungs = Rungs(AshaRules(max_epochs=9), Objective(metric="x", mode="max"))
    goes_on = [rungs.enter(bracket=0, epoch=1, best=0.5) for trial in range(7)]
    assert goes_on == [True, False, False, True, False, False, True], "a third of them"
    assert rungs.enter(bracket=0, epoch=1, best=0.6) and not rungs.enter(bracket=0, epoch=1, best=0.4)


@pytest.mark.parametrize("mode", ["max", "min"])
def test_a_long_rung_is_as_its_definition_says(mode: Mode) -> None:
    rng, objective = random.Random(0), Objective(metric="x", mode=mode)
    rungs, entered = Rungs(AshaRules(max_epochs=9), objective), list[tuple[float, bool]]()
    for _ in range(300):
        value = round(rng.random(), 2)  # many are equal
        ahead = sum(objective.better(other, value) or (other == value and went_on) for other, went_on in entered)
        goes_on = ahead < math.ceil((len(entered) + 1) / 3)
        entered.append((value, goes_on))
        assert rungs.enter(bracket=0, epoch=1, best=value) is goes_on


def test_brackets_have_rungs_of_their_own() -> None:
    judge = Judge(rules(brackets=2))
    assert judge.observe(seen(0, 1, 0.9)).decision is Decision.CONTINUE
    assert judge.observe(seen(1, 1, 0.1, bracket=1)).decision is Decision.CONTINUE  # no rung at epoch 1 there
    assert judge.observe(seen(1, 3, 0.1, bracket=1)).decision is Decision.CONTINUE  # the only one in its rung
    assert judge.observe(seen(2, 1, 0.1)).decision is Decision.STOP


def test_a_rung_takes_the_best_value_so_far() -> None:
    judge = Judge(rules())
    for trial, values in ((0, (0.5, 0.6, 0.61)), (1, (0.5, 0.7, 0.2))):
        for epoch, value in enumerate(values, start=1):
            verdict = judge.observe(seen(trial, epoch, value))
        assert verdict.decision is Decision.CONTINUE
    best = judge.best(1)
    assert best is not None and (best.value, best.epoch) == (0.7, 2)


def test_the_last_epoch_completes_whatever_its_value() -> None:
    judge = Judge(rules(max_epochs=3))
    judge.observe(seen(0, 3, 0.9))
    assert judge.observe(seen(1, 3, 0.0)) == Verdict(decision=Decision.COMPLETE, reason="completed")


def test_a_report_with_nothing_left_to_train_completes_and_enters_no_rung() -> None:
    judge = Judge(rules(max_epochs=9))
    last = replace(seen(0, 1, 0.9), last=True)
    assert judge.observe(last) == Verdict(decision=Decision.COMPLETE, reason="completed")
    assert judge.observe(seen(1, 1, 0.1)).decision is Decision.CONTINUE, "it is the first of its rung"


def test_patience_ends_a_plateau_but_not_before_the_first_rung() -> None:
    judge = Judge(rules(max_epochs=20, patience=2, grace_period=5))
    values = [0.5, 0.4, 0.4, 0.4, 0.4]
    decisions = [judge.observe(seen(0, epoch, value)) for epoch, value in enumerate(values, start=1)]
    assert [d.decision for d in decisions[:4]] == [Decision.CONTINUE] * 4
    assert decisions[4] == Verdict(decision=Decision.COMPLETE, reason="plateaued")


def test_patience_without_asha() -> None:
    judge = Judge(rules(max_epochs=20, patience=2, asha=False))
    assert [judge.observe(seen(0, e, v)).reason for e, v in enumerate([0.5, 0.4, 0.6, 0.6, 0.6], start=1)] == [
        "",
        "",
        "",
        "",
        "plateaued",
    ]


def test_without_asha_no_trial_is_cut() -> None:
    verdicts = replay(rules(asha=False), [seen(trial, 1, 1 / (trial + 1)) for trial in range(9)])
    assert {v.decision for v in verdicts} == {Decision.CONTINUE}


def test_brackets_are_drawn_by_seed_and_number() -> None:
    halving = AshaRules(max_epochs=81, brackets=3)
    drawn = [halving.bracket_of(seed=1, number=n) for n in range(900)]
    assert drawn == [halving.bracket_of(seed=1, number=n) for n in range(900)]
    assert drawn != [halving.bracket_of(seed=2, number=n) for n in range(900)]
    shares = [drawn.count(bracket) / 900 for bracket in range(3)]
    assert shares == pytest.approx([9 / 13, 3 / 13, 1 / 13], abs=0.05)
    assert AshaRules(max_epochs=81).bracket_of(seed=1, number=5) == 0


class Sequence:
    """A random search: which trial reports next, and what; a cut trial reports no more."""

    def __init__(self, draw: st.DrawFn, num_trials: int, max_epochs: int) -> None:
        self.rules = rules(max_epochs=max_epochs, reduction_factor=draw(st.integers(2, 4)))
        self.observations: list[Observation] = []
        self.verdicts: list[Verdict] = []
        judge, epochs = Judge(self.rules), dict.fromkeys(range(num_trials), 0)
        while epochs:
            trial = draw(st.sampled_from(sorted(epochs)))
            epochs[trial] += 1
            value = draw(st.integers(0, 20)) / 20
            observation = seen(trial, epochs[trial], value)
            verdict = judge.observe(observation)
            self.observations.append(observation)
            self.verdicts.append(verdict)
            if verdict.decision is not Decision.CONTINUE:
                del epochs[trial]


@st.composite
def sequences(draw: st.DrawFn) -> Sequence:
    return Sequence(draw, num_trials=draw(st.integers(1, 8)), max_epochs=draw(st.integers(1, 10)))


@given(sequences(), st.floats(0, 1))
@settings(max_examples=60)
def test_resumed_decides_as_uninterrupted(sequence: Sequence, where: float) -> None:
    """A judge fed the stored reports up to any moment answers the rest as the first judge did."""
    cut = math.floor(where * len(sequence.observations))
    judge = Judge(sequence.rules)
    for observation in sequence.observations[:cut]:
        judge.observe(observation)
    assert [judge.observe(o) for o in sequence.observations[cut:]] == sequence.verdicts[cut:]


@given(sequences())
@settings(max_examples=60)
def test_decisions_depend_on_ranks_alone(sequence: Sequence) -> None:
    """Any rising transformation of the metric leaves every decision as it was."""
    bent = [seen(o.trial, o.epoch, math.exp(3 * o.value) - 7) for o in sequence.observations]
    assert replay(sequence.rules, bent) == sequence.verdicts


@given(sequences())
@settings(max_examples=60)
def test_the_best_of_a_rung_always_goes_on(sequence: Sequence) -> None:
    judge = Judge(sequence.rules)
    best: dict[int, float] = {}
    for observation, verdict in zip(sequence.observations, sequence.verdicts, strict=True):
        judge.observe(observation)
        value = max(
            o.value for o in sequence.observations if o.trial == observation.trial and o.epoch <= observation.epoch
        )
        if verdict.reason == "asha":
            assert best[observation.epoch] >= value
        best[observation.epoch] = max(best.get(observation.epoch, 0.0), value)


def test_heads_alone_are_compared_with_heads_alone() -> None:
    rungs = Rungs(AshaRules(max_epochs=6, grace_period=1, reduction_factor=3), Objective(metric="x", mode="max"))
    assert all(rungs.enter(bracket=0, epoch=1, best=value, head_only=True) for value in (0.7, 0.8, 0.9))
    assert rungs.enter(bracket=0, epoch=1, best=0.5)  # below all heads, and the best of those that train more
    assert not rungs.enter(bracket=0, epoch=1, best=0.4)
    assert not rungs.enter(bracket=0, epoch=1, best=0.6, head_only=True)


def test_a_deeper_trial_has_two_ways_past_a_rung() -> None:
    rungs = Rungs(AshaRules(max_epochs=6, grace_period=1, reduction_factor=3), Objective(metric="x", mode="max"))
    assert [rungs.enter(bracket=0, epoch=1, best=value) for value in (0.9, 0.8)] == [True, False]
    heads = [rungs.enter(bracket=0, epoch=1, best=value, head_only=True) for value in (0.5, 0.4, 0.4, 0.85)]
    assert heads == [True, False, False, True]
    assert rungs.enter(bracket=0, epoch=1, best=0.84), "the second of three deeper ones, and the third of all seven"
    assert [rungs.enter(bracket=0, epoch=1, best=value, head_only=True) for value in (0.95, 0.84)] == [True, False]
