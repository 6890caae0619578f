"""Few images: what folds choose and say, against a single validation split.

    folds.py --weights WEIGHTS --emoji EMOJI [--images 10] [--draws 20] [--folds 5] [--epochs 10] [--json FILE]

Each draw takes this number of images of each class of emoji; the rest, more than a thousand images, is the truth.
The same heads are trained, by the trials' own trainer on cached features, on one split of the drawn images (a fifth is
val), on folds of them, and, for the truth, on all of them, evaluated on the rest. Regret: accuracy of the best
configuration less that of the chosen one. Optimism: the value that the search reports less the chosen one's accuracy.
``chosen`` is that accuracy itself: of the configuration and the number of epochs that were chosen, trained on all drawn
images as ``promote`` does.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from tlsearch.core.types import DataSpec, Objective, TrialAssignment, TrialConfig, TrialSetup, WeightsSource
from tlsearch.data import ImageIndex, load_index, with_val_in_train
from tlsearch.data.sources.listing import Item
from tlsearch.data.splits import fold_items
from tlsearch.model import StagedModel
from tlsearch.train import Probe, Runtime, Source, Trainer, evaluate, fit_probe, load_batch, solve_probe
from tlsearch.trial.fold_training import mean_of
from tlsearch.trial.setup import open_trial

BACKBONES = {
    "mobilenet_v2": WeightsSource(kind="file", path="mobilenet_v2.pth"),
    "timm/tf_efficientnet_lite0": WeightsSource(kind="file", path="tf_efficientnet_lite0.pth"),
}
SIZE_PX = 96
VAL = 0.2
METRIC = "val_accuracy"


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


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A frozen backbone with the features of all images."""

    model: StagedModel
    runtime: Runtime
    features: Source


def open_backbone(name: str, whole: ImageIndex, weights: Path) -> Backbone:
    """Computes its features, or finds them in the node's cache."""
    source = replace(BACKBONES[name], path=str(weights / str(BACKBONES[name].path)))
    setup = TrialSetup(data=DataSpec(source="folder", image_size=SIZE_PX), weights={name: source}, device="cpu")
    config = TrialConfig(backbone=name, head_init="random")
    with tempfile.TemporaryDirectory() as folder:
        opened = open_trial(
            TrialAssignment(number=0, seed=1, config=config, setup=setup, directory=folder), index=whole
        )
    assert opened.train.kind == "features"
    return Backbone(model=opened.trainer.model, runtime=opened.runtime, features=opened.train)


def part(backbone: Backbone, rows: Sequence[int]) -> Source:
    """Some of the images."""
    chosen = torch.tensor(rows)
    return replace(backbone.features, labels=backbone.features.labels[chosen], chosen=chosen)


def rows_of(backbone: Backbone, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Features float32 (N, F) and labels."""
    return load_batch(part(backbone, rows), torch.arange(len(rows)), backbone.runtime)


def curve(
    backbone: Backbone, config: TrialConfig, train: Sequence[int], val: Sequence[int], epochs: int, probe: Probe | None
) -> dict[int, float]:
    """The accuracy on val by epoch of a head that is trained on some rows, 0 before the first step."""
    model = backbone.model
    *front, classifier = model.head.children()
    for module in front:
        if isinstance(module, nn.Dropout):
            module.p = config.head_dropout or 0.0
    torch.manual_seed(1)
    classifier.reset_parameters()
    if probe is not None:
        with torch.no_grad():
            classifier.weight.copy_(probe.weight)
            classifier.bias.copy_(probe.bias)
    num_classes = classifier.out_features
    trainer = Trainer(model, backbone.runtime, config, depth=0, num_classes=num_classes, max_epochs=epochs)
    sources = part(backbone, train), part(backbone, val)

    def accuracy() -> float:
        return evaluate(model, sources[1], backbone.runtime, depth=0).metrics[METRIC]

    found = {0: accuracy()} if probe is not None else {}
    for epoch in range(1, epochs + 1):
        trainer.train_epoch(sources[0], seed=1, epoch=epoch)
        found[epoch] = accuracy()
    return found


def probe_of(backbone: Backbone, train: Sequence[int], val: Sequence[int]) -> Probe:
    """The solved head, its penalty chosen on val."""
    num_classes = int(backbone.features.labels.max()) + 1
    return solve_probe(*rows_of(backbone, train), *rows_of(backbone, val), num_classes=num_classes, bias=True)


def measure(
    whole: ImageIndex, backbones: Mapping[str, Backbone], number: int, args: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """One draw: regret, optimism and the chosen one's accuracy, of a single split and of folds."""
    rng, labels = random.Random(f"draw {number}"), whole.splits["train"].labels
    of_class = defaultdict(list)
    for row, label in enumerate(labels):
        of_class[label].append(row)
    taken = {label: rng.sample(own, args.images) for label, own in of_class.items()}
    num_val = max(1, round(VAL * args.images))
    val = sorted(row for own in taken.values() for row in own[:num_val])
    train = sorted(row for own in taken.values() for row in own[num_val:])
    pool = sorted([*train, *val])
    rest = sorted(set(range(len(labels))) - set(pool))
    items = [Item(key=f"{row:09}", label=labels[row], group=str(row)) for row in pool]
    held = [[int(item.key) for item in fold] for fold in fold_items(items, whole.classes, args.folds, number)]
    folds = [(sorted(set(pool) - set(out)), sorted(out)) for out in held]
    probes = {}
    for name, one in backbones.items():
        solved = [probe_of(one, *split) for split in ((train, val), *folds)]
        again = fit_probe(
            *rows_of(one, pool),
            penalty=solved[0].penalty * len(train) / len(pool),
            standardised=solved[0].standardised,
            num_classes=len(whole.classes),
            bias=True,
        )
        probes[name] = [again, *solved]
    values: dict[str, list[tuple[float, float]]] = {"split": [], "folds": []}  # reported, and the true accuracy
    best = []
    for config in configs(args.configs, 4 if len(train) < 128 else 8):
        one, solved = backbones[config.backbone], probes[config.backbone]
        starts = solved if config.head_init == "probe" else [None] * len(solved)
        cuts = ((pool, rest), (train, val), *folds)
        real, single, *curves = (
            curve(one, config, *cut, args.epochs, start) for cut, start in zip(cuts, starts, strict=True)
        )
        best.append(max(real.values()))
        epoch = max(single, key=lambda at: (single[at], -at))
        values["split"].append((single[epoch], real[epoch]))
        mean = mean_of([{at: {METRIC: value} for at, value in own.items()} for own in curves], Objective.of(METRIC))
        values["folds"].append((mean[METRIC], real[int(mean["fold_epoch"])]))
    found = {}
    for name, own in values.items():
        reported, accuracy = max(own, key=lambda pair: pair[0])
        found[name] = {"regret": max(best) - accuracy, "optimism": reported - accuracy, "chosen": accuracy}
    return found


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
    backbones = {name: open_backbone(name, whole, args.weights) for name in BACKBONES}
    for number in range(args.draws):
        rows.append(measure(whole, backbones, number, args))
        print(
            number, {name: {key: round(v, 3) for key, v in one.items()} for name, one in rows[-1].items()}, flush=True
        )
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
        args.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
