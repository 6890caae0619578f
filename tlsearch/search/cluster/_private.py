"""The private names of Ray that this package uses, each with its reason; checked with Ray 2.60.

No other file uses any. ``tests/unit/test_private_names.py`` fails where one is gone. Ray is imported when it is needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.job_config import JobConfig

NAMES = (
    "ray._private.services:find_gcs_addresses",
    "ray._private.state:state.get_draining_nodes",
    "ray._private.worker:_worker_logs_enabled",
    "ray._private.worker:get_dashboard_url",
    "ray._raylet:Config.initialize",
    "ray._raylet:GcsClient",
    "ray.job_submission:JobSubmissionClient._do_request",
    "ray.job_config:JobConfig",  # and its attribute _py_driver_sys_path
)


def running_here() -> list[str]:
    """The addresses of the heads that this machine belongs to: what ``ray.init("auto")`` looks for."""
    from ray._private import services

    addresses: Any = services.find_gcs_addresses()
    return sorted(addresses or ())


def draining_nodes() -> set[str]:
    """Ids of the nodes that will go soon; Ray's public interface does not list them.

    Ray Train's own watcher of preemptions asks the same (ray/train/v2/_internal/execution/preemption.py); it works in
    the driver and in workers.
    """
    import ray

    return set(ray._private.state.state.get_draining_nodes())


def dashboard_address() -> str:
    """Of the Ray that this process is connected to, ``http://HOST:PORT``; empty where it has none.

    Publicly only what ``ray.init`` returns has it, which is another's where a connection is shared.
    """
    from ray._private.worker import get_dashboard_url

    found = get_dashboard_url()
    return f"http://{found}" if found else ""


def silence_worker_logs() -> None:
    """Ray prints lost workers on standard output, whatever ``log_to_driver`` says."""
    from ray._private import worker

    worker._worker_logs_enabled = False


def read_token_again() -> None:
    """Ray reads its authentication mode once, when it is imported."""
    from ray._raylet import Config  # type: ignore[attr-defined]  # compiled, without types

    Config.initialize("")


def check_alive(address: str, *, timeout_s: float) -> None:
    """Asks a head whether it takes this user's token; ``ray.init`` would try for 20 s and then not say why."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled, without types

    GcsClient(address=address).check_alive([], timeout=timeout_s)


def set_worker_folders(job: JobConfig, folders: Iterable[str]) -> None:
    """What workers import from beside what is installed; Ray appends the driver's folders to any list it is given."""
    job._py_driver_sys_path = _Fixed(folders)


class _Fixed(list[str]):
    """Takes nothing more."""

    def extend(self, folders: Iterable[str]) -> None:
        """Drops what Ray would add."""


def jobs_client(address: str, *, timeout_s: float) -> Any:
    """Ray's client of the Jobs API with a time limit on each request; the public one waits for ever."""
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):
        def _do_request(self, *arguments: Any, **options: Any) -> Any:
            return super()._do_request(*arguments, timeout=timeout_s, **options)

    return Client(address)
