"""What images are to a model: how their pixels are held, and the evaluation transform."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

CropMode = Literal["center", "squash"]

MAX_CHANNELS = 512  # of an image: those of hyperspectral cameras


@dataclass(frozen=True, kw_only=True)
class PixelFormat:
    """How the images of a data set are held, from the decoder to the model.

    Three channels of 8 bits are RGB as people see it: grey is repeated, transparency laid on white. In every other
    format images have the channels of their files.

    Attributes:
        channels: Of each image.
        bits: Of each value, 8 or 16.
    """

    channels: int = 3
    bits: int = 8

    @property
    def top(self) -> int:
        """The largest value."""
        return int(2**self.bits - 1)

    @property
    def is_rgb(self) -> bool:
        """Whether images are RGB of 8 bits."""
        return self == RGB8

    def __str__(self) -> str:
        return f"{self.channels} {'channel' if self.channels == 1 else 'channels'} of {self.bits} bits"


RGB8 = PixelFormat()


@dataclass(frozen=True, kw_only=True)
class TransformSpec:
    """An evaluation transform: resize, centre crop, scale to [0, 1], normalise.

    Attributes:
        resize_size: Length of the shorter side after the resize, in pixels; of both sides with ``squash``.
        crop_size: Side of the square centre crop, in pixels.
        interpolation: ``nearest``, ``bilinear`` or ``bicubic``.
        mean: Per channel (RGB), of values in [0, 1]. Its length is the number of channels.
        std: Per channel (RGB).
        crop_mode: ``center`` keeps the image's proportions; ``squash`` makes it square, as timm does.
        bits: Of the images' values, 8 or 16: 255 or 65,535 becomes 1.
    """

    resize_size: int
    crop_size: int
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    crop_mode: CropMode = "center"
    bits: int = 8

    @property
    def channels(self) -> int:
        """Of the images that it takes."""
        return len(self.mean)

    @property
    def pixel_format(self) -> PixelFormat:
        """Of the images that it takes."""
        return PixelFormat(channels=self.channels, bits=self.bits)

    def for_pixels(
        self, pixels: PixelFormat, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
    ) -> TransformSpec:
        """The same resize for images of another format.

        Args:
            mean: Per channel, as ``std``; None takes these, and for another number of channels their averages.
        """
        if pixels.channels == len(self.mean):
            means, stds = self.mean, self.std
        else:
            means = (sum(self.mean) / len(self.mean),) * pixels.channels
            stds = (sum(self.std) / len(self.std),) * pixels.channels
        means, stds = (means if mean is None else tuple(mean)), (stds if std is None else tuple(std))
        return replace(self, mean=means, std=stds, bits=pixels.bits)

    def as_json(self) -> dict[str, Any]:
        """What files and keys of caches hold: ``bits`` only where earlier versions could not read the images."""
        fields = asdict(self)
        if self.bits == 8:
            del fields["bits"]
        return fields
