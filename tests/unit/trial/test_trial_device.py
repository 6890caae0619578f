"""What a trial is given of a device, on a real one; fakes are in test_train_runtime and test_trial_usage."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch

from tlsearch.core.types import TrialAssignment, repeatable
from tlsearch.search.scheduling import packing
from tlsearch.train import trial_runtime
from tlsearch.trial import FineTuning
from tlsearch.trial.measurements import Usage, taken_by_others

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

Assign = Callable[..., TrialAssignment]


@pytest.fixture(autouse=True)
def _whole_device() -> Iterator[None]:
    yield
    torch.cuda.set_per_process_memory_fraction(1.0, torch.cuda.current_device())
    torch.use_deterministic_algorithms(False)
    torch.cuda.empty_cache()


def test_a_process_takes_no_more_than_its_fraction(assign: Assign) -> None:
    runtime = trial_runtime(replace(assign(), gpus=0.25))
    total = torch.cuda.get_device_properties(runtime.device).total_memory
    usage = Usage(runtime.device)
    held = torch.empty(int(0.1 * total), dtype=torch.uint8, device=runtime.device)
    figures = usage.figures()
    assert figures[packing.PEAK] >= held.numel() / 1e6
    assert 10 < figures[packing.USED_PERCENT] <= 100
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(int(0.2 * total), dtype=torch.uint8, device=runtime.device)
    assert not taken_by_others()  # its neighbours have their own


def test_a_trial_without_a_share_computes_on_the_cpu(assign: Assign) -> None:
    assert trial_runtime(replace(assign(), gpus=0.0)).device.type == "cpu"


def test_a_deterministic_trial_repeats_to_the_bit(assign: Assign) -> None:
    if "CUBLAS_WORKSPACE_CONFIG" not in os.environ and torch.cuda.is_initialized():
        pytest.skip("CUDA has begun without cuBLAS's fixed workspace: set CUBLAS_WORKSPACE_CONFIG=:4096:8")
    one = assign(depth=5, policy="train")
    one = replace(one, setup=replace(one.setup, deterministic=True), gpus=1.0)
    curves = []
    for number in range(2):
        trial = FineTuning(replace(one, directory=f"{one.directory}-{number}"))
        curves.append({name: value for name, value in trial.step().metrics.items() if repeatable(name)})
        trial.close()
    assert curves[0] == curves[1]
