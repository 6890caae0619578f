"""What the best model gets wrong: the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import NDArray

from tlsearch.results.report.plots.style import HIGH, INK, Plot, add_axes, finish, new_figure, plot_style
from tlsearch.results.report.plots.view import short

NUMBERED_CLASSES = 24  # with more the counts would not be readable
NAMED_CLASSES = 48
_LABEL = 18  # characters of a class name


def plot_confusion(confusion: NDArray[np.int64], classes: Sequence[str]) -> Plot:
    """Counts by true class (rows) and predicted class (columns), coloured by the share of the true class.

    Args:
        confusion: int (C, C).
        classes: C names.
    """
    name, title, num = "confusion", "Confusion matrix", len(classes)
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    side = float(np.clip(0.27 * num, 2.6, 5.6))
    labels = num <= NAMED_CLASSES
    longest = max(len(short(c, _LABEL)) for c in classes)
    left, bottom = (0.45 + 0.062 * longest, 0.45 + 0.046 * longest) if labels else (0.4, 0.4)
    scale = LinearSegmentedColormap.from_list("share", ["#ffffff", "#cfe0f0", "#5b93c9", HIGH])
    with plot_style(name):
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
        if labels:
            places = np.arange(num) + 0.5
            axes.set_xticks(
                places, [short(c, _LABEL) for c in classes], rotation=45, ha="right", rotation_mode="anchor"
            )
            axes.set_yticks(places, [short(c, _LABEL) for c in classes])
        else:
            axes.set_xticks([])
            axes.set_yticks([])
        if num <= NUMBERED_CLASSES:
            for true, predicted in zip(*np.nonzero(confusion), strict=True):
                colour = "white" if shares[true, predicted] > 0.55 else INK
                axes.text(
                    predicted + 0.5,
                    true + 0.5,
                    str(confusion[true, predicted]),
                    ha="center",
                    va="center",
                    color=colour,
                    fontsize=6.5,
                )
        axes.set(xlabel="predicted", ylabel="true class")
        right, total = int(confusion.trace()), int(confusion.sum())
        caption = (
            f"Validation images by true class (rows) and prediction (columns): {right} of {total} are right. "
            "The colour is the share of the true class."
        )
        return finish(figure, Plot(name=name, title=title, caption=caption))
