"""``ensemble``, ``soup``, ``promote`` and label errors of a search with folds: by what each fold has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from preparing import prepare_confirm
from search_doubles import drive
from small_search import plan_of
from soup_search import SPACE, soup_search

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.catalog.stored import read_record, stored_file
from tlsearch.app.combined import ensemble_costs, members
from tlsearch.app.combined import make_ensemble as making
from tlsearch.app.combined.make_ensemble import make_ensemble
from tlsearch.app.combined.make_soup import make_soup
from tlsearch.app.production import ready_model
from tlsearch.app.production.conclude import conclude
from tlsearch.app.production.promote import PromoteOptions, promote
from tlsearch.app.views.label_errors import find_label_errors
from tlsearch.app.views.outcome import search_alternatives
from tlsearch.core.errors import UserError
from tlsearch.data import load_index, rows_with_val_in_train, with_val_in_train
from tlsearch.results.combine.combination import Member, combined_model
from tlsearch.results.combine.kept_logits import read_kept
from tlsearch.results.combine.selection import Selected, select_ensemble
from tlsearch.results.promotion.test_split import read_uses
from tlsearch.results.stats.calibration import fit_temperature
from tlsearch.train import networks_of, read_ensemble_meta, read_model_meta
from tlsearch.trial import open_running

FOLDS, POOL = 2, 3 * (8 + 12)
MEMBERS = (Member(trial=2, count=1), Member(trial=0, count=1))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> SearchEntry:
    root = tmp_path_factory.mktemp("folds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLSEARCH_STATE_DIR", str(root / "state"))
        patch.setenv("TLSEARCH_CACHE_DIR", str(root / "cache"))
        entry = soup_search(root, space=SPACE.replace("max_epochs: 2", f"max_epochs: 2\n  folds: {FOLDS}"))
    return replace(entry, tracking_uri=f"sqlite:///{root}/mlflow.db")


@pytest.fixture
def entry(searched: SearchEntry, monkeypatch: pytest.MonkeyPatch) -> SearchEntry:
    monkeypatch.setenv("TLSEARCH_CACHE_DIR", str(searched.path.parents[1] / "cache"))
    monkeypatch.setattr(making, "measure_module", lambda *_: 7.0)
    monkeypatch.setattr(ensemble_costs, "measure_latency", lambda spec: 7.0)
    monkeypatch.setattr(members, "_RAY_S", 1e9)  # no Ray, however slow the machine
    return searched


def _took(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Sequence[int], NDArray[Any]]]:
    """As if the selection were two trials, whatever their noise; gives what it was to select from."""
    seen = []

    def choose(trials: Sequence[int], logits: NDArray[Any], labels: NDArray[Any], **more: Any) -> Selected:
        seen.append((trials, labels))
        found = select_ensemble(trials, logits, labels, **more)
        assert found is not None
        better = {"cross_fitted": 0.5, "best_cross_fitted": 0.9, "helps": True}  # of a loss
        return replace(found, members=MEMBERS, temperatures=(1.5, 0.8), **better)

    monkeypatch.setattr(making, "select_ensemble", choose)
    return seen


def test_members_are_selected_by_every_image_and_trained_on_all(
    entry: SearchEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _took(monkeypatch)
    found = make_ensemble(entry)
    file, record = stored_file(entry, "")[0], read_record(entry)
    pool = with_val_in_train(load_index(file.data))
    ((trials, labels),) = seen
    assert (set(trials), labels.tolist()) == ({0, 1, 2, 3, 4}, list(pool.splits["train"].labels))
    assert (found.num_val, found.helps) == (POOL, True)
    epochs = {trial.number: trial.model_epoch for trial in record.trials}
    for member in MEMBERS:
        folder = entry.path / "promoted" / f"{member.trial}-refit" / "best"
        assert read_model_meta(folder).epoch == epochs[member.trial]
    assert not (folder.parent / "val_logits.safetensors").exists(), "it has trained on these images"
    assert [one.epoch for one in networks_of(combined_model(entry.path, "ensemble"))] == [epochs[2], epochs[0]]
    kinds = {one.kind: one for one in search_alternatives(entry)}
    assert kinds["ensemble"].made and kinds["trial"].value == record.best.best_value  # type: ignore[union-attr]


def test_a_promoted_ensemble_is_calibrated_by_what_its_members_have_not_seen(
    entry: SearchEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    _took(monkeypatch)
    make_ensemble(entry)
    monkeypatch.setattr(ready_model, "logits_on", lambda *_: pytest.fail("val was trained on"))
    promoted = promote(entry, PromoteOptions(combined="ensemble"))
    kept = read_kept(entry.path, read_record(entry))
    probabilities = 0.0
    for member in read_ensemble_meta(combined_model(entry.path, "ensemble")).members:
        scaled = kept.logits[kept.trials.index(member.trial)] / member.temperature
        shares = np.exp(scaled - scaled.max(1, keepdims=True))
        probabilities = probabilities + shares / shares.sum(1, keepdims=True) / 2
    assert promoted.temperature == pytest.approx(fit_temperature(np.log(probabilities), kept.labels), rel=1e-6)
    assert promoted.refit and promoted.kind == "ensemble" and "trained on train and val together" in promoted.card
    assert promoted.test is not None and promoted.test.against is not None  # type: ignore[union-attr]
    assert len(read_uses(entry.path)) == 1
    with pytest.raises(UserError, match="whose trials have folds, is trained on all of them"):
        promote(entry, PromoteOptions(combined="distilled"))


def test_a_promoted_trial_needs_no_training_on_the_split(entry: SearchEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready_model, "logits_on", lambda *_: pytest.fail("val was trained on"))
    promoted = promote(entry, PromoteOptions(trial=1, without_test=True))
    kept = read_kept(entry.path, read_record(entry))
    logits = kept.logits[kept.trials.index(1)]
    assert promoted.temperature == pytest.approx(fit_temperature(logits, kept.labels))
    assert promoted.refit and not (entry.path / "promoted" / "1").exists()


def test_a_soup_is_of_trainings_on_the_split(entry: SearchEntry) -> None:
    found = make_soup(entry)
    epochs = {trial.number: trial.model_epoch for trial in read_record(entry).trials}
    assert found.num_val == 36 and (combined_model(entry.path, "soup") / "checkpoint.json").is_file()
    for one in found.members:
        epoch, most = read_model_meta(entry.path / "promoted" / str(one.trial) / "best").epoch, epochs[one.trial]
        assert most is not None and epoch <= most


def test_trials_judge_the_labels_of_train_and_val(entry: SearchEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlsearch.app.views.label_errors._by_heads", lambda *_: ({}, ""))
    file, record = stored_file(entry, "")[0], read_record(entry)
    index = load_index(file.data)
    found = find_label_errors(entry, record, file, index)
    assert found.judged == {"train": 24, "val": 36} and found.notes == []
    assert found.judges.startswith("the kept logits of ")
    rows, pool = rows_with_val_in_train(index), with_val_in_train(index).splits["train"]
    for split in ("train", "val"):
        assert [pool.keys[row] for row in rows[split]] == list(index.splits[split].keys)


def test_a_confirmation_compares_every_image(entry: SearchEntry) -> None:
    confirm = prepare_confirm(entry, top=2, seeds=2)
    assert drive(plan_of(confirm.prepared), factory=open_running) == "finished"
    found = conclude(confirm)
    assert found.num_val_images == POOL
    over = found.comparisons[0].over_images
    assert over is not None and found.comparisons[0].decisive.over == "both"  # type: ignore[union-attr]
