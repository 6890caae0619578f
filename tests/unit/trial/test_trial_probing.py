"""head_init probe: the head starts as the linear probe, shared by all trials of a backbone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tlsearch.core.errors import Diverged
from tlsearch.core.types import EpochReport, TrialAssignment, repeatable
from tlsearch.train import Runtime, Source, predict_logits, solve_probe
from tlsearch.trial import FineTuning, finetuning, release_held
from tlsearch.trial import head_init as probing

Assign = Callable[..., TrialAssignment]


def start(assignment: TrialAssignment) -> FineTuning:
    return FineTuning(assignment)


def curve(reports: tuple[EpochReport, ...]) -> list[dict[str, float]]:
    return [{name: v for name, v in report.metrics.items() if repeatable(name)} for report in reports]


@pytest.mark.parametrize("backbone", ["mobilenet_v3_small", "squeezenet1_1"])
def test_the_head_starts_as_the_probe_of_its_features(assign: Assign, backbone: str) -> None:
    trial = start(assign(head_init="probe", backbone=backbone, policy=None if "squeeze" in backbone else "frozen"))
    parts = trial._parts
    *front, classifier = parts.trainer.model.eval().head.children()
    rows = []
    for source in (parts.train, parts.val):
        features = source.rows[:].float()
        for module in front:
            features = module(features)
        rows += [features.detach(), source.labels]
    probe = solve_probe(*rows, num_classes=3)
    torch.testing.assert_close(classifier.weight.detach(), probe.weight)
    torch.testing.assert_close(classifier.bias.detach(), probe.bias)
    logits = predict_logits(parts.trainer.model, parts.val, parts.runtime, depth=0)
    assert float((logits.argmax(1) == parts.val.labels).float().mean()) == pytest.approx(probe.val_accuracy)
    starts = [trial.step().start for _ in range(2)]
    assert starts[0] is not None and starts[1] is None
    assert starts[0].metrics["val_accuracy"] == pytest.approx(probe.val_accuracy)
    assert starts[0].metrics["val_loss"] == pytest.approx(probe.val_loss, rel=1e-4)
    trial.close()


def test_one_probe_serves_every_depth_policy_and_augmentation(assign: Assign, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = []
    for name, changes in (
        ("a", {}),
        ("b", {"depth": 2, "policy": "train", "augmentation": "strong", "mixup": 0.2}),
        ("c", {"depth": 5, "policy": "stats"}),
        ("d", {"depth": 2, "policy": "train", "unfreeze_schedule": "progressive", "stored": False}),
        ("e", {"policy": "adapt"}),
    ):
        trial = start(assign(name, head_init="probe", **changes))
        heads.append(trial.model.head.classifier.weight.detach().clone())
        trial.close()
        release_held()
        if name == "a":
            solve = probing.solve_probe
            monkeypatch.setattr(probing, "solve_probe", lambda *_, **__: pytest.fail("solved twice"))
        if name == "d":
            monkeypatch.setattr(probing, "solve_probe", solve)
    assert all(torch.equal(head, heads[0]) for head in heads[:4])
    assert not torch.equal(heads[4], heads[0]), "other statistics are other features"


def test_without_the_store_the_probe_is_the_same(
    assign: Assign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = []
    for stored in (True, False):
        monkeypatch.setenv("TLSEARCH_CACHE_DIR", str(tmp_path / f"cache-{stored}"))
        trial = start(assign(f"{stored}", head_init="probe", stored=stored))
        heads.append(trial.model.head.classifier.weight.detach().clone())
        trial.close()
        release_held()
    torch.testing.assert_close(heads[0], heads[1])


def test_the_features_of_the_probe_are_those_of_head_only_trials(assign: Assign) -> None:
    start(assign("a", head_init="probe", depth=1)).close()
    trial = start(assign("b"))
    assert "shared" in trial.step().source_reason
    trial.close()


@pytest.mark.parametrize("settings", [{"head_init": "probe"}, {"head": "ridge", "head_penalty": 0.1}])
def test_features_that_are_not_finite_end_the_trial(
    assign: Assign, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object]
) -> None:
    load = probing.load_batch

    def broken(source: Source, chosen: Tensor, runtime: Runtime) -> tuple[Tensor, Tensor]:
        rows, labels = load(source, chosen, runtime)
        rows[:2, 0] = torch.tensor([float("nan"), float("inf")])
        return rows, labels

    monkeypatch.setattr(probing, "load_batch", broken)
    with pytest.raises(Diverged, match=r"features of 2 of \d+ images in train are not finite"):
        start(assign(**settings)).close()


@pytest.mark.slow
def test_it_differs_from_a_random_head_and_goes_on_to_the_bit(assign: Assign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetuning, "RUNNING_INTERVAL_S", 0.0)
    curves = []
    for name, head_init in (("a", "probe"), ("b", "random")):
        trial = start(assign(name, head_init=head_init, depth=1))
        curves.append(curve(tuple(trial.step() for _ in range(3))))
        trial.close()
    assert curves[0] != curves[1]
    for _ in range(2):
        start(assign("c", head_init="probe", depth=1)).step()  # never closed, as a killed worker
    resumed = start(assign("c", head_init="probe", depth=1))
    assert resumed.epochs_done == 2
    resumed.step()
    assert curve(tuple(resumed.reports)) == curves[0]
    resumed.close()
