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
from tlsearch.core.types import TrialState
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
