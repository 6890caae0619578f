"""Starts an own Ray on this machine: in a folder that serves, and again where the machine was too busy.

It takes seconds of waiting, so that it can be started beside other work; ``connected`` takes it over then.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from tlsearch.core.errors import ClusterError
from tlsearch.core.text import first_line
from tlsearch.core.user_folders import drop_ended, held

logger = logging.getLogger(__name__)

_OBJECT_STORE_BYTES = 100_000_000  # trials read their data from files, not from Ray
_SOCKET_BYTES = 103 if sys.platform == "darwin" else 107  # of a Unix socket's path
_SOCKET = "ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"  # the longest that Ray makes in it
_LEAST_BYTES = 50_000_000  # Ray's own logs and sockets
_DEFAULT_FOLDER = "/tmp"
_TRIES = 4  # Ray 2.60 gives a node 30 s, fixed in its code; a machine with eight busy processes a core needs more
_KEPT_SESSIONS = 3
_begun: list[Future[Any]] = []  # at most one: the start that nobody has taken over yet
_FATAL = (ImportError, TypeError, ValueError, PermissionError, FileNotFoundError)  # it would fail again


def start_ray(init: Callable[..., Any], options: dict[str, Any], *, shutdown: Callable[[], object]) -> Any:
    """Starts Ray; where it fails as it does on a machine with no time for it, up to four times.

    Args:
        init: ``ray.init``.
        options: Its arguments, but for those that only an own Ray takes.
        shutdown: ``ray.shutdown``.

    Returns:
        What ``ray.init`` gives.

    Raises:
        ClusterError: It cannot be started; the message says why.
    """
    folder = ray_folder()
    own = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES, "_temp_dir": folder}
    before, began = _children(), time.monotonic()
    for number in range(1, _TRIES + 1):
        try:
            with _marking_failed(Path(folder)):
                return init(**options, **own)
        except _FATAL as error:
            raise ClusterError(f"a local Ray could not be started: {first_line(error)}") from error
        except Exception as error:
            shutdown()
            _end(_children() - before)  # Ray forgets those of a node that did not come up
            if number == _TRIES:
                raise ClusterError(_explain(error, folder, time.monotonic() - began)) from error
            logger.warning("a local Ray did not come up (%s); try %d of %d", first_line(error), number + 1, _TRIES)
    raise AssertionError("the loop returns or raises")


@contextmanager
def begun_ahead(start: Callable[[], Any], end: Callable[[Any], object]) -> Iterator[None]:
    """Calls ``start`` on another thread while the body runs, and ``end`` after it where nobody took that over.

    Args:
        start: Starts Ray; its error is raised where it is taken over, and is of no account elsewhere.
        end: Ends what ``start`` gave.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="ray-start") as pool:
        _begun.append(pool.submit(start))
        try:
            yield
        finally:
            if _begun and (left := _begun.pop()).exception() is None:
                end(left.result())


def take_begun() -> Any:
    """What the start that runs ahead gives, which is the caller's to end from then on; None where none runs.

    An interrupt while it is waited for leaves it to ``begun_ahead``, as an error does.
    """
    if not _begun:
        return None
    started = _begun[0].result()
    _begun.clear()
    if threading.current_thread() is threading.main_thread():
        _take_back(signal.getsignal(signal.SIGTERM))  # the thread of the start could not
    return started


@contextmanager
def session_kept(session: Path) -> Iterator[None]:
    """Marks an own Ray's folder while it runs; of those that have run, the last few stay, for their logs."""
    with held(session):
        yield
    drop_ended(session.parent, "session_*", keep=_KEPT_SESSIONS)


@contextmanager
def _marking_failed(folder: Path) -> Iterator[None]:
    """Marks the sessions' folders of a start that fails or is interrupted as those of an own Ray that has ended."""
    since = time.strftime("session_%Y-%m-%d_%H-%M-%S")
    try:
        yield
    except BaseException:
        for session in folder.glob(f"session_*_{os.getpid()}"):
            if session.name >= since:
                with suppress(OSError), held(session):
                    pass
        drop_ended(folder, "session_*", keep=_KEPT_SESSIONS)
        raise


