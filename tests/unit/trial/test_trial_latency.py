"""The latency of a trial's model, and the sizes that constraints look at."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from tlsearch.core.types import ModelSpec, TrialAssignment
from tlsearch.model import build_model, describe_model
from tlsearch.train import Runtime
from tlsearch.trial import measurements, time_one_image, trial_latency


class Counting(nn.Module):
    """Remembers what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def blank_images(self, num: int, device: torch.device) -> torch.Tensor:
        return torch.zeros(num, 3, 24, 24, device=device)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert not torch.is_grad_enabled() and not self.training
        self.seen.append(tuple(images.shape))
        return images.mean()


def test_one_image_at_a_time_is_measured() -> None:
    model = Counting()
    assert 0 < time_one_image(model, Runtime(device=torch.device("cpu"))) < 1000
    assert model.seen == [(1, 3, 24, 24)] * (measurements.WARMUPS + measurements.REPEATS)


def test_passes_that_others_have_slowed_down_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = measurements.WARMUPS + measurements.REPEATS
    seconds = [0.004 if n == passes - 2 else 0.02 + n for n in range(passes)]  # the device was free in one pass alone
    clock = iter([moment for took in seconds for moment in (0.0, took)])
    monkeypatch.setattr(measurements.time, "perf_counter", lambda: next(clock))
    assert time_one_image(Counting(), Runtime(device=torch.device("cpu"))) == pytest.approx(4.0)


def test_a_trial_is_measured_once_a_process(
    assign: Callable[..., TrialAssignment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurements, "_measured", {})
    first = trial_latency(assign())
    assert first > 0
    monkeypatch.setattr(measurements, "time_one_image", lambda *arguments: -1.0)
    assert trial_latency(assign("other", depth=2, seed=5)) == first  # neither depth nor weights matter
    assert trial_latency(assign(backbone="squeezenet1_1")) == -1.0


def test_the_state_is_as_large_as_a_checkpoint() -> None:
    described = describe_model(ModelSpec(backbone="mobilenet_v3_small", num_classes=3, image_size=64))
    model = build_model("mobilenet_v3_small", num_classes=3, weights=None, image_size=64, seed=0)
    assert described.state_bytes == sum(t.numel() * t.element_size() for t in model.state_dict().values())
    parameters = sum(stage.parameters for stage in described.stages)
    assert described.state_bytes > 4 * parameters  # batch norm's statistics are in it
