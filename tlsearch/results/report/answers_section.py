"""What the best model of a multi-label search gets wrong: average precision by class, and its worst answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tlsearch.core.text import agree, number_text
from tlsearch.results.inference.multi_labelled import AnswerScore, MultiLabelEvaluation, answer_scores
from tlsearch.results.report.html import Cell, Row, grid, paragraph, plot_figure, section, table
from tlsearch.results.report.plots.style import DONE, Plot, add_axes, finish, new_figure, plot_style
from tlsearch.results.report.plots.view import View, short
from tlsearch.results.stats.intervals import bootstrap_metric

_MAX_CLASSES = 24
_NAME = 22  # characters of a class name
_ROW_IN = 0.2


def answers_section(view: View, named: str, evaluation: MultiLabelEvaluation, plot: Plot, gallery: str) -> str:
    """The section of the best model.

    Args:
        named: Which model on how many images, at the start of a sentence.
        gallery: Its worst answers, as HTML.
    """
    wrong, metric = int(evaluation.wrong.sum()), view.record.metric
    error, interval = bootstrap_metric(metric, evaluation.probabilities, evaluation.labels)
    text = (
        f"{named}: {wrong} of {evaluation.labels.size} answers {agree(wrong, 'is', 'are')} wrong, at the thresholds "
        f"that these images have chosen. Its {view.label} is {evaluation.value(metric):.4f}, with a standard error of "
        f"{error:.4f} and a 95 % interval of {interval.low:.4f} to {interval.high:.4f} (bootstrap over the images)."
    )
    return section(
        "model", "The best model", paragraph(text), grid(plot_figure(plot), f"<div>{_table(evaluation)}</div>"), gallery
    )


def _hardest(evaluation: MultiLabelEvaluation) -> list[AnswerScore]:
    scores = answer_scores(evaluation)
    ranked = sorted(scores, key=lambda one: (one.average_precision is None, one.average_precision or 0.0, one.name))
    return ranked[:_MAX_CLASSES]


def _table(evaluation: MultiLabelEvaluation) -> str:
    rows = []
    for one in _hardest(evaluation):
        precision = number_text(one.average_precision, ".2f", none="–")
        figures = (one.threshold, one.precision, one.recall, one.f1)
        rows.append(
            Row(
                cells=[
                    Cell(text=one.name, wrap=True),
                    str(one.images),
                    precision,
                    *(f"{figure:.2f}" for figure in figures),
                ]
            )
        )
    title = "Hardest classes" if len(evaluation.classes) > _MAX_CLASSES else "Classes, hardest first"
    heads = ["class", "images", "average precision", "threshold", "precision", "recall", "F1"]
    return f"<h3>{title}</h3>{table(heads, rows, numeric=heads[1:])}"


def plot_precisions(evaluation: MultiLabelEvaluation) -> Plot:
    """The average precision of each class, the hardest first, beside that of a random order: the class's frequency."""
    plot, scores = Plot(name="precisions", title="Average precision by class"), _hardest(evaluation)
    num_images = len(evaluation.keys)
    places = np.arange(len(scores))
    with plot_style(plot.name):
        figure = new_figure(5.4, 0.7 + _ROW_IN * len(scores))
        axes = add_axes(figure, left=_margin(scores), bottom=0.45)
        axes.barh(places, [one.average_precision or 0.0 for one in scores], color=DONE, height=0.7)
        axes.plot([one.images / num_images for one in scores], places, "|", color="white", markersize=7)
        axes.set_yticks(places, [short(one.name, _NAME) for one in scores])
        axes.invert_yaxis()
        axes.set(xlim=(0.0, 1.0), xlabel="average precision")
        axes.tick_params(axis="y", length=0)
        caption = "The white mark is what a random order of the images would have: the class's frequency."
        if len(evaluation.classes) > len(scores):
            caption += f" The hardest {len(scores)} of {len(evaluation.classes)} classes."
        return finish(figure, plot, caption)


def _margin(scores: Sequence[AnswerScore]) -> float:
    return 0.3 + 0.062 * max(len(short(one.name, _NAME)) for one in scores)
