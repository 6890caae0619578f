"""Tensors and JSON on disk: atomic, synced, checked by hash, never a pickle.

A set of tensors is committed by a JSON file that names it with its sha256 and is written last. A process that
reads sees the old set or the new one, never half of either.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from tlsearch.config.checkpoint_meta import TensorFile, tensor_name_problem
from tlsearch.core.codec import parse_json
from tlsearch.core.crash import crash_point
from tlsearch.core.errors import StorageError
from tlsearch.core.files import write_atomically
from tlsearch.model.weights.file_kinds import other_kind
from tlsearch.node_cache.locked_files import give_usual_mode

_SUFFIX = ".safetensors"
_MAX_HEADER = 20_000_000  # bytes of JSON: of some 100,000 tensors
_LONG_HASH = 16  # characters in the name of a file that no checkpoint owns: it must be right without a look inside
_ABANDONED_S = 3600.0
_SILENT_S = 15.0  # a writer that has added nothing for so long is dead; network file systems show what is added late
_LOOK_S = 0.1
_CHUNK_BYTES = 16 << 20  # synced one by one, so that others see the writer alive

TensorFacts = tuple[str, tuple[int, ...]]  # safetensors' name of the kind, and the shape


def write_tensors(directory: Path, stem: str, tensors: Mapping[str, Tensor]) -> TensorFile:
    """Writes tensors as ``<stem>-<hash>.safetensors``: temporary name, sync, rename."""
    directory.mkdir(parents=True, exist_ok=True)
    with _saved(directory / stem, tensors) as temporary:
        digest = file_sha256(temporary)
        name = f"{stem}-{digest[:8]}{_SUFFIX}"
        os.replace(temporary, directory / name)
    return TensorFile(name=name, sha256=digest)


def add_tensors(directory: Path, stem: str, tensors: Mapping[str, Tensor]) -> TensorFile:
    """Adds tensors to a folder of many writers as ``<stem>-<hash>.safetensors``, unless it has them.

    Of writers that come at the same time one writes, and the others wait for its file as long as it grows. A file there
    is never changed, so where two write after all they do no harm: they write the same bytes.
    """
    content = save({name: tensor.detach().contiguous() for name, tensor in tensors.items()})
    digest = hashlib.sha256(content).hexdigest()
    path = directory / f"{stem}-{digest[:_LONG_HASH]}{_SUFFIX}"
    if not path.is_file():
        directory.mkdir(parents=True, exist_ok=True)
        ahead_s = _clock_ahead_s(directory)
        _remove_abandoned(directory, ahead_s)
        _write_once(path, content, ahead_s)
    _sync(directory)  # also of what another process has just written: a checkpoint will name it
    return TensorFile(name=path.name, sha256=digest, shared=True)


def _clock_ahead_s(directory: Path) -> float:
    """By how much the clock that stamps files there, which may be a server's, is ahead of this machine's."""
    with tempfile.TemporaryFile(dir=directory) as probe:
        return os.fstat(probe.fileno()).st_mtime - time.time()


def _remove_abandoned(directory: Path, ahead_s: float) -> None:
    """Deletes what killed writers left; no write takes this long."""
    for path in directory.glob("*.tmp"):
        if _unchanged_s(path, ahead_s) > _ABANDONED_S:
            path.unlink(missing_ok=True)


def _unchanged_s(path: Path, ahead_s: float) -> float:
    """Seconds since a file was written to; 0 where it is gone."""
    try:
        return time.time() + ahead_s - path.stat().st_mtime
    except OSError:
        return 0.0


def _write_once(path: Path, content: bytes, ahead_s: float) -> None:
    """Writes a file unless another process is writing it: the file under its temporary name is that one's claim."""
    claim = path.with_name(f"{path.name}.tmp")
    while not path.is_file():
        try:
            return _write_new(claim, path, content)
        except FileExistsError:
            if _unchanged_s(claim, ahead_s) > _SILENT_S:
                return _write_new(path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp"), path, content)
        time.sleep(_LOOK_S)


def _write_new(temporary: Path, path: Path, content: bytes) -> None:
    """Writes under a temporary name, syncs, renames; unless the file is there by now.

    Raises:
        FileExistsError: There is a file of the temporary name.
    """
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            if path.is_file():  # another process has finished, and its claim has just gone
                return temporary.unlink()
            for start in range(0, len(content), _CHUNK_BYTES):
                file.write(content[start : start + _CHUNK_BYTES])
                file.flush()
                os.fsync(handle)
        crash_point("shared_tensors")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def replace_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Replaces a safetensors file that no JSON file names: temporary name, sync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _saved(path, tensors, metadata) as temporary:
        os.replace(temporary, path)
    _sync(path.parent)


@contextmanager
def _saved(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Iterator[Path]:
    """A temporary file beside ``path``, synced; it is deleted where the body has not renamed it."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        save_file(plain, temporary, metadata=None if metadata is None else dict(metadata))
        give_usual_mode(temporary)
        _sync(temporary)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any], *, indent: int | None = 1, last: bool = True) -> None:
    """Writes plain JSON (NaN and infinity refused) under a temporary name, syncs, renames.

    Args:
        last: False where a later write into the folder syncs it.
    """
    write_atomically(path, json.dumps(content, indent=indent, allow_nan=False))
    if last:
        _sync(path.parent)


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        StorageError: The file is missing or holds something else.
    """
    try:
        content = parse_json(path.read_bytes(), path, object)
    except OSError as error:
        raise StorageError(f"{what} must be readable: {path}: {error.strerror}") from error
    except ValueError as error:
        problem = other_kind(path)
        raise StorageError(
            f"{what} must be JSON: {path} {problem}" if problem else f"{what} must be JSON: {path}: {error}"
        ) from error
    if not isinstance(content, dict):
        raise StorageError(f"{what} must be a JSON object: {path}")
    return content


def read_header(directory: Path, file: TensorFile) -> dict[str, TensorFacts]:
    """The kind and shape of each tensor of a safetensors file, which is as long as they take; none is read.

    Raises:
        StorageError: The file is missing or is not safetensors.
    """
    path = _path(directory, file)
    if int.from_bytes(_start(path), "little") > _MAX_HEADER:
        problem = other_kind(path) or f"has a header of more than {_MAX_HEADER:,} bytes"
        raise StorageError(f"a checkpoint's tensors must be {_SUFFIX}: {path} {problem}")
    try:
        with safetensors.safe_open(path, framework="pt") as opened:  # compares the offsets with the file's length
            slices = {name: opened.get_slice(name) for name in opened.keys()}
            return {name: (str(one.get_dtype()), tuple(one.get_shape())) for name, one in slices.items()}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        problem = other_kind(path) or str(error)
        raise StorageError(f"a checkpoint's tensors must be {_SUFFIX}: {path} {problem}") from error


def _path(directory: Path, file: TensorFile) -> Path:
    if problem := tensor_name_problem(file.name):
        raise StorageError(f"a checkpoint's tensors {problem}: {directory}")
    path = file.path(directory)
    if not path.is_file():
        hint = " (trials of its search share it: read the model there, or put this file beside its checkpoint.json)"
        raise StorageError(f"the tensors that the checkpoint names must be there: {path}{hint if file.shared else ''}")
    return path


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(8)


def read_tensors(directory: Path, file: TensorFile) -> dict[str, Tensor]:
    """Reads safetensors whose hash is known.

    Raises:
        StorageError: The file is missing, is not safetensors, or its sha256 is another one.
    """
    path = _path(directory, file)
    found = file_sha256(path)
    if found != file.sha256:
        if problem := other_kind(path):
            raise StorageError(f"a checkpoint's tensors must be whole: {path} {problem}")
        raise StorageError(f"{path} must have the sha256 {file.sha256} that the checkpoint names, and has {found}")
    try:
        return load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise StorageError(f"a checkpoint's tensors must be {_SUFFIX}: {path}: {error}") from error


def remove_others(directory: Path, keep: Iterable[str]) -> None:
    """Deletes what earlier commits and killed writers left beside the files that count."""
    names = set(keep)
    for path in directory.iterdir():
        if path.name not in names and path.suffix in (_SUFFIX, ".tmp"):
            path.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """The sha256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
