"""Submits a space file to a cluster: what can be judged from here is judged here, before anything is sent."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from tlsearch.app.catalog.search_names import check_name, new_search_id
from tlsearch.config import Document, Keys, SpaceFile, parse_space_file, show
from tlsearch.config.document.wording import is_url, split_sqlite
from tlsearch.core import PACKAGE, __version__
from tlsearch.core.errors import SpaceError, SpaceProblem
from tlsearch.core.files import write_atomically
from tlsearch.core.secrets import holds_secret
from tlsearch.core.user_folders import scratch_folder, state_directory
from tlsearch.search.cluster.job_submission import submit_once
from tlsearch.search.cluster.jobs import JobRequest, Jobs
from tlsearch.space import build_space

SUBMITTED = "submitted"  # folder of the catalogue, one file for each search sent to a cluster


@dataclass(frozen=True, kw_only=True)
class SubmitOptions:
    """What the user said on the command line of ``submit``.

    Attributes:
        address: ``http://HEAD:8265``.
        data_path: In place of ``data.path``; a path on the cluster.
        ship: Whether this machine's tlsearch is copied to the cluster; else the nodes' own is used.
    """

    file: Path
    address: str
    overrides: Sequence[str] = ()
    data_path: str | None = None
    name: str | None = None
    ship: bool = True


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """A search on a cluster, as this machine remembers it.

    Attributes:
        new: Whether its job was started just now.
        ship: As in SubmitOptions.
    """

    search_id: str
    job_id: str
    address: str
    storage: str
    new: bool = True
    ship: bool = True


def submit_file(options: SubmitOptions, *, jobs: Jobs | None = None) -> Submitted:
    """Checks the file and starts its search as a job; a search of this name that runs is found, not doubled.

    Raises:
        SpaceError: Every error that can be seen from here: of the file, of paths that other machines do not have,
            and of secrets written into it.
        ClusterError: The cluster cannot be reached or refuses.
        StorageError: The name breaks a rule.
    """
    name = None if options.name is None else check_name(options.name)
    file = checked_file(options)
    search_id = name or new_search_id(file.name, Path(file.storage))
    jobs = jobs or Jobs(options.address)
    with scratch_folder("submit") as folder:
        shutil.copyfile(options.file, folder / options.file.name)
        request = JobRequest(
            job_id=search_id,
            entrypoint=entrypoint(options, search_id),
            working_dir=folder,
            py_modules=(PACKAGE,) if options.ship else (),
            metadata={"tlsearch.search_id": search_id, "tlsearch.version": __version__},
        )
        job_id, new = submit_once(jobs, request)
    submitted = Submitted(
        search_id=search_id,
        job_id=job_id,
        address=options.address,
        storage=file.storage,
        new=new,
        ship=options.ship,
    )
    folder_path = state_directory(write=True) / SUBMITTED
    folder_path.mkdir(exist_ok=True)
    write_atomically(folder_path / f"{search_id}.json", json.dumps(asdict(submitted), indent=2))
    return submitted


def entrypoint(options: SubmitOptions, search_id: str) -> str:
    """The job's command: starts the search, or goes on with it where an earlier job has begun it."""
    command = ["python", "-m", "tlsearch", "run", options.file.name, "--name", search_id, "--or-resume"]
    command += ["--address", "auto"]  # inside a job Ray names its own cluster
    if options.data_path is not None:
        command += ["--data", options.data_path]
    for override in options.overrides:
        command += ["--set", override]
    return shlex.join(command)


def checked_file(options: SubmitOptions) -> SpaceFile:
    """The file as the cluster will read it.

    Raises:
        SpaceError: All its errors.
    """
    data_path = Path(options.data_path) if options.data_path is not None else None
    file, problems = parse_space_file(options.file, options.overrides, data_path)
    if file is None:
        raise SpaceError(problems)
    problems = [*problems, *build_space(file)[1]]
    problems = [one for one in problems if not _for_the_cluster(one, file.document)]
    problems += [*_relative_places(file), *_secrets(file.document, options.file.read_text(encoding="utf-8"))]
    if problems:
        raise SpaceError(problems)
    return file


def _for_the_cluster(problem: SpaceProblem, document: Document) -> bool:
    """Whether something is missing on this machine that an absolute path names: it may be on the cluster."""
    texts = document.texts(problem.path).values() if problem.kind == "absent" else ()
    return bool(texts) and all(_everywhere(text) for text in texts)


def _everywhere(text: str) -> bool:
    """An absolute path or a URL; for a SQLite URL its file."""
    sqlite = split_sqlite(text)
    if sqlite is None and is_url(text):
        return True
    return PurePosixPath(sqlite[1] if sqlite else text).is_absolute()


def _relative_places(file: SpaceFile) -> Iterator[SpaceProblem]:
    document = file.document
    rule = "on a cluster a path must be the same on every node: absolute, or a URL"
    defaults: dict[Keys, str] = {("storage",): "./tlsearch_runs", ("tracking", "uri"): "sqlite:///mlflow.db"}
    for key, default in defaults.items():
        if not document.texts(key):
            option = ".".join(str(part) for part in key)
            yield document.problem(key, f"{rule}; the default {default!r} is neither: give --set {option}=...")
    places: list[Keys] = [*defaults]
    if file.data.path is not None:
        places.append(("data", "path"))
    for name, source in file.weights.items():
        if source.kind == "file":
            short = ("weights", name)
            places.append(short if short in document.texts(short) else (*short, "path"))
    for place in places:
        for path, text in document.texts(place).items():
            if not _everywhere(text):
                yield document.problem(path, f"{rule}, not {show(text)}")


def _secrets(document: Document, text: str) -> Iterator[SpaceProblem]:
    rule = (
        "a secret would be copied into logs, tags and the job's description; name the user alone, and give the "
        "password to the nodes as PGPASSWORD or MLFLOW_TRACKING_PASSWORD"
    )
    paths = [path for path, value in document.texts().items() if holds_secret(value)]
    for path in paths:
        yield document.problem(path, rule)
    if not paths and holds_secret(text):  # in a comment
        line = next((number for number, one in enumerate(text.splitlines(), 1) if holds_secret(one)), 1)
        yield SpaceProblem(path=(), message=rule, file=str(document.path), line=line, column=1)
