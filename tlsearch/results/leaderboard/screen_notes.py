"""What the screen of a search's backbones said, in sentences: what it kept, and how far it can be trusted.

Plain size is what a screen has to beat: it costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from tlsearch.core.text import agree, format_s, plural
from tlsearch.core.types import Objective, ProbedBackbone, Screen, SearchRecord

_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How well an order that was known before the trials agrees with what they reached.

    Attributes:
        pairs: Pairs of backbones with trials of different worth.
        by_probe: Of these, those that the accuracies of the probes order as the best trials do.
        by_size: The same of the numbers of parameters.
    """

    pairs: int
    by_probe: int
    by_size: int


def screen_sentences(screen: Screen) -> Iterator[str]:
    """One sentence for each thing to know; of a screen that is decided."""
    known = screen.ranked
    images = next((one for one in known if one.accuracy is not None), None)
    if images is None:
        yield f"none of {plural(len(screen.backbones), 'backbone')} could be screened, so all are kept"
        return
    yield (
        f"the screen kept {len(screen.kept)} of {plural(len(screen.backbones), 'backbone')} after one pass over "
        f"{images.num_train:,} training and {images.num_val:,} validation images each ({format_s(screen.seconds)})"
    )
    if screen.pruned:
        yield chance_sentence(screen)
        yield size_sentence(screen)


def chance_sentence(screen: Screen) -> str:
    """The chance of having pruned the best backbone, what it covers, and what it does not."""
    least = 1 / screen.num_draws if screen.num_draws else 0.0
    chance = f"{screen.chance:.1%}" if screen.chance >= least else f"below {least:.2%}"
    return (
        f"the chance that the best backbone is among the pruned ones is {chance}: it covers which validation images "
        "there are, and that fine-tuning moves backbones with equal probes apart (Student's t in log-odds, scale "
        f"{screen.spread:g}, 3 degrees of freedom); it does not cover backbones whose features a linear classifier "
        "reads badly and fine-tuning repairs by more, as masked autoencoders may"
    )


def size_sentence(screen: Screen) -> str:
    """What plain size would have kept in place of the probes."""
    compared = [one for one in screen.ranked if one.accuracy is not None]
    count = sum(one.backbone in screen.kept for one in compared)
    largest = by_size(compared)[:count]
    shared = sum(name in screen.kept for name in largest)
    names = ", ".join(largest[:_SHOWN]) + (", ..." if count > _SHOWN else "")
    return (
        f"by size alone the {plural(count, 'largest backbone')} would have been kept ({names}): {shared} of them "
        f"{agree(shared, 'is', 'are')} among those that the screen kept"
    )


def by_size(probed: Sequence[ProbedBackbone]) -> list[str]:
    """Names by the number of parameters, the largest first."""
    return [one.backbone for one in sorted(probed, key=lambda one: -one.parameters)]


def best_values(record: SearchRecord) -> dict[str, float]:
    """By backbone the value of its best trial."""
    found: dict[str, float] = {}
    for trial in record.ranked:
        if trial.result is not None:
            found.setdefault(trial.config.backbone, trial.result)
    return found


def agreement(screen: Screen, best: Mapping[str, float], objective: Objective) -> Agreement:
    """How often probe and size order two backbones as their best trials do.

    Args:
        best: By backbone the value of its best trial.
    """
    tried = [one for one in screen.ranked if one.accuracy is not None and one.backbone in best]
    pairs = by_probe = size = 0
    for one, other in combinations(tried, 2):
        gain = objective.gain(best[one.backbone]) - objective.gain(best[other.backbone])
        if gain:
            pairs += 1
            by_probe += gain * ((one.accuracy or 0.0) - (other.accuracy or 0.0)) > 0
            size += gain * (one.parameters - other.parameters) > 0
    return Agreement(pairs=pairs, by_probe=by_probe, by_size=size)


def agreement_sentence(found: Agreement) -> str:
    """The same in words; empty where there are none."""
    if not found.pairs:
        return ""
    return (
        f"of {plural(found.pairs, 'pair')} of backbones with trials the probe orders {found.by_probe} as their best "
        f"trials do, plain size {found.by_size}; backbones that looked worse had fewer trials, which flatters the probe"
    )


def screen_json(screen: Screen | None) -> dict[str, Any] | None:
    """{backbones: [{name, parameters, accuracy, train_images, val_images, kept, reason}], kept, chance, ...}.

    Backbones by the accuracy of their probes, the best first; None where nothing was screened.
    """
    if screen is None:
        return None
    rows = [
        {
            "name": one.backbone,
            "parameters": one.parameters,
            "accuracy": one.accuracy,
            "train_images": one.num_train,
            "val_images": one.num_val,
            "seconds": one.seconds,
            "kept": one.backbone in screen.kept if screen.decided else None,
            "reason": screen.reasons.get(one.backbone, ""),
        }
        for one in screen.ranked
    ]
    return {
        "backbones": rows,
        "num_backbones": len(screen.backbones),
        "kept": list(screen.kept),
        "pruned": list(screen.pruned),
        "chance": screen.chance if screen.decided else None,
        "seconds": screen.seconds,
    }
