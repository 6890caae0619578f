"""Cached features: activations at a frozen boundary, computed once per node, shared read-only by all trials.

The rows are float32 or float16, or the bits of bfloat16 where the pass computed in it; feature maps are in NHWC order.
A key names everything that an entry depends on. Solutions are small sets of tensors, such as the weights of a linear
probe, kept as a safetensors file.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from filelock import Timeout
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor

from tlsearch.core.types import CacheSpec, Scalar, TransformSpec
from tlsearch.node_cache.locked_files import cache_directory
from tlsearch.node_cache.store import Content, NoRoomError, Store

PASS_BATCH_SIZE = 64  # of every pass on a CPU: another batch size moves activations by about 1e-5
_GPU_PASS_BATCH_SIZE = 256  # fills a GPU; halved where memory runs out
_FORMAT = 2  # of the entries on disk; counts up when bytes or meaning change


@dataclass(frozen=True, kw_only=True)
class FeatureKey:
    """Everything that the activations at a boundary depend on.

    Attributes:
        weights_digest: Of the pretrained weights.
        state_digest: Of the prefix's parameters and buffers as they stand, batch norm statistics included.
        depth: The unfreeze depth whose boundary this is: the prefix is the first 5 - depth parts.
        data_digest: Of classes, keys, labels and contents of the data; ``split`` says which part.
        compute: Device type and precision of the pass, e.g. ``cpu/fp32``, and ``/folded`` where batch norm is folded,
            which moves activations by about 1e-6.
        precision: ``full`` or ``half``: how the entry is stored.
        libraries: Versions of the libraries whose code the prefix is.
        augmentation: Of the fixed view; ``none`` for the images as an evaluation sees them.
        view: Which fixed view of the images, from 1; 0 is none.
        tokens: What is kept of a transformer's last tokens, see ``tlsearch.model``; empty is the model's own, and where
            the boundary is before them.
    """

    backbone: str
    weights_digest: str
    state_digest: str
    depth: int
    transform: TransformSpec
    data_digest: str
    split: str
    compute: str = "cpu/fp32"
    precision: str = "full"
    libraries: str = ""
    augmentation: str = "none"
    view: int = 0
    tokens: str = ""

    def as_dict(self) -> dict[str, object]:
        """The key as plain JSON, for the sidecar."""
        batch_size = pass_batch_size(self.compute.partition("/")[0])
        own: dict[str, object] = {**vars(self), "transform": self.transform.as_json()}
        if not self.tokens:
            del own["tokens"]
        return {"format": _FORMAT, "batch_size": batch_size, **own}


def pass_batch_size(device_type: str) -> int:
    """Images of one batch of an evaluation, and of a pass that makes cached features: the same for both."""
    return PASS_BATCH_SIZE if device_type == "cpu" else _GPU_PASS_BATCH_SIZE


def library_versions(backbone: str) -> str:
    """The versions that the activations of a backbone depend on."""
    import torchvision

    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    if backbone.startswith("timm/"):
        import timm

        versions += f", timm {timm.__version__}"
    return versions


def tensor_digests(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The sha256 of each tensor's shape, dtype and bytes; two tensors of one digest are equal bit for bit."""
    contents: Iterable[Tensor] = map(_bytes_of, tensors.values())  # one after the other: a copy may be large
    if any(tensor.device.type != "cpu" for tensor in tensors.values()):
        contents = in_one_copy(list(contents))
    digests = {}
    for (name, tensor), content in zip(tensors.items(), contents, strict=True):
        digest = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(content.numpy().data)
        digests[name] = digest.hexdigest()
    return digests


