"""What an epoch reads: rows in memory (pixels or stored features) with their labels.

Shapes: N images of the split, B rows of a batch, S side of the crop; C, H, W of a feature map.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from tlsearch.core.types import TransformSpec
from tlsearch.data import Drawn, StreamedImages, apply_drawn, augment, normalise, to_device
from tlsearch.train.device import Runtime, derive_seed
from tlsearch.train.loop.device_rows import Ahead, rows_on_device


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """The rows of one split: pixels, fixed views of them, or cached features.

    Attributes:
        kind: ``pixels``: rows are images that enter the model whole; ``features``: rows are
            activations of the frozen prefix that enter behind it.
        reason: Why it is this kind; goes into the epoch's report.
        rows: uint8 (N, 3, H, W), or float (N, F) or (N, C, H, W). May be memory-mapped, or decoded as it is
            read: it is only ever gathered from, never worked on in place.
        labels: int64 (N,); of a multi-label task float32 (N, C) of 0 and 1.
        targets: What training learns, where that is not the labels: probabilities, float32 (N, C).
        chosen: int64 (N,): which of ``rows`` are the split's, where these are more; None for all of them.
        ahead: The batches that are on their way to a device that has no room for all rows.
    """

    kind: ClassVar[Literal["pixels", "features"]]
    reason: str
    rows: Tensor | StreamedImages
    labels: Tensor
    targets: Tensor | None = None
    chosen: Tensor | None = None
    ahead: Ahead = field(default_factory=Ahead, repr=False, compare=False)

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    @property
    def learned(self) -> Tensor:
        """What training learns: the labels, or the targets in their place."""
        return self.labels if self.targets is None else self.targets

    def expect(self, batches: Sequence[Tensor]) -> None:
        """Names the batches that come next, so that they are decoded and sent to the device ahead."""
        if isinstance(self.rows, StreamedImages):
            places = (batch if self.chosen is None else self.chosen[batch] for batch in batches)
            self.rows.expect(row for place in places for row in place.tolist())
        if self.chosen is None:
            self.ahead.expect(batches)

    def at(self, index: Tensor | slice) -> Tensor | slice:
        """Where images of the split are among ``rows``."""
        return index if self.chosen is None else self.chosen[index]

    @abstractmethod
    def ready(self, rows: Tensor, index: Tensor | slice, generator: torch.Generator | None) -> Tensor:
        """Gathered rows on the device as the model takes them, float32; ``index`` is where they are among ``rows``."""


@dataclass(frozen=True, kw_only=True)
class PixelSource(Source):
    """Images; those of training may be augmented otherwise in every epoch.

    Attributes:
        transform: Size of the result, mean and deviation of its normalisation.
        augmentation: ``none``, or drawn for each batch from the epoch's generator.
    """

    kind = "pixels"
    transform: TransformSpec
    augmentation: str = "none"

    def ready(self, rows: Tensor, index: Tensor | slice, generator: torch.Generator | None) -> Tensor:
        """The images, augmented and normalised."""
        if self.augmentation != "none":
            assert generator is not None, "augmentation needs the epoch's generator"
            spec = self.transform
            rows = augment(rows, self.augmentation, spec.crop_size, generator, mean=spec.mean)
        return normalise(rows, self.transform)


@dataclass(frozen=True, kw_only=True)
class ViewSource(PixelSource):
    """Images of a fixed view: ``drawn`` holds the augmentation of each of the rows."""

    drawn: Drawn

    def ready(self, rows: Tensor, index: Tensor | slice, generator: torch.Generator | None) -> Tensor:
        """The view of the images, normalised; no generator is asked."""
        rows = apply_drawn(rows, self.drawn[index], self.transform.crop_size, mean=self.transform.mean)
        return normalise(rows, self.transform)


@dataclass(frozen=True, kw_only=True)
class FeatureSource(Source):
    """Cached features; those of half precision train as float32."""

    kind = "features"

    def ready(self, rows: Tensor, index: Tensor | slice, generator: torch.Generator | None) -> Tensor:
        """The features."""
        return rows.float()


def epoch_order(num_rows: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch: int64 (N,), a permutation that depends on (seed, epoch) alone."""
    generator = torch.Generator().manual_seed(derive_seed(seed, epoch, "order"))
    return torch.randperm(num_rows, generator=generator)


def split_order(order: Tensor, batch_size: int) -> list[Tensor]:
    """Cuts an order into batches; a last batch of one row is merged into the one before it.

    Batch norm in train mode cannot take a single row whose map is one pixel, and its statistics would be
    worthless anyway; dropping the row instead would leave another image out in each epoch.
    """
    batches = list(torch.split(order, batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def load_batch(
    source: Source, index: Tensor | slice, runtime: Runtime, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """One batch on the device, ready for the model.

    Returns:
        Rows float32 (B, ...), and labels int64 (B,) or, where the source has such, target probabilities float32 (B, C).
    """
    targets = to_device(source.learned[index], runtime.device)
    rows = device_batch(source, index, runtime)
    return source.ready(rows, source.at(index), generator), targets


def device_batch(source: Source, index: Tensor | slice, runtime: Runtime) -> Tensor:
    """Rows of a source on the device, as they are stored; the memory is the caller's."""
    return rows_on_device(source.rows, source.at(index), runtime.device, source.ahead)
