"""What a trial's process uses of its machine: in each report, by MLflow's names, and in nothing that is compared."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from tlsearch.core.types import TrialAssignment, repeatable
from tlsearch.search.scheduling import packing
from tlsearch.trial import FineTuning
from tlsearch.trial.measurements import Usage, taken_by_others

CPU, MEMORY = "system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"
GPU, GPU_MEMORY = "system/gpu_0_utilization_percentage", "system/gpu_0_memory_usage_megabytes"


def test_an_epoch_tells_of_its_own_process(assign: Callable[..., TrialAssignment], tmp_path: Path) -> None:
    trial = FineTuning(assign())
    metrics = trial.step().metrics
    trial.close()
    assert {name for name in metrics if name.startswith("system/")} == {CPU, MEMORY}
    resident_mb = psutil.Process(os.getpid()).memory_info().rss / 1e6
    assert 0 < metrics[CPU] and 0.5 * resident_mb < metrics[MEMORY] < 2 * resident_mb
    assert not any(repeatable(name) for name in metrics if name.startswith("system/"))
    kept = json.loads((tmp_path / "trial/best/checkpoint.json").read_text())
    assert "val_loss" in kept["metrics"] and CPU not in kept["metrics"]  # it is no property of the model


class NotSupported(Exception):
    """As NVIDIA's library names what a slice of a GPU (MIG) cannot tell; no RuntimeError."""


@pytest.mark.parametrize("error", [None, ModuleNotFoundError("no nvidia-ml-py"), NotSupported("Not Supported")])
def test_a_gpu_is_told_as_far_as_it_can_be(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> None:
    def utilization(device: torch.device) -> int:
        if error is not None:
            raise error
        return 87

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (6_000_000_000, 16_000_000_000))
    monkeypatch.setattr(torch.cuda, "utilization", utilization)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3_000_000_000)
    figures = Usage(torch.device("cuda", 0)).figures()
    assert figures[GPU_MEMORY] == figures[packing.USED] == 10_000.0
    assert (figures[packing.USED_PERCENT], figures[packing.PEAK]) == (62.5, 3_000.0)
    assert packing.BUSY == GPU
    assert figures.get(GPU) == (None if error else 87.0)
    assert {CPU, MEMORY} <= figures.keys()


@pytest.mark.parametrize(
    ("free_gb", "fraction", "expected"),
    [(6.0, 1.0, "other processes hold 6.5 of the 16.0 GB of this GPU"), (12.0, 1.0, ""), (6.0, 0.5, "")],
)
def test_what_others_hold_of_a_whole_device(
    monkeypatch: pytest.MonkeyPatch, free_gb: float, fraction: float, expected: str
) -> None:
    assert not taken_by_others()  # no device was ever used
    fakes: dict[str, Callable[[], object]] = {
        "is_initialized": lambda: True,
        "get_per_process_memory_fraction": lambda: fraction,
        "mem_get_info": lambda: (int(free_gb * 1e9), 16_000_000_000),
        "memory_reserved": lambda: 3_000_000_000,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    assert taken_by_others() == expected
