"""What makes two passes through a frozen prefix the same: the key of a stored entry."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torchvision
from torch import Tensor

from tlsearch.core.types import TransformSpec

PASS_BATCH_SIZE = 64  # of every pass: another batch size moves activations by about 1e-5
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

    def as_dict(self) -> dict[str, object]:
        """The key as plain JSON, for the sidecar."""
        return {"format": _FORMAT, "batch_size": PASS_BATCH_SIZE, **dataclasses.asdict(self)}


def library_versions(backbone: str) -> str:
    """The versions that the activations of a backbone depend on."""
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    if backbone.startswith("timm/"):
        import timm

        versions += f", timm {timm.__version__}"
    return versions


def tensor_digests(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The sha256 of each tensor's shape, dtype and bytes; two tensors of one digest are equal bit for bit."""
    digests = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        content = hashlib.sha256(f"{plain.dtype}{tuple(plain.shape)}".encode())
        content.update(plain.reshape(-1).view(torch.uint8).numpy().data)
        digests[name] = content.hexdigest()
    return digests


def combined_digest(digests: Mapping[str, str]) -> str:
    """One digest of many, by name."""
    return hashlib.sha256(json.dumps(sorted(digests.items())).encode()).hexdigest()
