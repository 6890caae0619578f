"""``soup``: the average is a model like any other, a death leaves the old or the new, and each refusal says why."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from preparing import prepare_confirm
from search_doubles import drive
from small_search import plan_of, small_search
from soup_search import BACKBONE, SPACE, soup_search

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.catalog.stored import read_record, stored_file
from tlsearch.app.combined import ensemble_costs, members
from tlsearch.app.combined import make_soup as souping
from tlsearch.app.combined.ensemble_costs import Limits
from tlsearch.app.combined.make_soup import make_soup
from tlsearch.app.production.conclude import conclude
from tlsearch.app.production.confirm import best_candidates
from tlsearch.app.production.promote import PromoteOptions, promote
from tlsearch.core.crash import SOUP
from tlsearch.core.errors import SpaceError, StorageError, UserError
from tlsearch.core.metrics import METRICS
from tlsearch.core.types import SearchRecord, TrialAssignment
from tlsearch.data import load_index
from tlsearch.results import load_model, logits_on
from tlsearch.results.combine import combination
from tlsearch.results.combine.combination import combined_model, read_combination
from tlsearch.results.combine.greedy_soup import SoupChoice
from tlsearch.results.promotion.test_split import checkpoint_digest
from tlsearch.search import holding
from tlsearch.train import read_model_meta
from tlsearch.trial import open_running


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> SearchEntry:
    root = tmp_path_factory.mktemp("soup")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLSEARCH_STATE_DIR", str(root / "state"))
        patch.setenv("TLSEARCH_CACHE_DIR", str(root / "cache"))
        entry = soup_search(root)
    shutil.copytree(entry.path, entry.path.with_name("copy"))
    return entry


@pytest.fixture
def entry(template: SearchEntry, monkeypatch: pytest.MonkeyPatch) -> SearchEntry:
    monkeypatch.setenv("TLSEARCH_CACHE_DIR", str(template.path.parents[1] / "cache"))
    monkeypatch.setattr(ensemble_costs, "measure_latency", lambda spec: 7.0)
    shutil.rmtree(template.path)
    shutil.copytree(template.path.with_name("copy"), template.path)
    return template


def _choice(*members: int, helps: bool = True) -> SoupChoice:
    return SoupChoice(
        members=members,
        value=0.5 if helps else 0.6,
        cross_fitted=0.5,
        best_trial=members[0],
        best_value=0.6,
        best_cross_fitted=0.7,
        helps=helps,
    )


def _took(monkeypatch: pytest.MonkeyPatch, *members: int, helps: bool = True, repeated: int | None = None) -> None:
    """As if the greedy choice were this one, among these trials, whichever of them were better than their start."""

    def candidates(record: SearchRecord, *_: object, **__: object) -> souping._Candidates:
        trials = tuple(trial for trial in record.ranked if trial.number in members)
        again = next((trial for trial in trials if trial.number == repeated), None)
        return souping._Candidates(trials=trials, outside=(), repeated=again)

    monkeypatch.setattr(souping, "_candidates", candidates)
    monkeypatch.setattr(souping, "choose_soup", lambda *given, **more: _choice(*members, helps=helps))


def test_a_soup_is_a_model_with_the_average_of_the_weights(entry: SearchEntry) -> None:
    result = make_soup(entry, runs=0)
    record = read_record(entry)
    assert result == read_combination(entry.path, "soup")
    numbers = [one.trial for one in result.members]
    model = load_model(combined_model(entry.path, "soup"), device="cpu")
    assert {one.count for one in result.members} == {1} and result.num_val == 36 and result.latency_ms == 7.0
    assert record.best is not None and result.best_trial == record.best.number
    assert result.best_value == pytest.approx(record.best.best_value, abs=1e-4)
    if not result.helps:  # noise: the others tell what is written then
        assert numbers == [result.best_trial]
    assert result.helps == (result.gain > 0)
    index = load_index(stored_file(entry, "")[0].data)
    logits = logits_on(model, index, "val").numpy()
    value = METRICS["val_loss"].value(logits, np.array(index.splits["val"].labels))
    assert value == pytest.approx(result.value, abs=1e-4) == pytest.approx(model.meta.value, abs=1e-4)


def test_members_best_first_with_their_own_statistics(entry: SearchEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    _took(monkeypatch, 2, 1, 0)
    make_soup(entry)
    folder = combined_model(entry.path, "soup")
    model = load_model(folder, device="cpu")
    assert model.meta.members == (2, 1, 0) and model.meta.temperature == 1.0
    assert model.meta.config == read_record(entry).trials[2].config
    states = [load_model(entry.path / f"trials/{n}/best", device="cpu").model.state_dict() for n in (2, 1, 0)]
    own = model.model.state_dict()
    weight = "head.classifier.weight"
    assert torch.allclose(own[weight], sum(state[weight] for state in states) / 3, atol=1e-6)
    stem = next(name for name in own if name.startswith("stem"))
    assert torch.equal(own[stem], states[0][stem])
    # It reads as a plain model and says of which trials it is made; a trial's own file has no such key.
    assert '"members": [' in (folder / "checkpoint.json").read_text()
    assert "members" not in (entry.path / "trials/2/best/checkpoint.json").read_text()


def test_the_best_trial_is_trained_with_other_seeds_once_and_for_all(
    entry: SearchEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their numbers come after those of the five trials; the soup names the trial that they are trainings of."""
    _took(monkeypatch, 4, 5, 1, 6, repeated=4)
    result = make_soup(entry, runs=2)
    assert [(one.trial, one.count) for one in result.members] == [(4, 3), (1, 1)]
    soup = load_model(combined_model(entry.path, "soup"), device="cpu")
    assert soup.meta.members == (4, 4, 1, 4)
    runs = [entry.path / "promoted" / f"4-run-{run}" / "best" for run in (1, 2)]
    folders = [entry.path / "trials/4/best", entry.path / "trials/1/best", *runs]
    models = [load_model(folder, device="cpu") for folder in folders]
    assert len({one.meta.config for one in (models[0], *models[2:])}) == 1
    weight = "head.classifier.weight"
    weights = [one.model.state_dict()[weight] for one in models]
    assert not any(torch.equal(weights[0], other) for other in weights[2:]) and not torch.equal(*weights[2:])
    assert torch.allclose(soup.model.state_dict()[weight], sum(weights) / 4, atol=1e-6)
    monkeypatch.setattr(members, "train_to", None)  # what was trained is found again
    assert make_soup(entry, runs=2) == result


