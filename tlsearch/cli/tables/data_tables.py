"""Tables for people: the data card, the stages of backbones, predictions, this machine's stores."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tlsearch.core.printable import printable
from tlsearch.core.text import plural
from tlsearch.display.console import Table

if TYPE_CHECKING:
    from tlsearch.app.checks.check_file import CheckedBackbone
    from tlsearch.app.views.cache_contents import CacheEntry
    from tlsearch.data.inspect.data_card import DataCard, Extent, FilesLeftOut, ImagePair
    from tlsearch.results.inference.answers import Prediction

_MAX_CLASSES = 100
_MAX_PAIRS = 20
_MAX_SIZES = 8


def cache_table(entries: Sequence[CacheEntry]) -> Table:
    """The entries of this machine's stores."""
    table = Table()
    for name, justify in (("store", "left"), ("what", "left"), ("MB", "right"), ("last used", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for entry in entries:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.last_used))
        table.add_row(entry.store, entry.content, f"{entry.num_bytes / 1e6:,.1f}", used)
    return table


def data_table(card: DataCard) -> Table:
    """Images of each class in each split; of many classes the smallest alone."""
    splits = card.splits
    smallest = sorted(card.classes, key=lambda label: sum(split.per_class[label] for split in splits.values()))
    shown = set(smallest[:_MAX_CLASSES])
    some = f", the {_MAX_CLASSES} smallest" if len(smallest) > _MAX_CLASSES else ""
    counted = plural(len(card.classes), "class", "classes")
    table = Table(title=f"{counted}, largest to smallest {card.imbalance}:1{some}")
    table.add_column("class")
    for name in splits:
        table.add_column(name, justify="right")
    for label in (one for one in card.classes if one in shown):
        table.add_row(label, *(str(split.per_class[label]) for split in splits.values()))
    table.add_row("all", *(str(split.images) for split in splits.values()), style="bold")
    return table


def data_lines(card: DataCard) -> list[str]:
    """Sizes, modes, how the source was read, what is left out, and pictures that stand twice, the first 20 of a kind.

    Corrupt files are errors.
    """
    lines = []
    if card.width and card.height:
        width, height = (_extent(side) for side in (card.width, card.height))
        modes = ", ".join(f"{count} {mode}" for mode, count in card.modes.items())
        lines.append(f"width {width}, height {height} pixels; {modes}")
    lines += [printable(note) for note in card.notes]
    if card.left_out:
        total = sum(one.count for one in card.left_out)
        lines.append(f"left out of the data: {total:,} {'file' if total == 1 else 'files'}")
        lines += [f"  {_left_out(one)}" for one in card.left_out]
    for title, pairs in (("in two splits", card.leaks), ("twice in one split", card.duplicates)):
        if pairs:
            lines.append(f"{len(pairs)} {'picture stands' if len(pairs) == 1 else 'pictures stand'} {title}:")
            lines += [f"  {_pair(pair)}" for pair in pairs[:_MAX_PAIRS]]
        if len(pairs) > _MAX_PAIRS:
            lines.append(f"  and {len(pairs) - _MAX_PAIRS} more, see --json")
    return lines


def _left_out(one: FilesLeftOut) -> str:
    more = one.count - len(one.examples)
    examples = ", ".join(one.examples) + (f" and {more:,} more" if more > 0 else "")
    return printable(f"{one.reason}: {one.count:,} ({examples})")


def _extent(extent: Extent) -> str:
    return f"{extent.min} to {extent.max} (median {extent.median:g})"


def _pair(pair: ImagePair) -> str:
    first, second = pair.first, pair.second
    likeness = "is the same file as" if pair.kind == "exact" else "looks like"
    labels = first.label if first.label == second.label else f"{second.label} and {first.label}"
    return printable(f"{second.path} {likeness} {first.path} ({labels})")


def backbone_table(backbone: CheckedBackbone) -> Table:
    """One backbone's weights and sizes, its stages, and how many parameters train at each depth."""
    described, weights = backbone.described, backbone.weights
    licence = f", licence {weights.licence}" if weights.licence else ""
    searched = ", ".join(str(size) for size in backbone.searched_sizes[:_MAX_SIZES])
    searched += ", ..." if len(backbone.searched_sizes) > _MAX_SIZES else ""
    sizes = f"{searched or described.image_size} px images (it takes {backbone.facts.size_rule()})"
    table = Table(title=f"{described.name}: weights {weights.id}{licence}; {sizes}")
    titles = ["stage", "modules", "parameters", "BN layers", "depth that trains it", "trainable there"]
    for title in (*titles, *(f"with {way}" for way in backbone.adapted)):
        table.add_column(title, justify="left" if title in ("stage", "modules") else "right")
    depths = len(described.stages) - 1
    for position, stage in enumerate(described.stages):
        depth = depths - position
        table.add_row(
            stage.name,
            stage.modules[0] if len(stage.modules) == 1 else f"{stage.modules[0]} .. {stage.modules[-1]}",
            f"{stage.parameters:,}",
            str(stage.batchnorm_layers),
            f"{depth}",
            f"{described.trainable_parameters.get(depth, 0):,}",
            *(f"{counts[depth]:,}" for counts in backbone.adapted.values()),
        )
    return table


def prediction_table(predictions: Sequence[Prediction]) -> Table:
    """One line an image; of a multi-label model with all its classes."""
    from tlsearch.results.inference.answers import MultiLabelPrediction

    table = Table()
    several = any(isinstance(one, MultiLabelPrediction) for one in predictions)
    for title in ("image", "labels", "scores") if several else ("image", "label", "score"):
        table.add_column(title, justify="right" if title.startswith("score") else "left", overflow="fold")
    for prediction in predictions:
        names, scores = prediction.label, f"{prediction.score:.3f}"
        if isinstance(prediction, MultiLabelPrediction):
            names = ", ".join(one.label for one in prediction.labels)
            scores = ", ".join(f"{one.score:.3f}" for one in prediction.labels)
        table.add_row(prediction.path, names, scores)
    return table
