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

from tlsearch.core.errors import Infeasible, UserError, is_out_of_memory
from tlsearch.core.types import CONTEXT_BYTES, TrialAssignment
from tlsearch.model._private import cpu_computes_bf16
from tlsearch.train.cpu.heap import keep_heap, trim_heap

Precision = Literal["fp32", "bf16", "fp16"]
_STRICT = 2  # what torch.get_deterministic_debug_mode gives where an operation that does not repeat is an error
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
        """Whether batch norm that stands still is folded into convolutions, uncompiled and not in fp16's short range.

        In bf16 a folded weight is rounded once, as the weight itself would be; on a CPU that was not measured.
        """
        folds = self.precision == "fp32" or (self.precision == "bf16" and self.device.type == "cuda")
        return folds and not self.compiled

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
        precision: ``auto`` is fp32 on the CPU and bf16 on CUDA (fp16 where the device has no bf16 of its own).
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
            precision = "bf16" if cuda_has_bf16() else "fp16"
    if precision not in _DTYPES:
        raise UserError(f"resources.precision must be auto, fp32, bf16 or fp16, not {precision!r}")
    if precision == "fp16" and chosen.type != "cuda":
        raise UserError(f"resources.precision fp16 needs a CUDA device; this trial runs on {chosen.type}")
    if precision == "bf16" and chosen.type == "cpu" and not cpu_has_bf16():
        raise UserError(
            "resources.precision bf16 needs a CPU with bf16 instructions (AVX512-BF16 or AMX), and this one has none: "
            "emulated, it is some 25 times slower than fp32; write auto or fp32"
        )
    if precision == "bf16" and chosen.type == "cuda" and not cuda_has_bf16():
        raise UserError(
            "resources.precision bf16 needs a GPU of compute capability 8.0 or higher (Ampere), and this one is older: "
            "write auto, fp16 or fp32"
        )
    return Runtime(device=chosen, precision=precision, compiled=compiled)  # type: ignore[arg-type]


def trial_runtime(assignment: TrialAssignment) -> Runtime:
    """Opens the runtime of a trial: on the device that it was given, within its fraction of that memory.

    Raises:
        UserError: See ``open_runtime``.
    """
    setup, gpus = assignment.setup, assignment.gpus
    if setup.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it once, when CUDA starts
    if torch.get_deterministic_debug_mode() != (_STRICT if setup.deterministic else 0):  # the call imports compilers
        torch.use_deterministic_algorithms(setup.deterministic)
    # Since Ray 2.54 a worker without a GPU still sees every GPU of its node.
    device = "cpu" if gpus == 0 else setup.device
    runtime = open_runtime(device, setup.precision, setup.num_threads, compiled=setup.compiled)
    if runtime.device.type == "cuda" and gpus is not None:
        limit_memory(runtime.device, gpus)
    return runtime


def limit_memory(device: torch.device, fraction: float) -> None:
    """Caps this process's allocations at its fraction of a CUDA device, so that it takes nothing of its neighbours'.

    The CUDA context is outside of what torch can cap and is taken off.
    """
    if fraction < 1:
        total = torch.cuda.get_device_properties(device).total_memory
        fraction = max(fraction / 2, fraction - CONTEXT_BYTES / total)
    index = torch.cuda.current_device() if device.index is None else device.index
    torch.cuda.set_per_process_memory_fraction(float(fraction), index)


def cuda_has_bf16() -> bool:
    """Whether the CUDA device computes in bf16 itself; torch counts emulation, too, which cuDNN does not have."""
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


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
