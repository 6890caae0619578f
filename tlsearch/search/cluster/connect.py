"""Connects to Ray, or starts one; ends only what it started.

Ray (2.60) puts the driver's current folder, and its script's, before the standard library in every worker, so that a
``statistics.py`` or ``random.py`` there ends every trial. Here workers import only what is installed.
"""

from __future__ import annotations

import gc
import logging
import os
import secrets
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlsearch.core.errors import ClusterError
from tlsearch.core.imports import package_folder, quick_import
from tlsearch.core.text import first_line
from tlsearch.core.user_folders import home
from tlsearch.search.cluster._private import (
    dashboard_address,
    read_token_again,
    set_worker_folders,
    silence_worker_logs,
)
from tlsearch.search.cluster.auth_probe import probe_head, refused
from tlsearch.search.cluster.local_ray import begun_ahead, own_signals, session_kept, start_ray, take_begun

if TYPE_CHECKING:
    from ray.job_config import JobConfig


logger = logging.getLogger(__name__)

_MODE, _TOKEN, _TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
_CONNECT_S = 5.0
_connection = threading.RLock()  # Ray has one for each process, and whichever search ends it ends it for all threads
_LOCAL_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_gcs_server_port_wait_time_s": "60",  # Ray gives up after 20 s, too early on a busy machine
    # Ray would start a worker for each CPU, and Tune then others: its actors have an environment of their own.
    "RAY_prestart_worker_first_driver": "0",
}


def settle_authentication(address: str) -> str:
    """Sets RAY_AUTH_MODE where the user has not.

    An own Ray gets a token of this process alone, so that no token file appears in the user's home;
    for a running one, token mode follows from a token being there.

    Returns:
        What holds now, for messages: mode and where the token comes from.
    """
    mode, source = os.environ.get(_MODE), _token_source()
    if address == "local" and source is None and mode in (None, "token"):
        os.environ[_TOKEN] = secrets.token_hex(32)
        source = _TOKEN
    if mode is None and source is not None:
        mode = os.environ[_MODE] = "token"
        if "ray" in sys.modules:
            read_token_again()
    return f"{_MODE} is {mode or 'not set'}, token from {source or 'nowhere'}"


def _token_source() -> str | None:
    if os.environ.get(_TOKEN):
        return _TOKEN
    named = os.environ.get(_TOKEN_PATH)
    if named:
        path = Path(named)
    elif (at_home := home()) is not None:
        path = at_home / ".ray" / "auth_token"
    else:
        return None
    return str(path) if path.is_file() else None


@contextmanager
def _no_other_thread() -> Iterator[None]:
    if not _connection.acquire(blocking=False):
        raise ClusterError("another search is running in this process: wait for it, or run this one in another process")
    try:
        yield
    finally:
        _connection.release()


@contextmanager
def connected(address: str, *, num_cpus: int | None = None) -> Iterator[str]:
    """A connection to Ray while the body runs.

    A Ray that this process is connected to already is used and left as it is.

    Gives the address of Ray's dashboard, ``http://HOST:PORT``; empty where none is known.

    Args:
        address: ``local`` starts an own Ray on this machine, ``auto`` joins the one that runs here,
            else HOST:PORT.
        num_cpus: CPUs of an own Ray; None is all.

    Raises:
        ClusterError: Ray cannot be reached or started, or another thread is connected.
    """
    authentication = settle_authentication(address)
    check_address(address)
    import ray

    with ExitStack() as stack:
        stack.enter_context(_no_other_thread())
        started = take_begun()
        if started is None and ray.is_initialized():
            yield dashboard_address()
            return
        _check_token(address, authentication)
        if address == "local":
            started = _start_own(num_cpus) if started is None else started
            stack.enter_context(session_kept(Path(started.address_info["session_dir"])))
        else:
            try:
                with own_signals():
                    started = ray.init(**_options(address))
            except Exception as error:
                raise ClusterError(_explain(address, authentication, error)) from error
        stack.callback(ray.shutdown)
        stack.callback(gc.collect)  # Ray (2.60) ends the process if another thread drops an ObjectRef meanwhile
        silence_worker_logs()
        yield dashboard_address()


@contextmanager
def starting_ray(address: str) -> Iterator[None]:
    """Starts an own Ray while the body runs, for ``connected`` to take over; nothing where none will be needed.

    A thread of its own waits for it. Ray is imported before, on this one: two threads that import what belongs
    together can meet half-made modules.

    Raises:
        ClusterError: Another thread is connected.
    """
    settle_authentication(address)
    with ExitStack() as stack:
        stack.enter_context(_no_other_thread())
        if address == "local":
            quick_import("ray")
            import ray

            if not ray.is_initialized():
                stack.enter_context(begun_ahead(partial(_start_own, None), _end_own))
        yield


def _start_own(num_cpus: int | None) -> Any:
    import ray

    for name, value in _LOCAL_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with own_signals():
        return start_ray(ray.init, _options("local") | {"num_cpus": num_cpus}, shutdown=ray.shutdown)


def _end_own(started: Any) -> None:
    import ray

    with session_kept(Path(started.address_info["session_dir"])):
        ray.shutdown()


def _options(address: str) -> dict[str, Any]:
    options = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR}
    return options | {"job_config": job_config()}


def check_address(address: str) -> None:
    """Finds in a second what Ray takes half a minute to say, or ends the process over.

    Raises:
        ClusterError: It is not an address, or nothing listens there.
    """
    if address in ("local", "auto"):
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in address or not port.isdigit():
        hint = "; `tlsearch submit` takes the address of a dashboard" if "://" in address else ""
        raise ClusterError(
            f"an address is local, auto or HOST:PORT (the head's port, by default 6379), not {address!r}{hint}"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"nothing answers at {address} ({error}); is it the address of a Ray head that runs? "
            "`--address local` starts an own Ray on this machine"
        ) from error


def _check_token(address: str, authentication: str) -> None:
    """The head's own word on this user's token; Ray would try for 20 s and then not say why."""
    if address in ("local", "auto"):
        return
    answer = probe_head(address)
    if answer.kind == "refused":
        raise ClusterError(refused(address, answer.text, authentication))


def _explain(address: str, authentication: str, error: Exception) -> str:
    return (
        f"no Ray answers at the address {address!r} ({first_line(error)}). {authentication}: a cluster with token "
        f"authentication needs {_MODE}=token and its token in {_TOKEN} or ~/.ray/auth_token, one without needs "
        f"{_MODE}=disabled; "
        "`--address local` starts an own Ray on this machine"
    )


def job_config() -> JobConfig:
    """A job whose workers have, beyond what is installed, at most the folder of this package.

    That one is needed only where tlsearch is run from its own sources without having been installed.
    """
    from ray.job_config import JobConfig

    folder = package_folder()
    made = JobConfig()
    set_worker_folders(made, [folder] if folder else [])
    return made
