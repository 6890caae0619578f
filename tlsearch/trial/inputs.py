"""Where a trial's epochs read from: cached features where they are valid and pay, else pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from tlsearch.core.errors import Infeasible
from tlsearch.data import draw_view, open_pixels
from tlsearch.features import (
    Boundary,
    FeatureKey,
    Features,
    NotStored,
    find_features,
    library_versions,
    measure_boundary,
    open_features,
    why_not,
    why_not_worth,
)
from tlsearch.model import MAX_DEPTH, PART_NAMES, StagedModel
from tlsearch.train import FeatureSource, PixelSource, Source, ViewSource, in_batches, read_soft_targets
from tlsearch.trial.context import Phase, TrialContext

_boundaries: dict[tuple[str, int, int, int, str], Boundary] = {}  # by backbone, depth, size, channels, device type


def open_source(model: StagedModel, context: TrialContext, phase: Phase, split: str) -> Source:
    """Opens ``train`` or ``val`` for the epochs of a trial; with fixed views for those that read the same one.

    Args:
        model: Frozen to the depth, on its device; computes features that are not stored yet.

    Raises:
        DataError: Images cannot be read.
    """
    source = _open_source(model, context, phase, split)
    if split != "train" or not context.setup.soft_targets:
        return source
    view = context.view(phase, split) or 0
    shape = (len(source), len(context.index.classes))
    return replace(source, targets=read_soft_targets(Path(context.setup.soft_targets), view, shape))


def _open_source(model: StagedModel, context: TrialContext, phase: Phase, split: str) -> Source:
    reason = why_not(context.config, context.setup, split, depth=phase.depth)
    if reason is not None:
        return _pixels(context, phase, split, reason)
    labels = _labels(context, split)
    stored = _stored(model, context, phase, split, len(_stored_labels(context, split)))
    if isinstance(stored, NotStored):
        return _pixels(context, phase, split, stored.reason)
    how = "computed by this trial" if stored.built else "shared"
    reason = f"frozen below depth {phase.depth}: {', '.join(filter(None, (context.view_text(phase, split), how)))}"
    return FeatureSource(reason=reason, rows=stored.rows, labels=labels, chosen=_chosen(context, split))


def _stored(model: StagedModel, context: TrialContext, phase: Phase, split: str, num_rows: int) -> Features | NotStored:
    """The entry, computed where it pays and no one has yet."""
    key, cache = _key(context, phase, split), context.setup.cache
    found = find_features(key, num_rows=num_rows, cache=cache)
    if found is not None:
        return found
    reason = _not_worth(model, context, phase.depth)
    if reason is not None:
        return NotStored(reason=reason)
    try:
        compute = partial(_pass_from_nearest, model, context, phase, split, num_rows)
        num_alike = 1 if context.view(phase, split) is None else min(cache.views, context.setup.max_epochs)
        return open_features(key, num_rows=num_rows, compute=compute, cache=cache, num_alike=num_alike)
    except Infeasible:
        return NotStored(reason="out of memory in a pass of a single image")


def _pass_from_nearest(
    model: StagedModel, context: TrialContext, phase: Phase, split: str, num_rows: int
) -> Iterator[Tensor]:
    """A pass that begins at the nearest boundary before this one that the search needs too, stored first.

    So no part of the prefix ever sees an image twice on a node, whichever depth comes first. Each boundary is
    opened while those behind it are locked, never the other way round: two processes cannot wait for each other.
    """
    if context.setup.cache.feature_precision == "full":  # rounding twice would not give what one pass gives
        for depth in sorted(depth for depth in context.setup.depths if phase.depth < depth < MAX_DEPTH):
            stored = _stored(model, context, replace(phase, depth=depth), split, num_rows)
            if isinstance(stored, Features):
                labels = _stored_labels(context, split)
                return _pass(
                    model, context, phase.depth, FeatureSource(reason="", rows=stored.rows, labels=labels), depth
                )
    return prefix_pass(model, context, phase, split, stored=True)


def plain_pixels(context: TrialContext, split: str, *, stored: bool = False) -> Source:
    """The images of a split as an evaluation sees them, the training images too; ``stored`` as for ``prefix_pass``."""
    return _opened_pixels(context, split, "", augmentation="none", view=None, stored=stored)


def _pixels(context: TrialContext, phase: Phase, split: str, reason: str, *, stored: bool = False) -> Source:
    view = context.view(phase, split)
    reason = "; ".join(filter(None, (reason, context.view_text(phase, split))))
    augmentation = context.config.augmentation if split == "train" else "none"
    return _opened_pixels(context, split, reason, augmentation=augmentation, view=view, stored=stored)


def _opened_pixels(
    context: TrialContext, split: str, reason: str, *, augmentation: str, view: int | None, stored: bool
) -> PixelSource:
    kept = context.index.kept(split)
    pixels = open_pixels(
        kept.index,
        kept.split,
        context.transform,
        context.setup.cache,
        margin=augmentation != "none",
        progress=partial(context.doing, f"packing {kept.split} images"),
    )
    images, chosen = pixels.images, None if stored else _chosen(context, split)
    source = PixelSource(
        reason=reason,
        rows=images,
        labels=pixels.labels if chosen is None else _labels(context, split),
        chosen=chosen,
        transform=context.transform,
        augmentation=augmentation,
    )
    if view is None:
        return source
    side, num_images = images.shape[-1], len(pixels.labels)
    drawn = draw_view(augmentation, view, data_digest=kept.index.digest, num_images=num_images, side=side)
    return ViewSource(**vars(source), drawn=drawn)


def _not_worth(model: StagedModel, context: TrialContext, depth: int) -> str | None:
    if depth == 0:
        return None  # pooled features are always the smaller side
    size, device_type = context.transform.crop_size, context.runtime.device.type
    key = (context.config.backbone, depth, size, model.channels, device_type)
    if key not in _boundaries:
        _boundaries[key] = measure_boundary(model, depth)
    return why_not_worth(_boundaries[key], device_type)


def _key(context: TrialContext, phase: Phase, split: str) -> FeatureKey:
    prefix = PART_NAMES[: len(PART_NAMES) - 1 - phase.depth]
    key = key_of(context, split, depth=phase.depth, state_digest=phase.guard.of_parts(prefix))
    kept = context.index.kept(split)
    key = replace(key, data_digest=kept.index.digest, split=kept.split)
    view = context.view(phase, split)
    return key if view is None else replace(key, augmentation=context.config.augmentation, view=view)


def key_of(context: TrialContext, split: str, *, depth: int, state_digest: str) -> FeatureKey:
    """The key of what a prefix, whose tensors have this digest, makes of a split's images without augmentation."""
    runtime = context.runtime
    return FeatureKey(
        backbone=context.config.backbone,
        weights_digest=context.weights.digest,
        state_digest=state_digest,
        depth=depth,
        transform=context.transform,
        data_digest=context.index.digest,
        split=split,
        compute=f"{runtime.device.type}/{runtime.precision}" + ("/folded" if runtime.folds_batchnorm else ""),
        precision=context.setup.cache.feature_precision,
        libraries=library_versions(context.config.backbone),
        tokens=(context.config.features or "") if depth == 0 else "",
    )


