"""Ray's Jobs API over HTTP, as far as a submitted search needs it.

A job runs on the cluster's head, so that it lives on when this machine sleeps. Everything in its runtime
environment is logged and shown by Ray: no secret is ever put into it.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tlsearch.core.errors import ClusterError
from tlsearch.core.text import first_line, last_line
from tlsearch.search.cluster._private import jobs_client
from tlsearch.search.cluster.auth_probe import refused
from tlsearch.search.cluster.connect import settle_authentication

_CONNECT_S = 5.0
_REQUEST_S = 60.0  # a connection that a sleeping laptop has lost would be waited for without end
_OVERRIDES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # both would win over the address that was asked for
_LATER = ("status code 502", "status code 503", "status code 504", "No available agent")  # a head that just started
_CHATTY = ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging")
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


class JobsAway(ClusterError):
    """The Jobs API does not answer now; it may answer later."""


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """What is submitted.

    Attributes:
        job_id: Free on the cluster.
        entrypoint: One shell command.
        working_dir: A small folder that is copied to the cluster; the command starts in it.
        py_modules: Packages that are copied too and win over installed ones.
    """

    job_id: str
    entrypoint: str
    working_dir: Path | None = None
    py_modules: tuple[Path, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def runtime_env(self) -> dict[str, Any]:
        """The job's runtime environment; plain texts, no secret."""
        env: dict[str, Any] = {"env_vars": {"PYTHONUNBUFFERED": "1"}}
        if self.working_dir is not None:
            env["working_dir"] = str(self.working_dir)
        if self.py_modules:
            env |= {"py_modules": [str(path) for path in self.py_modules], "excludes": ["**/__pycache__/"]}
        return env


@dataclass(frozen=True, kw_only=True)
class JobState:
    """A job at one moment; ``status`` is PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""

    job_id: str
    status: str
    message: str = ""

    @property
    def ended(self) -> bool:
        """It runs no more."""
        return self.status in _ENDED


class Jobs:
    """The Jobs API of a Ray head: calls raise JobsAway where it does not answer, ClusterError where it refuses."""

    def __init__(self, address: str) -> None:
        """Connects; settles the authentication first, as for a search.

        Args:
            address: ``http://HOST:PORT`` of the head's dashboard, by default port 8265.

        Raises:
            ClusterError: It is not such an address, or the cluster refuses the token.
            JobsAway: Nothing answers.
        """
        self._address = address
        self._authentication = settle_authentication(address)
        check_http_address(address)
        with self._explained():
            self._client = _client(address)

    def submit(self, request: JobRequest) -> None:
        """Copies the packages and starts the job."""
        with self._explained():
            self._client.submit_job(
                entrypoint=request.entrypoint,
                submission_id=request.job_id,
                runtime_env=request.runtime_env,
                metadata=dict(request.metadata),
            )

    def state(self, job_id: str) -> JobState | None:
        """A job as it is now; None: the cluster knows no such job."""
        try:
            with self._explained():
                details = self._client.get_job_info(job_id)
        except _NoSuchJob:
            return None
        return JobState(job_id=job_id, status=str(details.status.value), message=details.message or "")

    def log(self, job_id: str) -> str:
        """All that the job has printed so far."""
        with self._explained():
            return str(self._client.get_job_logs(job_id))

    def stop(self, job_id: str) -> bool:
        """Ends a job; whether it was running."""
        with self._explained():
            return bool(self._client.stop_job(job_id))

    def forget(self, job_id: str) -> None:
        """Removes a job that has ended from the cluster's list; one that cannot be removed stays."""
        with suppress(ClusterError), self._explained():
            self._client.delete_job(job_id)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        import requests
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            raise ClusterError(refused(self._address, str(error), self._authentication)) from error
        except (requests.RequestException, ConnectionError) as error:
            raise JobsAway(f"the Jobs API at {self._address} does not answer: {first_line(error)}") from error
        except RuntimeError as error:  # all that Ray has for an HTTP status that is not 200
            text = str(error)
            if "status code 404" in text:
                raise _NoSuchJob(f"the cluster at {self._address} knows no such job") from error
            if any(sign in text for sign in _LATER):
                hint = (
                    "; if it stays so, port 52365 of the head's machine is taken"
                    if "No available agent" in text
                    else ""
                )
                raise JobsAway(f"the Jobs API at {self._address} takes no job now: {last_line(error)}{hint}") from error
            raise ClusterError(f"the Jobs API at {self._address} refuses: {last_line(error)}") from error


class _NoSuchJob(ClusterError):
    """The cluster knows no job of this ID."""


def check_http_address(address: str) -> None:
    """Finds in seconds what a request without a time limit would wait for.

    Raises:
        ClusterError: The address is none of a dashboard.
        JobsAway: Nothing listens there.
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        parts, host, port = urlsplit(""), None, 0
    if parts.scheme not in ("http", "https") or not host:
        raise ClusterError(
            f"the Jobs API has an address like http://HEAD:8265, not {address!r}; HOST:6379 is for `tlsearch run`"
        )
    if parts.username or parts.password:
        raise ClusterError("an address holds no user and no password; the token comes from RAY_AUTH_TOKEN_PATH")
    try:
        socket.create_connection((host, port), timeout=_CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise JobsAway(
            f"nothing answers at {address} ({error}); a head's dashboard listens on its own machine only: reach it by "
            f"`ssh -L {port}:127.0.0.1:8265 HEAD`, `ray dashboard FILE` or `kubectl port-forward`"
        ) from error


def _client(address: str) -> Any:
    """Ray's client with a time limit on each request, at this address and no other."""
    for name in _CHATTY:  # they tell each upload
        logging.getLogger(name).setLevel(logging.WARNING)
    held = {name: os.environ.pop(name) for name in _OVERRIDES if name in os.environ}
    try:
        return jobs_client(address, timeout_s=_REQUEST_S)
    finally:
        os.environ.update(held)
