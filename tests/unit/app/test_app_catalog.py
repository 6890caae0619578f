"""The catalogue of searches."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tlsearch.app import catalog
from tlsearch.errors import StorageError


def _entry(storage: Path, search_id: str) -> catalog.SearchEntry:
    (storage / search_id).mkdir(parents=True)
    return catalog.SearchEntry(
        search_id=search_id,
        experiment="emoji",
        directory=str(storage / search_id),
        source="space.yaml",
        tracking_uri="sqlite:///x.db",
        metric="val_accuracy",
        created=1.0,
    )


def _age(search_id: str, seconds: float) -> None:
    file = catalog.state_directory() / f"{search_id}.json"
    os.utime(file, (file.stat().st_atime, file.stat().st_mtime - seconds))


def test_latest_is_the_one_started_last(tmp_path: Path) -> None:
    first, second = _entry(tmp_path, "one"), _entry(tmp_path, "two")
    catalog.register(first)
    catalog.register(second)
    _age("one", 60)
    assert catalog.find() == second
    catalog.touch(first)
    _age("two", 30)
    assert catalog.find() == first


def test_found_by_id_and_in_a_storage_without_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = _entry(tmp_path / "runs", "one")
    catalog.register(entry)
    assert catalog.find("one") == entry
    monkeypatch.setenv("TLSEARCH_STATE_DIR", str(tmp_path / "another"))
    with pytest.raises(StorageError, match="there is no search"):
        catalog.find("one")
    assert catalog.find("one", tmp_path / "runs") == entry


def test_unknown_id_names_the_nearest(tmp_path: Path) -> None:
    catalog.register(_entry(tmp_path, "emoji-1"))
    with pytest.raises(StorageError, match="nearest is 'emoji-1'"):
        catalog.find("emojy-1")


def test_a_deleted_search_and_a_broken_entry_are_passed_over(tmp_path: Path) -> None:
    kept, gone = _entry(tmp_path, "kept"), _entry(tmp_path, "gone")
    catalog.register(kept)
    catalog.register(gone)
    (tmp_path / "gone" / catalog.MANIFEST).unlink()
    (tmp_path / "gone").rmdir()
    (catalog.state_directory() / "broken.json").write_text("{half")
    assert catalog.find() == kept


def test_new_ids_are_free_and_readable(tmp_path: Path) -> None:
    first = catalog.new_search_id("my photos/2", tmp_path, now=0.0)
    assert first.startswith("my-photos-2-19") and "/" not in first
    (tmp_path / first).mkdir()
    assert catalog.new_search_id("my photos/2", tmp_path, now=0.0) == f"{first}-2"
