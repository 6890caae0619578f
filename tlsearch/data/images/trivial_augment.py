"""TrivialAugment (Müller and Hutter 2021) and random erasing on a whole batch, on any device.

Each image has a seed of its own, and the numbers that are drawn from it are those that torchvision's
``TrivialAugmentWide`` and ``RandomErasing`` draw. The images are then distorted in groups, one for each operation, so
that the number of kernels does not grow with the batch. Nothing is read back from the device.

Most operations on colours are defined for RGB of 8 bits alone: images of other channels or 16 bits are moved, and their
contrast is changed: 7 operations.

Shapes: N images of a batch, K of a group, C channels, S side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from tlsearch.data.images.preprocessing import as_tensor, full_precision, levels, stored_levels, to_device, top_level

_NUM_MAGNITUDES = 31
_ERASED = 0.1  # share of the images, as in torchvision's own training recipes
_ERASED_AREA = (0.02, 0.33)
_ERASED_RATIO = (0.3, 3.3)
_ATTEMPTS = 10


def distort(images: Tensor, seeds: Tensor, mean: tuple[float, ...]) -> Tensor:
    """Distorts each image by one of 14 operations of random strength, and erases a rectangle of one in ten.

    Args:
        images: uint8 or int16 (N, C, S, S), see ``as_tensor``; left as they are.
        seeds: int64 (N,), on the CPU.
        mean: Per channel in [0, 1]: the colour of what is erased and of the corners that are turned in.

    Returns:
        (N, C, S, S) of the same dtype, channels_last.
    """
    num, side, device = len(images), images.shape[-1], images.device
    generator = torch.Generator()
    kinds = _KINDS if images.dtype == torch.uint8 and images.shape[1] == 3 else _KINDS_OF_ANY
    drawn = [_draw(generator.manual_seed(seed), side, tuple(kinds)) for seed in seeds.tolist()]
    groups: dict[_Operation, list[int]] = {}
    for row, one in enumerate(drawn):
        groups.setdefault(kinds[one.operation], []).append(row)
    order = [row for group in groups.values() for row in group]
    # All numbers at once: each copy to a device takes as long as many of its kernels.
    rows = to_device(torch.tensor([order, sorted(range(num), key=order.__getitem__)]), device)
    numbers = to_device(torch.tensor([_numbers(drawn[row], side) for row in order], dtype=torch.float32), device)
    colour = _colour_on(mean, images.dtype, device)
    sizes = [len(group) for group in groups.values()]
    pixels = images.permute(0, 2, 3, 1).index_select(0, rows[0])  # (N, S, S, C), contiguous
    parts = zip(groups, torch.split(pixels, sizes), torch.split(numbers, sizes), strict=True)
    result = torch.cat([kind(part, values, colour) for kind, part, values in parts]).index_select(0, rows[1])
    for row, one in enumerate(drawn):
        if one.box is not None:
            top, left, height, width = one.box
            result[row, top : top + height, left : left + width] = colour
    return result.permute(0, 3, 1, 2)


@lru_cache(maxsize=32)
def _colour_on(mean: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The mean as an image's values (C,), made once for each device."""
    top = top_level(dtype)
    values = np.array([round(top * value) for value in mean], dtype=np.uint8 if dtype == torch.uint8 else np.uint16)
    with torch.inference_mode(False):
        return as_tensor(values).to(device)


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """What one image's seed says: the box is top, left, height and width of what is erased."""

    operation: str
    magnitude: float
    box: tuple[int, int, int, int] | None


def _draw(generator: torch.Generator, side: int, operations: tuple[str, ...]) -> _Drawn:
    """Draws in the order of torchvision: operation, magnitude, sign, erasure."""
    number, part = torch.empty((), dtype=torch.int64), torch.empty(())  # drawn into: a new tensor each costs as much
    operation = operations[int(number.random_(len(operations), generator=generator))]
    magnitude = 0.0
    if operation in _MAGNITUDES:
        most, signed = _MAGNITUDES[operation]
        magnitude = most[int(number.random_(_NUM_MAGNITUDES, generator=generator))]
        if signed and float(part.uniform_(generator=generator)) <= 0.5:
            magnitude *= -1
    box = None if float(part.uniform_(generator=generator)) >= _ERASED else _draw_box(generator, side)
    return _Drawn(operation=operation, magnitude=magnitude, box=box)


