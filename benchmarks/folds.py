"""Few images: what a search with folds chooses and says, against one with a single validation split.

    folds.py --weights WEIGHTS --emoji EMOJI [--images 10] [--draws 20] [--folds 5] [--epochs 10] [--json FILE]

Each draw takes this number of images of each class of emoji; the rest, more than a thousand images, is the truth. The
same head-only trials are trained on one split of the drawn images (a fifth is val), on folds of them, and, for the
truth, on all of them, evaluated on the rest. Regret: accuracy of the best configuration less that of the chosen one.
Optimism: the value that the search reports less the chosen one's accuracy. ``chosen`` is that accuracy itself: of the
configuration and the number of epochs that were chosen, trained on all drawn images as ``promote`` does.

Last it times both kinds of trials with their features cached: the folds of a trial against the epochs of one training.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tlsearch.core.types import (
    DataSpec,
    Decision,
    EpochReport,
    SplitSpec,
    TrialAssignment,
    TrialConfig,
    TrialSetup,
    WeightsSource,
)
from tlsearch.data import ImageIndex, Split, fold_indexes, load_index, with_val_in_train
from tlsearch.data.index import Kept
from tlsearch.trial import process_cache, run_trial

BACKBONES = {
    "mobilenet_v2": WeightsSource(kind="file", path="mobilenet_v2.pth"),
    "timm/tf_efficientnet_lite0": WeightsSource(kind="file", path="tf_efficientnet_lite0.pth"),
}
SIZE_PX = 96
VAL = 0.2
METRIC = "val_accuracy"


@dataclass(frozen=True, kw_only=True)
class Draw:
    """The data sets of one draw: ``split`` into train and val, and all of it with the rest as val."""

    split: ImageIndex
    truth: ImageIndex


class Keep:
    """A reporter that keeps what it hears."""

    def __init__(self) -> None:
        self.reports: list[EpochReport] = []

    def report(self, report: EpochReport) -> Decision:
        self.reports.append(report)
        return Decision.CONTINUE


def configs(count: int, batch_size: int) -> list[TrialConfig]:
    """Head-only configurations as a search would draw them, the default of each backbone first."""
    rng, names = random.Random(0), list(BACKBONES)
    made = [TrialConfig(backbone=name, head_lr=1e-3, batch_size=batch_size, head_init="probe") for name in names]
    while len(made) < count:
        made.append(
            TrialConfig(
                backbone=names[len(made) % len(names)],
                head_lr=10 ** rng.uniform(-4, -1.5),
                weight_decay=10 ** rng.uniform(-5, 0),
                label_smoothing=rng.choice([0.0, 0.1]),
                head_dropout=rng.choice([0.0, 0.2, 0.5]),
                batch_size=batch_size,
                head_init=rng.choice(["probe", "random"]),
            )
        )
    return made


def draw(whole: ImageIndex, images: int, number: int) -> Draw:
    """This number of images of each class, seeded; pixels and features of all draws are those of the whole."""
    rng, pool = random.Random(f"draw {number}"), whole.splits["train"]
    rows = defaultdict(list)
    for row, label in enumerate(pool.labels):
        rows[label].append(row)
    taken = {label: rng.sample(own, images) for label, own in rows.items()}
    num_val = max(1, round(VAL * images))
    val = sorted(row for own in taken.values() for row in own[:num_val])
    train = sorted(row for own in taken.values() for row in own[num_val:])
    rest = sorted(set(range(len(pool))) - {*train, *val})
    return Draw(
        split=part(whole, {"train": train, "val": val}, f"{number} split"),
        truth=part(whole, {"train": sorted([*train, *val]), "val": rest}, f"{number} truth"),
    )


def part(whole: ImageIndex, rows: dict[str, list[int]], name: str) -> ImageIndex:
    """A data set of some of the images."""
    pool = whole.splits["train"]
    splits = {split: pool.part(own) for split, own in rows.items()}
    return within(replace(whole, splits=splits, digest=f"{whole.digest} {name}", shared={}), whole)


def within(index: ImageIndex, whole: ImageIndex) -> ImageIndex:
    """The same data set, whose pixels and features are rows of the whole one's: nothing is computed for each draw."""
    row_of = {key: row for row, key in enumerate(whole.splits["train"].keys)}

    def kept(split: Split) -> Kept:
        return Kept(index=whole, split="train", rows=tuple(row_of[key] for key in split.keys))

    return replace(index, shared={name: kept(split) for name, split in index.splits.items()})


def trained(config: TrialConfig, setup: TrialSetup, directory: Path) -> list[EpochReport]:
    """The reports of a trial."""
    keep = Keep()
    outcome = run_trial(TrialAssignment(number=0, seed=1, config=config, setup=setup, directory=str(directory)), keep)
    assert not outcome.error, outcome.error
    return keep.reports


