"""The backbone that a head-only trial leaves for the next one of its process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from tlsearch.core.errors import FrozenMoved
from tlsearch.core.types import TrialAssignment, repeatable
from tlsearch.trial import FineTuning, process_cache, release_held
from tlsearch.trial import setup as trial_setup

Assign = Callable[..., TrialAssignment]


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The backbones that were built, each time."""
    release_held()
    seen: list[str] = []
    build = trial_setup.build_original

    def noted(backbone: str, **more: object) -> object:
        seen.append(backbone)
        return build(backbone, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(trial_setup, "build_original", noted)
    return seen


def run(assignment: TrialAssignment) -> list[dict[str, float]]:
    """The repeatable figures of a whole trial's epochs."""
    trial = FineTuning(assignment)
    while trial.epochs_done < assignment.setup.max_epochs:
        trial.step()
    trial.close()
    return [{name: value for name, value in one.metrics.items() if repeatable(name)} for one in trial.reports]


def test_the_next_trial_takes_it_and_has_the_figures_of_a_built_one(pretrained: Assign, built: list[str]) -> None:
    settings = {"head_init": "probe", "head_dropout": 0.5}
    run(pretrained("first"))
    assert len(process_cache._backbones) == 1
    taken = run(pretrained("second", seed=5, **settings)), run(pretrained("deep", depth=2, policy="train", seed=5))
    assert built == ["mobilenet_v3_small"]
    assert not process_cache._backbones, "a trial that trains the backbone leaves none"
    fresh = []
    for other in ({"seed": 5, **settings}, {"depth": 2, "policy": "train", "seed": 5}):
        release_held()
        fresh.append(run(pretrained(f"fresh-{len(fresh)}", **other)))
    assert taken == tuple(fresh)


@pytest.mark.parametrize("policy", ["adapt", "stats"])
def test_where_its_statistics_move_it_is_not_left(pretrained: Assign, built: list[str], policy: str) -> None:
    run(pretrained(policy=policy))
    assert not process_cache._backbones


def test_random_weights_are_built_for_each_trial(assign: Assign, built: list[str]) -> None:
    run(assign("first"))
    run(assign("second", seed=2))
    assert len(built) == 2


def test_a_backbone_that_has_moved_is_not_left(pretrained: Assign, built: list[str]) -> None:
    trial = FineTuning(pretrained())
    trial.step()
    with torch.no_grad():
        next(trial.model.stage1.parameters()).add_(1.0)
    with pytest.raises(FrozenMoved):
        trial.close()
    assert not process_cache._backbones


def test_the_longest_unused_are_dropped_beyond_the_limit(
    pretrained: Assign, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(pretrained("first"))
    size = next(iter(process_cache._backbones.values())).num_bytes
    monkeypatch.setattr(process_cache, "_MAX_BACKBONE_BYTES", int(1.5 * size))
    other = pretrained("second")
    run(replace(other, setup=replace(other.setup, data=replace(other.setup.data, image_size=40))))
    (left,) = process_cache._backbones
    assert left.image_size == 40
