"""How long one image takes through a model, on the device where it is trained."""

from __future__ import annotations

import statistics
import time

import torch
from torch import nn

from tlsearch.core.types import TrialAssignment, WeightsSource
from tlsearch.data import with_image_size
from tlsearch.model import build_model, resolve_weights
from tlsearch.train import Runtime, open_runtime, out_of_memory_is_infeasible
from tlsearch.trial.process_cache import held_index

WARMUPS = 3
REPEATS = 20

_measured: dict[tuple[object, ...], float] = {}


def trial_latency(assignment: TrialAssignment) -> float:
    """Milliseconds for one image through the trial's model on this worker's device, in the trial's precision.

    Measured once per process, backbone and size: it does not depend on weights or depth. Decoding and
    resizing the image are not in it.

    Raises:
        UserError: Data or weights break a rule.
        Infeasible: The model does not fit the device.
    """
    config, setup = assignment.config, assignment.setup
    runtime = open_runtime(setup.device, setup.precision, setup.num_threads)
    weights = resolve_weights(config.backbone, setup.weights.get(config.backbone, WeightsSource()))
    size = with_image_size(weights.transform, setup.data.image_size).crop_size
    num_classes = len(held_index(setup.data).classes)
    key = (config.backbone, size, num_classes, str(runtime.device), runtime.precision, setup.num_threads)
    if key not in _measured:
        with out_of_memory_is_infeasible("the model"):
            model = build_model(config.backbone, num_classes=num_classes, weights=None, image_size=size, seed=0)
            _measured[key] = time_one_image(model, size, runtime)
    return _measured[key]


def time_one_image(model: nn.Module, image_size: int, runtime: Runtime) -> float:
    """Milliseconds for a batch of one through a model, which is moved to the device: the median of 20 passes."""
    model = model.eval().to(device=runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = torch.zeros(1, 3, image_size, image_size, device=runtime.device)
    image = image.to(memory_format=torch.channels_last)
    times = []
    with torch.inference_mode(), runtime.autocast():
        for _ in range(WARMUPS + REPEATS):
            started = time.perf_counter()
            model(image)
            if runtime.device.type == "cuda":
                torch.cuda.synchronize(runtime.device)  # the pass is only queued when the call returns
            times.append(time.perf_counter() - started)
    return 1000.0 * statistics.median(times[WARMUPS:])