def prefix_pass(
    model: StagedModel, context: TrialContext, phase: Phase, split: str, *, stored: bool = False
) -> Iterator[Tensor]:
    """Activations of all images of a split, or of the epoch's view of them, in order.

    They are those that a direct evaluation would compute.

    Args:
        stored: Of all images that are kept together with the split's: those of all folds.
    """
    augmented = context.view(phase, split) is not None
    if augmented:
        source = _pixels(context, phase, split, "", stored=stored)
    else:
        source = plain_pixels(context, split, stored=stored)
    return _pass(model, context, phase.depth, source, MAX_DEPTH)


def _pass(model: StagedModel, context: TrialContext, depth: int, source: Source, behind: int) -> Iterator[Tensor]:
    model.eval()
    done = 0
    for activations in in_batches(source, context.runtime, partial(model.forward_prefix, depth=depth, behind=behind)):
        context.doing("storing features", done, len(source))
        done += len(activations)
        yield activations.cpu()


def _chosen(context: TrialContext, split: str) -> Tensor | None:
    """Which of the rows that are kept are the split's; None for all of them."""
    rows = context.index.kept(split).rows
    return None if rows is None else torch.tensor(rows, dtype=torch.int64)


def _stored_labels(context: TrialContext, split: str) -> Tensor:
    kept = context.index.kept(split)
    return torch.from_numpy(kept.index.label_array(kept.split))


def _labels(context: TrialContext, split: str) -> Tensor:
    return torch.from_numpy(context.index.label_array(split))
