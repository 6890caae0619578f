"""Gives faults that were found behind the space file, such as weights that cannot be had, their place in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tlsearch.config import parse_space_file
from tlsearch.core.errors import Fault


def place_faults(
    faults: Sequence[Fault],
    path: Path,
    *,
    overrides: Sequence[str] = (),
    data_path: Path | None = None,
    current: Path | None = None,
) -> tuple[Fault, ...]:
    """The faults with line and column of the value they speak of, or of its nearest parent.

    Args:
        faults: A fault that has a line already stays as it is.
        path: The space file, read again; as are ``overrides``, ``data_path`` and ``current``.
    """
    document = parse_space_file(path, overrides, data_path, current=current)[1] if faults else None
    if document is None:
        return tuple(faults)
    return tuple(fault if fault.line else document.fault(fault.path, fault.message) for fault in faults)
