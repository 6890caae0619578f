"""Evidence, calibration and kept logits of models that give an image any number of classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn import metrics as sk

from tlsearch.core.codec import to_plain
from tlsearch.core.label_tasks import TASKS
from tlsearch.results.combine.cross_fitting import stratified_halves
from tlsearch.results.combine.selection import select_ensemble
from tlsearch.results.inference.answers import MultiLabelPrediction, prediction
from tlsearch.results.inference.multi_labelled import MultiLabelEvaluation, answer_scores
from tlsearch.results.promotion.multi_label_evidence import gather_answers, read_evidence
from tlsearch.results.promotion.test_evaluation import gather_evidence
from tlsearch.results.stats.calibration import fit_temperature
from tlsearch.results.stats.intervals import bootstrap_metric
from tlsearch.train import LOSSES

TASK = TASKS["multi_label"]
CLASSES = ("a", "b", "c", "d")


def answers(num: int = 400, *, sharpness: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose true probabilities are those of logits / sharpness, and labels (N, 4)."""
    rng = np.random.default_rng(seed)
    honest = rng.normal((-2, -1, 0, 1), 1.5, (num, 4))
    labels = (rng.random(honest.shape) < TASK.probabilities(honest)).astype(np.float32)
    return honest * sharpness, labels


def test_the_temperature_is_the_best_one() -> None:
    logits, labels = answers(2000, sharpness=2.5)
    found = fit_temperature(logits, labels)
    loss = TASK.metrics["val_loss"]
    best = minimize_scalar(lambda t: loss.value(logits / np.exp(t), labels), bounds=(-3, 3), method="bounded")
    assert found == pytest.approx(float(np.exp(best.x)), rel=1e-3) == pytest.approx(2.5, rel=0.1)


def test_evidence_equals_scikit_learn() -> None:
    logits, labels = answers(sharpness=2.0)
    thresholds = TASK.thresholds(*answers(sharpness=2.0, seed=1))
    found = gather_answers(logits, labels, classes=CLASSES, temperature=2.0, thresholds=thresholds)
    said = TASK.probabilities(logits) > thresholds
    assert found.mean_average_precision == pytest.approx(sk.average_precision_score(labels, logits, average="macro"))
    assert found.micro_f1 == pytest.approx(sk.f1_score(labels, said, average="micro"))
    assert found.macro_f1 == pytest.approx(sk.f1_score(labels, said, average="macro"))
    assert found.exact_match == pytest.approx(sk.accuracy_score(labels, said))
    precision, recall, f1, images = sk.precision_recall_fscore_support(labels, said, zero_division=0)
    assert [one.precision for one in found.classes] == pytest.approx(precision.tolist())
    assert [one.recall for one in found.classes] == pytest.approx(recall.tolist())
    assert [one.f1 for one in found.classes] == pytest.approx(f1.tolist())
    assert [one.images for one in found.classes] == images.tolist()
    # thresholds of the scores that the model shows, which are scaled
    scaled = TASK.probabilities(TASK.scores(np.array(thresholds)) / 2.0)
    assert [one.threshold for one in found.classes] == pytest.approx(scaled.tolist())
    calibration = found.calibration
    assert calibration.loss_after == pytest.approx(TASK.metrics["val_loss"].value(logits / 2.0, labels))
    assert calibration.loss_after < calibration.loss_before and calibration.ece_after < calibration.ece_before
    assert found.map_interval[0] < found.mean_average_precision < found.map_interval[1]


def test_evidence_is_read_back_as_what_it_is() -> None:
    logits, labels = answers(50)
    several = gather_answers(logits, labels, classes=CLASSES, temperature=1.0, thresholds=(0.5,) * 4)
    single = gather_evidence(logits, labels.argmax(1), classes=CLASSES, temperature=1.0)
    for one in (several, single):
        assert read_evidence(json.loads(json.dumps(to_plain(one)))) == one
        assert one.headline.low <= one.headline.value <= one.headline.high
        heads, rows = one.class_table
        assert len(rows) == 4 and all(len(row) == len(heads) for row in rows) and len(one.weakest) == 3


def test_a_class_without_a_test_image_has_no_average_precision() -> None:
    logits, labels = answers(60)
    labels[:, 1] = 0
    found = gather_answers(logits, labels, classes=CLASSES, temperature=1.0, thresholds=(0.5,) * 4)
    assert found.classes[1].average_precision is None and "b" not in [name for name, _ in found.weakest]
    assert found.class_table[1][1][2] == ""


