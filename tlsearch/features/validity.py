"""When stored features may stand for the frozen prefix, and when reading them pays."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tlsearch.core.types import TrialConfig, TrialSetup
from tlsearch.model import StagedModel
from tlsearch.model._private import count_flops
from tlsearch.space.bn_policies import bn_policy

# Multiply-adds that a device computes in the time that it takes to read a byte of stored features: convolutions of a
# small network against random rows of a mapped file. On one CPU of two cores under load it was 3 to 16; cuda was
# not measured.
_MACS_PER_BYTE = {"cpu": 8, "cuda": 4096}
# Computing must be cheaper by this factor before a map is left unstored: multiply-adds leave out augmentation and
# normalisation, and depthwise and narrow layers are slower. Near the border both ways cost about the same.
_CLEARLY = 2


@dataclass(frozen=True, kw_only=True)
class Boundary:
    """One image's activations at a boundary: their shape, float32 size, and the prefix's MACs."""

    shape: tuple[int, ...]
    num_bytes: int
    macs: int


def why_not(config: TrialConfig, setup: TrialSetup, split: str = "train", *, depth: int | None = None) -> str | None:
    """Why a trial cannot read stored features of a split; None where it can.

    Features are valid where the prefix is frozen, in eval mode, and its input deterministic: the images as an
    evaluation sees them, or one of ``cache.views`` fixed augmented views (see ``view_of``).

    Args:
        depth: The unfreeze depth by now; None is the trial's own.
    """
    invalid = _why_not_valid(config, setup, split, depth)
    if invalid is None and setup.cache.features_gb is not None and setup.cache.features_gb <= 0:
        return "cache.features_gb is 0"
    return invalid


def _why_not_valid(config: TrialConfig, setup: TrialSetup, split: str, depth: int | None) -> str | None:
    """As ``why_not``, whatever the store may hold."""
    if (config.unfreeze_depth if depth is None else depth) >= 5:
        return "depth 5: everything trains, nothing is frozen"
    if not bn_policy(config.bn_policy).cacheable:
        return f"bn_policy {config.bn_policy}: running statistics move in the frozen stages too"
    if split == "train" and config.augmentation != "none" and setup.cache.views == 1:
        return f"augmentation {config.augmentation}: every epoch sees other pixels"
    if split == "train" and (config.mixup > 0 or config.cutmix > 0):
        kinds = " and ".join(kind for kind in ("mixup", "cutmix") if getattr(config, kind) > 0)
        return f"{kinds}: images are mixed before they enter, and mixed features are not those of mixed images"
    return None


def view_of(config: TrialConfig, setup: TrialSetup, *, epoch: int, depth: int | None = None) -> int | None:
    """The fixed view of the training images that an epoch reads, from 1; epochs rotate through ``cache.views`` of them.

    The rule does not look at the store's budget: a trial sees the same images whether it reads features or pixels.

    Args:
        epoch: From 1.
        depth: The unfreeze depth by now; None is the trial's own.

    Returns:
        None without augmentation, or where every epoch draws its own: with one view, and where features
        could not stand for the prefix anyway. Training by soft targets, which belong to fixed views, has them always.
    """
    if config.augmentation == "none" or setup.cache.views == 1:
        return None
    if not setup.soft_targets and _why_not_valid(config, setup, "train", depth) is not None:
        return None
    return (epoch - 1) % setup.cache.views + 1


def measure_boundary(model: StagedModel, depth: int) -> Boundary:
    """Takes one black image through the prefix of a depth; the model's mode is left as it was."""
    image = model.blank_images(1, next(model.parameters()).device)
    training, trainable = model.training, [one for one in model.parameters() if one.requires_grad]
    model.eval()
    for one in trainable:  # the counter follows gradients, which a view of such a parameter has not here
        one.requires_grad_(False)
    try:
        with torch.no_grad(), count_flops() as counter:
            activation = model.forward_prefix(image, depth)
    finally:
        for one in trainable:
            one.requires_grad_(True)
        model.train(training)
    return Boundary(
        shape=tuple(activation.shape[1:]),
        num_bytes=activation[0].numel() * 4,
        macs=counter.get_total_flops() // 2,
    )


def why_not_worth(boundary: Boundary, device_type: str) -> str | None:
    """Why computing a feature map beats reading it; None where reading wins, or where neither clearly does.

    Pooled features need no such question: they are always the smaller side.
    """
    macs_per_byte = _MACS_PER_BYTE.get(device_type, _MACS_PER_BYTE["cuda"])
    if boundary.macs * _CLEARLY >= boundary.num_bytes * macs_per_byte:
        return None
    return (
        f"computing is cheaper: {boundary.macs / 1e6:.3g} million MACs per image against "
        f"{boundary.num_bytes / 1024:.3g} KiB to read, where a byte takes as long as {macs_per_byte} MACs"
    )
