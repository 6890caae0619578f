"""One worker for trial after trial: nothing of a trial is left in it, whether it ended well or raised."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from weakref import WeakSet

import numpy as np
import pytest
import torch
from PIL import Image

from tlsearch.core.types import (
    DataSpec,
    EpochReport,
    RunningTrial,
    TrialAssignment,
    TrialConfig,
    TrialSetup,
    WeightsSource,
    repeatable,
)
from tlsearch.model import StagedModel
from tlsearch.search.ray_tune import trainable
from tlsearch.search.ray_tune.trainable import DrainWatch, TrialWorker, make_worker
from tlsearch.search.worker.messages import Job, Message, pack, unpack_message
from tlsearch.trial import FineTuning, release_held

BACKBONE = "timm/test_efficientnet"
WARM_UP = 20  # allocators, thread pools and imports settle
GROWTH_BYTES = 12e6  # a model left by each of 30 trials would be 45 MB, in float32 with gradients and state more

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")


class Breaking:
    """A trial that trains an epoch and then raises, all that it holds still open."""

    def __init__(self, assignment: TrialAssignment) -> None:
        self._trial = FineTuning(assignment)
        self.epochs_done, self.reports = 0, ()

    def step(self) -> EpochReport:
        self._trial.step()
        raise ValueError("no such thing")

    def close(self) -> None:
        self._trial.close()


def opened(assignment: TrialAssignment) -> RunningTrial:
    """Every fifth trial breaks."""
    return Breaking(assignment) if assignment.number % 5 == 4 else FineTuning(assignment)


@pytest.fixture
def configuration(tmp_path: Path) -> Callable[[int], dict[str, str]]:
    """Gives the job of a trial by its number: depths and batch norm policies in turn, of features and of pixels."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for channel, name in enumerate(("green", "red")):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 200, (32, 32, 3))
                pixels[..., channel] += 40
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    setup = TrialSetup(
        data=DataSpec(source="folder", path=str(tmp_path / "images"), image_size=32),
        weights={BACKBONE: WeightsSource(kind="none")},
        max_epochs=1,
    )

    def build(number: int) -> dict[str, str]:
        depth = number % 3
        config = TrialConfig(
            backbone=BACKBONE,
            unfreeze_depth=depth,
            backbone_lr=1e-3 if depth else None,
            bn_policy=("frozen", "train", "adapt")[number // 3 % 3],
            augmentation=("none", "light")[number % 2],
            batch_size=8,
        )
        directory = str(tmp_path / "trials" / str(number))
        assignment = TrialAssignment(number=number, seed=0, config=config, setup=setup, directory=directory)
        return pack(Job(assignment=assignment, reported=0, max_failures=0))

    return build


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, configuration: Callable[[int], dict[str, str]]) -> TrialWorker:
    """The actor's class with its first trial, without an actor."""
    node = SimpleNamespace(get_node_id=lambda: "node")
    monkeypatch.setattr(trainable.ray, "get_runtime_context", lambda: node)
    monkeypatch.setattr(trainable, "DrainWatch", partial(DrainWatch, ask=lambda: ()))
    made = make_worker(opened, gauge=lambda *_: {})
    worker = made.__new__(made)
    worker.setup(configuration(0))
    return worker


def own_bytes() -> int:
    """This process's own memory: RssAnon, neither files nor shared."""
    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def living(kind: type) -> list[Any]:
    return [each for each in gc.get_objects() if issubclass(type(each), kind)]


def holdings(others: Collection[object]) -> dict[str, object]:
    """What trials could leave behind; ``others`` were there before."""
    return {
        "models": sum(each not in others for each in living(StagedModel)),
        "optimisers": sum(each not in others for each in living(torch.optim.Optimizer)),
        "files": sorted(os.path.realpath(path) for path in Path("/proc/self/fd").iterdir() if path.exists()),
        "threads": threading.active_count(),
    }


def said(worker: TrialWorker) -> Message:
    return unpack_message(worker.step())


@pytest.mark.parametrize("num_resets", [30, pytest.param(200, marks=pytest.mark.slow)])
def test_memory_is_flat_over_many_resets(
    worker: TrialWorker, configuration: Callable[[int], dict[str, str]], num_resets: int
) -> None:
    # other tests' modules may hold some
    others: WeakSet[Any] = WeakSet(living(StagedModel) + living(torch.optim.Optimizer))
    memory, counts = [], []
    for number in range(num_resets):
        assert number == 0 or worker.reset_config(configuration(number))
        message = said(worker)
        assert message.number == number and (message.outcome is not None) == (number % 5 == 4)
        if number >= WARM_UP and number % 5 == 4:  # right after a trial that raised
            memory.append(own_bytes())
            counts.append(holdings(others))
    worker.cleanup()
    release_held()
    assert counts[-1]["models"] == counts[-1]["optimisers"] == 0, "a trial that raised is still held"
    assert counts[-1] == counts[0]
    assert memory[-1] - memory[0] < GROWTH_BYTES, memory


def test_a_trial_after_one_that_raised_is_as_in_a_new_worker(
    worker: TrialWorker, configuration: Callable[[int], dict[str, str]]
) -> None:
    reports = []
    for numbers in ((5,), (4, 5)):
        for number in numbers:
            release_held()
            worker.reset_config(configuration(number))
            message = said(worker)
        assert message.report is not None
        metrics = {name: value for name, value in message.report.metrics.items() if repeatable(name)}
        reports.append(replace(message.report, metrics=metrics, timestamp=0.0))
    worker.cleanup()
    assert reports[0] == reports[1]
