"""What a trial's process uses of its machine, by MLflow's names: its UI shows such figures on a tab of their own."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch

from tlsearch.core.types import SYSTEM

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

    def figures(self) -> Mapping[str, float]:
        """``system/cpu_utilization_percentage`` and so on; takes well under a millisecond on a CPU.

        The CPU's percentage is the process's: 100 is one core. Memory is what the process holds; of the GPU, memory
        is all that is in use on the device, and utilization is left out where NVIDIA's library is not installed.
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
        free, total = torch.cuda.mem_get_info(self._device)
        figures = {"gpu_0_memory_usage_megabytes": (total - free) / _MB}  # a trial has one GPU
        try:
            figures["gpu_0_utilization_percentage"] = float(torch.cuda.utilization(self._device))
        except (ImportError, RuntimeError):  # no nvidia-ml-py, or its driver does not answer
            pass
        return figures
