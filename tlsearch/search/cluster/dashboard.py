"""Where the Ray dashboard of a running search is: told in the search's folder, for ``status``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tlsearch.core.codec import read_json


@contextmanager
def telling_dashboard(path: Path, url: str) -> Iterator[None]:
    """The file says where the dashboard is while the body runs.

    Args:
        path: The file; what an earlier start has left there goes.
        url: ``http://HOST:PORT``; empty where there is none, as on an own Ray.
    """
    path.unlink(missing_ok=True)
    if url:
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps({"dashboard": url}), encoding="utf-8")
        os.replace(temporary, path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def read_dashboard(path: Path) -> str:
    """What the file says; empty where it is not there. Only a search that runs has a dashboard."""
    try:
        return str(read_json(path)["dashboard"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
