"""What a trial does before its epochs, for people who wait: images are packed and features stored in minutes."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

DOING_FILE = "doing.json"
_INTERVAL_S = 1.0


class Doing:
    """Keeps a small file in the trial's folder up to date, at most once in a second; it is there while work is done.

    Args:
        directory: The trial's folder; None tells nobody.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._last = time.monotonic()  # short work is not worth a file
        self._told = False

    def __call__(self, what: str, done: int, total: int) -> None:
        """``done`` of ``total`` images of some work, such as ``packing train images``."""
        now = time.monotonic()
        if self._directory is None or now - self._last < _INTERVAL_S:
            return
        self._last, self._told = now, True
        self._directory.mkdir(parents=True, exist_ok=True)
        temporary = self._directory / f"{DOING_FILE}.tmp"
        temporary.write_text(json.dumps({"what": what, "done": done, "total": total}), encoding="utf-8")
        os.replace(temporary, self._directory / DOING_FILE)

    def over(self) -> None:
        """Takes the file away."""
        if self._directory is not None and self._told:
            (self._directory / DOING_FILE).unlink(missing_ok=True)
            self._told = False
