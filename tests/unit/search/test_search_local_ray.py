"""An own Ray's start: its folder, its second try, and what its workers import from; no Ray runs."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tlsearch.core.errors import ClusterError
from tlsearch.search.cluster import local_ray
from tlsearch.search.cluster.connect import job_config
from tlsearch.search.cluster.local_ray import begun_ahead, own_signals, ray_folder, start_ray, take_begun

TIMED_OUT = "The current node timed out during startup. This could happen because some of the raylet failed to startup"


@pytest.fixture(autouse=True)
def _no_folders_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)


def _init(*errors: Exception) -> tuple[Callable[..., str], list[dict[str, Any]]]:
    """A ``ray.init`` that raises these first, and the options of each call."""
    calls: list[dict[str, Any]] = []

    def init(**options: Any) -> str:
        calls.append(options)
        if len(calls) <= len(errors):
            raise errors[len(calls) - 1]
        return "up"

    return init, calls


def test_a_start_that_timed_out_is_tried_once_more() -> None:
    init, calls = _init(RuntimeError(TIMED_OUT))
    ended: list[int] = []
    assert start_ray(init, {"address": "local"}, shutdown=lambda: ended.append(1)) == "up"
    assert len(calls) == 2 and ended == [1] and calls[0]["_temp_dir"] == "/tmp/ray"


def test_the_last_failure_names_the_cause_and_not_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    init, calls = _init(*[RuntimeError(TIMED_OUT), ConnectionError(TIMED_OUT)] * 2, RuntimeError("never"))
    with pytest.raises(ClusterError) as caught:
        start_ray(init, {}, shutdown=lambda: None)
    text = str(caught.value)
    assert len(calls) == 4
    assert "did not come up in 4 tries" in text and TIMED_OUT in text and "the machine is too busy" in text
    assert "/tmp/ray/session_latest/logs" in text and "oken" not in text


@pytest.mark.parametrize("error", [ValueError("num_cpus must be positive"), PermissionError("denied")])
def test_what_would_fail_again_is_not_tried_again(error: Exception) -> None:
    init, calls = _init(error, error)
    with pytest.raises(ClusterError, match=f"a local Ray could not be started: {error}"):
        start_ray(init, {}, shutdown=lambda: None)
    assert len(calls) == 1


def test_the_folder_is_the_users_where_it_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ray_folder() == "/tmp/ray"
    short = Path("/tmp") / f"t{os.getpid()}"
    short.mkdir()
    try:
        monkeypatch.setenv("TMPDIR", str(short))
        assert ray_folder() == f"{short}/ray"
        monkeypatch.setenv("RAY_TMPDIR", "/tmp")
        assert ray_folder() == "/tmp/ray"
    finally:
        short.rmdir()


@pytest.mark.parametrize("kind", ["long", "file", "full"])
def test_a_folder_that_does_not_serve(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = "/tmp/" + "x" * 40 if kind == "long" else str(tmp_path / "f")
    if kind == "file":
        monkeypatch.setattr(local_ray, "_SOCKET_BYTES", 1000)
        Path(folder).write_text("")
    if kind == "full":
        monkeypatch.setattr(local_ray, "_SOCKET_BYTES", 1000)
        usage = local_ray.shutil.disk_usage
        monkeypatch.setattr(
            local_ray.shutil,
            "disk_usage",
            lambda path: usage(path)._replace(free=0) if str(path).startswith(str(tmp_path)) else usage(path),
        )
    monkeypatch.setenv("TMPDIR", folder)
    assert ray_folder() == "/tmp/ray"  # as if there were none
    monkeypatch.setenv("RAY_TMPDIR", folder)
    with pytest.raises(ClusterError, match="RAY_TMPDIR .*: set RAY_TMPDIR to a folder that serves") as caught:
        ray_folder()
    said = {"long": "is 45 bytes long, and may have", "file": "is below a file", "full": "has no room left"}
    assert said[kind] in str(caught.value)


def test_the_longest_folder_makes_a_socket_that_fits() -> None:
    longest = local_ray._SOCKET_BYTES - len(local_ray._SOCKET) - 1
    assert local_ray._problem("/tmp/" + "x" * (longest - 5)) is None
    assert local_ray._problem("/tmp/" + "x" * (longest - 4)) is not None


def test_workers_do_not_import_from_the_current_folder() -> None:
    """Ray appends the folders to this list, see ``worker_path``: a Ray that does otherwise fails in the long test."""
    made = job_config()
    made._py_driver_sys_path.extend([os.getcwd(), os.path.dirname(sys.argv[0])])
    assert made._py_driver_sys_path == []
    assert list(made._get_proto_job_config().py_driver_sys_path) == []


def test_sessions_of_starts_that_fail_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_ray, "ray_folder", lambda: str(tmp_path))
    monkeypatch.setattr(local_ray, "_TRIES", 1)
    others = tmp_path / f"session_2020-01-01_00-00-00_000000_{os.getpid()}"  # of a process that had this number
    others.mkdir()
    for number in range(6):

        def init(number: int = number, **options: Any) -> None:
            (tmp_path / time.strftime(f"session_%Y-%m-%d_%H-%M-%S_{number:06d}_{os.getpid()}")).mkdir()
            raise KeyboardInterrupt if number % 2 else RuntimeError(TIMED_OUT)

        with pytest.raises((ClusterError, KeyboardInterrupt)):
            start_ray(init, {}, shutdown=lambda: None)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept[0] == others.name and [name.split("_")[3] for name in kept[1:]] == ["000003", "000004", "000005"]


def test_signals_stay_those_of_the_command() -> None:
    """Ray's own handler exits with 15; its processes inherit what is blocked."""
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with pytest.raises(KeyboardInterrupt), own_signals():
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))  # as ray.init does
            assert signal.SIGHUP in signal.pthread_sigmask(signal.SIG_BLOCK, ())
            os.kill(os.getpid(), signal.SIGTERM)
        assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        os.kill(os.getpid(), signal.SIGTERM)
        assert seen == [signal.SIGTERM]
        with pytest.raises(SystemExit), own_signals():
            sys.exit(3)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_start_on_another_thread_leaves_sigterm_to_the_command(tmp_path: Path) -> None:
    """Ray installs a handler below Python, as ``faulthandler`` does, wherever it is started."""
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    with (tmp_path / "stack").open("w") as file:
        try:
            with begun_ahead(lambda: faulthandler.register(signal.SIGTERM, file=file), lambda started: None):
                take_begun()
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            faulthandler.unregister(signal.SIGTERM)
            signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM] and not (tmp_path / "stack").read_text()
