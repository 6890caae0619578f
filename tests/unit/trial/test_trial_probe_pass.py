"""A backbone's probe: the same heads as of trials, on the features that trials read, on a part of the images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tlsearch.core.types import Decision, EpochReport, TrialAssignment
from tlsearch.data import load_index
from tlsearch.train import Trainer
from tlsearch.trial import frozen_features, probe_backbone, probe_pass, probed_images, release_held, run_trial

Assign = Callable[..., TrialAssignment]


class Reports:
    """A reporter that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[EpochReport] = []

    def report(self, report: EpochReport) -> Decision:
        self.heard.append(report)
        return Decision.CONTINUE


def test_it_is_the_best_of_the_trials_with_a_ridge_head(assign: Assign) -> None:
    found = probe_backbone(assign())
    assert found.hits.shape == (21,) and found.num_train == 30 and found.seconds > 0
    losses, accuracies = {}, {}
    for penalty in probe_pass._PENALTIES:
        reporter = Reports()
        run_trial(assign(f"trial-{penalty}", head="ridge", head_penalty=penalty), reporter)
        losses[penalty] = reporter.heard[0].metrics["val_loss"]
        accuracies[penalty] = reporter.heard[0].metrics["val_accuracy"]
    assert found.penalty == min(losses, key=losses.__getitem__)
    assert float(found.hits.float().mean()) == pytest.approx(accuracies[found.penalty])


def test_its_features_are_those_that_trials_read(assign: Assign, monkeypatch: pytest.MonkeyPatch) -> None:
    probe_backbone(assign())
    release_held()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the features are there already")

    monkeypatch.setattr("tlsearch.trial.inputs.prefix_pass", refuse)
    reporter = Reports()
    run_trial(assign(head="ridge", head_penalty=0.1), reporter)
    assert reporter.heard[0].source == "features"


def test_nothing_trains_and_nothing_is_written_beside_the_cache(
    assign: Assign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a probe trains nothing")

    monkeypatch.setattr(Trainer, "train_epoch", refuse)
    before = sorted(path.name for path in tmp_path.iterdir())
    probe_backbone(assign("never", depth=2))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == before


def test_without_the_cache_it_is_the_same(assign: Assign) -> None:
    stored, computed = (probe_backbone(assign(stored=stored)) for stored in (True, False))
    assert torch.equal(stored.hits, computed.hits) and stored.penalty == computed.penalty


def test_of_many_images_a_part_is_taken_that_has_every_class(assign: Assign, monkeypatch: pytest.MonkeyPatch) -> None:
    index = load_index(assign().setup.data)
    assert probed_images(index) is index
    monkeypatch.setattr(probe_pass, "NUM_TRAIN", 12)
    monkeypatch.setattr(probe_pass, "_PER_CLASS", 1)
    monkeypatch.setattr(probe_pass, "NUM_VAL", 10)
    part = probed_images(index)
    assert {name: len(split) for name, split in part.splits.items()} == {"train": 12, "val": 10}
    assert [part.splits["train"].labels.count(label) for label in range(3)] == [4, 4, 4]
    assert set(part.splits["val"].labels) == {0, 1, 2} and len(set(part.splits["val"].keys)) == 10
    assert part.digest != index.digest and probed_images(index).digest == part.digest
    found = probe_backbone(assign())
    assert found.num_train == 12 and len(found.hits) == 10


def test_of_many_classes_some_images_each_are_taken(assign: Assign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_pass, "NUM_TRAIN", 6)
    monkeypatch.setattr(probe_pass, "_PER_CLASS", 5)
    assert len(probed_images(load_index(assign().setup.data)).splits["train"]) == 15


def test_the_features_of_both_splits_come_in_the_order_of_the_index(assign: Assign) -> None:
    found = frozen_features(assign())
    assert {name: len(rows) for name, rows in found.items()} == {"train": 30, "val": 21}
    assert all(rows.dtype == torch.float32 and rows.dim() == 2 for rows in found.values())
