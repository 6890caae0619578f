"""Where this node's stores live."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tlsearch.errors import StorageError
from tlsearch.types import CacheSpec


def cache_directory(cache: CacheSpec) -> Path:
    """The folder of this node's stores, created with mode 0700 where it is not there.

    ``cache.directory``, else the environment variable TLSEARCH_CACHE_DIR, else ``tlsearch`` in the user's
    cache folder.

    Raises:
        StorageError: It cannot be created.
    """
    chosen = cache.directory or os.environ.get("TLSEARCH_CACHE_DIR") or ""
    try:
        directory = Path(chosen).expanduser().absolute() if chosen else _user_cache() / "tlsearch"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home folder
        raise StorageError(
            f"the cache folder {chosen or 'of this user'} cannot be created: {error}; TLSEARCH_CACHE_DIR names another"
        ) from error
    return directory


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
