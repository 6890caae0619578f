"""Heads that are solved against heads that are trained: accuracy and processor seconds of whole trials.

    solved_heads.py --weights WEIGHTS --emoji EMOJI [--sets emoji digits] [--trials 16] [--seeds 3] [--json FILE]

For each set, seed and kind of head: the trials of a random search over that head's own dimensions and the backbones,
the best of them by validation, and its accuracy on the test images, which nothing else has seen. The digits are cut
into train, val and test by the seed, with 20 images of each class for training. Seconds are the medians of the
processor's seconds of a trial from its opening to its end, checkpoint included, on one thread of one process with
everything cached, as the trials of a search have it; the first of each backbone, which computes its features, is left
out and given beside it.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
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
from tlsearch.data import ImageIndex, load_index
from tlsearch.train import evaluate
from tlsearch.trial import load_trained, run_trial
from tlsearch.trial.setup import open_trial

BACKBONES = {"mobilenet_v2": "mobilenet_v2.pth", "timm/tf_efficientnet_lite0": "tf_efficientnet_lite0.pth"}
HEADS = ("linear", "ridge", "logistic", "cosine")
SIZE_PX = 96
EPOCHS = 10


class Silent:
    """A reporter that lets each trial run to its end."""

    def report(self, report: EpochReport) -> Decision:
        """Goes on."""
        return Decision.CONTINUE


def configs(head: str, count: int, seed: int) -> list[TrialConfig]:
    """Random configurations, the defaults of each backbone first; a head without dimensions has these alone."""
    rng, names = random.Random(f"{head} {seed}"), list(BACKBONES)
    penalty = None if head in ("linear", "cosine") else 0.1
    made = [TrialConfig(backbone=name, head=head, head_penalty=penalty, head_init="probe") for name in names]
    while len(made) < count and head != "cosine":
        base = made[len(made) % len(names)]
        if head == "linear":
            base = replace(
                base,
                head_lr=10 ** rng.uniform(-4, -1.5),
                weight_decay=10 ** rng.uniform(-5, 0),
                label_smoothing=rng.choice([0.0, 0.1]),
                head_dropout=rng.choice([0.0, 0.2, 0.5]),
            )
        else:
            base = replace(base, head_penalty=10 ** rng.uniform(-3, 0))
        made.append(base)
    return made


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What one trial reached and took."""

    config: TrialConfig
    val: float
    test: float
    seconds: float


def run(setup: TrialSetup, found: Sequence[TrialConfig], seed: int, test: ImageIndex) -> list[Trial]:
    """Each configuration as a whole trial, one after the other as in a worker; then their models on the test images."""
    with tempfile.TemporaryDirectory() as folder:
        assignments = [
            TrialAssignment(
                number=number,
                seed=seed,
                config=config,
                setup=setup,
                directory=f"{folder}/trials/{number}",
                shares=True,
            )
            for number, config in enumerate(found)
        ]
        timed = [_timed(one) for one in assignments]
        return [
            Trial(config=one.config, val=value, test=_accuracy(one, test), seconds=seconds)
            for one, (value, seconds) in zip(assignments, timed, strict=True)
        ]


def _timed(assignment: TrialAssignment) -> tuple[float, float]:
    """What a trial reached, and the processor seconds that it took."""
    began = time.process_time()
    outcome = run_trial(assignment, Silent())
    seconds = time.process_time() - began
    assert outcome.best_value is not None, outcome.error
    return outcome.best_value, seconds


def _accuracy(assignment: TrialAssignment, test: ImageIndex) -> float:
    """Of the trial's model on the test images."""
    model, _ = load_trained(Path(assignment.directory) / "best")
    opened = open_trial(replace(assignment, directory=f"{assignment.directory}-test"), index=test)
    return evaluate(model, opened.val, opened.runtime, depth=0).metrics["val_accuracy"]


def setup_of(name: str, seed: int, args: argparse.Namespace) -> TrialSetup:
    """The images and weights of one set."""
    if name == "emoji":
        data = DataSpec(source="folder", path=str(args.emoji.absolute()), image_size=SIZE_PX)
    else:
        data = DataSpec(source="digits", image_size=SIZE_PX, split=SplitSpec(val=0.11, test=0.78, seed=seed))
    weights = {
        one: WeightsSource(kind="file", path=str((args.weights / file).absolute())) for one, file in BACKBONES.items()
    }
    return TrialSetup(data=data, weights=weights, max_epochs=EPOCHS, device="cpu")


def measure(name: str, seed: int, args: argparse.Namespace) -> list[dict[str, float | str]]:
    """A row for each kind of head."""
    setup = setup_of(name, seed, args)
    index = load_index(setup.data)
    test = replace(index, splits={**index.splits, "val": index.splits["test"]}, digest=f"{index.digest} test")
    firsts = run(setup, configs("linear", len(BACKBONES), seed), seed, test)
    rows: list[dict[str, float | str]] = []
    for head in HEADS:
        trials = run(setup, configs(head, args.trials, seed), seed, test)
        best = max(trials, key=lambda one: one.val)
        row: dict[str, float | str] = {
            "set": name,
            "seed": seed,
            "head": head,
            "trials": len(trials),
            "val": best.val,
            "test": best.test,
        }
        row["seconds"] = statistics.median(one.seconds for one in trials)
        row["first_s"] = statistics.fmean(one.seconds for one in firsts)
        row["penalty"] = best.config.head_penalty or 0.0
        row["backbone"] = best.config.backbone
        rows.append(row)
        print(
            "  ".join(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()), flush=True
        )
    return rows


def table(rows: Sequence[Mapping[str, float | str]]) -> str:
    """Means over seeds."""
    lines = [f"{'set':8}{'head':10}{'val':>8}{'test':>8}{'s a trial':>11}{'times as fast':>15}"]
    for name in dict.fromkeys(str(row["set"]) for row in rows):
        of_set = [row for row in rows if row["set"] == name]
        for head in HEADS:
            own = [row for row in of_set if row["head"] == head]
            val, test, seconds = (
                statistics.fmean(float(row[key]) for row in own) for key in ("val", "test", "seconds")
            )
            linear = statistics.fmean(float(row["seconds"]) for row in of_set if row["head"] == "linear")
            lines.append(f"{name:8}{head:10}{val:8.3f}{test:8.3f}{seconds:11.3f}{linear / seconds:15.1f}")
    return "\n".join(lines)


def main() -> None:
    """Prints a row for each set, seed and head, then the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--emoji", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=["emoji", "digits"], default=["emoji", "digits"])
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = [row for name in args.sets for seed in range(args.seeds) for row in measure(name, seed, args)]
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
