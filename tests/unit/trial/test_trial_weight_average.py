"""Averages of weights: the mean of what moved, batch norm's own statistics, the same from cached features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from soup_search import write_weights
from torch import Tensor

from tlsearch.core.errors import StorageError
from tlsearch.core.types import CacheSpec, TrialAssignment
from tlsearch.data import load_index
from tlsearch.model import adapt_statistics
from tlsearch.train import read_json, write_json
from tlsearch.trial import load_trained, train_to
from tlsearch.trial.weight_average import WeightAverages

Assign = Callable[..., TrialAssignment]


@pytest.fixture
def weights_file(tmp_path: Path) -> Path:
    write_weights(tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def _trained(assign: Assign, **members: dict[str, object]) -> tuple[dict[int, Path], TrialAssignment]:
    folders = {}
    for number, (name, config) in enumerate(members.items()):
        assignment = assign(name, head_init="probe", **config)
        # The last epoch's model, whatever it is worth.
        assignment = replace(assignment, setup=replace(assignment.setup, refit=True, max_epochs=1))
        assert train_to(assignment, 1) == ""
        folders[number] = Path(assignment.directory) / "best"
    return folders, replace(assignment, setup=replace(assignment.setup, refit=False))


def _averages(folders: dict[int, Path], assignment: TrialAssignment, *, cached: bool = True) -> WeightAverages:
    setup = replace(assignment.setup, cache=CacheSpec(features_gb=None if cached else 0))
    return WeightAverages(folders, setup, load_index(setup.data))


def _states(folders: dict[int, Path]) -> list[dict[str, Tensor]]:
    return [load_trained(folder)[0].state_dict() for folder in folders.values()]


def test_what_moved_is_averaged_and_the_rest_stands_still(pretrained: Assign) -> None:
    folders, assignment = _trained(
        pretrained, a={"depth": 1}, b={"depth": 2, "backbone_lr": 3e-4}, c={"depth": 1, "seed": 5}
    )
    one, two, three = _states(folders)
    cached, direct = _averages(folders, assignment), _averages(folders, assignment, cached=False)
    mean = cached.state([0, 1, 2])
    for name, tensor in mean.items():
        if torch.equal(one[name], two[name]) and torch.equal(one[name], three[name]):
            assert torch.equal(tensor, one[name]), name
        elif tensor.is_floating_point():
            assert torch.allclose(tensor, (one[name] + two[name] + three[name]) / 3, atol=1e-6), name
    assert any(name.startswith("stage3") and not torch.equal(one[name], two[name]) for name in mean)
    assert cached._sources == {} and np.allclose(cached.logits([0, 1, 2]), direct.logits([0, 1, 2]), atol=1e-5)
    assert (cached._source("val").kind, direct._source("val").kind) == ("features", "pixels")
    assert np.allclose(direct.logits([1]), _logits(folders[1], assignment), atol=1e-4), "one alone is itself"


def _logits(folder: Path, assignment: TrialAssignment) -> np.ndarray:
    from tlsearch.results import load_model, logits_on

    return logits_on(load_model(folder), load_index(assignment.setup.data), "val").numpy()


def test_moved_statistics_are_estimated_on_the_training_images(pretrained: Assign) -> None:
    """As bn_policy adapt would, of the layers that moved alone; without them nothing is estimated."""
    folders, assignment = _trained(
        pretrained,
        a={"depth": 2, "policy": "train", "backbone_lr": 1e-4},
        b={"depth": 1, "policy": "train", "backbone_lr": 1e-4, "seed": 4},
        c={"depth": 1},
        d={"depth": 1, "seed": 9},
    )
    averages = _averages(folders, assignment, cached=False)
    states = _states(folders)
    mean = averages.state([0, 1])
    model, _ = load_trained(folders[0])
    model.load_state_dict(mean)
    rows = list(averages._training_rows())
    adapt_statistics(model, rows, depth=2)
    moved = [name for name in mean if name.endswith("running_var") and not torch.equal(*_of(states[:2], name))]
    assert moved and all(name.startswith(("stage3", "stage4")) for name in moved)
    for name in moved:
        assert torch.allclose(mean[name], model.state_dict()[name], rtol=1e-4, atol=1e-6), name
        assert not torch.allclose(mean[name], sum(_of(states[:2], name)) / 2, rtol=1e-3), name
    still = averages.state([2, 3])
    assert all(torch.equal(still[name], states[2][name]) for name in moved)
    again = averages.state([0, 1])
    assert all(torch.equal(again[name], mean[name]) for name in mean), "the order of the questions changes nothing"


def _of(states: list[dict[str, Tensor]], name: str) -> tuple[Tensor, ...]:
    return tuple(state[name] for state in states)


def test_models_that_did_not_begin_alike_are_refused(pretrained: Assign) -> None:
    folders, assignment = _trained(pretrained, a={"depth": 0}, b={"depth": 0, "seed": 2})
    path = folders[1] / "checkpoint.json"
    content = read_json(path, "a checkpoint")
    content["classes"] = ["blue", "green", "pink"]
    content["class_to_idx"] = {name: place for place, name in enumerate(content["classes"])}
    write_json(path, content)
    with pytest.raises(StorageError, match="with the same classes; .* has .*pink"):
        _averages(folders, assignment)
