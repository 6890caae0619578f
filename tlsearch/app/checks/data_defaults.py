"""What follows from the data and the weights and no space can see: defaults of dimensions, channels of the images."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from tlsearch.app.checks.feasibility import num_training
from tlsearch.config import DefaultsSpec, SpaceFile
from tlsearch.core.errors import DataError
from tlsearch.data import ImageIndex, find_pixels, measure_channels
from tlsearch.space import Space
from tlsearch.space.bn_policies import BN_POLICIES

LARGEST_BATCH = 32
MIN_STEPS = 16  # of an epoch
_SMALLEST_BATCH = 4
_SMALLEST_WITH_STATISTICS = 8  # statistics of fewer images than that say little


def fitted_to_data(file: SpaceFile, space: Space, index: ImageIndex) -> tuple[SpaceFile, Space, ImageIndex]:
    """The file, its space and its images with all that follows from the data.

    Raises:
        DataError: As of ``with_pixels`` and ``fit_channels``.
    """
    index = with_pixels(file, index)
    return *fit_defaults(fit_channels(file, index), space, num_training(file, index)), index


def with_pixels(file: SpaceFile, index: ImageIndex) -> ImageIndex:
    """The images with the channels and bits that they are read in; none is decoded.

    Raises:
        DataError: They have several formats, or another one than the file says.
    """
    return replace(index, pixels=find_pixels(index, file.data))


def fit_channels(file: SpaceFile, index: ImageIndex) -> SpaceFile:
    """The file with the channels and bits that its images have, where it leaves these open.

    A search's ``resolved.yaml`` holds them with the mean and deviation of each channel, so that every node and every
    later start sees the same; of RGB of 8 bits it holds what the file says.

    Args:
        index: The images as ``with_pixels`` gives them.

    Raises:
        DataError: Training images cannot be decoded, or the file's mean has another number of channels.
    """
    pixels, data = index.pixels, file.data
    if data.mean is not None and len(data.mean) != pixels.channels:
        raise DataError(f"data.mean has a number for each channel: {pixels.channels}, not {len(data.mean)}")
    if pixels.is_rgb:
        return file
    mean, std = (data.mean, data.std) if data.mean is not None else measure_channels(index)
    data = replace(data, channels=pixels.channels, bits=pixels.bits, mean=mean, std=std)
    return replace(file, data=data)


def fit_defaults(file: SpaceFile, space: Space, num_train: int) -> tuple[SpaceFile, Space]:
    """The file and its space with the defaults that it leaves open.

    A dimension that the file reads elsewhere, in a condition or a starting point, keeps the default that it was
    checked with.

    Args:
        num_train: Images of the training split.
    """
    fitted = DefaultsSpec(batch_size=_batch_size(space, num_train), head_init=_head_init(file, space))
    read = {one.on for dimension in space.dimensions.values() for one in dimension.when}
    read |= {name for entry in file.search.start_with for name in entry}
    as_checked = {name: space.default_of(name) for name in fitted.values if name in read}
    defaults = file.defaults.completed(replace(fitted, **as_checked))  # type: ignore[arg-type]
    return replace(file, defaults=defaults), space.with_defaults(defaults.values)


def _batch_size(space: Space, num_train: int) -> int:
    """The largest power of two up to 32 with which an epoch has 16 steps; not below 4, or 8 where batch norm trains."""
    policies = space.dimensions["bn_policy"].domain
    moves = any(policies.contains(one.name) for one in BN_POLICIES.values() if one.moves)
    size, smallest = LARGEST_BATCH, _SMALLEST_WITH_STATISTICS if moves else _SMALLEST_BATCH
    while size > smallest and size * MIN_STEPS > num_train:
        size //= 2
    return size


def _head_init(file: SpaceFile, space: Space) -> Literal["probe", "random"]:
    """The linear probe, unless no backbone has features that are worth one."""
    pretrained = any(file.weights_of(one).kind != "none" for one in space.backbones())
    return "probe" if pretrained else "random"