def _bytes_of(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def in_one_copy(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """One-dimensional tensors of a device and a dtype, on the host: each alone would wait for the device."""
    return torch.split(torch.cat(list(tensors)).cpu(), [len(tensor) for tensor in tensors])


def combined_digest(digests: Mapping[str, str]) -> str:
    """One digest of many, by name."""
    return hashlib.sha256(json.dumps(sorted(digests.items())).encode()).hexdigest()


_LOCK_TIMEOUT_S = 3600.0  # a writer that takes longer is taken for stuck; the trial then reads pixels
_HALF_MAX = 65504.0


@dataclass(frozen=True, kw_only=True)
class Features:
    """A stored entry.

    Attributes:
        rows: float32, float16 or bfloat16 (N, F), or (N, C, H, W) in channels_last; memory-mapped: gather copies.
        built: Whether this call computed it.
    """

    rows: Tensor
    built: bool


@dataclass(frozen=True, kw_only=True)
class NotStored:
    """The entry cannot be kept here; ``reason`` says why, for the trial's report."""

    reason: str


class _HalfOverflow(Exception):
    """An activation is beyond float16."""


def open_features(
    key: FeatureKey,
    *,
    num_rows: int,
    compute: Callable[[], Iterable[Tensor]],
    cache: CacheSpec,
    num_alike: int = 1,
) -> Features | NotStored:
    """Maps an entry, computing it first if no one has.

    Args:
        num_rows: N, the images of the split.
        num_alike: Entries of this size that the trial reads in turn. None is stored unless the budget holds them
            all: each would evict the one that is needed next.
        compute: Starts a pass over the split; yields activations of consecutive images, float32 or bfloat16.
        cache: Where, and how much. A damaged entry is computed again.

    Returns:
        The entry, or the reason why it cannot be kept: over the budget, disk full, or a writer that hangs.
    """
    store = _store(cache)

    def content(half: bool) -> Content:
        batches = iter(compute())
        first = next(batches)
        rows = (_to_array(batch, half) for batch in chain((first,), batches))
        one = _to_array(first[:1], half)
        return Content(shape=(num_rows, *one.shape[1:]), dtype=one.dtype, rows=rows)

    try:
        try:
            array, built = store.open(key.as_dict(), lambda: content(key.precision == "half"), num_alike=num_alike)
        except _HalfOverflow:
            array, built = store.open(key.as_dict(), lambda: content(False), num_alike=num_alike)
    except NoRoomError as error:
        needed_gb, budget_gb = error.needed_bytes / 1e9, error.budget_bytes / 1e9
        return NotStored(reason=f"the features need {needed_gb:.3g} GB; the feature store may hold {budget_gb:.3g} GB")
    except Timeout:
        return NotStored(reason=f"another process has been writing the features for {_LOCK_TIMEOUT_S:.0f} s")
    except OSError as error:
        return NotStored(reason=f"the feature store cannot be written: {error}")
    return Features(rows=_to_rows(array), built=built)


def find_features(key: FeatureKey, *, num_rows: int, cache: CacheSpec) -> Features | None:
    """Maps an entry if it is there and sound; never computes or waits."""
    array = _store(cache).find(key.as_dict())
    return None if array is None or len(array) != num_rows else Features(rows=_to_rows(array), built=False)


def _store(cache: CacheSpec) -> Store:
    folder = cache_directory(cache) / "features"
    return Store(folder=folder, budget_gb=cache.features_gb, share=0.25, max_open=16, wait_s=_LOCK_TIMEOUT_S)


def _to_rows(array: NDArray[Any]) -> Tensor:
    rows = torch.from_numpy(array)
    if array.dtype == np.uint16:
        rows = rows.view(torch.bfloat16)
    return rows.permute(0, 3, 1, 2) if rows.dim() == 4 else rows


def _to_array(batch: Tensor, half: bool) -> NDArray[Any]:
    batch = batch.detach().cpu()
    if batch.dim() == 4:
        batch = batch.permute(0, 2, 3, 1)
    if half:
        if float(batch.abs().max()) > _HALF_MAX:
            raise _HalfOverflow
        batch = batch.half()
    elif batch.dtype == torch.bfloat16:
        batch = batch.contiguous().view(torch.uint16)  # NumPy has no bfloat16
    else:
        batch = batch.float()
    return batch.contiguous().numpy()


_log = logging.getLogger(__name__)
_SOLUTION_TIMEOUT_S = 1800.0  # a writer that takes longer is taken for stuck; the tensors are then computed here too
_BUDGET_GB = 1.0


def open_solution(
    kind: str,
    key: FeatureKey,
    *,
    compute: Callable[[], Mapping[str, Tensor]],
    cache: CacheSpec,
    settings: Mapping[str, Scalar] | None = None,
    meanwhile: Callable[[], object] = bool,
) -> dict[str, Tensor]:
    """Reads an entry, computing and storing it first if no one has.

    Args:
        kind: What it is; a part of its name, as are ``settings``.
        key: Of the images and the prefix that it was computed from.
        compute: Gives the tensors; they are stored as they are on the CPU.
        cache: Where the node's caches are.
        meanwhile: Called where another process computes it, before this one waits for the result.

    Returns:
        The tensors, on the CPU. Where the cache cannot be written they are computed and not kept.
    """
    folder = cache_directory(cache) / "solutions"
    store = Store(folder=folder, budget_gb=_BUDGET_GB, wait_s=_SOLUTION_TIMEOUT_S)
    computed: dict[str, Tensor] = {}

    def content() -> Content:
        computed.update((name, tensor.detach().cpu().contiguous()) for name, tensor in compute().items())
        data = np.frombuffer(save(computed), dtype=np.uint8)
        return Content(shape=data.shape, dtype=data.dtype, rows=[data])

    try:
        entry = {"kind": kind, "settings": dict(settings or {}), "of": key.as_dict()}
        array, _ = store.open(entry, content, meanwhile=meanwhile)
        return load(array.tobytes())
    except (NoRoomError, Timeout, OSError) as error:
        _log.warning("%s is computed and not kept: %s", kind, error)
        if not computed:
            content()
        return computed
