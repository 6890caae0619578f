"""Trials that are killed while they train and write, and resumed: run as a program, which forks one process for each.

    python killed_trials.py FOLDER KILLS

Prints one JSON line for each kill. FOLDER has images in ``train`` and ``val``.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from soup_search import write_weights

from tlsearch.config.checkpoint_meta import read_model_file
from tlsearch.core.types import CacheSpec, DataSpec, TrialAssignment, TrialConfig, TrialSetup, WeightsSource, repeatable
from tlsearch.train import read_tensors
from tlsearch.trial import FineTuning, finetuning

EPOCHS = 4
POINTS = [f"{name}:{count}" for name in ("shared_tensors", "model_tensors", "after_checkpoint") for count in (1, 2, 3)]
HEADS = ("random", "probe")  # by turns: a random head has a better epoch often, a solved one a model before the first
SENT = "sent.json"  # what the trial has reported: kept outside of its own folders
WEIGHTS = "weights.pth"


def assignment(images: Path, directory: Path, head_init: str) -> TrialAssignment:
    """A trial of four epochs."""
    backbone = "mobilenet_v3_small"
    setup = TrialSetup(
        data=DataSpec(source="folder", path=str(images), image_size=32),
        weights={backbone: WeightsSource(kind="file", path=str(images.parent / WEIGHTS))},
        max_epochs=EPOCHS,
        metric="val_loss",
        cache=CacheSpec(directory=str(images.parent / "cache")),
    )
    config = TrialConfig(
        backbone=backbone,
        unfreeze_depth=2,
        head_lr=1e-3,
        backbone_lr=1e-4,
        bn_policy="train",
        batch_size=8,
        head_init=head_init,
    )
    return TrialAssignment(number=0, seed=1, config=config, setup=setup, directory=str(directory), shares=True)


def train(given: TrialAssignment) -> None:
    """Goes on to the end; after each report notes what a search would know by it."""
    trial = FineTuning(given)
    sent = Path(given.directory).parent / SENT
    sent.parent.mkdir(parents=True, exist_ok=True)
    while trial.epochs_done < EPOCHS:
        trial.step()
        noted = sent.with_suffix(".tmp")
        noted.write_text(json.dumps({"epochs": trial.epochs_done, "best": trial.best_epoch}))
        os.replace(noted, sent)
    curves = [{k: v for k, v in report.metrics.items() if repeatable(k)} for report in trial.reports]
    trial.close()
    (sent.parent / "end.json").write_text(json.dumps({"curves": curves, "best": trial.best_epoch}))


def forked(given: TrialAssignment, *, point: str = "", epochs: int | None = None, delay_s: float = 0.0) -> bool:
    """Trains in a process of its own; returns whether it was killed, at a point or some time after epochs."""
    child = os.fork()
    if child == 0:
        os.environ.pop("TLSEARCH_CRASH_AT", None)
        if point:
            os.environ["TLSEARCH_CRASH_AT"] = point
        try:
            train(given)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    if epochs is None:
        _, status = os.waitpid(child, 0)
    else:
        while reported(given)["epochs"] < epochs:
            time.sleep(0.002)
        time.sleep(delay_s)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the trial failed"
    return os.WIFSIGNALED(status)


def reported(given: TrialAssignment) -> dict[str, Any]:
    """What the trial has sent so far."""
    sent = Path(given.directory).parent / SENT
    found: dict[str, Any] = json.loads(sent.read_text()) if sent.is_file() else {"epochs": 0, "best": None}
    return found


def best_on_disk(directory: Path) -> tuple[int, list[str]] | None:
    """Epoch of the best model and the hashes of its files, which are read whole; None without a model."""
    if not (directory / "best" / "checkpoint.json").is_file():
        return None
    found = read_model_file(directory / "best")
    for file in found.files:
        read_tensors(directory / "best", file)
    return found.meta.epoch, sorted(file.sha256 for file in found.files)


def main() -> None:
    """Kills, looks, resumes, compares."""
    torch.set_num_threads(1)
    finetuning.RUNNING_INTERVAL_S = 0.0
    root, kills, rng = Path(sys.argv[1]), int(sys.argv[2]), random.Random(0)
    write_weights(root / WEIGHTS)
    whole = {head: assignment(root / "images", root / head / "trials/0", head) for head in HEADS}
    ends = {}
    for head, given in whole.items():
        began = time.monotonic()
        forked(given)
        epoch_s = (time.monotonic() - began) / EPOCHS
        ends[head] = end_of(given)
    number = done = 0
    while done < kills:
        head = HEADS[number >= len(POINTS) and number % 2]
        given = assignment(root / "images", root / str(number) / "trials/0", head)
        if number < len(POINTS):
            killed = forked(given, point=POINTS[number])
        else:
            killed = forked(given, epochs=rng.randrange(EPOCHS), delay_s=epoch_s * rng.uniform(0, 0.7))
        sent, found = reported(given), best_on_disk(Path(given.directory))
        kept = sent["best"] is None or (found is not None and found[0] >= sent["best"])
        forked(given)
        outcome = {
            "kill": number,
            "killed": killed,
            "after": sent["epochs"],
            "kept": kept,
            "same": end_of(given) == ends[head],
        }
        print(json.dumps(outcome), flush=True)
        number, done = number + 1, done + killed


def end_of(given: TrialAssignment) -> tuple[object, object]:
    """The curves and the best model of a trial that has ended."""
    directory = Path(given.directory)
    return json.loads((directory.parent / "end.json").read_text()), best_on_disk(directory)


if __name__ == "__main__":
    main()
