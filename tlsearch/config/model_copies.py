"""Copies of models that are whole: what a trial's model has in common with others of its search lies in it too.

A model that leaves its search is such a copy. Neither torch nor a tensor is read for one.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

from tlsearch.config.checkpoint_meta import META_FILE, TensorFile, read_model_file, tensor_name_problem
from tlsearch.core.codec import read_json
from tlsearch.core.errors import StorageError


def shared_names(folder: Path) -> tuple[str, ...]:
    """The names of the tensor files that a checkpoint has in common with others of its search.

    Args:
        folder: Holds checkpoint.json. One that breaks a rule names none here; reading the model says what is wrong.
    """
    try:
        listed = read_json(folder / META_FILE).get("shared_files", ())
        names = [str(one["name"]) for one in listed]
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    return tuple(name for name in names if not tensor_name_problem(name))


def whole_model(folder: Path, spare: Path) -> Path:
    """A model's folder where it is whole, else a copy in ``spare`` that is.

    Raises:
        StorageError: As of ``copy_model``.
    """
    if not shared_names(folder):
        return folder
    copy_model(folder, spare)
    return spare


def copy_model(source: Path, target: Path) -> None:
    """Copies a checkpoint with all of its tensors, checkpoint.json last.

    Args:
        target: Made if absent.

    Raises:
        StorageError: No checkpoint there, one that this version cannot read, or a file is missing.
    """
    found = read_model_file(source)
    copy_tensors(source, target, found.files)
    texts = [path for path in source.iterdir() if path.suffix == ".json"]
    for path in sorted(texts, key=lambda path: path.name == META_FILE):
        _copy(path, target / path.name)


def copy_tensors(source: Path, target: Path, files: Sequence[TensorFile]) -> None:
    """Copies files of a model; one that is there already, by the hash in its name, is not copied again.

    Args:
        source: The model's folder.
        target: Made if absent.

    Raises:
        StorageError: A file is missing.
    """
    target.mkdir(parents=True, exist_ok=True)
    for file in files:
        if not (target / file.name).is_file():
            _copy(file.path(source), target / file.name)


def _copy(source: Path, target: Path) -> None:
    temporary = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        shutil.copyfile(source, temporary)
        os.replace(temporary, target)
    except FileNotFoundError as error:
        raise StorageError(f"the files that a checkpoint names must be there: {source}") from error
    finally:
        temporary.unlink(missing_ok=True)
