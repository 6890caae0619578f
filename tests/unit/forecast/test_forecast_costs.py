"""What a trial costs, out of given timings: what is cached once, what is not, and who waits for whom."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tlsearch.core.types import CacheSpec, DataSpec, ModelSpec, TrialConfig, TrialSetup
from tlsearch.features import Boundary
from tlsearch.forecast.backbone_times import BackboneTimes, times_between
from tlsearch.forecast.measured_costs import _checkpoint_bytes
from tlsearch.forecast.trial_costs import Images, Node, TrialCosts

TIMES = BackboneTimes(
    build_s=1.0,
    forward_s=(0.1, 0.2, 0.3, 0.4, 0.5, 0.0),
    train_s={0: 0.001, 1: 1.5, 2: 2.7},
    moving_factor=2.0,
    boundaries={depth: Boundary(shape=(1000,), num_bytes=4000, macs=10**9) for depth in range(5)},
    trained_bytes=dict.fromkeys(range(3), 0),
    state_bytes=0,
    activation_bytes=dict.fromkeys(range(3), 0),
)
SETUP = TrialSetup(data=DataSpec(source="digits"), max_epochs=3, depths=(0, 1, 2))
MODEL = ModelSpec(backbone="a", num_classes=3)
COSTS = TrialCosts(
    images=Images(num_train=100, num_val=10, decode_s=0.01, prepare_s={"none": 0.0, "light": 0.05}),
    models={MODEL: TIMES},
    sides={MODEL: (96, 110)},
    setup=SETUP,
    num_classes=3,
    room_bytes=1e9,
)
HEAD = TrialConfig(backbone="a")
DEEP = TrialConfig(backbone="a", unfreeze_depth=2, backbone_lr=1e-4, bn_policy="frozen", unfreeze_schedule="at_once")


def opening_s(costs: TrialCosts, config: TrialConfig, node: Node) -> float:
    return costs.opened(config, node, 0.0) - TIMES.build_s


def test_features_are_computed_once_and_each_stage_sees_an_image_once() -> None:
    node = Node()
    head = opening_s(COSTS, HEAD, node)
    assert head == pytest.approx(110 * (0.01 + 1.5), rel=0.01)  # packed, then all five stages
    assert opening_s(COSTS, HEAD, Node(stored=dict.fromkeys(node.stored, 0.0))) == 0.0
    # the boundary of depth 2 was stored on the way: nothing is left to do for it
    assert opening_s(COSTS, DEEP, Node(stored=dict.fromkeys(node.stored, 0.0))) == 0.0


def test_a_second_trial_waits_for_the_first_ones_pass() -> None:
    node = Node()
    first = COSTS.opened(HEAD, node, 0.0)
    assert COSTS.opened(HEAD, node, 0.0) == pytest.approx(first)
    assert COSTS.opened(HEAD, node, first) == pytest.approx(first + TIMES.build_s)


def test_an_epoch_reads_features_where_it_can_and_pixels_where_it_must() -> None:
    node = Node()
    COSTS.opened(DEEP, node, 0.0)
    cached = COSTS.epoch_end(DEEP, node, 0.0, epoch=2)
    assert cached == pytest.approx(100 * 2.7 + 10 * 0.9, abs=0.1)
    light = replace(DEEP, augmentation="light")
    assert COSTS.report_s(light) == pytest.approx(100 * (2.7 + 0.05 + 0.6) + 10 * 0.9, abs=0.1)
    assert COSTS.without_features().report_s(DEEP) == pytest.approx(100 * (2.7 + 0.6) + 10 * 1.5, abs=0.1)
    assert COSTS.report_s(replace(DEEP, bn_policy="train")) == pytest.approx(100 * 5.4 + 10 * 0.9, abs=0.1)


def test_fixed_views_are_passes_of_their_own() -> None:
    costs = replace(COSTS, setup=replace(SETUP, cache=CacheSpec(views=2)))
    light, node = replace(HEAD, augmentation="light"), Node()
    begun = costs.opened(light, node, 0.0)
    ends = [begun]
    for epoch in (1, 2, 3):
        ends.append(costs.epoch_end(light, node, ends[-1], epoch=epoch))
    first, second, third = (after - before for before, after in zip(ends, ends[1:], strict=False))
    assert second == pytest.approx(first + 100 * 1.55, rel=0.01) and third == pytest.approx(first)


def test_an_entry_that_does_not_fit_is_not_cached() -> None:
    small = replace(COSTS, room_bytes=100 * 4000 - 1)
    assert not small.cached(HEAD, "train", 0) and small.cached(HEAD, "val", 0)


def test_gradual_unfreezing_costs_what_its_phases_cost() -> None:
    progressive = replace(DEEP, unfreeze_schedule="progressive")
    node = Node()
    now = COSTS.opened(progressive, node, 0.0)
    ends = [now]
    for epoch in (1, 2, 3):
        ends.append(COSTS.epoch_end(progressive, node, ends[-1], epoch=epoch))
    costs = [after - before for before, after in zip(ends, ends[1:], strict=False)]
    assert costs == pytest.approx([0.1 + 0.0, 150 + 5.0, 270 + 9.0], abs=0.2)


def test_what_trials_share_is_counted_once_for_each_backbone() -> None:
    """100 bytes of two backbones, of which a head alone trains 10; 3 models are kept, 2 trials run at a time."""
    one = replace(TIMES, state_bytes=100, trained_bytes={0: 10, 2: 60})
    backbones = {"a": one, "b": one}
    assert _checkpoint_bytes(backbones, 2, 3) == 2 * 90 + 3 * (60 + 100) + 2 * (60 + 3 * 60)


def test_each_image_size_has_its_own_times_and_its_own_entries() -> None:
    small, large = (replace(MODEL, image_size=size) for size in (48, 96))
    costs = replace(
        COSTS, models={small: TIMES.at_pixels(0.25), large: TIMES}, sides={small: (48, 55), large: (96, 110)}
    )
    node = Node()
    for size, seconds in ((96, 1.5), (48, 1.5 / 4)):  # what one size has stored does not serve the other
        config = replace(HEAD, image_size=size)
        assert opening_s(costs, config, node) == pytest.approx(110 * (0.01 + seconds), rel=0.01)
        assert opening_s(costs, config, Node(stored=dict.fromkeys(node.stored, 0.0))) == 0.0
    assert costs.report_s(replace(DEEP, image_size=48)) < 0.3 * costs.report_s(replace(DEEP, image_size=96))


def test_times_between_two_sizes_are_linear_in_the_pixels() -> None:
    small, large = TIMES.at_pixels(0.2), replace(TIMES, state_bytes=100, activation_bytes=dict.fromkeys(range(3), 8))
    assert times_between(small, large, 0.0) == small and times_between(small, large, 1.0) == large
    half = times_between(small, large, 0.5)
    assert half.forward_s == pytest.approx([0.6 * one for one in TIMES.forward_s]) and half.state_bytes == 50
    assert half.activation_bytes == dict.fromkeys(range(3), 4) and half.train_s[0] == TIMES.train_s[0]
    assert half.boundaries == TIMES.boundaries