def test_the_bootstrap_of_the_map_covers_it() -> None:
    logits, labels = answers(200)
    error, interval = bootstrap_metric("val_map", TASK.probabilities(logits), labels, num_bootstraps=200)
    value = TASK.metrics["val_map"].value(logits, labels)
    assert interval.low < value < interval.high and 0.005 < error < 0.08


def test_the_worst_answers_are_the_surest_wrong_ones() -> None:
    labels = np.array([[1, 0, 0, 1], [0, 1, 0, 0], [1, 1, 0, 0]], dtype=np.float32)
    probabilities = np.array([[0.9, 0.1, 0.2, 0.02], [0.7, 0.9, 0.1, 0.1], [0.9, 0.8, 0.1, 0.1]])
    evaluation = MultiLabelEvaluation(
        classes=CLASSES, keys=("x", "y", "z"), labels=labels, probabilities=probabilities, thresholds=(0.5,) * 4
    )
    found = evaluation.worst()
    assert [(one.key, one.label, one.predicted) for one in found] == [("x", "a, d", "not d"), ("y", "b", "a")]
    assert [one.score for one in found] == [0.02, 0.7] and int(evaluation.wrong.sum()) == 2
    assert [one.images for one in answer_scores(evaluation)] == [2, 2, 0, 1]


def test_a_prediction_lists_what_is_above_its_threshold() -> None:
    found = prediction("x.png", torch.tensor([0.3, 0.6, 0.05, 0.9]), CLASSES, top=2, thresholds=(0.2, 0.7, 0.5, 0.5))
    assert isinstance(found, MultiLabelPrediction)
    assert [one.label for one in found.labels] == ["d", "a"] and [one.label for one in found.top] == ["d", "b"]
    assert found.label == "d" and found.score == pytest.approx(0.9)
    none = prediction("x.png", torch.tensor([0.1, 0.2, 0.1, 0.3]), CLASSES, top=2, thresholds=(0.5,) * 4)
    assert isinstance(none, MultiLabelPrediction) and none.labels == () and none.label == "d"
    assert type(prediction("x.png", torch.tensor([0.1, 0.9, 0.0, 0.0]), CLASSES, top=2)) is not MultiLabelPrediction


def test_halves_have_each_class_evenly() -> None:
    _, labels = answers(101)
    for first, second in stratified_halves(labels, 5):
        assert sorted([*first, *second]) == list(range(101))
        rarest = TASK.strata(labels)
        counts = np.array([np.bincount(rarest[rows], minlength=5) for rows in (first, second)])
        assert np.abs(counts[0] - counts[1]).max() <= 1


@pytest.mark.parametrize("metric", ["val_map", "val_loss", "val_micro_f1"])
def test_an_ensemble_of_noisy_trials_helps(metric: str) -> None:
    honest, labels = answers(300)
    rng = np.random.default_rng(5)
    logits = np.stack([honest + rng.normal(0, 2.0, honest.shape) for _ in range(6)])
    found = select_ensemble(range(6), logits, labels, metric=metric)
    assert found is not None and found.helps and len(found.members) > 1 and len(found.thresholds) == 4
    gain = found.cross_fitted - found.best_cross_fitted
    assert (gain < 0) == (metric == "val_loss")


class _Average(torch.nn.Module):
    """What an ensemble of two confident models ends in."""

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return LOSSES["multi_label"].average(logits, torch.tensor([[0.6], [0.4]]).log())


def test_the_average_of_confident_models_is_the_same_where_it_is_exported(tmp_path: Path) -> None:
    """A sigmoid of -16 has few right digits in onnxruntime, and its logarithm is wrong by tenths."""
    pytest.importorskip("onnx", reason="an optional extra")
    runtime = pytest.importorskip("onnxruntime", reason="an optional extra")
    logits, model = 8 * torch.randn(64, 2, 5, generator=torch.Generator().manual_seed(0)), _Average().eval()
    torch.onnx.export(model, (logits,), str(tmp_path / "average.onnx"), dynamo=True, verbose=False)
    session = runtime.InferenceSession(tmp_path / "average.onnx")
    (exported,) = session.run(None, {session.get_inputs()[0].name: logits.numpy()})
    chances = torch.sigmoid(logits.double()).transpose(1, 2) @ torch.tensor([0.6, 0.4], dtype=torch.float64)
    assert np.abs(exported - torch.logit(chances).numpy()).max() < 1e-4
