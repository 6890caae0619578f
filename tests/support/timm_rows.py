"""The table of timm's backbones as timm and the staging rules give it.

To write it again, where timm or the rules have changed::

    python tests/support/timm_rows.py > tlsearch/space/libraries/timm_models.txt
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tlsearch.core.errors import UserError
from tlsearch.model import StagedModel, batchnorm_layers, default_transform
from tlsearch.model.libraries.fast_init import meta_original
from tlsearch.model.libraries.libraries import import_timm, timm_config, timm_size_options
from tlsearch.model.staging.cut import stage_model
from tlsearch.model.staging.token_features import takes_features

_SMALLEST = 32
_ONE_PATCH = 8  # a transformer takes an image of one patch; Swin's patches of 4 px are merged three times
_ODD_SIZES = (33, 48, 100)


def table() -> Iterator[str]:
    """The lines of the file: the version of timm, then each module's models."""
    timm = import_timm()
    yield f"timm {timm.__version__}"
    for module in sorted(timm.list_modules()):
        rows = [row for name in timm.list_models(module=module) if (row := row_of(name)) is not None]
        if rows:
            yield from (f"[{module}]", *rows)


def row_of(name: str) -> str | None:
    """The line of a model; None where it cannot be cut, or its preprocessing is not supported."""
    try:
        size, tags = published(name)
        original = meta_original(f"timm/{name}", None, size)
        staged = stage_model(original, f"timm/{name}", size).eval()
    except UserError:
        return None
    if _other_statistics(staged) or _output(staged, size) is None:
        return None
    has_batch_norm = any(True for part in staged.parts[:-1] for _ in batchnorm_layers(part))
    smallest, multiple = _sizes(name, original, staged, size)
    kinds = ["bn"] * has_batch_norm + ["cls"] * takes_features(staged)
    return " ".join([name, ",".join(kinds) or "-", str(size), str(smallest), str(multiple), *tags])


def published(name: str) -> tuple[int, list[str]]:
    """The size of a model's default weights, and the tags of all weights, the default ones first.

    A tag of another size is written ``tag:size``; those whose preprocessing is not supported are left out.
    """
    timm = import_timm()
    size = default_transform(f"timm/{name}").crop_size
    default = timm.get_pretrained_cfg(name).tag
    all_tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*")]
    tags = []
    for tag in sorted(all_tags, key=lambda tag: tag != default):
        try:
            own = default_transform(f"timm/{name}@{tag}").crop_size
        except UserError:
            continue
        tags.append(tag if own == size else f"{tag}:{own}")
    return size, tags


def _sizes(name: str, original: Any, staged: StagedModel, native: int) -> tuple[int, int]:
    """The smallest image in pixels and what sizes are multiples of; 0 where a model takes its own size alone."""
    if timm_size_options(name) is not None:
        multiple = original.patch_embed.feat_ratio()
        return (multiple if multiple >= _ONE_PATCH else _SMALLEST), multiple
    if timm_config(f"timm/{name}", None).fixed_input_size:
        return native, 0
    for multiple in (1, 32, 64):
        smallest = max(_SMALLEST, multiple)
        odd = _ODD_SIZES if multiple == 1 else (2 * multiple, 3 * multiple)
        if all(_output(staged, size) for size in (smallest, *odd)):
            return smallest, multiple
    return native, 0


def _output(staged: StagedModel, size: int) -> tuple[int, ...] | None:
    """The shape of the logits, where they are one row for each image."""
    try:
        shape = tuple(staged(torch.empty(2, 3, size, size, device="meta")).shape)
    except Exception:  # shapes that do not meet raise whatever they lead into
        return None
    return shape if len(shape) == 2 and shape[0] == 2 else None


def _other_statistics(staged: nn.Module) -> bool:
    """Whether something else than batch norm has statistics that training moves: the policies know nothing of it."""
    return any(
        name.rpartition(".")[2].startswith("running_")
        for module in staged.modules()
        if not isinstance(module, _BatchNorm)
        for name, _ in module.named_buffers(recurse=False)
    )


if __name__ == "__main__":
    for line in table():
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
