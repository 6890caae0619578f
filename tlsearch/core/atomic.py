"""Text files that are written whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from tlsearch.core.printable import ENCODING_BYTES
from tlsearch.core.secrets import holds_secret


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file so that a reader sees the old one or the new one, never half.

    A text that holds a secret is readable by its owner alone, from the first byte on.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    mode = 0o600 if holds_secret(text) else 0o666  # less the umask
    try:
        temporary.unlink(missing_ok=True)  # of a process that was killed; its mode may be another
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        # Names of files may be any bytes.
        with os.fdopen(handle, "w", encoding="utf-8", errors=ENCODING_BYTES) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
