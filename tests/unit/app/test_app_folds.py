"""A search with folds in the app: what its results say, what promote trains of it, and what check and plan say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import killed_folds
import pytest
import torch
import yaml
from killed_folds import folded
from preparing import prepare_confirm
from safetensors.torch import load_file
from search_doubles import QuickTrial, drive
from small_search import COUNTS, small_search, write_shapes

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.catalog.gather_facts import read_facts
from tlsearch.app.catalog.stored import read_record, stored_file
from tlsearch.app.checks.check_file import check_file
from tlsearch.app.checks.feasibility import num_training
from tlsearch.app.combined.ensemble_costs import Limits
from tlsearch.app.production.choice import choose
from tlsearch.app.production.conclude import conclude
from tlsearch.app.production.ready_model import find_or_train, train_on_all
from tlsearch.app.searches.execute import search_plan
from tlsearch.app.searches.prepare import RunOptions, prepare
from tlsearch.app.searches.rerun import deviations, rerun_trial
from tlsearch.app.views.outcome import find_checkpoint, read_leaderboard
from tlsearch.app.views.report import write_search_report
from tlsearch.core.errors import SpaceError, StorageError
from tlsearch.data import load_index
from tlsearch.train import read_model_meta

POOL = 3 * (COUNTS["train"] + COUNTS["val"])


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> SearchEntry:
    return small_search(tmp_path_factory.mktemp("folds"), space=folded(3))


def test_results_count_folds_and_every_image(entry: SearchEntry) -> None:
    record, facts = read_record(entry), read_facts(entry)
    assert {(trial.epochs_run, trial.folds) for trial in record.trials} == {(3, 3)}
    assert (facts.folds, facts.num_validation) == (3, POOL)
    found = read_leaderboard(entry, run_ids=False)
    best = found.rows[0]
    assert best.standard_error == record.trials[best.trial].reports[-1].metrics["val_accuracy_se"]
    assert best.interval is None
    assert any("mean over 3 folds" in note for note in found.notes())
    page = write_search_report(entry, log=False).page.read_text()
    assert "over 3 of 3 folds" in page
    assert (
        f"The models of the 3 folds of trial {best.trial} over the {POOL} validation images, each over its own" in page
    )
    assert f"accuracy {best.best_value:.4f}" in page, "folds of one size: the mean is that over all images"


def test_no_model_of_a_fold_is_kept(entry: SearchEntry) -> None:
    assert {path.name for path in entry.path.glob("trials/*/*")} == {"val_logits.safetensors"}
    with pytest.raises(StorageError, match="search with folds keeps no models: `tlsearch promote` trains one"):
        find_checkpoint(entry.search_id, entry.path.parent)


def test_promote_trains_for_the_common_epoch_on_all_images(entry: SearchEntry) -> None:
    file, _ = stored_file(entry, "")
    choice = choose(entry, file, num_classes=3, trial=None, limits=Limits(), num_val=24)
    epoch = choice.trial.reports[-1].metrics["fold_epoch"]
    assert (choice.trial.best_epoch, choice.trial.folds) == (epoch, 3)
    assert choice.reason.startswith("the best by val_accuracy over 3 of 3 folds of train and val: 0.")
    choice = replace(choice, trial=replace(choice.trial, best_epoch=2))
    split = find_or_train(choice, file)
    whole = train_on_all(choice, file)
    assert read_model_meta(split).epoch <= 2
    assert read_model_meta(whole).epoch == 2
    written = (split / "checkpoint.json").stat().st_mtime_ns
    assert find_or_train(choice, file) == split
    assert (split / "checkpoint.json").stat().st_mtime_ns == written, "what was trained is found again"


def test_confirm_names_the_time_of_a_fold(entry: SearchEntry) -> None:
    confirm = prepare_confirm(entry, top=2, seeds=2)
    assert drive(search_plan(confirm.prepared), factory=QuickTrial) == "finished"
    result = conclude(confirm)
    assert (result.step, result.seeds, result.num_val_images) == ("fold", 2, POOL)


def test_a_trial_with_folds_is_trained_again_to_the_bit(entry: SearchEntry) -> None:
    again = rerun_trial(entry, 1)
    assert again.equal, again.deviations
    assert again.num_epochs == 3


def space(tmp_path: Path, folds: int, counts: dict[str, int]) -> Path:
    write_shapes(tmp_path / "images", counts=counts)
    path = tmp_path / "space.yaml"
    path.write_text(folded(folds))
    return path


def test_check_advises_folds_and_names_a_class_that_is_too_small(tmp_path: Path) -> None:
    path = space(tmp_path, 0, {"train": 3, "val": 1, "test": 1})
    report = check_file(path, with_model=False)
    assert report.validation is not None
    assert "search.folds: 4" in report.validation.lines()[-1]
    small = check_file(path, overrides=("search.folds=5",), with_model=False)
    assert [(one.dotted, "'circle' (4)" in one.message) for one in small.problems] == [("search.folds", True)]
    assert check_file(path, overrides=("search.folds=4",), with_model=False).ok
    with (
        pytest.raises(SpaceError, match="search.folds 5 needs 5 images of each class"),
        prepare(RunOptions(file=path, overrides=("search.folds=5",), name="small")),
    ):
        pass


def test_patience_does_not_go_with_folds(tmp_path: Path) -> None:
    path = space(tmp_path, 3, {"train": 3, "val": 1})
    plain = yaml.safe_load(path.read_text())
    plain["search"]["patience"] = 3
    path.write_text(yaml.safe_dump(plain))
    (problem,) = check_file(path, with_model=False).problems
    assert (problem.dotted, "reports each fold once" in problem.message) == ("search.patience", True)


def test_a_training_sees_all_folds_but_one(tmp_path: Path) -> None:
    from tlsearch.space import load

    file, _ = load(space(tmp_path, 4, {"train": 3, "val": 1}))
    assert num_training(file, load_index(file.data)) == 9


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_deaths_at_five_points_lose_nothing(entry: SearchEntry, tmp_path: Path) -> None:
    def run(point: str) -> int:
        command = [sys.executable, killed_folds.__file__, str(tmp_path)]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "TLSEARCH_CRASH_AT": point}
        return subprocess.run(command, env=env, capture_output=True, timeout=300, check=False).returncode

    points = ("after_checkpoint:2", "before_report_write:1", "after_report_write:2", "before_tell:1", "after_tell:1")
    assert [run(point) for point in points] == [-signal.SIGKILL] * len(points)
    assert run("") == 0
    killed, whole = read_record(replace(entry, directory=str(tmp_path / "tlsearch_runs" / "small"))), read_record(entry)
    assert [trial.state for trial in killed.trials] == [trial.state for trial in whole.trials]
    for one, other in zip(killed.trials, whole.trials, strict=True):
        assert deviations(one.reports, other.reports) == []
    logits = [sorted(root.glob("trials/*/*")) for root in (tmp_path / "tlsearch_runs/small", entry.path)]
    assert [path.name for path in logits[0]] == ["val_logits.safetensors"] * len(whole.trials)
    for ours, theirs in zip(*([load_file(path) for path in paths] for paths in logits), strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ("logits", "labels", "folds"))
