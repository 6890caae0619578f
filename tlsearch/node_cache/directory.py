"""Where this node's stores live."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tlsearch.core.types import CacheSpec
from tlsearch.core.user_folders import CACHE_VARIABLE, own_folder, user_cache


def cache_directory(cache: CacheSpec) -> Path:
    """The folder of this node's stores, created with mode 0700 where it is not there.

    ``cache.directory``, else the environment variable TLSEARCH_CACHE_DIR, else ``tlsearch`` in the user's
    cache folder.

    Raises:
        StorageError: It cannot be created or written.
    """
    return own_folder("cache", CACHE_VARIABLE, _default, chosen=cache.directory)


def _default() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "tlsearch"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "tlsearch"
    return user_cache() / "tlsearch"
