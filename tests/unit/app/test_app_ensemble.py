"""``ensemble``, ``promote --ensemble`` and ``--distill``: one model with its evidence; a death loses nothing."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.catalog.stored import read_record, stored_file
from tlsearch.app.combined import ensemble_costs
from tlsearch.app.combined import make_distilled as distilling
from tlsearch.app.combined import make_ensemble as making
from tlsearch.app.combined.ensemble_costs import Limits
from tlsearch.app.combined.make_ensemble import make_ensemble
from tlsearch.app.production.promote import PromoteOptions, promote
from tlsearch.app.views.outcome import find_checkpoint
from tlsearch.core.codec import to_plain
from tlsearch.core.crash import DISTILLATION, ENSEMBLE
from tlsearch.core.errors import DataError, SpaceError, StorageError, UsageError, UserError
from tlsearch.core.metrics import METRICS, Objective
from tlsearch.data import load_index
from tlsearch.results import load_model, logits_on, predict
from tlsearch.results.combine import combination
from tlsearch.results.combine.combination import Combination, Member, combined_model, read_combination
from tlsearch.results.combine.selection import Selected
from tlsearch.results.promotion.test_split import read_uses
from tlsearch.train import read_soft_targets
from tlsearch.train.checkpoint import ensemble_checkpoint

MEMBERS = (Member(trial=0, count=2), Member(trial=2, count=1))  # of two backbones


@pytest.fixture
def entry(ended_search: SearchEntry, monkeypatch: pytest.MonkeyPatch) -> SearchEntry:
    monkeypatch.setattr(making, "measure_module", lambda *_: 7.0)
    monkeypatch.setattr(ensemble_costs, "measure_latency", lambda spec: 4.0)
    return ended_search


def _took(monkeypatch: pytest.MonkeyPatch, *members: Member, helps: bool = True) -> None:
    """As if the selection were this one: on a few images it is noise."""
    found = Selected(
        members=members,
        temperatures=(1.5,) * len(members),
        value=0.75,
        cross_fitted=0.7,
        best_trial=members[0].trial,
        best_value=0.7,
        best_cross_fitted=0.65 if helps else 0.7,
        helps=helps,
    )
    monkeypatch.setattr(making, "select_ensemble", lambda *_, **__: found)


def _val(entry: SearchEntry) -> Any:
    return load_index(stored_file(entry, "")[0].data)


def test_an_ensemble_is_a_model_that_scores_what_its_file_says(
    entry: SearchEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its own selection, and with two members; the search's other models and records stay as they are."""
    before = to_plain(read_record(entry))
    result = make_ensemble(entry)
    assert result == read_combination(entry.path, "ensemble") and result.num_val == 24
    index = _val(entry)
    labels = np.array(index.splits["val"].labels)
    model = load_model(find_checkpoint(f"{entry.path}:ensemble"), device="cpu")
    found = METRICS["val_accuracy"].value(logits_on(model, index, "val").numpy(), labels)
    assert found == pytest.approx(result.value, abs=1.5 / 24)  # the kept logits are float16
    assert result.helps or [one.trial for one in result.members] == [result.best_trial]
    _took(monkeypatch, *MEMBERS)
    two = make_ensemble(entry)
    assert (two.members, two.latency_ms, two.helps) == (MEMBERS, 7.0, True)
    folders = [load_model(entry.path / "trials" / str(one.trial), device="cpu").model for one in MEMBERS]
    sizes = [sum(p.numel() for p in one.parameters()) for one in folders]
    assert two.parameters == sum(sizes)
    assert (two.best_trial, two.best_parameters, two.best_latency_ms) == (0, sizes[0], 4.0)
    assert to_plain(read_record(entry)) == before


