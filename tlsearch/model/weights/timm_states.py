"""timm's own functions that turn other people's state dicts, and other image sizes', into those of its models."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from tlsearch.model.libraries.fast_init import meta_original
from tlsearch.model.libraries.libraries import split_backbone
from tlsearch.model.libraries.published_transforms import native_size


def timms_names(state: Mapping[str, Tensor], backbone: str) -> dict[str, Tensor] | None:
    """A state under the names of a model's first authors (DINOv2, CLIP, ...) under timm's names.

    None where timm has no such conversion for the family, or the state is of another kind than it expects.
    """
    base, version = split_backbone(backbone)
    try:
        return _filtered(state, meta_original(base, version, native_size(backbone)))
    except Exception:  # timm looks for certain names and shapes, and fails in any way where they are not there
        return None


def at_size(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The state of one of timm's backbones, its positions and windows resampled for the size that ``model`` is for.

    Args:
        state: By timm's names, at the weights' own size.
        model: timm's model at the new size.

    Returns:
        Of the same names; what needs no resampling is shared, not copied.
    """
    own = model.state_dict()
    if all(own[name].shape == tensor.shape for name, tensor in state.items()):
        return dict(state)
    # With the model's own classifier: some of timm's functions tell by it whether the names are timm's already.
    converted = _filtered({**own, **state}, model)
    return dict(state) if converted is None else {name: converted.get(name, own[name]) for name in state}


def _filtered(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor] | None:
    function: Any = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    return None if function is None else dict(function(dict(state), model))
