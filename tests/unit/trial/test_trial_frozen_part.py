"""Trials of a search write what stands still in their models once for all; a trial outside of a search, for itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from old_layout import to_old_layout

from tlsearch.core.files import folder_bytes
from tlsearch.core.types import TrialAssignment
from tlsearch.trial import FineTuning, finetuning, load_trained

Assign = Callable[..., TrialAssignment]


@pytest.fixture
def searched(pretrained: Assign) -> Assign:
    """Assignments of one search."""

    def build(number: int, **more: object) -> TrialAssignment:
        return replace(pretrained(f"search/trials/{number}", **more), shares=True)

    return build


def train(assignment: TrialAssignment, epochs: int = 3) -> dict[str, torch.Tensor]:
    """The state of the trial's best model, which is read from the disk."""
    trial = FineTuning(assignment)
    while trial.epochs_done < epochs:
        trial.step()
    trial.close()
    return load_trained(Path(assignment.directory) / "best")[0].state_dict()


def written(search: Path) -> set[str]:
    return {path.name for path in (search / "frozen").iterdir()}


def test_a_head_only_trial_writes_kilobytes(searched: Assign, tmp_path: Path) -> None:
    train(searched(0))
    search = tmp_path / "search"
    first, backbone = written(search), folder_bytes(search / "frozen")
    assert len(first) == 10 and backbone > 3_000_000
    train(searched(1, seed=2))
    train(searched(2, depth=2, policy="train"))
    assert written(search) == first
    assert folder_bytes(search / "trials/1") < 50_000
    assert folder_bytes(search / "trials/2") < backbone
    assert not list(search.glob("trials/*/best/frozen-*"))


@pytest.mark.parametrize(
    ("depth", "more"),
    [
        (0, {"policy": "adapt"}),
        (2, {"policy": "frozen", "ema": 0.9}),
        (2, {"policy": "train", "adapt": "lora", "lora_rank": 4}),
        pytest.param(3, {"policy": "frozen", "adapt": "bitfit"}, marks=pytest.mark.slow),
        pytest.param(3, {"policy": "train", "adapt": "norm"}, marks=pytest.mark.slow),
        pytest.param(0, {"policy": "stats"}, marks=pytest.mark.slow),
        pytest.param(3, {"policy": "train", "unfreeze_schedule": "progressive"}, marks=pytest.mark.slow),
        pytest.param(5, {"policy": "train"}, marks=pytest.mark.slow),
    ],
)
def test_the_model_is_the_one_that_a_trial_alone_writes(
    pretrained: Assign, searched: Assign, depth: int, more: dict[str, object]
) -> None:
    setup = {"max_epochs": 4}
    train(searched(0))  # what is there already is taken
    expected = train(pretrained("alone", depth=depth, setup=setup, **more), 4)
    found = train(searched(1, depth=depth, setup=setup, **more), 4)
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


def test_random_weights_belong_to_their_trial(assign: Assign, tmp_path: Path) -> None:
    """Each trial draws its own: shared, they would stay when the trial's model is evicted."""
    assignment = replace(assign("search/trials/0"), shares=True)
    train(assignment)
    assert not (tmp_path / "search/frozen").exists()
    assert list((tmp_path / "search/trials/0/best").glob("frozen-*"))


def test_a_trial_of_the_version_before_goes_on(
    searched: Assign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until an epoch is better, its model stays as it was written; then what stands still is shared."""
    monkeypatch.setattr(finetuning, "RUNNING_INTERVAL_S", 0.0)
    assignment = searched(0, setup={"max_epochs": 6, "metric": "val_loss"}, head_init="random")
    expected = train(replace(assignment, directory=str(tmp_path / "other/trials/0")), 6)
    begun = FineTuning(assignment)
    begun.step()
    begun.step()
    del begun
    to_old_layout(tmp_path / "search")
    best = tmp_path / "search/trials/0/best"
    assert list(best.glob("frozen-*")) and not (tmp_path / "search/frozen").exists()
    load_trained(best)
    again = FineTuning(assignment)
    assert again.epochs_done == 2
    again.close()
    found = train(assignment, 6)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
    assert json.loads((best / "checkpoint.json").read_text())["epoch"] > 2, "the test needs a better epoch"
    assert len(written(tmp_path / "search")) == 10 and not list(best.glob("frozen-*"))


def test_running_checkpoints_take_a_twentieth_of_the_time_at_most(
    searched: Assign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is a number: an epoch takes 5 s and trains nothing, and a checkpoint takes as long as it says."""
    trial = FineTuning(searched(0, setup={"max_epochs": 60}))
    report, evaluation = trial._run_epoch(1)
    now, writing, saved = [0.0], [0.5], list[float]()

    def epoch_of(number: int) -> object:
        now[0] += 5.0
        return replace(report, epoch=number), evaluation

    def save(*_: object, **__: object) -> None:
        saved.append(now[0])
        now[0] += writing[0]

    clock = SimpleNamespace(monotonic=lambda: now[0], perf_counter=lambda: now[0], time=lambda: now[0])
    monkeypatch.setattr(finetuning, "time", clock)
    monkeypatch.setattr(finetuning, "save_running", save)
    monkeypatch.setattr(trial, "_run_epoch", epoch_of)
    trial._last_saved = 0.0
    for _ in range(10):
        trial.step()
    assert len(saved) == 3, "every 15 s while writing is cheap"
    writing[0] = 3.0
    before = len(saved)
    for _ in range(40):
        trial.step()
    gaps = [later - earlier for earlier, later in zip(saved[before:], saved[before + 1 :], strict=False)]
    assert gaps and all(60.0 <= gap <= 70.0 for gap in gaps)
    trial.close()
