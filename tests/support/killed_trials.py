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

import torch

from tlsearch.config.checkpoint_meta import read_model_file
from tlsearch.core.types import CacheSpec, DataSpec, TrialAssignment, TrialConfig, TrialSetup, WeightsSource, repeatable
from tlsearch.train import read_tensors
from tlsearch.trial import FineTuning, finetuning

EPOCHS = 4
POINTS = ["model_tensors:1", "model_tensors:2", *(f"after_checkpoint:{count}" for count in (1, 2, 3, 4))]
SENT = "sent.json"  # what the trial has reported: kept outside of its own folders


def assignment(images: Path, directory: Path) -> TrialAssignment:
    """A trial that trains everything from the solved head on."""
    backbone = "mobilenet_v3_small"
    setup = TrialSetup(
        data=DataSpec(source="folder", path=str(images), image_size=32),
        weights={backbone: WeightsSource(kind="none")},
        max_epochs=EPOCHS,
        cache=CacheSpec(directory=str(images.parent / "cache")),
    )
    config = TrialConfig(
        backbone=backbone,
        unfreeze_depth=2,
        head_lr=1e-3,
        backbone_lr=1e-4,
        bn_policy="train",
        batch_size=8,
        head_init="probe",
    )
    return TrialAssignment(number=0, seed=1, config=config, setup=setup, directory=str(directory))


def train(given: TrialAssignment) -> None:
    """Goes on to the end; after each report notes what a search would know by it."""
    trial = FineTuning(given)
    sent = Path(given.directory).parent / SENT
    while trial.epochs_done < EPOCHS:
        trial.step()
        noted = sent.with_suffix(".tmp")
        noted.write_text(json.dumps({"epochs": trial.epochs_done, "best": trial.best_epoch}))
        os.replace(noted, sent)
    curves = [{k: v for k, v in report.metrics.items() if repeatable(k)} for report in trial.reports]
    trial.close()
    (sent.parent / "end.json").write_text(json.dumps({"curves": curves, "best": trial.best_epoch}))


def forked(given: TrialAssignment, *, point: str = "", kill_after_s: float | None = None) -> bool:
    """Trains in a process of its own; returns whether it was killed."""
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
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the trial failed"
    return os.WIFSIGNALED(status)


def best_on_disk(directory: Path) -> tuple[int, list[str]] | None:
    """Epoch of the best model and the hashes of its files, all of which are read; None where there is no model."""
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
    whole = root / "whole" / "trial"
    began = time.monotonic()
    forked(assignment(root / "images", whole))
    took = time.monotonic() - began
    end, best = json.loads((whole.parent / "end.json").read_text()), best_on_disk(whole)
    for number in range(kills):
        directory = root / str(number) / "trial"
        given = assignment(root / "images", directory)
        directory.parent.mkdir()
        if number < len(POINTS):
            killed = forked(given, point=POINTS[number])
        else:
            killed = forked(given, kill_after_s=took * rng.uniform(0.1, 1.0))
        sent_path = directory.parent / SENT
        sent = json.loads(sent_path.read_text()) if sent_path.is_file() else {"epochs": 0, "best": None}
        found = best_on_disk(directory)
        kept = sent["best"] is None or (found is not None and found[0] >= sent["best"])
        forked(given)
        ended = json.loads((directory.parent / "end.json").read_text())
        same = ended == end and best_on_disk(directory) == best
        print(
            json.dumps({"kill": number, "killed": killed, "after": sent["epochs"], "kept": kept, "same": same}),
            flush=True,
        )


if __name__ == "__main__":
    main()
