"""The feature store's budget: the least recently used entries go first."""

from __future__ import annotations

import shutil
from pathlib import Path

from filelock import FileLock, Timeout

_AUTO_SHARE = 0.25  # of the disk space that is free, the store's own entries counted as free


def budget_bytes(directory: Path, features_gb: float | None) -> int:
    """What the store may hold: the configured budget, or a share of the free disk, and never more than fits."""
    free = shutil.disk_usage(directory).free + sum(_size(path) for path in _data_files(directory))
    return int(free * _AUTO_SHARE) if features_gb is None else min(int(features_gb * 1e9), free)


def make_room(directory: Path, needed_bytes: int, budget: int) -> bool:
    """Evicts the least recently used entries until ``needed_bytes`` more fit into ``budget``.

    Nothing is evicted for an entry that is larger than the whole budget.

    Returns:
        Whether there is room now.
    """
    if needed_bytes > budget:
        return False
    _remove_abandoned(directory)
    held = sum(_size(path) for path in _data_files(directory))
    entries = sorted(directory.glob("*.json"), key=_last_use)
    while held + needed_bytes > budget and entries:
        sidecar = entries.pop(0)
        held -= _size(sidecar.with_suffix(".bin"))
        remove_entry(sidecar)
    return held + needed_bytes <= budget


def remove_entry(sidecar: Path) -> None:
    """Deletes an entry; the sidecar first, so that no reader takes half of it for whole."""
    sidecar.unlink(missing_ok=True)
    sidecar.with_suffix(".bin").unlink(missing_ok=True)


def _remove_abandoned(directory: Path) -> None:
    """Deletes what killed writers left: data without a commit whose lock is free."""
    for path in _data_files(directory):
        if path.with_suffix(".json").exists():
            continue
        try:
            with FileLock(path.with_suffix(".lock"), timeout=0):
                if not path.with_suffix(".json").exists():
                    path.unlink(missing_ok=True)
        except Timeout:
            continue  # its writer is alive


def _data_files(directory: Path) -> list[Path]:
    return [path for path in directory.glob("*") if path.suffix in (".bin", ".tmp")]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0  # evicted by another process in the meantime


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
