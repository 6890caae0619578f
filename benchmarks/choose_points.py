#!/usr/bin/env python3
"""Chooses starting points from recorded curves: each next one leaves the least mean regret of the best so far.

    choose_points.py CURVES.json ... [--count 4]

A problem is one backbone of one set. A candidate's value there is the mean of the nearest recorded curves' best values,
by distance; its regret is what it lacks to the best candidate's. After the choice from all sets come those that leave
one set out, with their regret on it. Greedy portfolios as in zero-shot AutoML (Wistuba et al., ICDM 2015).
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from tlsearch.core.types import TrialConfig
from tlsearch.testing.replay import Curve, read_curves

NEIGHBOURS = 5
HEADS = [{"unfreeze_depth": 0, "head_lr": rate} for rate in (1e-3, 3e-3, 1e-2, 3e-2)]
DEEP = [
    {"unfreeze_depth": depth, "head_lr": head, "backbone_lr": rate, "bn_policy": norm, "augmentation": augmentation}
    for depth, head, rate, norm, augmentation in itertools.product(
        (1, 2, 3, 5), (1e-3, 3e-3, 1e-2), (5e-5, 1e-4, 2e-4, 4e-4, 8e-4), ("frozen", "train"), ("none", "light")
    )
]
CANDIDATES = [TrialConfig(backbone="any", **point) for point in (*HEADS, *DEEP)]  # type: ignore[arg-type]

Problem = tuple[str, str]  # a set and a backbone
Values = Mapping[Problem, Sequence[float]]  # of the candidates


def apart(one: TrialConfig, other: TrialConfig) -> float:
    """How unlike two configurations are; a decade of the backbone's rate counts most."""
    both = one.unfreeze_depth > 0 and other.unfreeze_depth > 0
    total = 0.7 * abs(one.unfreeze_depth - other.unfreeze_depth) + 0.7 * abs(math.log10(one.head_lr / other.head_lr))
    total += 1.0 * ((one.unfreeze_depth == 0) != (other.unfreeze_depth == 0))
    if one.backbone_lr and other.backbone_lr:
        total += 1.3 * abs(math.log10(one.backbone_lr / other.backbone_lr))
    return total + 0.5 * (both and one.bn_policy != other.bn_policy) + 0.35 * (one.augmentation != other.augmentation)


def value(config: TrialConfig, curves: Sequence[Curve]) -> float:
    """What a candidate is taken to reach; a curve that diverged at once counts as 0.1."""
    near = sorted(curves, key=lambda curve: apart(config, curve.config))[:NEIGHBOURS]
    weights = [1 / (apart(config, curve.config) ** 2 + 0.06) for curve in near]
    reached = [max(curve.columns["val_accuracy"], default=0.1) for curve in near]
    return sum(w * best for w, best in zip(weights, reached, strict=True)) / sum(weights)


def values_of(paths: Sequence[Path]) -> dict[Problem, list[float]]:
    """The candidates' values on each backbone of each set."""
    found = {}
    for path in paths:
        curves = read_curves(path).curves
        for backbone in sorted({curve.config.backbone for curve in curves}):
            own = [curve for curve in curves if curve.config.backbone == backbone]
            found[path.stem, backbone] = [value(config, own) for config in CANDIDATES]
    return found


def regrets(values: Values, chosen: Sequence[int]) -> dict[Problem, float]:
    """By problem, in points of accuracy."""
    return {key: 100 * (max(row) - max((row[one] for one in chosen), default=0.0)) for key, row in values.items()}


def greedy(values: Values, count: int) -> list[int]:
    """The points of a portfolio, in the order of the choice."""
    chosen: list[int] = []
    for _ in range(count):
        chosen.append(min(range(len(CANDIDATES)), key=lambda one: sum(regrets(values, [*chosen, one]).values())))
    return chosen


def show(title: str, chosen: Sequence[int], on: Values) -> None:
    """A portfolio and its regret."""
    print(f"\n{title}")
    for one in chosen:
        point = (*HEADS, *DEEP)[one]
        print("  " + ", ".join(f"{name} {setting}" for name, setting in point.items()))
    print(
        "  regret:",
        ", ".join(f"{name} {backbone} {lost:.1f}" for (name, backbone), lost in regrets(on, chosen).items()),
    )


def main() -> None:
    """Prints the portfolios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curves", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=4)
    arguments = parser.parse_args()
    values = values_of(arguments.curves)
    show("chosen on all", greedy(values, arguments.count), values)
    for path in arguments.curves if len(arguments.curves) > 1 else ():
        others = {key: row for key, row in values.items() if key[0] != path.stem}
        left_out = {key: row for key, row in values.items() if key[0] == path.stem}
        show(f"chosen without {path.stem}, regret on it", greedy(others, arguments.count), left_out)


if __name__ == "__main__":
    main()
