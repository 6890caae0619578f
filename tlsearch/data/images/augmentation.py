"""Training augmentation on batches of images of 8 or 16 bits; all chance comes from an explicit generator.

It is drawn first and applied then, so that a fixed view of a whole split can be drawn once and applied to any batch.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tlsearch.data.images.preprocessing import full_precision, levels, stored_levels, to_device
from tlsearch.data.images.trivial_augment import distort

_CROP_SCALE = (0.7, 1.0)
_CROP_RATIO = (3 / 4, 4 / 3)
_ATTEMPTS = 10

_BLOCK = 8192  # images of a view that are drawn at once, which bounds the memory that it takes

AUGMENTATIONS = ("light", "strong")
IMAGENET_MEAN = (0.485, 0.456, 0.406)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The augmentation of N images, drawn and not yet applied; on the CPU.

    Attributes:
        boxes: int64 (N, 4): top, left, height, width of each crop.
        flips: bool (N,): which are mirrored.
        seeds: int64 (N,): of what ``strong`` does to each on top; None for ``light``.
    """

    boxes: Tensor
    flips: Tensor
    seeds: Tensor | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, rows: Tensor | slice) -> Drawn:
        """That of some images: int64 (B,) or a slice."""
        seeds = None if self.seeds is None else self.seeds[rows]
        return Drawn(boxes=self.boxes[rows], flips=self.flips[rows], seeds=seeds)


def augment(
    images: Tensor,
    kind: str,
    size: int,
    generator: torch.Generator,
    *,
    mean: tuple[float, ...] = IMAGENET_MEAN,
) -> Tensor:
    """Augments one batch: ``draw``, then ``apply_drawn``.

    Args:
        generator: Determines the result fully; each call draws the same count of numbers per image. The
            process's own random state is left as it is.

    Raises:
        ValueError: ``kind`` is unknown.
    """
    return apply_drawn(images, draw(kind, len(images), images.shape[-1], generator), size, mean=mean)


def draw(kind: str, num_images: int, side: int, generator: torch.Generator) -> Drawn:
    """Draws the augmentation of some images.

    ``light`` is a random resized crop (0.7 to 1 of the area of the given square, ratio of width to height 3/4
    to 4/3) and a horizontal flip of every second image. ``strong`` is, on top of these, TrivialAugment (one of
    14 operations of random strength for each image; of 7 for images that are not RGB of 8 bits) and, for one image in
    ten, the erasure of a rectangle.

    Args:
        kind: One of AUGMENTATIONS.
        side: Of the squares that the crops are taken from, in pixels.

    Raises:
        ValueError: ``kind`` is unknown.
    """
    if kind not in AUGMENTATIONS:
        raise ValueError(f"augmentation must be one of {', '.join(AUGMENTATIONS)}, not {kind!r}")
    boxes = draw_boxes(num_images, side, _CROP_SCALE, _CROP_RATIO, generator)
    flips = torch.rand(num_images, generator=generator, device=generator.device) < 0.5
    if kind == "light":
        return Drawn(boxes=boxes, flips=flips.cpu())
    seeds = torch.randint(2**62, (num_images,), generator=generator, device=generator.device)
    return Drawn(boxes=boxes, flips=flips.cpu(), seeds=seeds.cpu())


