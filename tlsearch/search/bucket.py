"""A search whose storage is a bucket: each machine works in a folder of its own, the bucket holds what others need.

A worker takes its trial's checkpoints from the bucket before it opens the trial, and puts them there before each
report, so that a trial goes on anywhere. The driver puts there what a start on another machine needs: the search's own
files, never its lock. The study is in a database then.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlsearch.config.checkpoint_meta import META_FILE
from tlsearch.config.model_copies import shared_names
from tlsearch.core.errors import StorageError
from tlsearch.core.layout import FROZEN, VAL_LOGITS
from tlsearch.core.secrets import holds_secret
from tlsearch.core.text import first_line
from tlsearch.core.types import CacheSpec
from tlsearch.data.fetch.bucket_images import remote_system
from tlsearch.node_cache.locked_files import cache_directory

# Of a machine, of a trial (`spool`: of earlier versions), or of many, which send and fetch it with their models; a log
# grows and would go to the bucket again and again.
_OWN = ("trials", FROZEN, "spool", "lock", "stop", "ray.json", "logs", "log.jsonl", "log.jsonl.1", "log.jsonl.2")
_CHUNK_BYTES = 1 << 20
_PULLS = 8  # parts at a time: a search has a file of logits for each trial
_SHARED = threading.Lock()  # two pulls may need the same file


def machine_folder(uri: str) -> Path:
    """This machine's folder of a storage or a search that is in a bucket."""
    return cache_directory(CacheSpec()) / "searches" / hashlib.sha256(uri.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Mirror:
    """A search's folder here and in its bucket.

    Attributes:
        uri: Of the search, ``s3://BUCKET/.../ID``.
        directory: This machine's folder of it.
    """

    uri: str
    directory: Path

    def push(self, part: str) -> None:
        """Makes the bucket's copy of a file or folder equal to this one.

        Tensor files first, those too that trials share, then the JSON files that name them, then those that are gone
        are removed: a reader meanwhile finds a whole state, the old one or the new. A tensor file's name tells its
        content, but for the validation logits.

        Raises:
            StorageError: The bucket cannot be written.
        """
        here = self._local(part)
        with self._told():
            there = self._listed(part)
            system, root = remote_system(self.uri)
            self._push_shared(here.values())
            for key in sorted(here, key=lambda key: (key.endswith(".json"), key)):
                if key.endswith((".json", VAL_LOGITS)) or there.get(key) != here[key].stat().st_size:
                    _upload(here[key], system, f"{root}/{key}")
            for key in there.keys() - here.keys():
                system.delete_file(f"{root}/{key}")

    def push_own(self) -> None:
        """Puts the driver's own files into the bucket: all that is of the search and of no trial."""
        for path in sorted(self.directory.iterdir()):
            if path.name not in _OWN and not path.name.startswith("."):
                self.push(path.name)

    def pull(self, part: str) -> None:
        """Makes this machine's copy of a part equal to the bucket's; a part that is not there is removed here.

        What its models have in common with others comes first, where it is not here yet.

        Raises:
            StorageError: The bucket cannot be read.
        """
        target = self.directory / part
        with self._told():
            there = self._listed(part)
            system, root = remote_system(self.uri)
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".pull-", dir=target.parent) as folder:
                for key in there:
                    copy = Path(folder) / Path(key).relative_to(Path(part).parent)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    _download(system, f"{root}/{key}", copy)
                    if copy.suffix in (".json", ".yaml") and holds_secret(copy.read_text(errors="replace")):
                        copy.chmod(0o600)  # not yet seen by others: the folder is its owner's
                self._pull_shared(Path(folder))
                if target.is_dir():
                    shutil.rmtree(target)
                target.unlink(missing_ok=True)
                if there:
                    (Path(folder) / target.name).rename(target)

    def _push_shared(self, files: Iterable[Path]) -> None:
        names = {name for path in files if path.name == META_FILE for name in shared_names(path.parent)}
        there = self._listed(FROZEN) if names else {}
        system, root = remote_system(self.uri)
        for key in sorted({f"{FROZEN}/{name}" for name in names} - there.keys()):
            if (self.directory / key).is_file():  # else it lies in the model's folder
                _upload(self.directory / key, system, f"{root}/{key}")

    def _pull_shared(self, folder: Path) -> None:
        models = [meta.parent for meta in folder.rglob(META_FILE)]
        names = {name for model in models for name in shared_names(model) if not (model / name).is_file()}
        system, root = remote_system(self.uri)
        for name in sorted(names):
            path = self.directory / FROZEN / name
            with _SHARED:
                if not path.is_file():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    temporary = path.with_name(f"{name}.{uuid.uuid4().hex[:8]}.tmp")
                    try:
                        _download(system, f"{root}/{FROZEN}/{name}", temporary)
                        os.replace(temporary, path)
                    finally:
                        temporary.unlink(missing_ok=True)

    def pull_own(self) -> None:
        """Brings what a start on this machine needs: the driver's files, the models that are kept and all logits."""
        keys = [key for key in self._listed("trials") if key.count("/") > 1]
        models = {key[: key.index("/best/")] + "/best" for key in keys if "/best/" in key}
        logits = {key for key in keys if key.endswith(VAL_LOGITS)}
        with ThreadPoolExecutor(_PULLS) as pool:
            list(pool.map(self.pull, sorted({*self.parts(), *models, *logits})))

    def drop(self, part: str) -> None:
        """Removes a folder from the bucket; one that is not there, or cannot be removed now, is ignored."""
        system, root = remote_system(self.uri)
        with suppress(OSError):
            if self._listed(part):
                system.delete_dir(f"{root}/{part}")

    def remove(self) -> None:
        """Removes the search from its bucket, what makes it one first.

        Raises:
            StorageError: The bucket cannot be written.
        """
        with self._told():
            there = self._listed("")
            system, root = remote_system(self.uri)
            for key in sorted(there, key=lambda key: (key != "search.json", key)):
                system.delete_file(f"{root}/{key}")

    def parts(self) -> Sequence[str]:
        """The names of the driver's own files and folders in the bucket."""
        names = {key.partition("/")[0] for key in self._listed("")}
        return sorted(names - set(_OWN))

    def _local(self, part: str) -> Mapping[str, Path]:
        path = self.directory / part
        files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
        kept = [one for one in files if not one.name.endswith(".tmp")]
        return {one.relative_to(self.directory).as_posix(): one for one in kept}

    def _listed(self, part: str) -> Mapping[str, int]:
        """Size by key, relative to the search, of an object or all below a prefix."""
        from pyarrow import fs

        system, root = remote_system(self.uri)
        base = f"{root}/{part}".rstrip("/")
        one = system.get_file_info(base)
        found = [one] if one.type == fs.FileType.File else []
        if not found:
            found = system.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))
        return {str(f.path).removeprefix(f"{root}/"): int(f.size) for f in found if f.type == fs.FileType.File}

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the bucket become ours."""
        try:
            yield
        except OSError as error:
            raise StorageError(f"the storage {self.uri} failed: {first_line(error)}") from error


def _download(system: Any, key: str, path: Path) -> None:
    with system.open_input_stream(key) as source, open(path, "wb") as file:
        shutil.copyfileobj(source, file, _CHUNK_BYTES)


def _upload(path: Path, system: Any, key: str) -> None:
    with open(path, "rb") as source, system.open_output_stream(key) as target:
        shutil.copyfileobj(source, target, _CHUNK_BYTES)
