"""Trials of one search with images of different sizes: each sees its own, and nothing of one is taken for another's."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tlsearch.core.types import TrialAssignment, repeatable
from tlsearch.model import StagedModel
from tlsearch.trial import FineTuning, fold_training, load_trained, measurements, release_held, trial_latency
from tlsearch.trial.resume_point import read_running

Assign = Callable[..., TrialAssignment]


def sized(assignment: TrialAssignment, size: int | None, *, of_data: int | None = None) -> TrialAssignment:
    """The trial with a size of its own, or with that of the data."""
    data = replace(assignment.setup.data, image_size=of_data)
    return replace(
        assignment,
        config=replace(assignment.config, image_size=size),
        setup=replace(assignment.setup, data=data),
    )


def curve(trial: FineTuning, epochs: int = 2) -> list[dict[str, float]]:
    reports = [trial.step() for _ in range(epochs)]
    trial.close()
    return [{name: v for name, v in report.metrics.items() if repeatable(name)} for report in reports]


@pytest.mark.parametrize("more", [{}, {"depth": 2, "policy": "train"}, {"policy": "adapt"}])
def test_a_size_of_its_own_is_as_that_of_the_data(assign: Assign, more: dict[str, object]) -> None:
    """Also beside trials of other sizes, whose images, features and probes the node holds."""
    alone = curve(FineTuning(sized(assign("alone", head_init="probe", **more), None, of_data=32)))
    others = [curve(FineTuning(sized(assign(f"{px}", head_init="probe", **more), px))) for px in (48, 64)]
    again = curve(FineTuning(sized(assign("again", head_init="probe", **more), 32)))
    assert again == alone and all(one != alone for one in others)


def test_checkpoint_and_pixels_have_the_trial_s_size(assign: Assign, tmp_path: Path) -> None:
    trial = FineTuning(sized(assign(augmentation="light", depth=5, policy="train"), 48))
    source = trial._parts.val
    assert source.rows.shape[-1] == 48 and trial._parts.context.transform.crop_size == 48
    curve(trial, 1)
    model, meta = load_trained(tmp_path / "trial" / "best")
    assert meta.image_size == meta.transform.crop_size == meta.config.image_size == model.image_size == 48


def test_a_transformer_has_its_positions_at_the_trial_s_size(assign: Assign) -> None:
    """No weights: the positions are random, but there are as many as patches."""
    grids = {}
    for size in (32, 64):
        trial = FineTuning(sized(assign(f"{size}", backbone="vit_b_32", policy=None, stored=False), size))
        state = trial.model.state_dict()
        (positions,) = [tensor for name, tensor in state.items() if name.endswith("pos_embedding")]
        grids[size] = positions.shape[1]
        trial.close()
    assert grids == {32: 2, 64: 5}


def test_a_checkpoint_from_before_image_size_was_searched_goes_on(assign: Assign, tmp_path: Path) -> None:
    assignment = assign()
    trial = FineTuning(assignment)
    trial.step()
    trial.save()
    trial.close()
    path = tmp_path / "trial" / "running" / "running.json"
    content = json.loads(path.read_text())
    assert content["config"].pop("image_size") is None
    path.write_text(json.dumps(content))
    found = read_running(path.parent, assignment)
    assert found is not None and found.epochs_done == 1
    assert read_running(path.parent, sized(assignment, 48, of_data=32)) is None  # of another size
    path.write_text(json.dumps({**content, "config": {"backbone": 3}}))
    assert read_running(path.parent, assignment) is None


def test_finished_folds_from_before_are_found(assign: Assign, tmp_path: Path) -> None:
    assignment = assign()
    assignment = replace(assignment, setup=replace(assignment.setup, folds=2, max_epochs=1))
    folds = fold_training.FoldTraining(assignment)
    folds.step()
    folds.save()
    folds.close()
    path = tmp_path / "trial" / "running" / "folds.json"
    content = json.loads(path.read_text())
    del content["config"]["image_size"]
    path.write_text(json.dumps(content))
    assert fold_training.FoldTraining(assignment).epochs_done == 1


def test_latency_is_measured_for_each_size(assign: Assign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurements, "_measured", {})
    seen: list[int] = []

    def time(model: StagedModel, runtime: object) -> float:
        seen.append(model.image_size)
        return float(model.image_size)

    monkeypatch.setattr(measurements, "time_one_image", time)
    assert [trial_latency(sized(assign(), size)) for size in (32, 48, 32)] == [32.0, 48.0, 32.0] and seen == [32, 48]


def test_cached_and_uncached_agree_at_every_size(assign: Assign) -> None:
    for size in (32, 48):
        curves = []
        for stored in (True, False):
            release_held()
            curves.append(curve(FineTuning(sized(assign(f"{size}-{stored}", depth=1, stored=stored), size))))
        for with_store, without in zip(*curves, strict=True):
            assert with_store == pytest.approx(without, rel=1e-4, abs=1e-6)
