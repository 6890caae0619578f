"""What results need beside a search's study: sizes of data and backbones, CPU latencies, what cannot be compared."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tlsearch.core.codec import from_plain
from tlsearch.core.text import command, plural
from tlsearch.core.types import (
    ModelSpec,
    Plateau,
    Screen,
    SearchRecord,
    TrialConfig,
)

if TYPE_CHECKING:
    from torch import Tensor, nn


FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class SearchFacts:
    """Facts of one search; what is not known is None or empty.

    Attributes:
        classes: Class names in the order of the labels.
        images: Number of images by split.
        digest: The data set's.
        parameters: Of each backbone with the new head, by ``TrialConfig.model``, as the next two.
        trainable: The same that train at each unfreeze depth, by ``trained_model``, then depth.
        latency_ms: Of one image on a CPU; measured on request.
        latency_on: The machine and settings that ``latency_ms`` holds for.
        max_epochs: Epochs of a trial that is not cut.
        folds: Of each trial; 0 where there are none.
        rungs: Epochs at which ASHA cuts, rising.
        backbones: Of the search's space, as its file has it.
        screen: Of these backbones, once it is decided; kept in a file of its own.
    """

    classes: tuple[str, ...] = ()
    images: Mapping[str, int] = field(default_factory=dict)
    digest: str = ""
    parameters: Mapping[str, int] = field(default_factory=dict)
    trainable: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    latency_on: str = ""
    max_epochs: int | None = None
    folds: int = 0
    rungs: tuple[int, ...] = ()
    backbones: tuple[str, ...] = ()
    screen: Screen | None = None

    @property
    def num_validation(self) -> int | None:
        """Validation images, the N of every standard error; with folds each image of train and val is one once."""
        val = self.images.get("val")
        return val + self.images.get("train", 0) if self.folds and val is not None else val

    def parameters_of(self, config: TrialConfig) -> int | None:
        """Parameters of a trial's model."""
        return self.parameters.get(config.model)

    def trainable_of(self, config: TrialConfig) -> int | None:
        """Parameters that the trial may train, batch norm's included; of adapted stages those beside their weights."""
        return self.trainable.get(trained_model(config), {}).get(config.unfreeze_depth)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        plain = asdict(replace(self, screen=None))
        del plain["screen"]
        return {"format": FORMAT, **plain}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> SearchFacts:
        """What ``to_json`` gave, out of a file.

        Raises:
            ValueError: Another format, or a value of another type.
        """
        if plain.get("format") != FORMAT:
            raise ValueError(f"facts of a search have the format {FORMAT}, not {plain.get('format')!r}")
        return from_plain(cls, plain)


def trained_model(config: TrialConfig) -> str:
    """What decides, with the depth, which parameters train: the model, and how its stages are adapted."""
    return f"{config.model} {config.adapted}".strip()


def measure_latency(spec: ModelSpec, *, num_threads: int = 1) -> float:
    """Milliseconds for one image through an untrained model: the fastest of 20 passes.

    The time does not depend on the weights. Decoding and resizing the image are not in it.

    Args:
        num_threads: CPU threads of one pass.

    Raises:
        UserError: The backbone does not exist, or cannot take this size.
    """
    import torch

    from tlsearch.model import untrained_model
    from tlsearch.train import Runtime
    from tlsearch.trial import time_one_image

    model = untrained_model(spec)
    with _threads(num_threads):
        return time_one_image(model, Runtime(device=torch.device("cpu")))


def measure_part_latencies(spec: ModelSpec, *, num_threads: int = 1) -> tuple[float, ...]:
    """As ``measure_latency``, of each of the six parts of the model: stem, four stages, head.

    Raises:
        UserError: The backbone does not exist, or cannot take this size.
    """
    import torch

    from tlsearch.model import untrained_model

    model = untrained_model(spec)
    features, found = model.blank_images(1), []
    for part in model.eval().parts:
        found.append(measure_module(part, [features], num_threads=num_threads))
        with torch.inference_mode():
            features = part(features)
    return tuple(found)


def measure_module(module: nn.Module, inputs: Sequence[Tensor], *, num_threads: int = 1) -> float:
    """Milliseconds for a module in eval mode on the CPU: the fastest of 20 passes."""
    import torch

    from tlsearch.train import Runtime
    from tlsearch.trial import time_module

    layout = torch.channels_last
    module.to(memory_format=layout)
    rows = [one.contiguous(memory_format=layout) if one.ndim == 4 else one for one in inputs]
    with _threads(num_threads):
        return time_module(module, rows, Runtime(device=torch.device("cpu")))


@contextmanager
def _threads(number: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def this_cpu(num_threads: int = 1) -> str:
    """What a latency holds for, in a few words."""
    name = platform.processor() or platform.machine()
    return f"{name} CPU, {num_threads} thread{'s' if num_threads > 1 else ''}, fp32"


def plateau_text(record: SearchRecord, found: Plateau) -> str:
    """What a search that plateaued saw, and how it goes on."""
    return (
        f"plateaued after {found.trials} of {plural(found.limit, 'trial')}: the chance that one of the other "
        f"{found.saved} gains {found.margin:g} or more of {record.metric} was {found.chance:.0%} (its best values lie "
        f"{found.excess:.2g} above the next one on average); {command('resume', record.search_id, '--trials', '+12')} "
        "searches on"
    )


def plateau_json(record: SearchRecord) -> dict[str, float | int] | None:
    """The published shape: {chance, margin, trials, limit, excess, saved}; None where the search has not plateaued."""
    return None if record.plateau is None else {**asdict(record.plateau), "saved": record.plateau.saved}
