"""Entries that wait on disk for an MLflow store that is away: JSON lines in the search's folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from tlsearch.tracking.entries import Entry, from_line, to_line

logger = logging.getLogger(__name__)


class Spool:
    """One file of entries, oldest first; sending one twice does no harm, so it is only ever too long."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> list[Entry]:
        """All entries; a line that a crash left half written is passed over."""
        try:
            lines = self.path.read_text(encoding="utf-8").split("\n")
        except FileNotFoundError:
            return []
        entries = []
        for line in filter(None, lines):
            try:
                entries.append(from_line(line))
            except ValueError as error:
                logger.warning("%s: %s", self.path, error)
        return entries

    def append(self, entries: Sequence[Entry]) -> None:
        """Adds entries at the end; they are on the disk when this returns."""
        if not entries:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            # After a half-written line the next one must not be glued to it.
            text = "\n" if _ends_open(self.path) else ""
            text += "".join(f"{to_line(entry)}\n" for entry in entries)
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())

    def replace(self, entries: Sequence[Entry]) -> None:
        """Makes these entries the whole content; none removes the file."""
        if not entries:
            self.path.unlink(missing_ok=True)
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        temporary.write_text("".join(f"{to_line(entry)}\n" for entry in entries), encoding="utf-8")
        os.replace(temporary, self.path)


def _ends_open(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