@pytest.mark.parametrize("point", ENSEMBLE)
def test_a_death_leaves_no_half_model(entry: SearchEntry, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    """It leaves no ensemble or a whole one, and the next call makes what is missing."""
    make_ensemble(entry)
    _took(monkeypatch, *MEMBERS)

    def die(name: str) -> None:
        if name == point:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        for module in (combination, ensemble_checkpoint):
            patch.setattr(module, "crash_point", die)
        with pytest.raises(KeyboardInterrupt):
            make_ensemble(entry)
    assert read_combination(entry.path, "ensemble") is None
    with pytest.raises(StorageError, match="tlsearch ensemble small"):
        find_checkpoint("small:ensemble", entry.path.parent)
    assert make_ensemble(entry).members == MEMBERS
    assert len(load_model(combined_model(entry.path, "ensemble"), device="cpu").networks) == 2


def test_what_cannot_be_combined_is_an_error_that_says_why(entry: SearchEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that nothing keeps, and a search of an earlier version, whose trials have kept no logits."""
    with pytest.raises(UserError, match=r"within the limits: at most 100 parameters"):
        make_ensemble(entry, max_params=100)
    for path in entry.path.glob("trials/*/val_logits.safetensors"):
        path.unlink()
    with pytest.raises(UserError, match="an earlier version of tlsearch ran it"):
        make_ensemble(entry)


def test_images_that_are_gone_or_of_other_classes_are_errors_that_name_them(
    entry: SearchEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a member's model was evicted: nothing is trained, and no half ensemble is left."""
    _took(monkeypatch, *MEMBERS)
    shutil.rmtree(entry.path / "trials/2/best")
    images = entry.path.parents[1] / "images"
    images.rename(images.with_name("elsewhere"))
    with pytest.raises(SpaceError, match=re.escape(f"data.path: the folder '{images}' does not exist")):
        make_ensemble(entry)
    images.with_name("elsewhere").rename(images)
    for split in ("train", "val", "test"):
        (images / split / "circle").rename(images / split / "disc")
    with pytest.raises(DataError, match="its trials cannot be combined"):
        make_ensemble(entry)
    assert not (entry.path / "promoted").exists() and read_combination(entry.path, "ensemble") is None


def test_a_member_of_other_classes_is_refused(entry: SearchEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    _took(monkeypatch, *MEMBERS)
    path = entry.path / "trials/2/best/checkpoint.json"
    content = json.loads(path.read_text())
    names = ["circle", "disc", "stripe"]
    other = {"classes": names, "class_to_idx": {name: place for place, name in enumerate(names)}}
    path.write_text(json.dumps({**content, **other}))
    with pytest.raises(DataError, match="here are other names: disc of the model, square of the data"):
        make_ensemble(entry)
    assert read_combination(entry.path, "ensemble") is None


@pytest.fixture
def made(entry: SearchEntry, monkeypatch: pytest.MonkeyPatch) -> Combination:
    _took(monkeypatch, *MEMBERS)
    return make_ensemble(entry)


def test_a_promoted_ensemble_carries_its_members_and_its_test_against_the_best_trial(
    entry: SearchEntry, made: Combination
) -> None:
    """In one look at the test images. The same call again is the same version."""
    result = promote(entry, PromoteOptions(combined="ensemble"))
    assert (result.kind, result.members, result.trial, result.value) == ("ensemble", MEMBERS, 0, 0.75)
    test = result.test
    assert test is not None and test.against is not None
    index = _val(entry)
    labels = np.array(index.splits["test"].labels)
    served = load_model(result.uri, tracking_uri=entry.tracking_uri)
    right = logits_on(served, index, "test").numpy().argmax(1) == labels
    single = logits_on(load_model(entry.path / "trials/0"), index, "test").numpy().argmax(1) == labels
    assert test.accuracy == pytest.approx(right.mean())
    assert test.against.accuracy == pytest.approx(single.mean())
    assert test.against.only_combined == (right & ~single).sum()
    assert served.temperature == result.temperature
    files = sorted((entry.path.parents[1] / "images/test").rglob("*.png"))[::4]
    own = load_model(combined_model(entry.path, "ensemble"))
    assert [one.label for one in predict(served, files)] == [one.label for one in predict(own, files)]
    for part in ("averaged probabilities of 2 models", "trial 0, weight 0.667", "resnet18", "McNemar", "p = "):
        assert part in result.card, part
    assert len(read_uses(entry.path)) == 1
    assert promote(entry, PromoteOptions(combined="ensemble")).version == result.version
    plain = json.loads(json.dumps(to_plain(result)))
    assert plain["test"]["against"]["trial"] == 0 and plain["members"][0] == {"trial": 0, "count": 2}


def test_a_limit_of_the_latency_takes_the_ensemble_where_it_is_quick_enough(
    entry: SearchEntry, made: Combination
) -> None:
    """Without one the best trial is promoted, as ever."""
    quick = promote(entry, PromoteOptions(limits=Limits(latency_ms=7.5), without_test=True))
    assert quick.kind == "ensemble" and "within the limits" in quick.reason
    assert promote(entry, PromoteOptions(without_test=True)).kind == "trial"
    with pytest.raises(UserError, match="takes 7.0 ms an image, and must have at most 5 ms"):
        promote(entry, PromoteOptions(combined="ensemble", limits=Limits(latency_ms=5.0), without_test=True))


def test_a_promotion_refuses_what_an_ensemble_does_not_have(
    entry: SearchEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each error says what to do."""
    with pytest.raises(UserError, match="`tlsearch ensemble small` makes it"):
        promote(entry, PromoteOptions(combined="ensemble"))
    with pytest.raises(UsageError, match="not both"):
        promote(entry, PromoteOptions(combined="ensemble", trial=1))
    with pytest.raises(UsageError, match="--refit"):
        promote(entry, PromoteOptions(combined="ensemble", refit=True))
    _took(monkeypatch, Member(trial=0, count=1), helps=False)
    make_ensemble(entry)
    with pytest.raises(UserError, match="not better than its best single trial 0"):
        promote(entry, PromoteOptions(combined="ensemble"))


@pytest.fixture
def quick_student(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distilling, "NUM_VIEWS", 2)


@pytest.mark.usefixtures("quick_student")
def test_a_student_learns_what_the_ensemble_predicts_and_is_one_plain_model(
    entry: SearchEntry, made: Combination
) -> None:
    """Its targets are the labels and the members' probabilities for the views that it sees, in equal parts."""
    file, record, index = stored_file(entry, "")[0], read_record(entry), _val(entry)
    found = distilling.make_distilled(entry, file, index, record.trials[0])
    assert found == read_combination(entry.path, "distilled")
    assert (found.kind, found.members, found.best_trial) == ("distilled", MEMBERS, 0)
    assert (found.latency_ms, found.best_latency_ms, found.best_parameters) == (4.0, 4.0, found.parameters)
    model = load_model(combined_model(entry.path, "distilled"), device="cpu")
    logits, labels = logits_on(model, index, "val").numpy(), np.array(index.splits["val"].labels)
    assert len(model.networks) == 1 and METRICS[record.metric].value(logits, labels) == pytest.approx(found.value)
    (targets,) = entry.path.glob("promoted/0-distilled-*/targets.safetensors")
    learned = read_soft_targets(targets, 2, (len(index.splits["train"]), 3))
    hard = learned.gather(1, torch.tensor(index.splits["train"].labels)[:, None])[:, 0]
    assert torch.allclose(learned.sum(1), torch.ones(len(learned))) and bool((hard > 0.5).all() and (hard < 1).all())
    assert found.helps == (found.value > float(record.trials[0].best_value or 0))


@pytest.mark.usefixtures("quick_student")
@pytest.mark.parametrize("point", DISTILLATION)
def test_a_death_in_a_distillation_costs_what_was_not_done(
    entry: SearchEntry, made: Combination, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """The same call again trains nothing twice and registers one version."""

    def die(name: str) -> None:
        if name == point:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        for module in (distilling, combination):
            patch.setattr(module, "crash_point", die)
        with pytest.raises(KeyboardInterrupt):
            promote(entry, PromoteOptions(combined="distilled", without_test=True))
    assert read_combination(entry.path, "distilled") is None
    if point != "soft_targets":
        monkeypatch.setattr(distilling, "train_to", None)
    monkeypatch.setattr(distilling, "_targets", None)
    monkeypatch.setattr(Objective, "better", lambda *_: True)  # chance decides whether so small a student is better
    result = promote(entry, PromoteOptions(combined="distilled", without_test=True))
    assert (result.kind, result.members, result.version) == ("distilled", MEMBERS, "1")
    assert "one model that has learned the averaged probabilities of" in result.card


def test_a_distillation_needs_an_ensemble_of_several(entry: SearchEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the command that makes one, once: an ensemble of one trial stays that when it is made again."""
    with pytest.raises(UserError, match="has none yet; `tlsearch ensemble small` makes one"):
        promote(entry, PromoteOptions(combined="distilled", without_test=True))
    _took(monkeypatch, Member(trial=0, count=1), helps=False)
    make_ensemble(entry)
    with pytest.raises(StorageError, match="has no distilled model yet: `tlsearch promote small --distill` makes it"):
        find_checkpoint("small:distilled", entry.path.parent)
    with pytest.raises(UserError, match="is trial 0 alone, since no average was better: `tlsearch promote small`"):
        promote(entry, PromoteOptions(combined="distilled", without_test=True))
    with pytest.raises(UsageError, match="--distill or --trial 1, not both"):
        promote(entry, PromoteOptions(combined="distilled", trial=1))


def test_a_head_that_is_solved_is_no_student(entry: SearchEntry, made: Combination) -> None:
    """It would be solved by the labels again, after the ensemble had looked at every image four times."""
    file, trial = stored_file(entry, "")[0], read_record(entry).trials[0]
    solved = replace(trial, config=replace(trial.config, unfreeze_depth=0, head="ridge", head_penalty=0.1))
    with pytest.raises(UserError, match=r"trial 0, whose head is solved by the labels \(ridge\)"):
        distilling.make_distilled(entry, file, _val(entry), solved)
    assert not list(entry.path.glob("promoted/0-distilled-*"))