def test_trainings_of_confirm_are_taken_before_others_are_made(
    entry: SearchEntry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    repeated = souping.repeated_trial(read_record(entry), stored_file(entry, "")[0])
    assert repeated is not None
    place = [one.number for one in best_candidates(read_record(entry), 3)].index(repeated.number)
    confirm = prepare_confirm(entry, top=3, seeds=2)
    assert drive(plan_of(confirm.prepared), factory=open_running) == "finished"
    trials = confirm.prepared.entry.path / "trials"
    better = [n for n in (place, 3 + place) if read_model_meta(trials / f"{n}/best").epoch]
    result = conclude(confirm)
    kept = {int(folder.name) for folder in trials.iterdir() if (folder / "best").exists()}
    assert kept == {one.best_trial for one in result.candidates} | {place, 3 + place}
    given: list[Path] = []
    averages = souping.WeightAverages

    def seen(folders: Mapping[int, Path], *more: Any) -> Any:
        given.extend(folder for number, folder in folders.items() if number >= 5)
        return averages(folders, *more)

    monkeypatch.setattr(souping, "WeightAverages", seen)
    make_soup(entry, runs=3)
    assert [folder for folder in given if trials in folder.parents] == [trials / f"{n}/best" for n in better]
    assert [folder.name for folder in (entry.path / "promoted").iterdir()] == [f"{repeated.number}-run-3"]
    assert f"trial {repeated.number}: 2 trainings of `confirm` taken" in caplog.text


def test_a_seed_that_fails_or_never_gets_better_is_left_out(
    entry: SearchEntry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    train_to, seen = members.train_to, []

    def diverges_once(assignment: TrialAssignment, epoch: int) -> str:
        return "diverged: the loss is nan" if assignment.directory.endswith("run-1") else train_to(assignment, epoch)

    def choose(*_: object, start: Sequence[int], **__: object) -> SoupChoice:
        seen.append(list(start))
        return _choice(2, 5)

    _took(monkeypatch, 2, repeated=2)
    monkeypatch.setattr(members, "train_to", diverges_once)
    monkeypatch.setattr(souping, "choose_soup", choose)
    make_soup(entry, runs=3)
    assert seen == [[2, 5]]
    assert "a training of trial 2 with another seed is left out: diverged: the loss is nan" in caplog.text
    assert "1 training of trial 2 with other seeds never got better than the start: left out" in caplog.text
    start, third = (read_model_meta(entry.path / f"promoted/2-run-{run}/best").epoch for run in (2, 3))
    assert start == 0 < third


def test_where_it_does_not_help_the_model_is_the_best_trial_s(
    entry: SearchEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    _took(monkeypatch, 4, 1, helps=False)
    result = make_soup(entry)
    assert [one.trial for one in result.members] == [4] and not result.helps and result.value == 0.6
    assert (result.cross_fitted, result.best_cross_fitted) == (0.5, 0.7), "what the average would be worth"
    assert checkpoint_digest(combined_model(entry.path, "soup")) == checkpoint_digest(entry.path / "trials/4/best")


def test_where_one_trial_is_chosen_alone_the_figures_are_the_trial_s(
    entry: SearchEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Halves of the images may choose an average that is worth more, but the model is the trial's."""
    _took(monkeypatch, 4, helps=False)
    monkeypatch.setattr(souping, "choose_soup", lambda *_, **__: replace(_choice(4, helps=False), cross_fitted=0.9))
    result = make_soup(entry)
    assert result.cross_fitted == result.best_cross_fitted == 0.7 and not result.helps


def test_a_promoted_soup_is_the_soup_and_was_tested_beside_the_best_trial(
    entry: SearchEntry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Asked for, or as the best that is quick enough."""
    entry = replace(entry, tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    _took(monkeypatch, 4, 5, 1, repeated=4)
    make_soup(entry, runs=1)
    result = promote(entry, PromoteOptions(combined="soup"))
    assert (result.kind, result.trial, [one.trial for one in result.members]) == ("soup", 4, [4, 1])
    assert result.test is not None and result.test.against is not None
    assert all(text in result.card for text in ("averaged weights of 3 models", "Trials 4 (2 seeds), 1 of", "McNemar"))
    images = sorted((entry.path.parents[1] / "images/test").rglob("*.png"))
    served = load_model(result.uri, tracking_uri=entry.tracking_uri, device="cpu")
    own = load_model(combined_model(entry.path, "soup"), device="cpu")
    assert served.meta.members == (4, 4, 1)
    index = load_index(stored_file(entry, "")[0].data)
    assert torch.equal(logits_on(served, index, "test"), logits_on(own, index, "test")) and len(images) == 12
    quick = promote(entry, PromoteOptions(limits=Limits(latency_ms=8.0), without_test=True))
    assert quick.kind == "soup"


@pytest.mark.parametrize("point", SOUP)
def test_a_death_leaves_none_or_a_whole_one_and_the_same_call_makes_it(
    entry: SearchEntry, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """Real deaths: tests/integration/test_combined_crashes.py."""
    _took(monkeypatch, 2, 1, 0)
    first = make_soup(entry)
    model = combined_model(entry.path, "soup")
    whole = checkpoint_digest(model)
    shutil.rmtree(entry.path / "trials/1/best")

    def die(name: str) -> None:
        if name == point:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        for module in (members, combination):
            patch.setattr(module, "crash_point", die)
        with pytest.raises(KeyboardInterrupt):
            make_soup(entry)
    if point == "member_trained":
        assert read_combination(entry.path, "soup") == first and checkpoint_digest(model) == whole
    else:
        assert read_combination(entry.path, "soup") is None
    monkeypatch.setattr(members, "train_to", None)  # what was trained is found again
    assert make_soup(entry) == first
    assert checkpoint_digest(model) == whole
    assert sorted(path.name for path in (entry.path / "combined").iterdir()) == ["soup", "soup.json"]


def test_images_that_are_gone_are_an_error_that_names_them(entry: SearchEntry) -> None:
    """Also where a model was evicted: nothing is trained."""
    shutil.rmtree(entry.path / "trials/1/best")
    images = entry.path.parents[1] / "images"
    images.rename(images.with_name("elsewhere"))
    try:
        with pytest.raises(SpaceError, match=re.escape(f"data.path: the folder '{images}' does not exist")):
            make_soup(entry)
    finally:
        images.with_name("elsewhere").rename(images)
    assert not (entry.path / "promoted").exists() and read_combination(entry.path, "soup") is None


def test_only_trials_that_began_alike_are_averaged(entry: SearchEntry, tmp_path: Path) -> None:
    random_weights = small_search(tmp_path)
    with pytest.raises(UserError, match=r"two or more trials that began alike.*small has none"):
        make_soup(random_weights)
    record, file = read_record(entry), stored_file(entry, "")[0]
    found = souping._candidates(record, file, 3)
    assert found.numbers == [trial.number for trial in record.ranked][:3] and found.outside == ()
    trained = [trial for trial in found.trials if trial.model_epoch]
    assert found.repeated is None and souping._candidates(record, file, 3, repeat=True).repeated == trained[0]
    assert file.weights[BACKBONE].kind == "file" and "random" not in SPACE
    with holding(entry.path, "confirm"), pytest.raises(StorageError, match="confirm"):
        make_soup(entry)
