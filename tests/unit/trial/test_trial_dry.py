"""One batch of a trial, without a trial."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tlsearch.core.types import DataSpec, TrialAssignment, TrialConfig, TrialSetup, WeightsSource
from tlsearch.trial import context, first_batch


@pytest.mark.parametrize("depth", [0, 3])
def test_first_batch_takes_one_batch_and_leaves_no_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: int
) -> None:
    monkeypatch.setattr(context, "_INTERVAL_S", 0.0)  # as on a machine where all work takes long
    for split, count in (("train", 9), ("val", 3)):
        for shade, label in enumerate(("a", "b")):
            folder = tmp_path / "images" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (40, 40), (100 * shade, number, 0)).save(folder / f"{number}.png")
    config = TrialConfig(
        backbone="resnet18", unfreeze_depth=depth, backbone_lr=1e-4 if depth else None, bn_policy="frozen", batch_size=4
    )
    setup = TrialSetup(
        data=DataSpec(source="folder", path=str(tmp_path / "images"), image_size=32),
        weights={"resnet18": WeightsSource(kind="none")},
    )
    trial = tmp_path / "trial"
    batch = first_batch(TrialAssignment(number=0, seed=1, config=config, setup=setup, directory=str(trial)))
    assert batch.num_images == 4
    assert 0 < batch.train_loss < 10 and 0 < batch.val_loss < 20
    assert not trial.exists()
