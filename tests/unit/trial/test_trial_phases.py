"""Progressive unfreezing: phases, the store's moving boundary, going on in the middle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tlsearch.core.errors import FrozenMoved, UserError
from tlsearch.core.types import EpochReport, TrialAssignment, TrialConfig, repeatable
from tlsearch.train import depth_at, phases
from tlsearch.trial import FineTuning, finetuning, inputs, load_trained

Assign = Callable[..., TrialAssignment]
DEEP = TrialConfig(backbone="resnet18", unfreeze_depth=3, unfreeze_schedule="progressive")


def curve(reports: tuple[EpochReport, ...]) -> list[dict[str, float]]:
    return [{name: v for name, v in report.metrics.items() if repeatable(name)} for report in reports]


@pytest.fixture
def progressive(assign: Assign) -> Assign:
    def build(directory: str = "trial", *, depth: int = 2, max_epochs: int = 4, **more: object) -> TrialAssignment:
        settings = {"policy": "train", "unfreeze_schedule": "progressive"} | more
        return assign(directory, depth=depth, setup={"max_epochs": max_epochs}, **settings)

    return build


@pytest.mark.parametrize(
    ("depth", "max_epochs", "expected"),
    [
        (3, 20, [(1, 0), (6, 1), (11, 2), (16, 3)]),
        (5, 6, [(1, 0), (2, 1), (3, 2), (4, 3), (5, 4), (6, 5)]),
        (2, 4, [(1, 0), (2, 1), (3, 2)]),
        (2, 10, [(1, 0), (4, 1), (7, 2)]),
    ],
)
def test_phases_begin_where_the_design_says(depth: int, max_epochs: int, expected: list[tuple[int, int]]) -> None:
    config = replace(DEEP, unfreeze_depth=depth)
    assert list(phases(config, max_epochs)) == expected
    depths = [depth_at(config, max_epochs, epoch) for epoch in range(1, max_epochs + 1)]
    assert [depths.index(d) + 1 for d in range(depth + 1)] == [epoch for epoch, _ in expected]
    assert phases(replace(config, unfreeze_schedule="at_once"), max_epochs) == ((1, depth),)


def test_too_few_epochs_are_the_users_fault(progressive: Assign) -> None:
    with pytest.raises(UserError, match="at least unfreeze_depth \\+ 1, 3, not 2"):
        FineTuning(progressive(max_epochs=2))


def test_no_stage_trains_before_its_phase_and_none_is_forgotten(progressive: Assign) -> None:
    trial = FineTuning(progressive(max_epochs=4, augmentation="light"))
    model = trial.model
    for parts in (["head"], ["head", "stage4"], ["head", "stage4", "stage3"], ["head", "stage4", "stage3"]):
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        report = trial.step()
        changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
        assert changed == {name for name in before if name.split(".")[0] in parts}
        assert report.metrics["trainable_stages"] == len(parts) - 1
        assert {name for name in report.metrics if name.startswith("lr_")} == {f"lr_{part}" for part in parts}
        assert report.metrics["lr_head"] == pytest.approx(1e-2)
    trial.close()


def test_a_stage_that_moved_before_its_phase_is_found(progressive: Assign) -> None:
    trial = FineTuning(progressive())
    trial.step()
    with torch.no_grad():
        next(trial.model.stage4.parameters()).view(-1)[0] += 1
    with pytest.raises(FrozenMoved, match="stage4"):
        trial.step()


def test_the_store_moves_from_deep_boundaries_to_shallow_ones(
    progressive: Assign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "why_not_worth", lambda *_: None)
    curves = []
    for stored in (True, False):
        trial = FineTuning(progressive(f"{stored}", max_epochs=3, stored=stored, policy="frozen"))
        reports = tuple(trial.step() for _ in range(3))
        trial.close()
        curves.append(curve(reports))
        if stored:
            assert [report.source for report in reports] == ["features"] * 3
            assert [report.source_reason for report in reports] == [
                f"frozen below depth {depth}: computed by this trial" for depth in (0, 1, 2)
            ]
    for with_store, without in zip(*curves, strict=True):
        assert with_store == pytest.approx(without, abs=1e-4)


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({}, marks=pytest.mark.slow),
        {"optimizer": "sgd", "ema": 0.9, "lr_schedule": "cosine", "policy": "adapt"},
    ],
)
def test_going_on_in_any_phase_repeats_the_curve_to_the_bit(
    progressive: Assign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, object]
) -> None:
    monkeypatch.setattr(finetuning, "RUNNING_INTERVAL_S", 0.0)
    straight = FineTuning(progressive("straight", **more))
    expected = curve(tuple(straight.step() for _ in range(4)))
    straight.close()
    for done in range(4):
        interrupted = FineTuning(progressive("interrupted", **more))
        assert interrupted.epochs_done == done
        interrupted.step()
        del interrupted  # as a killed worker: never closed
    resumed = FineTuning(progressive("interrupted", **more))
    assert curve(tuple(resumed.reports)) == expected
    resumed.close()
    states = [load_trained(tmp_path / name / "best")[0].state_dict() for name in ("straight", "interrupted")]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
