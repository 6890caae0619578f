"""Device, precision and what counts as out of memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tlsearch.core.errors import UserError, is_out_of_memory
from tlsearch.core.types import DataSpec, TrialAssignment, TrialConfig, TrialSetup
from tlsearch.train import open_runtime, trial_runtime
from tlsearch.train.device import derive_seed

T4, H200 = (7, 16_000_000_000), (9, 150_000_000_000)
TRIAL = TrialAssignment(
    number=0,
    seed=0,
    config=TrialConfig(backbone="resnet18"),
    setup=TrialSetup(data=DataSpec(source="digits")),
    directory="",
)


class Device:
    """A CUDA device as far as a runtime asks for one; keeps the cap that it is given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, major: int, total_memory: int) -> None:
        self.major, self.total_memory = major, total_memory
        self.caps: list[tuple[float, int]] = []
        fakes: dict[str, Any] = {
            "is_available": lambda: True,
            "current_device": lambda: 0,
            "get_device_properties": lambda device=None: self,
            "_check_bf16_tensor_supported": lambda device: True,  # emulation makes a tensor anywhere
            "set_per_process_memory_fraction": lambda fraction, device: self.caps.append((fraction, device)),
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)


@pytest.mark.parametrize(("kind", "expected"), [(T4, "fp16"), (H200, "bf16")])
def test_bf16_on_a_gpu_only_where_it_is_native(
    monkeypatch: pytest.MonkeyPatch, kind: tuple[int, int], expected: str
) -> None:
    Device(monkeypatch, *kind)
    runtime = open_runtime()
    assert (runtime.device.type, runtime.precision) == ("cuda", expected)
    if expected == "fp16":
        with pytest.raises(UserError, match=r"compute capability 8\.0"):
            open_runtime("cuda", "bf16")


@pytest.mark.parametrize(("gpus", "device"), [(0.0, "cpu"), (0.25, "cuda"), (1.0, "cuda"), (None, "cuda")])
def test_a_trial_computes_where_it_was_given_a_device(
    monkeypatch: pytest.MonkeyPatch, gpus: float | None, device: str
) -> None:
    fake = Device(monkeypatch, *T4)
    assert trial_runtime(replace(TRIAL, gpus=gpus)).device.type == device
    quarter_without_context = (0.25 - 0.5 / 16, 0)
    caps: dict[float | None, list[tuple[float, int]]] = {0.25: [quarter_without_context], 1.0: [(1.0, 0)]}
    assert fake.caps == caps.get(gpus, [])


def test_deterministic_algorithms_are_a_setting_of_the_search_not_of_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")  # the user's own stays
    try:
        torch.use_deterministic_algorithms(True, warn_only=True)  # as a script that runs a trial may have it
        trial_runtime(replace(TRIAL, setup=replace(TRIAL.setup, deterministic=True)))
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        trial_runtime(TRIAL)
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_cpu_computes_in_fp32_and_takes_the_given_threads() -> None:
    before = torch.get_num_threads()
    try:
        runtime = open_runtime("cpu", "auto", 1)
        assert (runtime.precision, torch.get_num_threads()) == ("fp32", 1)
        with runtime.autocast():
            assert not torch.is_autocast_enabled("cpu")
    finally:
        torch.set_num_threads(before)


def test_bf16_on_a_cpu_only_where_its_hardware_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlsearch.train.device.cpu_has_bf16", lambda: True)
    with open_runtime("cpu", "bf16").autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    monkeypatch.setattr("tlsearch.train.device.cpu_has_bf16", lambda: False)
    with pytest.raises(UserError, match="AVX512-BF16"):
        open_runtime("cpu", "bf16")


@pytest.mark.parametrize("precision", ["fp16", "fp8"])
def test_a_precision_that_cannot_be_is_the_users_fault(precision: str) -> None:
    with pytest.raises(UserError, match=precision):
        open_runtime("cpu", precision)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            True,
        ),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"), False),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_out_of_memory_is_told_from_other_errors(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_seeds_differ_by_seed_epoch_and_purpose() -> None:
    seeds = {derive_seed(s, e, p) for s in (0, 1) for e in (1, 11) for p in ("order", "model")}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(0, 1, "order") == derive_seed(0, 1, "order")
