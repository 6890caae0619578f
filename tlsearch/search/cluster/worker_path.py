"""What Ray's workers import from: what is installed, never the folder that the user happens to stand in.

Ray (2.60) puts the driver's current folder, and its script's, before the standard library in every worker, so that a
``statistics.py`` or ``random.py`` there ends every trial.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tlsearch.core.imports import package_folder

if TYPE_CHECKING:
    from ray.job_config import JobConfig


def job_config() -> JobConfig:
    """A job whose workers have, beyond what is installed, at most the folder of this package.

    That one is needed only where tlsearch is run from its own sources without having been installed.
    """
    from ray.job_config import JobConfig

    folder = package_folder()
    made = JobConfig()
    # Private, checked with Ray 2.60: Ray appends its folders to this list, whatever it is given.
    made._py_driver_sys_path = _Fixed([folder] if folder else [])
    return made


class _Fixed(list[str]):
    """Takes nothing more."""

    def extend(self, folders: Iterable[str]) -> None:
        """Drops what Ray would add."""
