"""Whether a state dict fits a backbone, and under which of the backbone's names each tensor goes.

timm's own functions convert the names of a model's first authors, and the tensors of other image sizes.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from tlsearch.core.errors import WeightsError
from tlsearch.model.libraries.fast_init import meta_original
from tlsearch.model.libraries.libraries import is_timm, native_size
from tlsearch.model.staging.cut import stage_model
from tlsearch.space.libraries.backbones import split_version

# Of several networks with the same names in one file: these words in a prefix say that it is the better one.
_BETTER = ("teacher", "ema")
# Names that the libraries' older files use for what is now called otherwise (the libraries rename them likewise).
_RENAMES = (
    (re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..+)$"), r"\1\2"),
    (re.compile(r"^(.*encoder\.layers\..+\.mlp)\.linear_1\.(weight|bias)$"), r"\1.0.\2"),
    (re.compile(r"^(.*encoder\.layers\..+\.mlp)\.linear_2\.(weight|bias)$"), r"\1.3.\2"),
)
# What files have beside the backbone, under the names that it has in any library: classifiers and the heads of
# self-supervision. A file's head is never used, so it may be of any shape.
_HEADS = (
    *("fc.", "head.", "heads.", "head_dist.", "classifier.", "last_linear.", "aux1.", "aux2.", "AuxLogits."),
    *("projector.", "projection_head.", "predictor.", "prototypes.", "decoder", "mask_token"),
)
_COUNTER = "num_batches_tracked"
_POSITIONS = "encoder.pos_embedding"
_MAX_LISTED = 10


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Names and shapes of a backbone's tensors in the library's order; ``head`` are those of its own classifier."""

    backbone: str
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, torch.dtype]
    head: frozenset[str]


@lru_cache(maxsize=32)
def layout_of(backbone: str) -> Layout:
    """The layout of a backbone with its library's own classifier, at its weights' own size.

    Raises:
        UserError: The backbone does not exist, or no rule cuts it.
    """
    base, version = split_version(backbone)
    size = native_size(backbone)
    original = meta_original(base, version, size)
    state = original.state_dict()
    origin = stage_model(original, backbone, size).origin
    return Layout(
        backbone=backbone,
        shapes={name: tuple(tensor.shape) for name, tensor in state.items()},
        dtypes={name: tensor.dtype for name, tensor in state.items()},
        head=frozenset(name for name in state if name not in origin),
    )


def match_by_name(state: Mapping[str, Tensor], layout: Layout, where: str) -> dict[str, Tensor]:
    """The backbone's tensors out of ``state``, in the library's order, without the head.

    A prefix of wrappers (``module.``, ``teacher.backbone.``) is stripped; names of the models' first authors are
    turned into timm's by timm; counters of batches, which old files lack and no evaluation reads, are filled with
    zero; the file's own head is ignored.

    Args:
        state: Any state dict.
        layout: Of the backbone.
        where: Names the source in messages.

    Raises:
        WeightsError: Names are missing, unexpected or misshapen; all of them are listed.
    """
    named = _strip_prefix({_rename(name): tensor for name, tensor in state.items()}, layout)
    problems = _problems(named, layout)
    if problems and is_timm(layout.backbone):
        for original in (named, dict(state)):
            converted = timms_names(original, layout.backbone)
            if converted is not None and not _problems(converted, layout):
                named, problems = converted, ""
                break
    if problems:
        raise WeightsError(f"{where} does not fit {layout.backbone}{problems}")
    wanted = _wanted(layout)
    for name in wanted:
        named.setdefault(name, torch.zeros((), dtype=torch.int64))
    return _checked({name: named[name] for name in wanted}, layout, where)


