"""Where the cache of a node is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tlsearch.core.errors import StorageError
from tlsearch.core.types import CacheSpec
from tlsearch.node_cache.locked_files import cache_directory


def test_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_directory(CacheSpec()) == tmp_path / "cache"
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    assert cache_directory(CacheSpec(directory=str(tmp_path / "mine"))) == tmp_path / "mine"
    monkeypatch.delenv("TLSEARCH_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_directory(CacheSpec()) == tmp_path / "xdg" / "tlsearch"
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="TLSEARCH_CACHE_DIR names another"):
        cache_directory(CacheSpec(directory=str(tmp_path / "file")))
