"""A search has what stands still in its models once; what leaves it is whole, and a search of before goes on."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from old_layout import to_old_layout
from preparing import prepare
from search_doubles import drive
from small_search import plan_of, write_shapes
from soup_search import SPACE, soup_search, write_weights

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.catalog.stored import read_record, stored_file
from tlsearch.app.combined.members import member_checkpoints
from tlsearch.app.production.promote import PromoteOptions, promote
from tlsearch.app.searches.prepare import RunOptions
from tlsearch.app.searches.sync import sync_search
from tlsearch.config.ensemble_meta import EnsembleMeta
from tlsearch.core.files import folder_bytes
from tlsearch.core.layout import evict_trial
from tlsearch.core.types import Decision, EpochReport, SearchObserver
from tlsearch.data import load_index
from tlsearch.results import load_model, logits_on
from tlsearch.results.promotion.test_split import checkpoint_digest
from tlsearch.train import ensemble_member, save_ensemble
from tlsearch.trial import open_running

HEAD_ONLY = 3  # of the search's trials


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> SearchEntry:
    root = tmp_path_factory.mktemp("frozen")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLSEARCH_STATE_DIR", str(root / "state"))
        patch.setenv("TLSEARCH_CACHE_DIR", str(root / "cache"))
        entry = soup_search(root)
    shutil.copytree(entry.path, entry.path.with_name("copy"))
    return entry


@pytest.fixture
def entry(template: SearchEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SearchEntry:
    monkeypatch.setenv("TLSEARCH_CACHE_DIR", str(template.path.parents[1] / "cache"))
    shutil.rmtree(template.path, ignore_errors=True)
    shutil.copytree(template.path.with_name("copy"), template.path)
    return replace(template, tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")


def answers(folders: Mapping[int, Path], entry: SearchEntry) -> dict[int, torch.Tensor]:
    """What models say of the validation images."""
    index = load_index(stored_file(entry, "")[0].data)
    return {number: logits_on(load_model(folder, device="cpu"), index, "val") for number, folder in folders.items()}


def bests(search: Path) -> dict[int, Path]:
    return {int(best.parent.name): best for best in search.glob("trials/*/best")}


def test_five_trials_of_three_depths_have_one_backbone(entry: SearchEntry) -> None:
    sizes = {number: folder_bytes(best) for number, best in bests(entry.path).items()}
    backbone = folder_bytes(entry.path / "frozen")
    assert len(sizes) == 5 and sizes[HEAD_ONLY] < 50_000 < backbone
    parts = {path.name.rpartition("-")[0] for path in (entry.path / "frozen").iterdir()}
    assert {"stem", "stage1", "stage2", "stage3", "stage4", "stage4-statistics"} <= parts


def test_models_that_leave_the_search_are_whole(entry: SearchEntry, tmp_path: Path) -> None:
    """Kept in MLflow, promoted, and as an ensemble; the search itself is gone when they are read."""
    from mlflow import MlflowClient

    folders = bests(entry.path)
    expected, index = answers(folders, entry), load_index(stored_file(entry, "")[0].data)
    members = tuple(ensemble_member(folders[n], trial=n, count=1, temperature=1.0) for n in (HEAD_ONLY, 1))
    ensemble = EnsembleMeta(members=members, metric="val_loss", value=1.0, cross_fitted=1.0)
    save_ensemble(tmp_path / "ensemble", ensemble, [folders[HEAD_ONLY], folders[1]])
    together = logits_on(load_model(tmp_path / "ensemble", device="cpu"), index, "val")
    sync_search(entry)
    promoted = promote(entry, PromoteOptions(trial=HEAD_ONLY, without_test=True))
    shutil.rmtree(entry.path)

    client = MlflowClient(tracking_uri=entry.tracking_uri)
    experiment = client.get_experiment_by_name(entry.experiment)
    assert experiment is not None
    kept = [
        model
        for model in client.search_logged_models([experiment.experiment_id])
        if model.tags["tlsearch.kind"] == "model"
    ]
    assert len(kept) == 3
    for model in kept:
        served = load_model(f"models:/{model.model_id}", tracking_uri=entry.tracking_uri, device="cpu")
        assert torch.equal(logits_on(served, index, "val"), expected[int(model.tags["tlsearch.trial"])])
    served = load_model(promoted.uri, tracking_uri=entry.tracking_uri, device="cpu")
    assert torch.equal(logits_on(served, index, "val"), expected[HEAD_ONLY])
    alone = load_model(tmp_path / "ensemble", device="cpu")
    assert torch.equal(logits_on(alone, index, "val"), together)
    names = [path.name.rpartition("-")[0] for path in (tmp_path / "ensemble").iterdir()]
    assert names.count("stem") == 1, "members share what they have in common"


def test_an_evicted_model_takes_nothing_from_the_others_and_is_trained_again(entry: SearchEntry) -> None:
    expected, digest = answers(bests(entry.path), entry), checkpoint_digest(entry.path / f"trials/{HEAD_ONLY}/best")
    shared = sorted(path.name for path in (entry.path / "frozen").iterdir())
    for number in (0, 1, HEAD_ONLY):
        evict_trial(entry.path / "trials" / str(number))
    left = answers(bests(entry.path), entry)
    assert left.keys() == {2, 4} and all(torch.equal(logits, expected[number]) for number, logits in left.items())
    found = member_checkpoints(entry, stored_file(entry, "")[0], [HEAD_ONLY])[HEAD_ONLY]
    assert found == entry.path / f"promoted/{HEAD_ONLY}/best" and checkpoint_digest(found) == digest
    assert torch.equal(answers({HEAD_ONLY: found}, entry)[HEAD_ONLY], expected[HEAD_ONLY])
    assert sorted(path.name for path in (entry.path / "frozen").iterdir()) == shared and folder_bytes(found) < 50_000


def test_models_of_the_version_before_are_read_and_promoted(entry: SearchEntry) -> None:
    expected = answers(bests(entry.path), entry)
    to_old_layout(entry.path)
    found = answers(bests(entry.path), entry)
    assert all(torch.equal(logits, expected[number]) for number, logits in found.items())
    sync_search(entry)
    promoted = promote(entry, PromoteOptions(trial=HEAD_ONLY, without_test=True))
    served = load_model(promoted.uri, tracking_uri=entry.tracking_uri, device="cpu")
    index = load_index(stored_file(entry, "")[0].data)
    assert torch.equal(logits_on(served, index, "val"), expected[HEAD_ONLY])


def test_a_search_of_the_version_before_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLSEARCH_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("TLSEARCH_CACHE_DIR", str(tmp_path / "cache"))
    write_shapes(tmp_path / "images", counts={"train": 8, "val": 12, "test": 4})
    write_weights(tmp_path / "weights.pth")
    (tmp_path / "space.yaml").write_text(SPACE)
    prepared = prepare(RunOptions(file=tmp_path / "space.yaml", name="old"))
    plan, search, stop = plan_of(prepared), prepared.entry.path, threading.Event()
    interrupted = drive(plan, factory=open_running, observers=[StopAfter(stop, 3)], stop=stop)
    assert interrupted == "interrupted"  # in the second trial
    to_old_layout(search)
    before = answers(bests(search), prepared.entry)
    assert before.keys() == {0, 1} and not (search / "frozen").exists()
    assert drive(plan, factory=open_running) == "finished"
    after = answers(bests(search), prepared.entry)
    assert after.keys() == {trial.number for trial in read_record(prepared.entry).trials} == {0, 1, 2, 3, 4}
    assert torch.equal(after[0], before[0])
    owners = {int(path.parents[1].name) for path in search.glob("trials/*/best/frozen-*")}
    assert owners == {0} and (search / "frozen").is_dir()


class StopAfter(SearchObserver):
    """Interrupts a search after this number of reports."""

    def __init__(self, stop: threading.Event, reports: int) -> None:
        self._stop, self._left = stop, reports

    def trial_reported(self, number: int, report: EpochReport, decision: Decision) -> None:
        self._left -= 1
        if self._left == 0:
            self._stop.set()