def match_by_order(state: Mapping[str, Tensor], layout: Layout, where: str) -> dict[str, Tensor]:
    """As `match_by_name`, for a file with other names of the very same model: the n-th tensor is the n-th tensor.

    Strict: the same number of tensors, each of the same shape and kind (weight, bias, running_mean, running_var,
    num_batches_tracked); only the head may have another number of classes.

    Raises:
        WeightsError: Anything differs; the first differing tensors are listed.
    """
    if len(state) != len(layout.shapes):
        raise WeightsError(
            f"{where} does not fit {layout.backbone} by order: it has {len(state)} tensors, not {len(layout.shapes)}"
        )
    differing = []
    matched = {}
    for (theirs, tensor), name in zip(state.items(), layout.shapes, strict=True):
        same_kind = theirs.rpartition(".")[2] == name.rpartition(".")[2]
        shape, own = tuple(tensor.shape), layout.shapes[name]
        same_shape = shape[1:] == own[1:] and len(shape) == len(own) if name in layout.head else shape == own
        if not (same_kind and same_shape):
            differing.append(f"{theirs} {shape} for {name} {own}")
        elif name not in layout.head:
            matched[name] = tensor
    if differing:
        raise WeightsError(f"{where} does not fit {layout.backbone} by order{_listed('differing', differing)}")
    return _checked(matched, layout, where)


def _wanted(layout: Layout) -> list[str]:
    return [name for name in layout.shapes if name not in layout.head]


def _problems(named: Mapping[str, Tensor], layout: Layout) -> str:
    """What is missing, unexpected and misshapen, in words; empty where the state fits."""
    wanted = _wanted(layout)
    missing = [name for name in wanted if name not in named and not name.endswith(_COUNTER)]
    unexpected = [name for name in named if name not in layout.shapes and not name.startswith(_HEADS)]
    misshapen = [
        f"{name} {tuple(named[name].shape)} instead of {layout.shapes[name]}"
        for name in wanted
        if name in named and not _fits(name, named[name], layout)
    ]
    return f"{_listed('missing', missing)}{_listed('unexpected', unexpected)}{_listed('misshapen', misshapen)}"


def _fits(name: str, tensor: Tensor, layout: Layout) -> bool:
    shape, own = tuple(tensor.shape), layout.shapes[name]
    if name == _POSITIONS and len(shape) == 3:
        # Positions of another image size are interpolated when the model is built; they must form a square.
        side = round((shape[1] - 1) ** 0.5)
        return shape[0] == 1 and shape[2] == own[2] and side * side + 1 == shape[1]
    return shape == own


def _checked(state: dict[str, Tensor], layout: Layout, where: str) -> dict[str, Tensor]:
    """The same tensors in the model's own types, all finite."""
    typed = {name: tensor.detach().to(layout.dtypes[name]).contiguous() for name, tensor in state.items()}
    broken = [name for name, tensor in typed.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise WeightsError(f"{where} cannot be used for {layout.backbone}{_listed('not finite', broken)}")
    return typed


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    return name


def _strip_prefix(state: dict[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """What stands under the prefix (``module.``, ``teacher.backbone.``) that has most of the backbone's names.

    Of several the better network (see _BETTER), else the first; with no such names at all the state as it is.
    """
    hits: Counter[str] = Counter()
    for name in state:
        words = name.split(".")
        for count in range(len(words)):
            if ".".join(words[count:]) in layout.shapes:
                hits[".".join([*words[:count], ""])] += 1
    most = max(hits.values(), default=0)
    candidates = [prefix for prefix, number in hits.items() if number == most]
    prefix = max(candidates, key=lambda one: any(word in one for word in _BETTER), default="")
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _listed(kind: str, items: list[str]) -> str:
    if not items:
        return ""
    more = f" and {len(items) - _MAX_LISTED} more" if len(items) > _MAX_LISTED else ""
    return f"; {len(items)} {kind}: {', '.join(items[:_MAX_LISTED])}{more}"


def timms_names(state: Mapping[str, Tensor], backbone: str) -> dict[str, Tensor] | None:
    """A state under the names of a model's first authors (DINOv2, CLIP, ...) under timm's names.

    None where timm has no such conversion for the family, or the state is of another kind than it expects.
    """
    base, version = split_version(backbone)
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
