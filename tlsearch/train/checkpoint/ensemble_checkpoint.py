"""The checkpoint of an ensemble: the tensors of its members in one folder, and copies of any model's folder.

A folder is::

    ensemble.json                       written last: the commit point; names each member's tensors with their sha256
    weights-<epoch>-<hash>.safetensors  of each member
    <part>-<hash>.safetensors           what stands still, as in a trial's model: once for all members that share it
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tlsearch.config.checkpoint_meta import META_FILE, ModelMeta, read_model_file
from tlsearch.config.ensemble_meta import ENSEMBLE_FILE, EnsembleMember, EnsembleMeta, is_ensemble, read_ensemble_meta
from tlsearch.config.model_copies import copy_tensors
from tlsearch.core.crash import crash_point
from tlsearch.core.errors import StorageError
from tlsearch.train.checkpoint.tensor_files import remove_others, write_json


def save_ensemble(directory: Path, meta: EnsembleMeta, sources: Sequence[Path]) -> None:
    """Replaces the ensemble of a folder.

    Args:
        directory: Made if absent. Tensors of earlier ensembles in it are deleted afterwards.
        sources: The checkpoint folder of each member of ``meta``.

    Raises:
        StorageError: The members differ in their classes, or a file is missing.
    """
    first = meta.members[0]
    for member in meta.members[1:]:
        if member.checkpoint.meta.classes != first.checkpoint.meta.classes:
            raise StorageError(
                "the members of an ensemble must have the same classes in the same order; trials "
                f"{first.trial} and {member.trial} have not"
            )
    for member, source in zip(meta.members, sources, strict=True):
        copy_tensors(source, directory, member.checkpoint.files)
        crash_point("ensemble_tensors")
    write_json(directory / ENSEMBLE_FILE, meta.as_json())
    remove_others(directory, [file.name for member in meta.members for file in member.checkpoint.files])


def ensemble_member(source: Path, *, trial: int, count: int, temperature: float) -> EnsembleMember:
    """A trial's checkpoint as a member.

    Raises:
        StorageError: No checkpoint, or one that this version cannot read.
    """
    return EnsembleMember(trial=trial, count=count, temperature=temperature, checkpoint=read_model_file(source))


def networks_of(folder: Path) -> tuple[ModelMeta, ...]:
    """What each network of a model says of itself: of an ensemble each member, of a plain checkpoint the one.

    Raises:
        StorageError: No model there, or one that this version cannot read.
    """
    if is_ensemble(folder):
        return tuple(member.checkpoint.meta for member in read_ensemble_meta(folder).members)
    return (read_model_file(folder).meta,)


def copy_calibrated(directory: Path, target: Path, temperature: float, thresholds: tuple[float, ...] = ()) -> None:
    """Copies a model's folder into another one, with the temperature and thresholds that validation images gave.

    Raises:
        StorageError: No model there, or one that this version cannot read.
    """
    if is_ensemble(directory):
        ensemble = read_ensemble_meta(directory)
        for member in ensemble.members:
            copy_tensors(directory, target, member.checkpoint.files)
        write_json(target / ENSEMBLE_FILE, replace(ensemble, temperature=temperature, thresholds=thresholds).as_json())
        return
    found = read_model_file(directory)
    copy_tensors(directory, target, found.files)
    meta = replace(found.meta, temperature=temperature, thresholds=thresholds)
    write_json(target / META_FILE, replace(found, meta=meta).as_json())