def _draw_box(generator: torch.Generator, side: int) -> tuple[int, int, int, int] | None:
    low, high = torch.log(torch.tensor(_ERASED_RATIO)).tolist()
    for _ in range(_ATTEMPTS):
        area = side * side * torch.empty(1).uniform_(*_ERASED_AREA, generator=generator).item()
        ratio = torch.exp(torch.empty(1).uniform_(low, high, generator=generator)).item()
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if height < side and width < side:
            top = int(torch.randint(0, side - height + 1, (1,), generator=generator))
            left = int(torch.randint(0, side - width + 1, (1,), generator=generator))
            return top, left, height, width
    return None


def _numbers(drawn: _Drawn, side: int) -> list[float]:
    """Six numbers of an image for its operation: of those that move pixels the matrix, of others the magnitude."""
    m, half = drawn.magnitude, side / 2
    match drawn.operation:
        case "ShearX":
            return [1, m, m * half, 0, 1, 0]
        case "ShearY":
            return [1, 0, 0, m, 1, m * half]
        case "TranslateX":
            return [1, 0, -int(m), 0, 1, 0]
        case "TranslateY":
            return [1, 0, 0, 0, 1, -int(m)]
        case "Rotate":
            cosine, sine = math.cos(math.radians(m)), math.sin(math.radians(m))
            return [cosine, -sine, 0, sine, cosine, 0]
    return [m, 0, 0, 0, 0, 0]


# --- operations: each takes images (K, S, S, C), float32 (K, 6) and the colour (C,), and gives new images


def _identity(images: Tensor, numbers: Tensor, colour: Tensor) -> Tensor:
    return images


def _move(images: Tensor, numbers: Tensor, colour: Tensor) -> Tensor:
    """The nearest pixel of each place under the affine map, seen from the centre; the colour outside."""
    num, side, channels = len(images), images.shape[1], images.shape[3]
    framed = images.new_empty(num, side + 2, side + 2, channels)
    framed[:, 1:-1, 1:-1] = images
    for edge in (framed[:, 0], framed[:, -1], framed[:, :, 0], framed[:, :, -1]):
        edge.copy_(colour)
    centre = (side - 1) / 2
    places = torch.arange(side, dtype=torch.float32, device=images.device) - centre
    column, row = (
        ((along_x * places)[:, None, :] + (along_y * places + (offset + centre))[:, :, None]).round_().clamp_(-1, side)
        for along_x, along_y, offset in (torch.split(part, 1, 1) for part in torch.split(numbers, 3, 1))
    )
    index = column.add_(row, alpha=side + 2).int().view(num, -1)
    first = torch.arange(num, dtype=torch.int32, device=images.device)[:, None] * (side + 2) ** 2
    index += first + (side + 3)  # 0, 0 is in the frame
    return framed.view(-1, channels).index_select(0, index.view(-1)).view_as(images)


def _brightness(images: Tensor, numbers: Tensor, colour: Tensor) -> Tensor:
    return _levels(images * _factor(numbers))


def _colour(images: Tensor, numbers: Tensor, colour: Tensor) -> Tensor:
    factor, levels = _factor(numbers), images.float()
    grey = _grey(levels).mul_(1 - factor)
    return _levels(levels.mul_(factor).add_(grey))


def _contrast(images: Tensor, numbers: Tensor, colour: Tensor) -> Tensor:
    factor, levels = _factor(numbers), images.float()
    grey = _grey(levels).mean((1, 2, 3), keepdim=True).mul_(1 - factor)
    return _levels(levels.mul_(factor).add_(grey))


def _own_contrast(images: Tensor, numbers: Tensor, colour: Tensor) -> Tensor:
    """Towards the mean of each channel in the image: channels may be of any unit."""
    factor, values = _factor(numbers), levels(images)
    mean = values.mean((1, 2), keepdim=True)
    return stored_levels(values.sub_(mean).mul_(factor).add_(mean).round_(), images.dtype)


def _sharpness(images: Tensor, numbers: Tensor, colour: Tensor) -> Tensor:
    if images.shape[1] <= 2:
        return images
    result = images.float().flatten(2)
    # Ones around a five, over 13: three lines, then three pixels (of three values each), and four more of the middle.
    lines = (result[:, :-2] + result[:, 1:-1]).add_(result[:, 2:])
    blurred = (lines[..., :-6] + lines[..., 3:-3]).add_(lines[..., 6:])
    inner = result[:, 1:-1, 3:-3]
    blurred.add_(inner, alpha=4).mul_(1 / 13).round_()
    inner.add_(blurred.sub_(inner).mul_(1 - _factor(numbers)[..., 0]))
    return _levels(result).view_as(images)