def draw_view(kind: str, view: int, *, data_digest: str, num_images: int, side: int) -> Drawn:
    """Draws a fixed view of a whole split.

    It depends on nothing but the arguments, so that all trials of all searches see the same views: not on a trial's
    seed, nor on the order in which it reads the images, nor on how many views it rotates through.

    Args:
        view: From 1.
        data_digest: Of the data set; ``num_images`` is the size of its split.
        side: Of the squares that the crops are taken from, in pixels.

    Raises:
        ValueError: ``kind`` is unknown.
    """
    digest = hashlib.sha256(f"{data_digest}/{kind}/{view}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    sizes = [min(_BLOCK, num_images - start) for start in range(0, num_images, _BLOCK)]
    blocks = [draw(kind, size, side, generator) for size in sizes]
    seeds = [block.seeds for block in blocks if block.seeds is not None]
    return Drawn(
        boxes=torch.cat([block.boxes for block in blocks]),
        flips=torch.cat([block.flips for block in blocks]),
        seeds=torch.cat(seeds) if seeds else None,
    )


def apply_drawn(images: Tensor, drawn: Drawn, size: int, *, mean: tuple[float, ...] = IMAGENET_MEAN) -> Tensor:
    """Applies what was drawn for each image of a batch, to each alone.

    Args:
        images: uint8 or int16 (N, C, S, S), see ``as_tensor``: squares with a margin around what evaluation sees (see
            ``open_pixels``); left as they are.
        drawn: For squares of side S.
        size: Side of the result in pixels.
        mean: Of the normalisation to come, per channel in [0, 1]: the colour of what ``strong`` erases and of the
            corners that it turns in, which thus become zero.

    Returns:
        (N, C, size, size) of the same dtype, channels_last, on the images' device.
    """
    result = crop_and_flip(images, drawn.boxes, drawn.flips, size)
    return result if drawn.seeds is None else distort(result, drawn.seeds, mean)


def draw_boxes(
    num_images: int, side: int, scale: tuple[float, float], ratio: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """Draws a crop for each image, as torchvision's RandomResizedCrop does but for all images at once.

    Area uniform in ``scale``, ratio log-uniform in ``ratio``; of ten attempts the first that fits into the
    square counts, else the whole square.

    Args:
        num_images: N.
        side: Side of the square images in pixels.
        scale: Smallest and largest share of the area.
        ratio: Smallest and largest width over height.
        generator: Source of chance.

    Returns:
        int64 (N, 4) on the CPU: top, left, height, width.
    """
    draws = torch.rand(num_images, _ATTEMPTS + 1, 2, generator=generator, device=generator.device).cpu().double()
    area = (scale[0] + (scale[1] - scale[0]) * draws[:, :-1, 0]) * side * side
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + (high - low) * draws[:, :-1, 1])
    width = torch.sqrt(area * aspect).round().long()
    height = torch.sqrt(area / aspect).round().long()
    fits = (width >= 1) & (width <= side) & (height >= 1) & (height <= side)
    first = fits.int().argmax(dim=1, keepdim=True)
    found = fits.any(dim=1)
    width = torch.where(found, width.gather(1, first)[:, 0], side)
    height = torch.where(found, height.gather(1, first)[:, 0], side)
    # rand is below 1, so that the floor reaches each of the side - length + 1 places alike.
    top = (draws[:, -1, 0] * (side - height + 1)).long()
    left = (draws[:, -1, 1] * (side - width + 1)).long()
    return torch.stack([top, left, height, width], dim=1)


def crop_and_flip(images: Tensor, boxes: Tensor, flips: Tensor, size: int) -> Tensor:
    """Resizes each image's box to a square, bilinear with antialiasing, and mirrors those that ``flips`` names.

    The CPU goes image by image on purpose: torch's uint8 kernel for channels_last images takes 27 to 75 microseconds
    per image there (96 to 224 px), 4 to 10 times less than any way to resize the whole batch. Other devices have no
    such kernel, and resize the batch at once; their levels differ from the CPU's by at most two of 255.

    Args:
        images: uint8 or int16 (N, C, S, S), see ``as_tensor``.
        boxes: int64 (N, 4): top, left, height, width.
        flips: bool (N,).
        size: Side of the result in pixels.

    Returns:
        (N, C, size, size) of the same dtype, channels_last.
    """
    if images.device.type != "cpu":
        return resize_batch(images, boxes, flips, size)
    shape = (len(images), images.shape[1], size, size)
    result = torch.empty(shape, dtype=images.dtype, memory_format=torch.channels_last)
    for i, ((top, left, height, width), flip) in enumerate(zip(boxes.tolist(), flips.tolist(), strict=True)):
        crop = images[i : i + 1, :, top : top + height, left : left + width]
        resized = _resized(crop, size)
        result[i : i + 1] = resized.flip(3) if flip else resized
    return result


def _resized(crop: Tensor, size: int) -> Tensor:
    if crop.dtype == torch.uint8:
        return F.interpolate(crop, (size, size), mode="bilinear", antialias=True)
    values = F.interpolate(levels(crop), (size, size), mode="bilinear", antialias=True)
    return stored_levels(values.round_(), crop.dtype)


def resize_batch(images: Tensor, boxes: Tensor, flips: Tensor, size: int) -> Tensor:
    """``crop_and_flip`` for all images at once: two products with what each row and column takes from the image."""
    device, side = images.device, images.shape[-1]
    numbers = to_device(torch.cat([boxes, flips[:, None]], dim=1).float(), device)
    top, left, height, width, flip = torch.split(numbers, 1, 1)
    rows = _triangles(top, height, torch.zeros_like(flip), size, side)
    columns = _triangles(left, width, flip, size, side)
    with full_precision(device):
        wide = rows.unsqueeze(1) @ levels(images)  # (N, C, size, S)
        result = wide.round_() @ columns.unsqueeze(1).transpose(2, 3)
    return stored_levels(result.round_(), images.dtype).contiguous(memory_format=torch.channels_last)


def _triangles(start: Tensor, length: Tensor, flip: Tensor, size: int, side: int) -> Tensor:
    """What each of ``size`` places takes from each of ``side`` pixels: float32 (N, size, side).

    A triangle around the place in the box, as wide as a place but at least as a pixel, cut off at the box's ends.

    Args:
        start: float32 (N, 1): first pixel of the box; ``length`` are its pixels; ``flip`` is 1 to go backwards.
    """
    places = torch.arange(size, dtype=torch.float32, device=start.device) + 0.5
    pixels = (torch.arange(side, dtype=torch.float32, device=start.device) + 0.5)[None, None, :]
    scale = length / size
    centres = start + scale * torch.where(flip > 0, size - places, places)
    distance = (pixels - centres[:, :, None]).abs_().div_(scale.clamp(min=1)[:, :, None])
    inside = (pixels > start[:, :, None]) & (pixels < (start + length)[:, :, None])
    weights = (1 - distance).clamp_(min=0).mul_(inside)
    return weights.div_(weights.sum(2, keepdim=True))
