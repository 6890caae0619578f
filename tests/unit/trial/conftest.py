"""Trials small enough for unit tests: three classes of noisy colours, a small backbone with random weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from tlsearch.core.types import CacheSpec, DataSpec, TrialAssignment, TrialConfig, TrialSetup, WeightsSource
from tlsearch.features import validity
from tlsearch.trial import release_held

Assign = Callable[..., TrialAssignment]
BACKBONE = "mobilenet_v3_small"


@pytest.fixture(autouse=True)
def _nothing_held() -> Iterator[None]:
    release_held()
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    release_held()


@pytest.fixture(autouse=True)
def _cheap_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the earliest map of the small model is cheaper to compute than to read."""
    monkeypatch.setitem(validity._MACS_PER_BYTE, "cpu", 16)


@pytest.fixture(scope="session")
def _colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images") / "colours"
    rng = np.random.default_rng(0)
    for split, count in (("train", 10), ("val", 7)):
        for channel, name in enumerate(("blue", "green", "red")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 200, (40, 40, 3))
                pixels[..., 2 - channel] += 30
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return root


@pytest.fixture
def colours_path(_colours: Path, tmp_path: Path) -> Path:
    """Folders train/ (10 per class) and val/ (7 per class) of 40 px PNGs."""
    return shutil.copytree(_colours, tmp_path / "colours")


@pytest.fixture
def assign(colours_path: Path, tmp_path: Path) -> Assign:
    """Builds assignments; keywords go to where they belong."""

    def build(
        directory: str = "trial",
        *,
        depth: int = 0,
        policy: str | None = "frozen",
        stored: bool = True,
        seed: int = 1,
        setup: dict[str, Any] | None = None,
        **config: Any,
    ) -> TrialAssignment:
        values: dict[str, Any] = {
            "backbone": "mobilenet_v3_small",
            "unfreeze_depth": depth,
            "head_lr": 1e-2,
            "backbone_lr": 1e-3 if depth else None,
            "bn_policy": policy,
            "batch_size": 8,
        }
        values |= config
        shared: dict[str, Any] = {
            "data": DataSpec(source="folder", path=str(colours_path), image_size=32),
            "weights": {values["backbone"]: WeightsSource(kind="none")},
            "max_epochs": 3,
            "cache": CacheSpec(features_gb=None if stored else 0),
        }
        return TrialAssignment(
            number=0,
            seed=seed,
            config=TrialConfig(**values),
            setup=TrialSetup(**(shared | (setup or {}))),
            directory=str(tmp_path / directory),
        )

    return build


@pytest.fixture(scope="session")
def _weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    with torch.random.fork_rng():
        torch.manual_seed(3)
        state = torchvision.models.get_model(BACKBONE, num_classes=3).state_dict()
    torch.save(state, path)
    return path


@pytest.fixture
def weights_file(_weights: Path, tmp_path: Path) -> Path:
    """A state dict as torchvision's with a head of three classes: as many as the data have."""
    return Path(shutil.copy(_weights, tmp_path))


@pytest.fixture
def pretrained(assign: Assign, weights_file: Path) -> Assign:
    """Assignments whose weights come from a file, evaluated as another backbone's: mean and deviation 0.5."""

    def build(directory: str = "trial", **more: Any) -> TrialAssignment:
        source = WeightsSource(kind="file", path=str(weights_file), transform="timm/tf_efficientnet_lite0")
        assignment = assign(directory, **more)
        return replace(assignment, setup=replace(assignment.setup, weights={BACKBONE: source}))

    return build