def curve_of(reports: Sequence[EpochReport]) -> dict[int, float]:
    """The metric by epoch, 0 before the first step."""
    curve = {report.epoch: report.metrics[METRIC] for report in reports}
    start = reports[0].start
    return curve if start is None else {0: start.metrics[METRIC], **curve}


def measure(whole: ImageIndex, number: int, args: argparse.Namespace, scratch: Path) -> dict[str, dict[str, float]]:
    """One draw: regret, optimism and the chosen one's accuracy, of a single split and of folds."""
    drawn, pool = draw(whole, args.images, number), args.images * len(whole.classes)
    weights = {name: replace(one, path=str(args.weights / str(one.path))) for name, one in BACKBONES.items()}
    base = TrialSetup(
        data=DataSpec(source="folder", path=f"draw {number}", image_size=SIZE_PX, split=SplitSpec(seed=number)),
        weights=weights,
        max_epochs=args.epochs,
        num_threads=1,
        precision="fp32",
        device="cpu",
    )
    truth = replace(base, data=replace(base.data, path=f"truth {number}"))
    folds = fold_indexes(drawn.split, args.folds, seed=number)
    process_cache.release_held()
    process_cache._indexes.update({(base.data, False): drawn.split, (truth.data, False): drawn.truth})
    process_cache._folds[base.data, args.folds] = tuple(within(one, whole) for one in folds)
    values: dict[str, list[tuple[float, float]]] = {
        "split": [],
        "folds": [],
    }  # reported, and the accuracy of what is chosen
    best = []
    for config in configs(args.configs, 4 if pool < 128 else 8):
        real = curve_of(trained(config, truth, scratch / "truth"))
        best.append(max(real.values()))
        single = curve_of(trained(config, base, scratch / "split"))
        epoch = max(single, key=lambda one: (single[one], -one))
        values["split"].append((single[epoch], real[epoch]))
        last = trained(config, replace(base, folds=args.folds), scratch / "folds")[-1].metrics
        values["folds"].append((last[METRIC], real[int(last["fold_epoch"])]))
    found = {}
    for name, own in values.items():
        reported, accuracy = max(own, key=lambda pair: pair[0])
        found[name] = {"regret": max(best) - accuracy, "optimism": reported - accuracy, "chosen": accuracy}
    return found


def cost(whole: ImageIndex, args: argparse.Namespace, scratch: Path) -> dict[str, float]:
    """Seconds of all configurations of one draw, features cached: of single splits and of all folds."""
    measured = {}
    for folds in (0, args.folds):
        began = time.perf_counter()
        weights = {name: replace(one, path=str(args.weights / str(one.path))) for name, one in BACKBONES.items()}
        data = DataSpec(source="folder", path="draw 0", image_size=SIZE_PX, split=SplitSpec(seed=0))
        setup = TrialSetup(data=data, weights=weights, max_epochs=args.epochs, device="cpu", folds=folds)
        for config in configs(args.configs, 8):
            trained(config, setup, scratch / "cost")
        measured["folds" if folds else "split"] = time.perf_counter() - began
    return {**measured, "factor": measured["folds"] / measured["split"]}


def main() -> None:
    """Prints a table, and JSON where asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--emoji", type=Path, required=True)
    parser.add_argument("--images", type=int, default=10, help="of each class")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--configs", type=int, default=12)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    whole = with_val_in_train(load_index(DataSpec(source="folder", path=str(args.emoji.absolute()))))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.draws):
            rows.append(measure(whole, number, args, Path(folder)))
            print(
                number,
                {name: {key: round(v, 3) for key, v in one.items()} for name, one in rows[-1].items()},
                flush=True,
            )
            if number == 0:
                seconds = cost(whole, args, Path(folder))
                print("seconds of all trials of one draw", {key: round(value, 2) for key, value in seconds.items()})
    print(f"\n{args.images} images a class, {args.draws} draws, {args.configs} configurations of {args.epochs} epochs")
    print(f"{'':8}{'regret':>16}{'optimism':>18}{'chosen':>16}")
    for name in ("split", "folds"):
        cells = []
        for key in ("regret", "optimism", "chosen"):
            values = [row[name][key] for row in rows]
            error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
            cells.append(f"{statistics.fmean(values):8.3f} ±{error:.3f}")
        print(f"{name:8}{cells[0]:>16}{cells[1]:>18}{cells[2]:>16}")
    if args.json:
        args.json.write_text(json.dumps({"draws": rows, "cost": seconds}, indent=2))


if __name__ == "__main__":
    main()
