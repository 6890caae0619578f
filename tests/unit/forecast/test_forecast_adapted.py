"""What the forecast measures of stages that are adapted: their own steps, and what their checkpoints write."""

from __future__ import annotations

import pytest
import torch

from tlsearch.core.types import TrialConfig
from tlsearch.forecast import device_times
from tlsearch.forecast.device_times import BackboneTimes, measure_backbone
from tlsearch.train import Runtime

pytest.importorskip("timm")


def _measured(adapt: str, rank: int | None = None) -> BackboneTimes:
    config = TrialConfig(
        backbone="timm/test_vit3", unfreeze_depth=1, backbone_lr=1e-3, adapt=adapt, lora_rank=rank, batch_size=4
    )
    runtime = Runtime(device=torch.device("cpu"))
    return measure_backbone({1: config}, moving=None, image_size=32, num_classes=3, num_train=8, runtime=runtime)


def test_what_a_checkpoint_writes_follows_from_what_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_times, "_ENOUGH_S", 1e-3)
    found = {adapt: _measured(adapt, 4 if adapt == "lora" else None) for adapt in ("none", "lora", "bitfit")}
    assert len({one.state_bytes for one in found.values()}) == 1, "a merged model is as large as any other"
    assert len({one.boundaries[0] for one in found.values()}) == 1, "a prefix has no adapters"
    trained = {adapt: one.trained_bytes[1] for adapt, one in found.items()}
    assert 10 * trained["bitfit"] < trained["lora"] < trained["none"] < found["none"].state_bytes
