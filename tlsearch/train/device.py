"""Where and in which precision a trial computes: one code path for every device."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch

from tlsearch.core.errors import Infeasible, UserError
from tlsearch.model._private import cpu_computes_bf16
from tlsearch.train.cpu.heap import keep_heap, trim_heap

Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A device with the precision of its forward passes; weights and features are always float32.

    Attributes:
        compiled: Whether training's forward and backward go through ``torch.compile``.
    """

    device: torch.device
    precision: Precision = "fp32"
    compiled: bool = False

    @property
    def folds_batchnorm(self) -> bool:
        """Whether batch norm that stands still is folded into convolutions: where fp32 has the digits, uncompiled."""
        return self.precision == "fp32" and not self.compiled

    def autocast(self) -> AbstractContextManager[object]:
        """The context of a forward pass: autocast, or nothing in fp32."""
        dtype = _DTYPES[self.precision]
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype=dtype)


def open_runtime(
    device: str = "auto", precision: str = "auto", num_threads: int | None = None, *, compiled: bool = False
) -> Runtime:
    """Chooses device and precision, and sets up the process of a trial.

    Args:
        device: ``auto`` is CUDA where this process sees one, else the CPU; or a torch device.
        precision: ``auto`` is fp32 on the CPU and bf16 on CUDA (fp16 where CUDA has no bf16).
        num_threads: CPU threads of this trial, but never more than the machine has; on a CPU its heap is kept, too.
            None is for a process that is not a trial's: threads and heap stay as they are.
        compiled: See ``Runtime``.

    Raises:
        UserError: The precision does not exist, or the device cannot compute in it.
    """
    if num_threads is not None:
        num_threads = min(num_threads, os.cpu_count() or 1)
        if num_threads != torch.get_num_threads():
            torch.set_num_threads(num_threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = torch.device(device)
    if chosen.type == "cpu" and num_threads is not None:
        keep_heap()
    if precision == "auto":
        if chosen.type != "cuda":
            precision = "fp32"
        else:
            precision = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    if precision not in _DTYPES:
        raise UserError(f"resources.precision must be auto, fp32, bf16 or fp16, not {precision!r}")
    if precision == "fp16" and chosen.type != "cuda":
        raise UserError(f"resources.precision fp16 needs a CUDA device; this trial runs on {chosen.type}")
    if precision == "bf16" and chosen.type == "cpu" and not cpu_has_bf16():
        raise UserError(
            "resources.precision bf16 needs a CPU with bf16 instructions (AVX512-BF16 or AMX), and this one has none: "
            "emulated, it is some 25 times slower than fp32; write auto or fp32"
        )
    return Runtime(device=chosen, precision=precision, compiled=compiled)  # type: ignore[arg-type]


def cpu_has_bf16() -> bool:
    """Whether this CPU computes in bf16 itself; torch emulates it elsewhere."""
    return cpu_computes_bf16(x86=platform.machine().lower() in ("x86_64", "amd64"))


def derive_seed(seed: int, epoch: int, purpose: str) -> int:
    """A seed in [0, 2**63) for one purpose in one epoch of one trial.

    Everything random in an epoch comes from such seeds, so no generator's state has to be stored:
    an epoch that runs again, after a resume, repeats its numbers.
    """
    digest = hashlib.sha256(f"{seed}/{epoch}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device's (or the host's) memory is used up."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "CUDA error: out of memory" in text or "CUBLAS_STATUS_ALLOC_FAILED" in text or "can't allocate memory" in text
    )


@contextmanager
def out_of_memory_is_infeasible(what: str) -> Iterator[None]:
    """Turns running out of memory in a block into the trial's error.

    Raises:
        Infeasible: Memory ran out; says ``what`` for.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise Infeasible(f"out of memory for {what}: {error}") from error


def release_memory(runtime: Runtime) -> None:
    """Gives the device's cached memory back; of the CPU what the heap has kept."""
    if runtime.device.type == "cuda":
        import gc

        gc.collect()
        torch.cuda.empty_cache()
    else:
        trim_heap()
