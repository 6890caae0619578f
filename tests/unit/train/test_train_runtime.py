"""Device, precision and what counts as out of memory."""

from __future__ import annotations

import pytest
import torch

from tlsearch.core.errors import UserError
from tlsearch.train import derive_seed, is_out_of_memory, open_runtime


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
