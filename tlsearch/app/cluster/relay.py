"""A search that was submitted: its cluster's head answers commands about it, since only it sees the storage.

A question is a short job of its own: this module, run on the head, runs the command there and prints one line
with its output and exit code.
"""

from __future__ import annotations

import json
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tlsearch.app.catalog.bucket_searches import find_in_bucket
from tlsearch.app.catalog.catalog import MANIFEST, SearchEntry, find
from tlsearch.app.cluster.submit import SUBMITTED, Submitted
from tlsearch.config import bucket_address
from tlsearch.core import PACKAGE
from tlsearch.core.codec import from_plain, parse_json, read_json
from tlsearch.core.errors import ClusterError, UsageError
from tlsearch.core.imports import own_python
from tlsearch.core.text import last_line
from tlsearch.core.user_folders import state_directory
from tlsearch.search.cluster.jobs import JobRequest, Jobs, JobsAway, JobState

_MARK = "TLSEARCH-ANSWER "  # before the one line; Ray writes lines of its own into a job's log
_POLL_S = 1.0
_ANSWER_S = 180.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command printed on the head; ``job`` is the search's own, None where the cluster knows it no more."""

    code: int
    stdout: str
    stderr: str
    job: JobState | None = None


def locate(
    search_id: str | None, storage: Path | str | None = None, address: str | None = None
) -> SearchEntry | Submitted:
    """The search where it can be read: its folder if this machine sees it, else its cluster.

    Args:
        search_id: None for the latest, started or submitted here.
        storage: A storage folder to look in; with ``address`` the cluster's.
        address: Ask the cluster whose Jobs API is here, also for a search that somebody else submitted.

    Raises:
        StorageError: There is none, or none of that name.
    """
    remembered = _remembered()
    if address is not None:
        return _at(address, search_id, storage, remembered)
    if storage is not None:
        place = bucket_address(storage)
        return find_in_bucket(place, search_id) if place else find(search_id, Path(storage))
    name = search_id or _latest(remembered)
    if name not in remembered:
        return find(search_id)
    submitted = remembered[name]
    if (Path(submitted.storage) / submitted.search_id / MANIFEST).is_file():
        return find(submitted.search_id, Path(submitted.storage))
    return submitted


def ask(
    submitted: Submitted,
    arguments: Sequence[str],
    *,
    jobs: Jobs | None = None,
    wait: Callable[[float], object] = time.sleep,
    timeout_s: float = _ANSWER_S,
) -> Answer:
    """Runs a command of tlsearch on the head, about a submitted search.

    Args:
        arguments: After ``tlsearch``; no secret, Ray shows them.
        timeout_s: Beyond what the command itself may take.

    Raises:
        ClusterError: The cluster cannot be reached, refuses, or does not answer in time.
    """
    jobs = jobs or Jobs(submitted.address)
    own = jobs.state(submitted.job_id)
    request = JobRequest(
        job_id=f"{submitted.job_id}-ask-{secrets.token_hex(4)}",
        entrypoint=shlex.join(["python", "-m", __name__, *arguments]),
        py_modules=(PACKAGE,) if submitted.ship else (),
        metadata={"tlsearch.search_id": submitted.search_id, "tlsearch.question": arguments[0]},
    )
    jobs.submit(request)
    try:
        text = _log_of(jobs, request.job_id, wait=wait, timeout_s=timeout_s)
    finally:
        jobs.forget(request.job_id)
    lines = [line for line in text.splitlines() if line.startswith(_MARK)]
    if not lines:
        last = last_line(text, "nothing")
        raise ClusterError(f"the head of {submitted.address} could not run `tlsearch {shlex.join(arguments)}`: {last}")
    answer = parse_json(lines[-1].removeprefix(_MARK), f"the answer of {submitted.address}", dict)
    return replace(from_plain(Answer, answer), job=own)


def _log_of(jobs: Jobs, job_id: str, *, wait: Callable[[float], object], timeout_s: float) -> str:
    """The whole log of a job, once it has ended; a gap in the connection is waited out."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            state = jobs.state(job_id)
            if state is None or state.ended:
                return jobs.log(job_id) if state is not None else ""
        except JobsAway:
            pass  # until the time is up
        wait(_POLL_S)
    jobs.stop(job_id)
    raise ClusterError(f"the head has not answered within {timeout_s:g} s; is it busy, or out of memory?")


def _at(address: str, search_id: str | None, storage: Path | str | None, remembered: dict[str, Submitted]) -> Submitted:
    known = remembered.get(search_id or _latest(remembered) or "")
    if known is not None:
        return replace(known, address=address, storage=_text(storage) or known.storage)
    if not search_id or storage is None:
        raise UsageError("a search that this machine has not submitted is found by its ID and its cluster's --storage")
    return Submitted(search_id=search_id, job_id=search_id, address=address, storage=_text(storage))


def _text(storage: Path | str | None) -> str:
    return "" if storage is None else bucket_address(storage) or str(storage)


def _remembered() -> dict[str, Submitted]:
    """Searches submitted from this machine, oldest first."""
    files = sorted((state_directory() / SUBMITTED).glob("*.json"), key=lambda path: path.stat().st_mtime)
    found = {}
    for path in files:
        try:
            found[path.stem] = from_plain(Submitted, read_json(path))
        except (OSError, ValueError):
            continue  # of another version
    return found


def _latest(remembered: dict[str, Submitted]) -> str | None:
    """The ID of what was submitted last, if nothing was started here since."""
    if not remembered:
        return None
    state = state_directory()
    last = list(remembered)[-1]
    started = max((path.stat().st_mtime for path in state.glob("*.json")), default=0.0)
    return last if (state / SUBMITTED / f"{last}.json").stat().st_mtime >= started else None


def _answer(arguments: Sequence[str]) -> None:
    done = subprocess.run(own_python("tlsearch", *arguments), capture_output=True, text=True, check=False)
    answer = Answer(code=done.returncode, stdout=done.stdout, stderr=done.stderr)
    plain = {name: value for name, value in asdict(answer).items() if name != "job"}
    sys.stdout.write(f"{_MARK}{json.dumps(plain)}\n")


if __name__ == "__main__":
    _answer(sys.argv[1:])
