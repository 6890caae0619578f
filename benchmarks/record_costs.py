#!/usr/bin/env python3
"""Measures what an epoch of recorded curves costs, in one sitting, and writes it into their file.

    record_costs.py SPACE.yaml CURVES.json [--epochs 2] [--data PATH] [--set KEY=VALUE ...]

Curves that were recorded on different days, or beside other programs, have costs that cannot be compared. What an epoch
costs follows from its kind: backbone, depth, augmentation (stored features, or pixels) and batch-norm policy. One
configuration of each kind is trained for some epochs at rates that destroy nothing; its CPU seconds of the first epoch,
and the least of the others, become those of all curves of the kind. Everything else stays as it was recorded.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from record_curves import recorded

from tlsearch.config import SpaceFile
from tlsearch.space import load
from tlsearch.testing.replay import Curve, read_curves, write_curves

_SECONDS = "epoch_seconds"
_HEAD_LR, _BACKBONE_LR = 1e-3, 1e-4
Kind = tuple[object, ...]


def kind_of(curve: Curve) -> Kind:
    """Curves of one kind cost the same."""
    config = curve.config
    return config.backbone, config.unfreeze_depth, config.augmentation, config.bn_policy


def measured(file: SpaceFile, curve: Curve, epochs: int) -> tuple[float, float]:
    """CPU seconds of the first epoch and of a later one."""
    short = replace(file, search=replace(file.search, max_epochs=epochs))
    rate = None if curve.config.backbone_lr is None else _BACKBONE_LR
    config = replace(curve.config, head_lr=_HEAD_LR, backbone_lr=rate)
    seconds = recorded(short, config, curve.seed, digits=6).columns[_SECONDS]
    return seconds[0], min(seconds[1:])


def recosted(curve: Curve, first: float, later: float) -> Curve:
    """The curve at other costs; an epoch in which it diverged costs what a whole one does."""
    num = curve.num_epochs
    seconds = tuple(first if epoch == 0 else later for epoch in range(num))
    diverged_s = None if curve.diverged_s is None else (later if num else first)
    return replace(curve, columns={**curve.columns, _SECONDS: seconds}, diverged_s=diverged_s)


def main() -> None:
    """Prints a line for each kind; writes the file at the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("space", type=Path)
    parser.add_argument("curves", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--set", action="append", default=[])
    args = parser.parse_args()
    if args.epochs < 2:
        parser.error("--epochs must be 2 or more: the first epoch costs more than the others")
    file, _ = load(args.space, overrides=args.set, data_path=args.data)
    found = read_curves(args.curves)
    examples = {kind_of(curve): curve for curve in found.curves}
    costs: dict[Kind, tuple[float, float]] = {}
    for kind, curve in sorted(examples.items(), key=str):
        costs[kind] = measured(file, curve, args.epochs)
        print(f"{kind}: {costs[kind][0]:.2f} s, then {costs[kind][1]:.2f} s", flush=True)
    about = {**found.about, "costs": "CPU seconds by kind of trial, measured in one sitting"}
    write_curves(
        args.curves, replace(found, curves=tuple(recosted(c, *costs[kind_of(c)]) for c in found.curves), about=about)
    )


if __name__ == "__main__":
    main()