@contextmanager
def own_signals() -> Iterator[None]:
    """Keeps signals this process's while the body starts or joins Ray.

    Ray's processes are born deaf to SIGHUP, which a terminal sends to them all; Ray does so with SIGINT. And Ray puts
    SIGTERM handlers of its own over the one that is there: one of Python, which exits, on the main thread alone, and
    one of C++ beneath, which prints the stack and aborts the process after 3 s.
    """
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    except SystemExit as end:
        if end.code != signal.SIGTERM:
            raise
        raise KeyboardInterrupt from end
    finally:
        if main:
            _take_back(handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _take_back(handler: Any) -> None:
    """Sets Python's handler of SIGTERM, also where it seems to be set: Ray's of C++ is over it."""
    signal.signal(signal.SIGTERM, handler or signal.SIG_DFL)


def ray_folder() -> str:
    """Where an own Ray keeps its sockets and logs.

    RAY_TMPDIR, else TMPDIR, else /tmp, as Ray itself chooses; but where TMPDIR is too long for a socket, cannot be
    written or is full, /tmp, which is where Ray would be without it.

    Raises:
        ClusterError: None of them serves.
    """
    named = os.environ.get("RAY_TMPDIR")
    wanted = named or os.environ.get("TMPDIR") or _DEFAULT_FOLDER
    problem = _problem(wanted)
    if problem is None:
        return os.path.join(os.path.abspath(wanted), "ray")
    if not named and wanted != _DEFAULT_FOLDER and _problem(_DEFAULT_FOLDER) is None:
        logger.info("Ray's own files are in %s: TMPDIR %s", _DEFAULT_FOLDER, problem)
        return f"{_DEFAULT_FOLDER}/ray"
    name = "RAY_TMPDIR" if named else "TMPDIR" if os.environ.get("TMPDIR") else "the folder"
    raise ClusterError(
        f"a local Ray keeps its sockets and logs in a folder that is short and can be written; {name} {problem}: "
        "set RAY_TMPDIR to a folder that serves"
    )


def _problem(folder: str) -> str | None:
    """Why Ray cannot use a folder."""
    path = Path(os.path.abspath(folder))
    length = len(os.fsencode(path / _SOCKET))
    if length > _SOCKET_BYTES:
        most = _SOCKET_BYTES - len(_SOCKET) - 1
        return f"is {len(os.fsencode(path))} bytes long, and may have {most}: {path}"
    held = path if path.exists() else next(one for one in path.parents if one.exists())
    if not held.is_dir():
        return f"is below a file: {path}"
    below = path / "ray" if (path / "ray").is_dir() else held
    if not os.access(below, os.W_OK | os.X_OK):
        return f"cannot be written by this user: {below}"
    if shutil.disk_usage(held).free < _LEAST_BYTES:
        return f"has no room left: {path}"
    return None


def _explain(error: Exception, folder: str, seconds: float) -> str:
    load = f"{os.getloadavg()[0]:.0f} processes want its {os.cpu_count()} CPUs"
    memory = psutil.virtual_memory().available / 1e9
    return (
        f"a local Ray did not come up in {_TRIES} tries within {seconds:.0f} s: {first_line(error)}. "
        f"Mostly the machine is too busy ({load}; {memory:.1f} GB of memory are free): end other programs and try "
        f"again. Ray's own logs are in {folder}/session_latest/logs"
    )


def _children() -> set[psutil.Process]:
    """Processes below this one that are Ray's."""
    found = set()
    for one in psutil.Process().children(recursive=True):
        try:
            if any("/ray/" in part for part in one.cmdline()):
                found.add(one)
        except psutil.Error:
            continue
    return found


def _end(processes: set[psutil.Process]) -> None:
    for one in processes:
        try:
            one.kill()
        except psutil.Error:
            continue
    psutil.wait_procs(list(processes), timeout=10)
