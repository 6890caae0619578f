"""How long a backbone takes for one image on this machine's CPU."""

from __future__ import annotations

import platform


def measure_latency(backbone: str, *, num_classes: int, image_size: int | None = None, num_threads: int = 1) -> float:
    """Milliseconds for one image through an untrained model of this backbone: the median of 20 passes.

    The time does not depend on the weights. Decoding and resizing the image are not in it.

    Args:
        backbone: A name, with an optional ``@VERSION``.
        num_classes: Outputs of the head.
        image_size: Side of the image in pixels; None is the default weights' own.
        num_threads: CPU threads of one pass.

    Raises:
        UserError: There is no such backbone, or it cannot take this size.
    """
    import torch

    from tlsearch.model import build_model
    from tlsearch.model.libraries.libraries import native_size
    from tlsearch.train import Runtime
    from tlsearch.trial import time_one_image

    size = native_size(backbone) if image_size is None else image_size
    model = build_model(backbone, num_classes=num_classes, weights=None, image_size=size, seed=0)
    threads = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        return time_one_image(model, size, Runtime(device=torch.device("cpu")))
    finally:
        torch.set_num_threads(threads)


def this_cpu(num_threads: int = 1) -> str:
    """What a latency holds for, in a few words."""
    name = platform.processor() or platform.machine()
    return f"{name} CPU, {num_threads} thread{'s' if num_threads > 1 else ''}, fp32"
