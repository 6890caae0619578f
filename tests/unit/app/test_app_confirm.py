"""Confirmation: a search of its own whose entries share their seeds, and what it says of planted configurations."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest
from preparing import prepare_confirm
from search_doubles import drive

from tlsearch.app.catalog.catalog import SearchEntry, find
from tlsearch.app.catalog.stored import read_record
from tlsearch.app.production.conclude import beside_others, conclude, read_confirmed
from tlsearch.app.production.confirm import PreparedConfirm, best_candidates
from tlsearch.app.views.outcome import search_alternatives
from tlsearch.core.codec import to_plain
from tlsearch.core.errors import TrialError
from tlsearch.core.types import EpochReport, TrialAssignment
from tlsearch.search import SearchPlan
from tlsearch.trial import FineTuning


class Planted:
    """A trial whose value is what its learning rate says, give or take its seed's luck."""

    ADVANTAGE = 0.05

    def __init__(self, assignment: TrialAssignment) -> None:
        self._assignment = assignment
        self.reports: list[EpochReport] = []

    @property
    def epochs_done(self) -> int:
        return len(self.reports)

    def step(self) -> EpochReport:
        config, seed = self._assignment.config, self._assignment.seed
        luck = random.Random(f"{seed} {config.head_lr} {config.backbone}").gauss(0, 0.008)
        shared = random.Random(seed).gauss(0, 0.02)  # a seed is good or bad for all
        good = config.head_lr > 1e-2 and config.backbone != "resnet18"
        value = 0.7 + (self.ADVANTAGE if good else 0.0) + shared + luck
        metrics = {"val_accuracy": value, "epoch_seconds": 1.0}
        report = EpochReport(epoch=self.epochs_done + 1, metrics=metrics, timestamp=time.time())
        self.reports.append(report)
        return report

    def save(self) -> None:
        """There is nothing to go on with."""

    def close(self) -> None:
        """Nothing is open."""


class Failing(Planted):
    def step(self) -> EpochReport:
        raise RuntimeError("planted")


class Equal(Planted):
    ADVANTAGE = 0.0


def _run(confirm: PreparedConfirm, factory: Any) -> None:
    prepared = confirm.prepared
    plan = SearchPlan(
        search_id=prepared.entry.search_id,
        experiment=prepared.entry.experiment,
        directory=prepared.entry.directory,
        space=prepared.space,
        setup=prepared.file.trial_setup(),
        search=prepared.file.search,
        resources=prepared.file.resources,
    )
    assert drive(plan, factory=factory) == "finished"


@pytest.fixture
def entry(ended_search: SearchEntry) -> SearchEntry:
    return ended_search


def test_the_repetition_trains_every_candidate_with_the_same_new_seeds(entry: SearchEntry) -> None:
    record = read_record(entry)
    confirm = prepare_confirm(entry, top=2, seeds=2)
    assert [one.number for one in confirm.candidates] == [one.number for one in best_candidates(record, 2)]
    _run(confirm, FineTuning)
    repeated = read_record(confirm.prepared.entry).trials
    assert [trial.config for trial in repeated] == [one.config for one in confirm.candidates] * 2
    assert repeated[0].seed == repeated[1].seed != repeated[2].seed == repeated[3].seed
    assert {trial.seed for trial in repeated}.isdisjoint({trial.seed for trial in record.trials})
    result = conclude(confirm)
    assert result == read_confirmed(entry) and result.num_val_images == 24
    assert result.comparisons[0].decisive.over == "both"
    beside = beside_others(entry, result)
    others = search_alternatives(entry)
    assert [one.kind for one in others] == ["trial", "ensemble"] and others == beside.alternatives
    assert to_plain(beside) == {**to_plain(result), "alternatives": tuple(to_plain(one) for one in others)}
    folders = list((confirm.prepared.entry.path / "trials").iterdir())
    assert all((folder / "val_logits.safetensors").is_file() for folder in folders) and len(folders) == 4
    kept = {folder.name for folder in folders if (folder / "best").exists()}
    assert kept == {str(one.best_trial) for one in result.candidates}
    assert conclude(confirm) == result  # once: the checkpoints that it compared are gone
    assert find(None).search_id == "small"  # the user's latest search, not the one made for it
    assert json.loads((entry.path / "confirm.json").read_text())["verdict"] == result.verdict


def test_the_same_call_goes_on_and_another_makes_another_search(entry: SearchEntry) -> None:
    first = prepare_confirm(entry, top=2, seeds=2)
    again = prepare_confirm(entry, top=2, seeds=2)
    other = prepare_confirm(entry, top=2, seeds=3)
    assert (first.prepared.entry.search_id, first.prepared.resumed) == ("small-confirm", False)
    assert (again.prepared.entry.search_id, again.prepared.resumed) == ("small-confirm", True)
    assert other.prepared.entry.search_id == "small-confirm-2"
    assert again.prepared.file.search == first.prepared.file.search
    assert again.prepared.entry.parent == "small"


def test_five_planted_points_are_called_better(entry: SearchEntry) -> None:
    confirm = prepare_confirm(entry, top=3, seeds=5)
    _run(confirm, Planted)
    result = conclude(confirm)
    assert result.outcome == "better"
    winner = next(one for one in result.candidates if one.rank == 1)
    assert winner.params["head_lr"] == 3e-2 and winner.params["backbone"] == "mobilenet_v3_small"
    assert result.recommended == winner.trial and "is better than rank 2" in result.verdict
    low, high = winner.interval
    assert low < winner.mean < high


def test_planted_equal_configurations_are_called_equal_and_the_cheaper_is_taken(entry: SearchEntry) -> None:
    confirm = prepare_confirm(entry, top=3, seeds=5)
    _run(confirm, Equal)
    result = conclude(confirm)
    assert result.outcome == "equal" and "do not differ by more than chance" in result.verdict
    taken = next(one for one in result.candidates if one.trial == result.recommended)
    assert taken.params["backbone"] == "mobilenet_v3_small"  # of 1.5 million parameters; resnet18 has 11


def test_trainings_that_all_fail_are_a_failure_that_says_how_to_try_again(entry: SearchEntry) -> None:
    confirm = prepare_confirm(entry, top=2, seeds=2)
    _run(confirm, Failing)
    again = "no training of small-confirm has a result: RuntimeError: planted.*`tlsearch remove small-confirm`"
    with pytest.raises(TrialError, match=again):
        conclude(confirm)
