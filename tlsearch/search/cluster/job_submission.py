"""Submits a search as a job of a Ray cluster, and follows what it prints."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count

from tlsearch.search.cluster.jobs import JobRequest, Jobs, JobsAway, JobState

_POLL_S = 2.0
_BYTES_PER_POLL_S = 250_000  # the whole log comes each time, so a long one is asked for less often
_AWAY_S = (2.0, 60.0)
_SUBMIT_S = 120.0  # a head that has just started takes no job yet


def submit_once(
    jobs: Jobs,
    request: JobRequest,
    *,
    wait: Callable[[float], object] = time.sleep,
    timer: Callable[[], float] = time.monotonic,
) -> tuple[str, bool]:
    """Submits unless a job of this search runs already; a head that is not ready yet is asked for two minutes.

    Ray knows an ID only once: a further start of the same search gets ``-2``, ``-3``, ...

    Returns:
        The job's ID, and whether it was submitted just now.

    Raises:
        JobsAway: The head does not take the job in time.
        ClusterError: It refuses.
    """
    started = timer()
    while True:
        try:
            return _submit_once(jobs, request)  # looks again: an answer may have been lost, and the job be there
        except JobsAway:
            if timer() - started > _SUBMIT_S:
                raise
            wait(_POLL_S)


def _submit_once(jobs: Jobs, request: JobRequest) -> tuple[str, bool]:
    for number in count(1):
        job_id = request.job_id if number == 1 else f"{request.job_id}-{number}"
        state = jobs.state(job_id)
        if state is None:
            jobs.submit(replace(request, job_id=job_id))
            return job_id, True
        if not state.ended:
            return job_id, False
    raise AssertionError("unreachable")


def follow(
    jobs: Jobs,
    job_id: str,
    write: Callable[[str], object],
    *,
    note: Callable[[str], object] = lambda text: None,
    wait: Callable[[float], object] = time.sleep,
) -> JobState | None:
    """Writes what the job prints until it ends, through any loss of the connection.

    Every look is a request of its own, so that a laptop's sleep or a broken tunnel is nothing but a gap.

    Args:
        note: Hears once when the cluster goes away, and when it is back.
        wait: Waits this number of seconds.

    Returns:
        How it ended; None where the cluster no longer knows it (the head is another one).

    Raises:
        ClusterError: The cluster refuses.
    """
    seen, away_s = 0, 0.0
    while True:
        try:
            state = jobs.state(job_id)  # before the log: that of an ended job is complete
            text = jobs.log(job_id) if state is not None else ""
        except JobsAway as error:
            if not away_s:
                note(f"{error}; the job goes on, trying again")
            away_s = min(max(away_s * 2, _AWAY_S[0]), _AWAY_S[1])
            wait(away_s)
            continue
        if away_s:
            note("the cluster answers again")
            away_s = 0.0
        if len(text) > seen:
            write(text[seen:])
            seen = len(text)
        if state is None or state.ended:
            return state
        wait(max(_POLL_S, len(text) / _BYTES_PER_POLL_S))
