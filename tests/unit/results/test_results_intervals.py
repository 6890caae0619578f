"""Standard errors, intervals and tests against scipy's and scikit-learn's values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tlsearch.results.stats.intervals import (
    binomial_standard_error,
    bootstrap_metric,
    compare_paired,
    mcnemar_exact,
    paired_interval,
    standard_error,
    unpaired_interval,
    wilson_interval,
)

SHARES = [(0, 10), (10, 10), (7, 10), (248, 348), (347, 348), (1, 5000), (1, 1)]


@pytest.mark.parametrize(("hits", "images"), SHARES)
def test_wilson_is_scipys(hits: int, images: int) -> None:
    found = wilson_interval(hits / images, images)
    expected = stats.binomtest(hits, images).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_the_standard_error_of_a_share() -> None:
    assert binomial_standard_error(0.7, 348) == pytest.approx(stats.binom(348, 0.7).std() / 348)
    assert standard_error("val_accuracy", 0.7, 348) == binomial_standard_error(0.7, 348)
    assert standard_error("val_top5_accuracy", 0.9, 100) == binomial_standard_error(0.9, 100)


@pytest.mark.parametrize(
    ("metric", "value", "images"),
    [("val_loss", 0.7, 348), ("val_macro_f1", 0.7, 348), ("val_accuracy", 0.7, None), ("val_accuracy", 0.7, 0)],
)
def test_no_standard_error_where_none_is_known(metric: str, value: float, images: int | None) -> None:
    assert standard_error(metric, value, images) is None


@pytest.mark.parametrize(("a", "b"), [(0, 0), (1, 0), (5, 5), (3, 12), (30, 12), (900, 800), (4000, 4300)])
def test_mcnemar_is_the_exact_binomial_test(a: int, b: int) -> None:
    expected = stats.binomtest(a, a + b).pvalue if a + b else 1.0
    assert mcnemar_exact(a, b) == pytest.approx(expected, rel=1e-9)
    assert mcnemar_exact(a, b) == mcnemar_exact(b, a)


def test_a_paired_comparison_counts_what_only_one_gets_right() -> None:
    a = np.array([1, 1, 1, 0, 0, 1], dtype=bool)
    b = np.array([1, 0, 0, 1, 0, 1], dtype=bool)
    found = compare_paired(a, b)
    assert (found.only_a, found.only_b, found.num_images) == (2, 1, 6)
    assert found.difference == pytest.approx(a.mean() - b.mean())
    assert found.p_value == 1.0
    assert found.interval.low < found.difference < found.interval.high


@pytest.mark.parametrize(("p_a", "p_b"), [(0.10, 0.05), (0.02, 0.02)])
def test_intervals_of_a_difference_cover_it(p_a: float, p_b: float) -> None:
    """Of 2,000 repeats about 95 % cover: the truth lies within three standard errors of that, or just above it."""
    rng = np.random.default_rng(1)
    images, repeats = 348, 2000
    cells = rng.multinomial(images, [p_a, p_b, 1 - p_a - p_b], repeats)
    paired = [paired_interval(int(a), int(b), images) for a, b, _ in cells]
    covered = np.mean([i.low <= p_a - p_b <= i.high for i in paired])
    assert 0.935 < covered < 0.985
    shares = rng.binomial(images, [0.7 + p_a, 0.7 + p_b], (repeats, 2)) / images
    unpaired = [unpaired_interval(a, images, b, images) for a, b in shares]
    covered = np.mean([i.low <= p_a - p_b <= i.high for i in unpaired])
    assert 0.935 < covered < 0.985


@pytest.fixture(scope="module")
def scored() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 11, 300)
    logits = rng.normal(size=(300, 12)) + 1.5 * np.eye(12)[labels]  # the last class never occurs
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return probabilities, labels


def test_the_bootstrap_agrees_with_theory_where_there_is_one(scored: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, labels = scored
    error, interval = bootstrap_metric("val_accuracy", probabilities, labels)
    accuracy = float((probabilities.argmax(1) == labels).mean())
    assert error == pytest.approx(binomial_standard_error(accuracy, 300), rel=0.1)
    theory = wilson_interval(accuracy, 300)
    assert (interval.low, interval.high) == pytest.approx((theory.low, theory.high), abs=0.01)
    losses = -np.log(probabilities[np.arange(300), labels])
    error, _ = bootstrap_metric("val_loss", probabilities, labels)
    assert error == pytest.approx(losses.std(ddof=1) / np.sqrt(300), rel=0.1)
    assert bootstrap_metric("val_macro_f1", probabilities, labels) == bootstrap_metric(
        "val_macro_f1", probabilities, labels
    )
