"""By how much the choice beats the default trial, honest about the choice."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from search_records import make_trial, record_of

from tlsearch.core.layout import SearchFolder
from tlsearch.core.types import SearchRecord
from tlsearch.results.combine.default_gain import cross_fitted_gain, default_gain
from tlsearch.train.checkpoint.model_checkpoints import save_val_logits

LABELS = tuple(range(4)) * 75


def hits(num_trials: int, num_images: int, rng: np.random.Generator, *, better: float = 0.0) -> np.ndarray:
    """Trials that find the same images hard; the second is right more often."""
    shared, own = rng.normal(size=num_images), rng.normal(size=(num_trials, num_images))
    lines = np.full((num_trials, 1), 0.52)  # right on 0.7 of the images
    lines[1] += better
    return np.asarray(math.sqrt(0.7) * shared + math.sqrt(0.3) * own < lines, dtype=np.float64)


@pytest.mark.parametrize(("num_trials", "num_images"), [(2, 200), (12, 48), (12, 200)])
def test_of_equal_trials_few_choices_seem_better(num_trials: int, num_images: int) -> None:
    rng, rejected, draws = np.random.default_rng(0), 0, 150
    labels = np.arange(num_images) % 4
    for draw in range(draws):
        gains = hits(num_trials, num_images, rng)
        gain, error = cross_fitted_gain(gains, labels, 0, num_splits=8, seed=draw)
        rejected += abs(gain) > 1.96 * error
    assert rejected <= 0.05 * draws


def test_a_better_trial_is_found_and_the_interval_covers_its_gain() -> None:
    rng, draws = np.random.default_rng(1), 60
    labels = np.arange(300) % 4
    truth = 0.5 * (math.erf(1.0 / math.sqrt(2)) - math.erf(0.52 / math.sqrt(2)))
    found = [cross_fitted_gain(hits(12, 300, rng, better=0.48), labels, 0, num_splits=8, seed=d) for d in range(draws)]
    assert sum(gain > 1.96 * error for gain, error in found) >= 0.9 * draws
    assert sum(abs(gain - truth) <= 1.96 * error for gain, error in found) >= 0.9 * draws


def keep(root: Path, number: int, right: np.ndarray, *, epoch: int = 1) -> None:
    labels = torch.tensor(LABELS)
    shown = torch.where(torch.as_tensor(right), labels, (labels + 1) % 4)
    logits = torch.nn.functional.one_hot(shown, 4).mul(3).half()
    save_val_logits(SearchFolder(root=root).trial(number), logits, labels, epoch=epoch, digest="d")


def search(root: Path, accuracies: list[float], *, default: int = 0) -> SearchRecord:
    rng, trials = np.random.default_rng(2), []
    for number, accuracy in enumerate(accuracies):
        right = rng.permutation(len(LABELS)) < accuracy * len(LABELS)
        keep(root, number, right)
        trial = make_trial(number, [float(right.mean())])
        trials.append(replace(trial, origin="default" if number == default else "sampler"))
    return record_of(trials)


def test_a_search_says_it_in_a_sentence(tmp_path: Path) -> None:
    found = default_gain(tmp_path, search(tmp_path, [0.6, 0.62, 0.8, 0.65]))
    assert found is not None and (found.trial, found.default, found.num_trials, found.num_images) == (2, 0, 4, 300)
    assert found.gain == pytest.approx(0.2, abs=0.02) and found.low > 0.1 and found.p_value < 0.001
    assert found.sentence.startswith(
        "trial 2 beats the default trial 0: the estimated gain in validation accuracy is +0."
    )
    assert "p < 0.001" in found.sentence and "among 4 trials" in found.sentence
    assert set(found.as_json()) == {
        *("trial", "default", "metric", "gain", "low", "high", "p_value", "trials", "images")
    }


def test_what_is_not_shown_is_not_claimed(tmp_path: Path) -> None:
    close = default_gain(tmp_path / "close", search(tmp_path / "close", [0.6, 0.6, 0.61, 0.6]))
    assert close is not None and close.p_value > 0.05 and close.low < 0 < close.high
    assert close.sentence.startswith("trial 2 is not shown to beat the default trial 0")
    own = default_gain(tmp_path / "own", search(tmp_path / "own", [0.6, 0.9, 0.6], default=1))
    assert own is not None and (own.gain, own.p_value) == (0.0, 1.0)
    assert own.sentence == "the best of 3 trials by validation accuracy is the default trial 1 itself"


def test_without_a_default_or_its_logits_nothing_is_said(tmp_path: Path) -> None:
    assert default_gain(tmp_path, search(tmp_path, [0.6, 0.7], default=-1)) is None
    record = search(tmp_path, [0.6, 0.7])
    assert default_gain(tmp_path, record) is not None
    assert default_gain(tmp_path, replace(record, metric="val_macro_f1")) is None  # not a mean over images
    SearchFolder(root=tmp_path).val_logits(0).unlink()
    assert default_gain(tmp_path, record) is None


def test_a_default_that_was_stopped_after_its_first_fold_is_compared_there(tmp_path: Path) -> None:
    """On the images of that fold alone, which every other trial has held out too."""
    record = search(tmp_path, [0.6, 0.8])
    held_out = torch.arange(300) % 3 + 1
    trials = []
    for trial, count in zip(record.trials, (1, 3), strict=True):
        report = replace(trial.reports[0], folds=3, metrics={"val_accuracy": 0.5, "fold_epoch": 1.0})
        reports = tuple(replace(report, epoch=epoch) for epoch in range(1, count + 1))
        folder = SearchFolder(root=tmp_path).trial(trial.number)
        whole = load_file(folder / "val_logits.safetensors")
        rows = held_out <= count
        save_val_logits(
            folder, whole["logits"][rows], whole["labels"][rows], epoch=count, digest="d", folds=held_out[rows]
        )
        trials.append(replace(trial, reports=reports, best_epoch=count, best_value=trial.best_value))
    found = default_gain(tmp_path, replace(record, trials=tuple(trials)))
    assert found is not None and (found.trial, found.num_images, found.num_trials) == (1, 100, 2)
    assert found.gain == pytest.approx(0.2, abs=0.1)
