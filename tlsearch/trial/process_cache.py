"""What a process keeps between trials, so that a second one lists no folder, reads no file and builds no model again.

Data sets' indexes and whole backbones are held here; weights, mapped pixels and features, and their copies on a device,
by their own packages.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from tlsearch.core.errors import DataError
from tlsearch.core.types import DataSpec
from tlsearch.data import ImageIndex, fold_indexes, load_index, seen_digest, with_val_in_train
from tlsearch.model import Part, StagedModel, release_weights
from tlsearch.node_cache import store
from tlsearch.train import Spectrum, release_copies
from tlsearch.trial.context import FrozenGuard

_MAX_INDEXES = 2
_MAX_SPECTRA_BYTES = 1024**3
_MAX_BACKBONE_BYTES = 1024**3
_indexes: OrderedDict[tuple[DataSpec, bool], ImageIndex] = OrderedDict()
_folds: OrderedDict[tuple[DataSpec, int], tuple[ImageIndex, ...]] = OrderedDict()
_spectra: OrderedDict[Hashable, Spectrum] = OrderedDict()
_backbones: OrderedDict[BackboneKey, HeldBackbone] = OrderedDict()


@dataclass(frozen=True, kw_only=True)
class BackboneKey:
    """What decides about the tensors and modules of a pretrained model before its head is replaced."""

    backbone: str
    weights_digest: str
    image_size: int
    channels: int
    features: str | None
    folds_batchnorm: bool


@dataclass(frozen=True, kw_only=True)
class HeldBackbone:
    """A model on the CPU whose backbone is what it was when it was built: the trial before has checked it bit by bit.

    Attributes:
        head: The original one, which a new head is made after.
        guard: Of the backbone's tensors; without digests where they are not known yet.
        state: These tensors, live, where the digests are known.
        num_bytes: What its tensors take.
    """

    model: StagedModel
    head: Part
    guard: FrozenGuard
    num_bytes: int
    state: Mapping[str, Tensor] = field(default_factory=dict)


def take_backbone(key: BackboneKey) -> HeldBackbone | None:
    """The model that a trial has left, which is the caller's from now on; None where there is none."""
    return _backbones.pop(key, None)


def leave_backbone(key: BackboneKey, held: HeldBackbone) -> None:
    """Leaves a model for the next trial with this backbone; the longest unused ones beyond 1 GiB are dropped."""
    _backbones[key] = held
    while sum(one.num_bytes for one in _backbones.values()) > _MAX_BACKBONE_BYTES:
        _backbones.popitem(last=False)


def held_index(spec: DataSpec, *, refit: bool = False, digest: str = "") -> ImageIndex:
    """The data set's index; listed once per process, so a search's data must not change while it runs.

    Args:
        refit: With the images of val in train too.
        digest: Of the images that there must be, see ``seen_digest``; empty for whichever there are.

    Raises:
        DataError: See ``load_index``; or there are other images.
    """
    key = (spec, refit)
    if key not in _indexes:
        index = load_index(spec)
        if digest and seen_digest(index) != digest:
            raise DataError(
                "the images are not those that the search began with: they have changed since, or this node has others"
            )
        _indexes[key] = with_val_in_train(index) if refit else index
        while len(_indexes) > _MAX_INDEXES:
            _indexes.popitem(last=False)
    _indexes.move_to_end(key)
    return _indexes[key]


def held_folds(spec: DataSpec, num_folds: int, *, digest: str) -> tuple[ImageIndex, ...]:
    """The data set's folds, see ``fold_indexes``; cut once per process.

    Raises:
        DataError: See ``held_index``; or a class has fewer images than there are folds.
    """
    key = (spec, num_folds)
    if key not in _folds:
        _folds[key] = fold_indexes(held_index(spec, digest=digest), num_folds, seed=spec.split.seed)
        while len(_folds) > _MAX_INDEXES:
            _folds.popitem(last=False)
    return _folds[key]


def held_spectrum(key: Hashable, compute: Callable[[], Spectrum]) -> Spectrum:
    """What the heads that are solved on the same features share; the longest unused ones beyond 1 GiB are dropped.

    Held on the CPU alone: a device's memory is free between trials.
    """
    found = _spectra.pop(key, None) or compute()
    if found.rows.device.type == "cpu":
        _spectra[key] = found
    while sum(one.num_bytes for one in _spectra.values()) > _MAX_SPECTRA_BYTES:
        _spectra.popitem(last=False)
    return found


def release_held() -> None:
    """Drops everything that this process keeps between trials."""
    _indexes.clear()
    _folds.clear()
    _backbones.clear()
    _spectra.clear()
    release_weights()
    release_copies()
    store.close()
