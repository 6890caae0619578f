"""Labels that out-of-sample predictions contradict."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from numpy.typing import NDArray

from tlsearch.results.report.label_section import DoubtfulLabel, LabelErrors, label_errors_csv, label_section
from tlsearch.results.stats import confident_learning
from tlsearch.results.stats.confident_learning import contradictions, leave_one_out


def blobs(num: int, width: int, num_classes: int, *, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    labels = np.arange(num) % num_classes
    centres = rng.normal(size=(num_classes, width))
    return centres[labels] + 0.7 * rng.normal(size=(num, width)), labels


@pytest.mark.parametrize(("num", "width"), [(12, 20), (40, 6)])
def test_leaving_one_out_in_closed_form_is_fitting_without_it(
    num: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, labels = blobs(num, width, 3)
    monkeypatch.setattr(confident_learning, "_PENALTIES", (0.1,))
    monkeypatch.setattr(confident_learning, "fit_temperature", lambda *_: 1.0)
    probabilities = leave_one_out(rows, labels, 3)
    penalty = 0.1 * float(np.square(rows - rows.mean(0)).sum())
    for left in (0, 5, num - 1):
        others = np.arange(num) != left
        mean, targets = rows[others].mean(0), np.eye(3)[labels[others]]
        centred = rows[others] - mean
        # The shift of the features is refitted, too: an intercept that is not penalised.
        weight = np.linalg.solve(centred.T @ centred + penalty * np.eye(width), centred.T @ targets)
        scores = 10 * (targets.mean(0) + (rows[left] - mean) @ weight)
        expected = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        assert probabilities[left] == pytest.approx(expected, abs=1e-9)


def test_planted_errors_come_first() -> None:
    rows, labels = blobs(400, 30, 5)
    flipped = np.random.default_rng(1).choice(400, 12, replace=False)
    planted = labels.copy()
    planted[flipped] = (labels[flipped] + 2) % 5
    found = contradictions(leave_one_out(rows, planted, 5), planted)
    assert {one.row for one in found[:12]} == set(flipped)
    assert all(one.suggested == labels[one.row] for one in found[:12])
    assert len(found) < 30 and [one.label_probability for one in found] == sorted(o.label_probability for o in found)


def test_each_class_has_a_threshold_of_its_own() -> None:
    sure, unsure = [0.9, 0.05, 0.05], [0.3, 0.4, 0.3]
    probabilities = np.array([sure, sure, sure, unsure, unsure, [0.5, 0.3, 0.2], [0.2, 0.41, 0.39]])
    labels = np.array([0, 0, 0, 1, 1, 1, 2])
    (found,) = contradictions(probabilities, labels)
    # 0.5 of class 0 is less than usual for images of class 0; 0.41 of class 1 is more than usual for those of class 1.
    assert (found.row, found.suggested, found.confidence, found.label_probability) == (6, 1, 0.41, 0.39)
    assert contradictions(np.zeros((0, 3)), np.zeros(0, dtype=np.int64)) == []


def test_the_list_is_a_table_and_a_section_with_nothing_of_a_name_as_markup() -> None:
    one = DoubtfulLabel(
        key="a<b>/=1.png", split="train", label="<cat>", suggested="dog", confidence=0.93, label_probability=0.01
    )
    found = LabelErrors(
        images=(one,), judged={"train": 1200}, judges="2 good trials", pictures=["data:,"], notes=["N."]
    )
    rows = list(csv.reader(io.StringIO(label_errors_csv(found))))
    assert rows == [
        ["key", "split", "label", "suggested", "confidence"],
        ["a<b>/=1.png", "train", "<cat>", "dog", "0.9300"],
    ]
    html = label_section(found)
    assert "1 label is contradicted with confidence, among 1,200 of train" in html and "<cat>" not in html
    assert "train: a&lt;b&gt;/=1.png" in html and "→ dog 93%" in html
    assert label_section(None) == label_section(LabelErrors(images=(), judged={})) == ""
