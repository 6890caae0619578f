"""By how much a search's choice beats its default trial, honest about the choice among many trials.

The best of many trials looks good on the images that it was chosen by, even where all are equal. So the images are
split into random halves, class by class: the trial that is best on one half is compared with the default, image by
image, on the other half, and the other way round.

T trials, N validation images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlsearch.core.label_tasks import task_of
from tlsearch.core.layout import SearchFolder
from tlsearch.core.metrics import METRICS
from tlsearch.core.text import plural
from tlsearch.core.types import SearchRecord
from tlsearch.results.combine.cross_fitting import stratified_halves
from tlsearch.results.combine.kept_logits import MAX_VALUES, each_kept
from tlsearch.results.stats.intervals import Z95

_SPLITS = 25
_COVARIANCE = 1 / math.pi  # of the two halves' differences, at most, over their variance: two equal trials
_SHOWN_P = 0.05

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class DefaultGain:
    """What the choice gains over the default trial.

    Attributes:
        trial: The search's best trial.
        default: The trial of the default configuration.
        metric: What both are compared by.
        gain: Expected gain in the metric of a trial that is chosen on half of the images; larger is better, also for
            a loss. 0 where the choice is the default itself.
        low: End of the 95 % interval.
        high: End of the 95 % interval.
        p_value: Two-sided: how likely a gain this far from 0 is where the choice gains nothing.
        num_trials: Trials that the choice was made of.
        num_images: Validation images.
    """

    trial: int
    default: int
    metric: str
    gain: float
    low: float
    high: float
    p_value: float
    num_trials: int
    num_images: int

    def as_json(self) -> dict[str, Any]:
        """{trial, default, metric, gain, low, high, p_value, trials, images}."""
        own = {name: getattr(self, name) for name in ("trial", "default", "metric", "gain", "low", "high", "p_value")}
        return {**own, "trials": self.num_trials, "images": self.num_images}

    @property
    def sentence(self) -> str:
        """In words, with the interval, the p-value, and what they account for."""
        label = METRICS[self.metric].label
        if self.trial == self.default:
            trials = plural(self.num_trials, "trial")
            return f"the best of {trials} by {label} is the default trial {self.default} itself"
        shown = self.p_value < _SHOWN_P and self.gain > 0
        claim = "trial {} beats the default trial {}" if shown else "trial {} is not shown to beat the default trial {}"
        p_value = f"p = {self.p_value:.3f}" if self.p_value >= 0.001 else "p < 0.001"
        return (
            f"{claim.format(self.trial, self.default)}: the estimated gain in {label} is {self.gain:+.4f} (95 % "
            f"interval {self.low:+.4f} to {self.high:+.4f}, {p_value}), which accounts for the choice among "
            f"{self.num_trials} trials: made on halves of the {self.num_images} images, compared on the others"
        )


def default_gain(root: Path, record: SearchRecord) -> DefaultGain | None:
    """Compares a search's choice with its default trial by the kept logits.

    Args:
        root: The search's folder.
        record: The search.

    Returns:
        None where the search has no default trial, it or the best has no result or no kept logits, or the metric is
        not a mean over images.
    """
    first = next((trial for trial in record.trials if trial.origin == "default"), None)
    best, metric = record.best, METRICS.get(record.metric)
    if first is None or best is None or metric is None or metric.per_image is None:
        return None
    default, folder = first.number, SearchFolder(root=root)
    if not all(folder.val_logits(number).is_file() for number in (default, best.number)):
        return None
    gains: dict[int, Floats] = {}
    labels: NDArray[Any] | None = None
    num_folds = first.epochs_run if first.folds else 0  # where it was stopped early, the images of those folds count
    for number, kept in each_kept(root, record, num_folds=num_folds):
        if number != default and (len(gains) + 1) * kept.logits.size > MAX_VALUES:
            continue  # the worse trials of a very large search: they are hardly ever chosen
        labels = kept.labels
        own = task_of(labels).metrics[record.metric].per_image
        assert own is not None, "a metric that is a mean over images is one for every task"
        gains[number] = record.objective.gain(own(kept.logits.astype(np.float64), labels))
    if labels is None or len(labels) < 2 or not {default, best.number} <= gains.keys():
        return None
    numbers = sorted(gains)  # of equal trials the earlier is chosen, as by the search
    gain, error = cross_fitted_gain(np.stack([gains[n] for n in numbers]), labels, numbers.index(default))
    if best.number == default:
        gain, error = 0.0, 0.0
    return DefaultGain(
        trial=best.number,
        default=default,
        metric=record.metric,
        gain=gain,
        low=gain - Z95 * error,
        high=gain + Z95 * error,
        p_value=math.erfc(abs(gain) / error / math.sqrt(2)) if error > 0 else 1.0,
        num_trials=len(numbers),
        num_images=len(labels),
    )


def cross_fitted_gain(
    gains: Floats, labels: NDArray[Any], default: int, *, num_splits: int = _SPLITS, seed: int = 0
) -> tuple[float, float]:
    """The expected gain over the default of a trial that is chosen on half of the images, and its standard error.

    For half A of each split, s is the trial with the largest mean on A; its differences x to the default are taken on
    the other half B, of n images. As in Agresti and Min's interval, half an observation of +m and of -m and one of 0
    are added, m being the root mean square of the differences that are not 0; for accuracy that is half a count in
    each cell of McNemar's table. With the mean d and the variance v of x, over all halves:

        gain = mean(d),  error^2 = (1 + 1/pi) mean(v) / (N + 4)

    One split's two differences have a covariance of at most 1/pi of their variance, where two trials are equal, since
    the halves may choose the same trial. The mean over splits varies less than one split, so the error is rather too
    large: of searches whose trials are all equal at most 2 in 100 have p < 0.05
    (tests/unit/results/test_results_default_gain.py).

    Args:
        gains: float (T, N), what each image adds; larger is better.
        labels: int (N,), by which the halves are stratified.
        default: Row of the default trial.
    """
    differences = gains - gains[default]
    means, variances = list[float](), list[float]()
    for pair in stratified_halves(labels, num_splits, seed=seed):
        for chosen_on, compared_on in (pair, pair[::-1]):
            if not len(chosen_on) or not len(compared_on):
                continue
            chosen = int(gains[:, chosen_on].mean(1).argmax())
            own = differences[chosen, compared_on]
            squares, count = float(own @ own), max(int(np.count_nonzero(own)), 1)
            mean = float(own.sum()) / (len(own) + 2)
            means.append(mean)
            variances.append((squares + squares / count) / (len(own) + 2) - mean**2)
    num_images = gains.shape[1]
    return fmean(means), math.sqrt((1 + _COVARIANCE) * fmean(variances) / (num_images + 4))
