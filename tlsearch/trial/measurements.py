"""Measurements of a trial: the latency of one image on its device, and what its process uses of the machine.

The metrics of the machine have MLflow's names, so that its UI shows them on a tab of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import torch
from torch import nn

from tlsearch.core.types import CONTEXT_BYTES, SYSTEM, ModelSpec, TrialAssignment
from tlsearch.data import with_image_size
from tlsearch.model import StagedModel, resolve_weights, untrained_model
from tlsearch.train import Runtime, out_of_memory_is_infeasible, trial_runtime
from tlsearch.trial.process_cache import held_index

WARMUPS = 3
REPEATS = 20
_TAKEN = 0.1  # of a device's memory: more is another program's, not a driver's

_measured: dict[tuple[object, ...], float] = {}


def trial_latency(assignment: TrialAssignment) -> float:
    """Milliseconds for one image through the trial's model on this worker's device, in the trial's precision.

    Measured once per process and ``ModelSpec``: it does not depend on weights or depth. Decoding and
    resizing the image are not in it.

    Raises:
        UserError: Data or weights break a rule.
        Infeasible: The model does not fit the device.
    """
    config, setup = assignment.config, assignment.setup
    runtime = trial_runtime(assignment)
    weights = resolve_weights(config.backbone, setup.weights_of(config.backbone))
    size = with_image_size(weights.transform, setup.data.size_of(config)).crop_size
    num_classes = len(held_index(setup.data).classes)
    spec = replace(ModelSpec.of(config, setup.data, num_classes), image_size=size)
    key = (spec, str(runtime.device), runtime.precision, setup.num_threads)
    if key not in _measured:
        with out_of_memory_is_infeasible("the model"):
            _measured[key] = time_one_image(untrained_model(spec), runtime)
    return _measured[key]


def time_one_image(model: StagedModel, runtime: Runtime) -> float:
    """Milliseconds for a batch of one through a model, which is moved to the device: the fastest of 20 passes."""
    model.eval().to(device=runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return time_module(model, [model.blank_images(1, runtime.device)], runtime)


def time_module(module: nn.Module, inputs: Sequence[torch.Tensor], runtime: Runtime) -> float:
    """Milliseconds for a module, in eval mode and on its device: the fastest of 20 passes."""

    def run() -> None:
        module(*inputs)
        if runtime.device.type == "cuda":
            torch.cuda.synchronize(runtime.device)  # the pass is only queued when the call returns

    with torch.inference_mode(), runtime.autocast():
        return time_calls(run)


def time_calls(run: Callable[[], object]) -> float:
    """Milliseconds of a call: the fastest of 20, after 3 that do not count.

    Other trials and programs make a call slower, never faster: beside them the fastest differs least, as timeit's does.
    """
    times = []
    for _ in range(WARMUPS + REPEATS):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return 1000.0 * min(times[WARMUPS:])


_MB = 1e6  # as MLflow counts them


class Usage:
    """Figures of this process, and of the device that it trains on.

    CPU time is that since the last look, so that a look at each epoch's end tells of the epoch.
    """

    def __init__(self, device: torch.device) -> None:
        """Begins to count."""
        import psutil  # a served model loads this room and does without

        self._device = device
        self._process = psutil.Process()
        self._since = time.perf_counter(), time.process_time()
        if device.type == "cuda":
            with suppress(Exception):
                torch.cuda.reset_peak_memory_stats(device)

    def figures(self) -> Mapping[str, float]:
        """``system/cpu_utilization_percentage`` and so on; takes well under a millisecond on a CPU.

        The CPU's percentage is the process's: 100 is one core. Memory is what the process holds; of the GPU, memory
        is all that is in use on the device, the peak is the most that this trial had allocated, and utilization is
        left out where NVIDIA's library is not installed.
        """
        now = time.perf_counter(), time.process_time()  # psutil's CPU time has steps of 10 ms, an epoch may take fewer
        (start, cpu_start), self._since = self._since, now
        cpu = 100 * (now[1] - cpu_start) / max(now[0] - start, 1e-9)
        memory = self._process.memory_info().rss
        figures = {"cpu_utilization_percentage": cpu, "system_memory_usage_megabytes": memory / _MB}
        return {SYSTEM + name: float(value) for name, value in {**figures, **self._of_gpu()}.items()}

    def _of_gpu(self) -> Mapping[str, float]:
        if self._device.type != "cuda":
            return {}
        figures: dict[str, float] = {}
        # Whatever the driver or NVIDIA's library raises: no figure is worth a trial. On a slice of a GPU (MIG), in a
        # container or without nvidia-ml-py each has errors of its own.
        with suppress(Exception):
            free, total = torch.cuda.mem_get_info(self._device)
            figures["gpu_0_memory_usage_megabytes"] = (total - free) / _MB  # a trial has one GPU
            figures["gpu_0_memory_usage_percentage"] = 100 * (total - free) / total
            figures["gpu_0_process_peak_megabytes"] = torch.cuda.max_memory_allocated(self._device) / _MB
            figures["gpu_0_utilization_percentage"] = float(torch.cuda.utilization(self._device))
        return figures


def taken_by_others() -> str:
    """What other processes hold of this process's CUDA device, in words; empty where that is little.

    Empty, too, where this process has a fraction of the device: its neighbours have theirs.
    """
    begun = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    if not begun or torch.cuda.get_per_process_memory_fraction() < 1:
        return ""
    free, total = torch.cuda.mem_get_info()
    others = total - free - torch.cuda.memory_reserved() - CONTEXT_BYTES
    if others < _TAKEN * total:
        return ""
    return f"other processes hold {others / 1e9:.1f} of the {total / 1e9:.1f} GB of this GPU"
