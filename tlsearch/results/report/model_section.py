"""What the best model gets wrong: its hardest classes, its worst mistakes, and the confusion matrix.

That of a multi-label search is in ``answers_section``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import NDArray

from tlsearch.core.printable import printable
from tlsearch.core.text import agree, number_text, plural
from tlsearch.results.inference.labelled import Evaluation, Mistake, class_scores, most_confused
from tlsearch.results.inference.multi_labelled import AnyEvaluation, MultiLabelEvaluation
from tlsearch.results.report.answers_section import answers_section, plot_precisions
from tlsearch.results.report.html import Cell, Row, grid, inline, paragraph, plot_figure, section, table
from tlsearch.results.report.plots.style import HIGH, INK, Plot, add_axes, finish, new_figure, plot_style
from tlsearch.results.report.plots.view import View, short
from tlsearch.results.stats.intervals import bootstrap_metric

_MAX_CLASSES = 12


@dataclass(frozen=True, kw_only=True)
class BestModel:
    """The kept model of the best trial, evaluated again over the validation images; or the models of its folds.

    Attributes:
        trial: Its number.
        folds: Where it has folds: of how many, each of whose models judges the images that it has not seen.
        pictures: Data URIs of the worst mistakes, in their order.
    """

    trial: int
    evaluation: AnyEvaluation
    pictures: Sequence[str] = ()
    folds: int = 0

    @property
    def named(self) -> str:
        """Which model on how many images, at the start of a sentence."""
        images = plural(len(self.evaluation.keys), "validation image")
        if not self.folds:
            return f"The kept model of trial {self.trial} over the {images}"
        return f"The models of the {self.folds} folds of trial {self.trial} over the {images}, each over its own"

    def plot(self) -> Plot:
        """How it does by class."""
        if isinstance(self.evaluation, MultiLabelEvaluation):
            return plot_precisions(self.evaluation)
        return plot_confusion(self.evaluation.confusion(), self.evaluation.classes)


def model_section(view: View, model: BestModel | None, plot: Plot | None, missing: str) -> str:
    """What the best model gets wrong."""
    if model is None or plot is None:
        return section("model", "The best model", f'<div class="missing">{inline(missing)}</div>')
    evaluation, gallery = model.evaluation, _gallery(model)
    if isinstance(evaluation, MultiLabelEvaluation):
        return answers_section(view, model.named, evaluation, plot, gallery)
    wrong = int((~evaluation.right).sum())
    text = f"{model.named}: {wrong} {agree(wrong, 'is', 'are')} wrong, accuracy {evaluation.accuracy:.4f}."
    if view.record.metric != "val_accuracy":
        error, interval = bootstrap_metric(view.record.metric, evaluation.probabilities, evaluation.labels)
        text += (
            f" Its {view.label} has a standard error of {error:.4f} and a 95 % interval of {interval.low:.4f} to "
            f"{interval.high:.4f} (bootstrap over the images)."
        )
    tables = f"<div>{_class_table(evaluation)}{_pair_table(evaluation)}</div>"
    return section("model", "The best model", paragraph(text), grid(plot_figure(plot), tables), gallery)


def _gallery(model: BestModel) -> str:
    if not model.pictures:
        return ""
    mistakes = model.evaluation.worst(len(model.pictures))
    shown = "".join(_mistake(one, uri) for one, uri in zip(mistakes, model.pictures, strict=True))
    return f'<h3 class="spaced">Worst mistakes</h3><div class="gallery">{shown}</div>' + paragraph(
        "The wrong predictions that the model is surest of. Some may be wrong labels.", note=True
    )


def _class_table(evaluation: Evaluation) -> str:
    scores = class_scores(evaluation)
    rows = [
        Row(
            cells=[
                Cell(text=score.name, wrap=True),
                str(score.images),
                number_text(score.recall, ".2f", none="–"),
                number_text(score.precision, ".2f", none="–"),
            ]
        )
        for score in scores[:_MAX_CLASSES]
    ]
    title = "Hardest classes" if len(scores) > _MAX_CLASSES else "Classes, hardest first"
    heads = ["class", "images", "recall", "precision"]
    return f"<h3>{title}</h3>{table(heads, rows, numeric=heads[1:])}"


def _pair_table(evaluation: Evaluation) -> str:
    rows = []
    for true, predicted, count in most_confused(evaluation):
        rows.append(Row(cells=[Cell(text=true, wrap=True), Cell(text=predicted, wrap=True), str(count)]))
    if not rows:
        return ""
    return f'<h3 class="spaced">Most confused</h3>{table(["true", "predicted", "images"], rows, numeric=("images",))}'


def _mistake(mistake: Mistake, uri: str) -> str:
    name = escape(printable(mistake.key))
    return (
        f'<figure><img src="{uri}" alt="{name}">{escape(printable(mistake.label))} '
        f'<span class="wrong">→ {escape(printable(mistake.predicted))} {mistake.score:.0%}</span>'
        f'<div class="file">{name}</div></figure>'
    )


NUMBERED_CLASSES = 24  # with more the counts would not be readable
NAMED_CLASSES = 48
_LABEL = 18  # characters of a class name


def plot_confusion(confusion: NDArray[np.int64], classes: Sequence[str]) -> Plot:
    """Counts by true class (rows) and predicted class (columns), coloured by the share of the true class.

    Args:
        confusion: int (C, C).
        classes: C names.
    """
    plot, num = Plot(name="confusion", title="Confusion matrix"), len(classes)
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    side = float(np.clip(0.27 * num, 2.6, 5.6))
    labels = num <= NAMED_CLASSES
    longest = max(len(short(c, _LABEL)) for c in classes)
    left, bottom = (0.45 + 0.062 * longest, 0.45 + 0.046 * longest) if labels else (0.4, 0.4)
    scale = LinearSegmentedColormap.from_list("share", ["#ffffff", "#cfe0f0", "#5b93c9", HIGH])
    with plot_style(plot.name):
        figure = new_figure(left + side + 0.2, side + bottom + 0.15)
        axes = add_axes(figure, left=left, right=0.2, top=0.15, bottom=bottom)
        axes.pcolormesh(
            shares,
            cmap=scale,
            vmin=0.0,
            vmax=1.0,
            edgecolors="#eef1f4",
            linewidth=0.4 if labels else 0.0,
            rasterized=num > 60,
        )
        axes.invert_yaxis()
        axes.set_aspect("equal")
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.tick_params(length=0, labelsize=7 if num > 12 else 8, labelcolor=INK)
        places = np.arange(num if labels else 0) + 0.5
        names = [short(c, _LABEL) for c in classes] if labels else []
        axes.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(places, names)
        if num <= NUMBERED_CLASSES:
            _write_counts(axes, confusion, shares)
        axes.set(xlabel="predicted", ylabel="true class")
        right, total = int(confusion.trace()), int(confusion.sum())
        caption = (
            f"Validation images by true class (rows) and prediction (columns): {right} of {total} are right. "
            "The colour is the share of the true class."
        )
        return finish(figure, plot, caption)


def _write_counts(axes: Axes, confusion: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
    for true, predicted in zip(*np.nonzero(confusion), strict=True):
        axes.text(
            predicted + 0.5,
            true + 0.5,
            str(confusion[true, predicted]),
            ha="center",
            va="center",
            color="white" if shares[true, predicted] > 0.55 else INK,
            fontsize=6.5,
        )
