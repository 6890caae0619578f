"""One search that has ended, for all tests of this room that need nothing of their own in it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from small_search import small_search

from tlsearch.app.catalog.catalog import SearchEntry


@pytest.fixture(scope="session")
def _ended_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ended") / "home"
    root.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLSEARCH_STATE_DIR", str(root / "state"))
        patch.setenv("TLSEARCH_CACHE_DIR", str(root / "cache"))
        small_search(root)
    shutil.copytree(root, root.with_name("template"))
    return root


@pytest.fixture
def ended_search(_ended_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SearchEntry:
    """``small_search`` as it ended: each test finds it whole, at the same place, with an MLflow store of its own."""
    shutil.rmtree(_ended_home)
    shutil.copytree(_ended_home.with_name("template"), _ended_home)
    monkeypatch.setenv("TLSEARCH_STATE_DIR", str(_ended_home / "state"))
    monkeypatch.setenv("TLSEARCH_CACHE_DIR", str(_ended_home / "cache"))
    entry = SearchEntry(**json.loads((_ended_home / "tlsearch_runs/small/search.json").read_text()))
    return replace(entry, tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
