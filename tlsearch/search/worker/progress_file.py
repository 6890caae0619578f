"""Says in a trial's folder what its worker does before the first report, for whoever looks at the search meanwhile."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def telling(path: Path, what: str) -> Iterator[None]:
    """Keeps a small file there while the body runs; the trial may write its own progress over it.

    Where it cannot be written nothing is said.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({"what": what}), encoding="utf-8")
        os.replace(temporary, path)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
