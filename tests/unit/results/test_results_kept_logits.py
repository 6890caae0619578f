"""Kept logits, read from a search's folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from search_records import make_trial, record_of

from tlsearch.core.layout import SearchFolder
from tlsearch.core.types import FOLD_EPOCH, TrialRecord, TrialState
from tlsearch.data import split_digest
from tlsearch.results.combine import kept_logits
from tlsearch.results.combine.kept_logits import read_kept
from tlsearch.train.checkpoint.model_checkpoints import half_logits, save_val_logits

if TYPE_CHECKING:
    from conftest import Trained

LABELS = (0, 1, 2, 1)


def keep(root: Path, number: int, *, epoch: int = 1, digest: str = "d", seed: int | None = None) -> torch.Tensor:
    logits = torch.randn(len(LABELS), 3, generator=torch.Generator().manual_seed(number if seed is None else seed))
    half = half_logits(logits)
    assert half is not None
    save_val_logits(SearchFolder(root=root).trial(number), half, torch.tensor(LABELS), epoch=epoch, digest=digest)
    return half.double()


def test_trials_with_a_result_come_best_first(tmp_path: Path) -> None:
    record = record_of(
        [
            make_trial(0, [0.5]),
            make_trial(1, [0.7, 0.6]),
            make_trial(2, [0.9], state=TrialState.RUNNING, reason=""),
            make_trial(3, [0.6, 0.8]),
            make_trial(4, [0.95], reason="diverged", state=TrialState.PRUNED),
        ]
    )
    logits = {number: keep(tmp_path, number, epoch=2 if number == 3 else 1) for number in range(5)}
    kept = read_kept(tmp_path, record)
    assert (kept.trials, kept.missing, kept.left_out) == ((3, 1, 0), (), ())
    assert kept.logits.dtype == np.float64 and kept.labels.tolist() == list(LABELS)
    assert np.array_equal(kept.logits, np.stack([logits[number].numpy() for number in (3, 1, 0)]))


def test_what_is_not_of_the_best_epoch_or_of_these_images_is_missing(tmp_path: Path) -> None:
    record = record_of([make_trial(number, [0.9 - number / 10]) for number in range(5)])
    keep(tmp_path, 1)
    keep(tmp_path, 2, epoch=7)
    keep(tmp_path, 3, digest="of other images")
    keep(tmp_path, 4)
    (SearchFolder(root=tmp_path).val_logits(4)).write_bytes(b"half of a file")
    kept = read_kept(tmp_path, record)
    assert (kept.trials, kept.missing) == ((1,), (0, 2, 3, 4))
    nothing = read_kept(tmp_path / "of an earlier version", record)
    assert (nothing.trials, nothing.missing, nothing.logits.shape) == ((), (0, 1, 2, 3, 4), (0, 0, 0))


def test_the_worst_trials_are_left_out_where_all_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = record_of([make_trial(number, [number / 10]) for number in range(1, 5)])
    for number in (1, 2, 4):
        keep(tmp_path, number)
    monkeypatch.setattr(kept_logits, "MAX_VALUES", 2 * len(LABELS) * 3)
    kept = read_kept(tmp_path, record)
    assert (kept.trials, kept.missing, kept.left_out) == ((4, 2), (3,), (1,))


def fold(number: int, values: list[float], folds: int = 3) -> TrialRecord:
    """A trial that was stopped after some of its folds."""
    trial = make_trial(number, values)
    reports = tuple(replace(one, folds=folds, metrics={**one.metrics, FOLD_EPOCH: 1.0}) for one in trial.reports)
    return replace(trial, reports=reports, best_value=values[-1], best_epoch=len(values))


def keep_folds(root: Path, trial: TrialRecord, held_out: list[int], *, digest: str = "d") -> torch.Tensor:
    rows = [row for row, number in enumerate(held_out) if number <= trial.epochs_run]
    half = half_logits(torch.randn(len(rows), 3, generator=torch.Generator().manual_seed(trial.number)))
    assert half is not None
    save_val_logits(
        SearchFolder(root=root).trial(trial.number),
        half,
        torch.tensor(LABELS)[rows],
        epoch=trial.epochs_run,
        digest=digest,
        folds=torch.tensor(held_out)[rows],
    )
    return half.double()


def test_trials_are_compared_on_the_images_that_the_best_has_held_out(tmp_path: Path) -> None:
    """One that was stopped earlier has held out fewer, however good it looks there; of none whole the best decides."""
    held_out, first, second, lucky = [2, 1, 3, 1], fold(0, [0.5, 0.6, 0.5]), fold(1, [0.7, 0.6, 0.6]), fold(2, [0.9])
    for one in (first, second, lucky):
        keep_folds(tmp_path, one, held_out)
    kept = read_kept(tmp_path, record_of([first, second, lucky]))
    assert (kept.trials, kept.partial, kept.missing) == ((1, 0), (2,), ())
    assert kept.labels.tolist() == list(LABELS)
    two = fold(3, [0.5, 0.8])
    logits = keep_folds(tmp_path, two, held_out)
    cut = read_kept(tmp_path, record_of([lucky, two]))
    assert (cut.trials, cut.labels.tolist()) == ((2, 3), [1, 1])
    assert np.array_equal(cut.logits[1], logits.numpy()[[1, 2]]), "the rows of the first fold alone"


@pytest.mark.parametrize("held_out", [[1, 1, 1], [1, 2, 4, 1], [1, 1, 2, 2]])
def test_folds_that_do_not_fit_their_images_are_missing(tmp_path: Path, held_out: list[int]) -> None:
    trial = fold(0, [0.5, 0.6, 0.5])
    folder = SearchFolder(root=tmp_path).trial(0)
    logits, labels = torch.zeros(4, 3).half(), torch.tensor(LABELS)
    save_val_logits(folder, logits, labels, epoch=3, digest="d", folds=torch.tensor(held_out))
    assert read_kept(tmp_path, record_of([trial])).missing == (0,)
    save_val_logits(folder, logits, labels, epoch=3, digest="d")
    assert read_kept(tmp_path, record_of([trial])).missing == (0,), "a file without folds is of another version"


def test_a_trained_trial_is_read_back_with_its_index(trained: Trained) -> None:
    record = record_of([replace(make_trial(3, [0.5]), best_epoch=trained.outcome.best_epoch)])
    kept = read_kept(trained.folder.parent.parent, record, trained.index)
    assert kept.trials == (3,) and kept.labels.tolist() == list(trained.index.splits["val"].labels)
    right = float((kept.logits[0].argmax(1) == kept.labels).mean())
    assert right == pytest.approx(trained.outcome.best_value)
    val = trained.index.splits["val"]
    changed = replace(val, digests=(b"another", *val.digests[1:]))
    assert split_digest(changed) != split_digest(val)
    other = replace(trained.index, splits={**trained.index.splits, "val": changed})
    assert read_kept(trained.folder.parent.parent, record, other).missing == (3,)
