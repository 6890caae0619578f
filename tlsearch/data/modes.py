"""Who may read a file: temporary files and safetensors are made for their owner alone, and keep that when renamed."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def give_usual_mode(path: Path) -> None:
    """Gives a file the mode of any other new file of its folder: 0644 with the usual umask.

    Python reads the umask only by setting it, for all threads: a file that is made tells it without that.
    """
    probe = path.with_name(f".{uuid.uuid4().hex[:12]}.mode")
    try:
        with probe.open("xb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
    finally:
        probe.unlink(missing_ok=True)
    path.chmod(mode)