def _posterize(images: Tensor, numbers: Tensor, colour: Tensor) -> Tensor:
    lowest = torch.exp2(8 - numbers[:, :1])  # the lowest level above 0
    return images & (256 - lowest).to(torch.uint8).view(-1, 1, 1, 1)


def _solarize(images: Tensor, numbers: Tensor, colour: Tensor) -> Tensor:
    lowest = (255 * numbers[:, :1]).ceil().to(torch.uint8).view(-1, 1, 1, 1)
    return (images >= lowest).view(torch.uint8).mul_(255).bitwise_xor_(images)  # 255 - x is x with its bits turned


def _autocontrast(images: Tensor, numbers: Tensor, colour: Tensor) -> Tensor:
    side = images.shape[1]
    lines = images.flatten(2)
    low, high = (
        extreme(extreme(lines, 1).view(-1, side, 3), 1).float().repeat(1, side)[:, None]
        for extreme in (torch.amin, torch.amax)
    )
    flat = high == low
    scale = ((high - low) * (1 / 255)).masked_fill_(flat, 1)
    return _levels((lines - low.masked_fill_(flat, 0)).div_(scale)).view_as(images)


def _equalize(images: Tensor, numbers: Tensor, colour: Tensor) -> Tensor:
    """Pillow's rule: each level becomes the share of the pixels below it, the highest level's own left out."""
    num, side, device = len(images), images.shape[1], images.device
    channel = (256 * torch.arange(3, device=device)).repeat(side)
    index = images.flatten(2).long().add_(channel).view(num, -1)
    counts = torch.zeros(num, 768, dtype=torch.int64, device=device)
    counts.scatter_add_(1, index, counts.new_ones(1, 1).expand_as(index))
    counts = counts.view(num, 3, 256)
    below = counts.cumsum(2)
    highest = counts.gather(2, below.argmax(2, keepdim=True))
    step = (side * side - highest).div_(255, rounding_mode="floor")
    levels = (below - counts).add_(step // 2).div_(step.clamp(min=1), rounding_mode="floor").clamp_(0, 255)
    same = torch.arange(256, device=device).expand_as(levels)
    table = torch.where(step > 0, levels, same).to(torch.uint8).view(num, 768)
    return table.gather(1, index).view_as(images)


def _factor(numbers: Tensor) -> Tensor:
    return (1 + numbers[:, 0]).view(-1, 1, 1, 1)


def _grey(levels: Tensor) -> Tensor:
    """The grey level of each pixel: float32 (K, S, S, 1), new."""
    with full_precision(levels.device):
        return torch.mm(levels.view(-1, 3), _grey_weights(levels.device)).floor_().view(*levels.shape[:3], 1)


@lru_cache(maxsize=8)
def _grey_weights(device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor([[0.2989], [0.587], [0.114]], device=device)


def _levels(values: Tensor) -> Tensor:
    return values.clamp_(0, 255).to(torch.uint8)


def _span(first: float, last: float) -> list[float]:
    return torch.linspace(first, last, _NUM_MAGNITUDES).tolist()


_Operation = Callable[[Tensor, Tensor, Tensor], Tensor]
_MOVES: dict[str, _Operation] = {
    "Identity": _identity,
    **dict.fromkeys(("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"), _move),
}
_KINDS: dict[str, _Operation] = {
    **_MOVES,
    "Brightness": _brightness,
    "Color": _colour,
    "Contrast": _contrast,
    "Sharpness": _sharpness,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": _autocontrast,
    "Equalize": _equalize,
}
_KINDS_OF_ANY: dict[str, _Operation] = {**_MOVES, "Contrast": _own_contrast}
_MAGNITUDES = {  # by operation: all magnitudes, and whether half of them are negative
    **dict.fromkeys(("ShearX", "ShearY"), (_span(0, 0.99), True)),
    **dict.fromkeys(("TranslateX", "TranslateY"), (_span(0, 32), True)),
    "Rotate": (_span(0, 135), True),
    **dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), (_span(0, 0.99), True)),
    "Posterize": ([float(8 - round(step / ((_NUM_MAGNITUDES - 1) / 6))) for step in range(_NUM_MAGNITUDES)], False),
    "Solarize": (_span(1, 0), False),
}
