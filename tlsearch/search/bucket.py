"""A search whose storage is a bucket: each machine works in a folder of its own, the bucket holds what others need.

A worker takes its trial's checkpoints from the bucket before it opens the trial, and puts them there before each
report, so that a trial goes on anywhere. The driver puts there what a start on another machine needs: the search's own
files, never its lock. The study is in a database then.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tlsearch.core.errors import StorageError
from tlsearch.core.layout import VAL_LOGITS, SearchFolder
from tlsearch.core.secrets import holds_secret
from tlsearch.core.types import (
    CacheSpec,
    EpochReport,
    RunningTrial,
    SearchObserver,
    TrialAssignment,
    TrialConfig,
    TrialFactory,
    TrialOutcome,
)
from tlsearch.data.fetch.bucket_images import remote_system
from tlsearch.node_cache.locked_files import cache_directory

# Of a machine, or of a trial (`spool`: of earlier versions); a log grows and would go to the bucket again and again.
_OWN = ("trials", "spool", "lock", "stop", "ray.json", "logs", "log.jsonl", "log.jsonl.1", "log.jsonl.2")
_CHUNK_BYTES = 1 << 20
_PULLS = 8  # parts at a time: a search has a file of logits for each trial


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

        Tensor files first, then the JSON files that name them, then those that are gone are removed: a reader
        meanwhile finds a whole state, the old one or the new. A tensor file's name tells its content, but for the
        validation logits.

        Raises:
            StorageError: The bucket cannot be written.
        """
        here = self._local(part)
        with self._told():
            there = self._listed(part)
            system, root = remote_system(self.uri)
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
                    with system.open_input_stream(f"{root}/{key}") as source, open(copy, "wb") as file:
                        shutil.copyfileobj(source, file, _CHUNK_BYTES)
                    if copy.suffix in (".json", ".yaml") and holds_secret(copy.read_text(errors="replace")):
                        copy.chmod(0o600)  # not yet seen by others: the folder is its owner's
                if target.is_dir():
                    shutil.rmtree(target)
                target.unlink(missing_ok=True)
                if there:
                    (Path(folder) / target.name).rename(target)

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

    def _told(self) -> _Told:
        return _Told(self.uri)


def _upload(path: Path, system: Any, key: str) -> None:
    with open(path, "rb") as source, system.open_output_stream(key) as target:
        shutil.copyfileobj(source, target, _CHUNK_BYTES)


class _Told:
    """Errors of the bucket become ours."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            first = next(iter(str(error).splitlines()), type(error).__name__)
            raise StorageError(f"the storage {self._uri} failed: {first}") from error


class BucketTrial:
    """A RunningTrial whose checkpoints are in the bucket before its reports are sent."""

    def __init__(self, inner: RunningTrial, push: Callable[[], None]) -> None:
        self._inner, self._push = inner, push

    @property
    def epochs_done(self) -> int:
        """Of the trial."""
        return self._inner.epochs_done

    @property
    def reports(self) -> Sequence[EpochReport]:
        """Of the trial."""
        return self._inner.reports

    def step(self) -> EpochReport:
        """One epoch."""
        report = self._inner.step()
        self._push()
        return report

    def save(self) -> None:
        """The running checkpoint, into the bucket too."""
        self._inner.save()
        self._push()

    def close(self) -> None:
        """Closes the trial."""
        self._inner.close()


@dataclass(frozen=True, kw_only=True)
class ThroughBucket:
    """A TrialFactory for workers that share no folder; travels to them.

    Attributes:
        uri: Of the search.
        inner: Opens the trial in this machine's folder; None is the real fine-tuning.
    """

    uri: str
    inner: TrialFactory | None = None

    def __call__(self, assignment: TrialAssignment) -> BucketTrial:
        """Takes the trial's checkpoints, then opens it."""
        # A folder of the workers', apart from the driver's on the same machine.
        mirror = Mirror(uri=self.uri, directory=machine_folder(f"{self.uri}#workers"))
        part = f"trials/{assignment.number}"
        mirror.pull(part)
        here: Any = replace(assignment, directory=str(mirror.directory / part))
        if self.inner is not None:
            return BucketTrial(self.inner(here), lambda: mirror.push(part))
        from tlsearch.search.ray_tune.trainable import fine_tuning  # imports Ray, which those who only look do without

        return BucketTrial(fine_tuning(here), lambda: mirror.push(part))


class Fetcher(SearchObserver):
    """Brings an ended trial's best model to the driver; comes before the observers that read it."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror

    def trial_started(self, number: int, config: TrialConfig) -> None:
        """From now on a start on another machine finds the study."""
        self._mirror.push_own()

    def trial_ended(self, number: int, outcome: TrialOutcome) -> None:
        """Takes the best model and its logits; the checkpoint to go on from has served."""
        self._mirror.drop(f"trials/{number}/running")
        self._mirror.pull(f"trials/{number}/best")
        self._mirror.pull(f"trials/{number}/{VAL_LOGITS}")


class Dropper(SearchObserver):
    """Removes from the bucket what the driver no longer keeps; comes after the tidier."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._ended: set[int] = set()

    def trial_ended(self, number: int, outcome: TrialOutcome) -> None:
        """Drops the models that are gone here, where the logits stay."""
        self._ended.add(number)
        folder = SearchFolder(root=self._mirror.directory)
        for one in [one for one in self._ended if not (folder.trial(one) / "best").is_dir()]:
            with suppress(StorageError):
                self._mirror.push(f"trials/{one}")
            self._ended.discard(one)
