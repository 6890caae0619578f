"""Forward and backward of a small model's step, captured in a CUDA graph and replayed.

An eager step of a small model takes as long as the host needs to launch its several hundred kernels. A graph launches
them at once. It works on fixed memory: each batch is copied to where the captured one was, and the gradients are always
the same tensors. B rows of a batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from tlsearch.core.errors import is_out_of_memory
from tlsearch.train.device import Runtime

_log = logging.getLogger(__name__)
_MAX_PARAMETERS = 50_000_000  # kernels of larger models take longer than their launches

Figures = tuple[Tensor, Tensor]  # the sums of loss and of hits
Compute = Callable[[Tensor, Tensor], Figures]  # of rows (B, ...) and targets (B,) or (B, C); leaves gradients
# Runs a function, and gives what it returned with a call that repeats it into the same tensors.
Record = Callable[[Callable[[], Figures]], tuple[Figures, Callable[[], None]]]


def record_graph(function: Callable[[], Figures]) -> tuple[Figures, Callable[[], None]]:
    """Captures a function, which does not run by that: see tests/unit/train/test_train_graphs.py, marked ``gpu``.

    Threads that send batches and write checkpoints allocate pinned memory and ask for events meanwhile. In the default
    mode CUDA would refuse that: the capture would fail, and so would their call.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        figures = function()
    return figures, graph.replay


@dataclass(frozen=True, kw_only=True)
class _Captured:
    rows: Tensor
    targets: Tensor
    figures: Figures
    gradients: Sequence[tuple[nn.Parameter, Tensor | None]]
    replay: Callable[[], None]


class StepGraphs:
    """The graphs of one phase of a trial, by the shape of the batch.

    The first batch of a shape runs eagerly, which sets up what the libraries need; the second is captured. Where a
    capture fails, for instance for a model that reads a tensor, all further batches run eagerly.

    Args:
        compute: Forward and backward of a batch. What it depends on must not change, but for tensors in place.
        parameters: Those that get gradients.
        record: Captures.
    """

    def __init__(self, compute: Compute, parameters: Sequence[nn.Parameter], *, record: Record = record_graph) -> None:
        self._compute, self._parameters, self._record = compute, parameters, record
        self._captured: dict[tuple[object, ...], _Captured | None] = {}
        self._fails = False

    def __call__(self, rows: Tensor, targets: Tensor) -> Figures:
        """The sums of loss and of hits, on the device; the gradients are beside the parameters."""
        key = (rows.shape, rows.stride(), rows.dtype, targets.shape, targets.dtype)
        if self._fails:
            return self._compute(rows, targets)
        if key not in self._captured:
            self._captured[key] = None
            return self._compute(rows, targets)
        captured = self._captured[key] or self._capture(rows, targets)
        if captured is None:
            return self._compute(rows, targets)
        self._captured[key] = captured
        captured.rows.copy_(rows)
        captured.targets.copy_(targets)
        captured.replay()
        for parameter, gradient in captured.gradients:
            parameter.grad = gradient
        loss, hits = captured.figures
        return loss.clone(), hits.clone()

    def stop(self) -> None:
        """From now on all batches run eagerly; the memory of the graphs is given back."""
        self._fails = True
        self._captured.clear()

    def _capture(self, rows: Tensor, targets: Tensor) -> _Captured | None:
        held = torch.empty_like(rows).copy_(rows), targets.clone()
        try:
            figures, replay = self._record(partial(self._compute, *held))
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            _log.warning("steps are not captured in a CUDA graph: %s", error)
            self.stop()
            return None
        gradients = [(parameter, parameter.grad) for parameter in self._parameters]
        return _Captured(rows=held[0], targets=held[1], figures=figures, gradients=gradients, replay=replay)


def captures_steps(model: nn.Module, runtime: Runtime) -> bool:
    """Whether the steps of a model are worth a graph."""
    if runtime.device.type != "cuda" or runtime.compiled:
        return False
    return sum(parameter.numel() for parameter in model.parameters()) <= _MAX_PARAMETERS
