"""A small trial, really trained, whose checkpoint all tests of the room share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlsearch.core.types import (
    CacheSpec,
    DataSpec,
    Decision,
    EpochReport,
    TrialAssignment,
    TrialConfig,
    TrialOutcome,
    TrialSetup,
    WeightsSource,
)
from tlsearch.data import ImageIndex, load_index
from tlsearch.trial import run_trial

CLASSES = ("circle", "square", "stripe")


@dataclass(frozen=True)
class Trained:
    """A trial that has ended: its folder, what it reported, and the data it was trained on."""

    folder: Path
    index: ImageIndex
    reports: Mapping[int, EpochReport]
    outcome: TrialOutcome

    @property
    def val_files(self) -> list[Path]:
        return [Path(self.index.root, key) for key in self.index.splits["val"].keys]


class _Listener:
    def __init__(self) -> None:
        self.reports: dict[int, EpochReport] = {}

    def report(self, report: EpochReport) -> Decision:
        self.reports[report.epoch] = report
        return Decision.CONTINUE


def _picture(label: str, rng: np.random.Generator) -> Image.Image:
    height, width = (int(side) for side in rng.integers(30, 60, 2))
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if label == "square":
        pixels[5:20, 5:20] = 255
    elif label == "stripe":
        pixels[:, ::4] = 0
    image = Image.fromarray(pixels)
    return image.convert("P") if rng.random() < 0.3 else image


def _write_images(root: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 25)):  # 75 to evaluate: more than one batch of evaluation
        for label in CLASSES:
            folder = root / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                _picture(label, rng).save(folder / f"{number:02d}.png")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp("trial")
    _write_images(root / "images")
    data = DataSpec(source="folder", path=str(root / "images"), image_size=32)
    setup = TrialSetup(
        data=data,
        weights={"mobilenet_v3_small": WeightsSource(kind="none")},
        max_epochs=2,
        cache=CacheSpec(directory=str(root / "cache")),
    )
    config = TrialConfig(
        backbone="mobilenet_v3_small", unfreeze_depth=1, head_lr=1e-2, backbone_lr=1e-3, bn_policy="train"
    )
    assignment = TrialAssignment(number=3, seed=1, config=config, setup=setup, directory=str(root / "trials" / "3"))
    listener = _Listener()
    outcome = run_trial(assignment, listener)
    assert outcome.best_value is not None, outcome.error
    return Trained(root / "trials" / "3", load_index(data), listener.reports, outcome)
