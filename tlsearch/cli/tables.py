"""Tables for people: the leaderboard, the data card, the stages of backbones, predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

_HIDDEN_WHEN_CONSTANT = 1


def leaderboard_table(results: Mapping[str, Any], *, top: int | None = None) -> Table:
    """The trials of ``results`` (the published shape), best first; ``epoch`` is best epoch/epochs run."""
    trials: Sequence[Mapping[str, Any]] = results["trials"][:top]
    names = _varied(results["trials"])
    table = Table(title=f"{results['search_id']}: {len(results['trials'])} trials by best {results['metric']}")
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("ended", no_wrap=True)
    table.add_column("best", justify="right", no_wrap=True)
    table.add_column("epoch", justify="right", no_wrap=True)
    for name in names:
        table.add_column(name.replace("_", "\n"), overflow="fold")
    for trial in trials:
        best = "-" if trial["best_value"] is None else f"{trial['best_value']:.4f}"
        table.add_row(
            str(trial["trial"]),
            trial["reason"] or trial["state"],
            best,
            f"{trial['best_epoch'] or '-'}/{trial['epochs_run']}",
            *(_cell(trial["params"].get(name)) for name in names),
            style="bold" if trial["trial"] == results["best"] else None,
        )
    return table


def _varied(trials: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the parameters that differ between trials, in their order."""
    names = list(dict.fromkeys(name for trial in trials for name in trial["params"]))
    return [n for n in names if len({str(t["params"].get(n)) for t in trials}) > _HIDDEN_WHEN_CONSTANT]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.1e}" if isinstance(value, float) else str(value)


def data_table(card: Mapping[str, Any]) -> Table:
    """Images of each class in each split."""
    splits = card["splits"]
    table = Table(title=f"{len(card['classes'])} classes, largest to smallest {card['imbalance']}:1")
    table.add_column("class")
    for name in splits:
        table.add_column(name, justify="right")
    for label in card["classes"]:
        table.add_row(label, *(str(split["per_class"][label]) for split in splits.values()))
    table.add_row("all", *(str(split["images"]) for split in splits.values()), style="bold")
    return table


def backbone_table(backbone: Mapping[str, Any]) -> Table:
    """One backbone's stages, and how many parameters train at each depth."""
    table = Table(title=backbone["name"])
    for title in ("stage", "parameters", "BN layers", "depth that trains it", "trainable there"):
        table.add_column(title, justify="left" if title == "stage" else "right")
    depths = len(backbone["stages"]) - 1
    for position, stage in enumerate(backbone["stages"]):
        depth = depths - position
        trainable = backbone["trainable_parameters"].get(str(depth), 0)
        table.add_row(
            stage["name"], f"{stage['parameters']:,}", str(stage["batchnorm_layers"]), f"{depth}", f"{trainable:,}"
        )
    return table


def prediction_table(predictions: Sequence[Mapping[str, Any]]) -> Table:
    """One line an image."""
    table = Table()
    for title in ("image", "label", "score"):
        table.add_column(title, justify="right" if title == "score" else "left", overflow="fold")
    for prediction in predictions:
        table.add_row(prediction["path"], prediction["label"], f"{prediction['score']:.3f}")
    return table
