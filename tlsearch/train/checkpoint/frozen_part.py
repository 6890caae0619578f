"""What stands still in a trial's model: written once for the trial, or once for all trials of a search.

Trials of a backbone differ in how many of its parts they train, so in a search each part has a file of its own: a trial
of depth 2 and one that trains the head alone name the same stem. What batch norm estimates has a file beside it, since
policies estimate it again while all other tensors of the part stay as they were. Such files are named by their content,
and no trial changes or removes one: they go with the search.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from tlsearch.config.checkpoint_meta import TensorFile
from tlsearch.train.checkpoint.tensor_files import add_tensors, write_tensors

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_MAX_KNOWN = 1000
# What this process has written, by folder, names and contents: its next trial writes nothing.
_known: dict[tuple[Path, frozenset[tuple[str, str]]], TensorFile] = {}


@dataclass(frozen=True, kw_only=True)
class FrozenPart:
    """The files with a trial's unchanging tensors, on disk, and the tensors' names."""

    files: tuple[TensorFile, ...]
    names: frozenset[str]


def write_frozen_part(directory: Path, tensors: Mapping[str, Tensor]) -> FrozenPart:
    """Writes the tensors that training leaves alone, so that each new best epoch writes the others only.

    Args:
        directory: Of the trial's model.
    """
    return FrozenPart(files=(write_tensors(directory, "frozen", tensors),), names=frozenset(tensors))


def share_frozen_part(folder: Path, tensors: Mapping[str, Tensor], digests: Mapping[str, str]) -> FrozenPart:
    """As ``write_frozen_part``, for all trials of a search; what it has already is not written again.

    Args:
        folder: The search's, see `tlsearch.core.layout.frozen_folder`; made if absent.
        tensors: By name, ``<part>.<...>``.
        digests: Of at least these tensors, see `tlsearch.features.tensor_digests`.
    """
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        groups.setdefault(_stem(name), {})[name] = tensor
    files = tuple(_shared(folder, stem, group, digests) for stem, group in groups.items())
    return FrozenPart(files=files, names=frozenset(tensors))


def _stem(name: str) -> str:
    """How the name of the file begins that a tensor belongs to."""
    part = name.partition(".")[0]
    return f"{part}-statistics" if name.rpartition(".")[2] in _STATISTICS else part


def _shared(folder: Path, stem: str, tensors: Mapping[str, Tensor], digests: Mapping[str, str]) -> TensorFile:
    key = (folder, frozenset((name, digests[name]) for name in tensors))
    known = _known.get(key)
    if known is None or not (folder / known.name).is_file():
        if len(_known) >= _MAX_KNOWN:
            _known.clear()
        known = _known[key] = add_tensors(folder, stem, tensors)
    return known
