"""What results need to know of a search beside its study: sizes of the data and of the backbones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tlsearch.core.codec import from_plain
from tlsearch.core.types import TrialConfig

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class SearchFacts:
    """Facts of one search; what is not known is None or empty.

    Attributes:
        classes: Class names in the order of the labels.
        images: Number of images by split.
        digest: The data set's.
        parameters: Of each backbone with the new head, by its name in the space.
        trainable: The same that train at each unfreeze depth, by backbone, then depth.
        latency_ms: Of one image on a CPU, by backbone; measured on request.
        latency_on: The machine and settings that ``latency_ms`` holds for.
        max_epochs: Epochs of a trial that is not cut.
        rungs: Epochs at which ASHA cuts, rising.
        backbones: Of the search's space.
    """

    classes: tuple[str, ...] = ()
    images: Mapping[str, int] = field(default_factory=dict)
    digest: str = ""
    parameters: Mapping[str, int] = field(default_factory=dict)
    trainable: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    latency_on: str = ""
    max_epochs: int | None = None
    rungs: tuple[int, ...] = ()
    backbones: tuple[str, ...] = ()

    @property
    def num_validation(self) -> int | None:
        """Validation images, the N of every standard error."""
        return self.images.get("val")

    def parameters_of(self, config: TrialConfig) -> int | None:
        """Parameters of a trial's model."""
        return self.parameters.get(config.backbone)

    def trainable_of(self, config: TrialConfig) -> int | None:
        """Parameters that the trial may train, batch norm's included."""
        return self.trainable.get(config.backbone, {}).get(config.unfreeze_depth)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> SearchFacts:
        """What ``to_json`` gave, out of a file.

        Raises:
            ValueError: Another format, or a value of another type.
        """
        if plain.get("format") != FORMAT:
            raise ValueError(f"facts of a search have the format {FORMAT}, not {plain.get('format')!r}")
        return from_plain(cls, plain)
