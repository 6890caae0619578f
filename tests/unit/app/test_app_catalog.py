"""The catalogue of searches: each is where its folder lies, and is found by its name or its storage."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tlsearch.app.catalog import catalog
from tlsearch.core import user_folders
from tlsearch.core.errors import StorageError
from tlsearch.core.trusted_hosts import is_trusted


def _entry(storage: Path, search_id: str, *, uid: str = "", created: float = 1.0) -> catalog.SearchEntry:
    (storage / search_id).mkdir(parents=True)
    return catalog.SearchEntry(
        search_id=search_id,
        experiment="emoji",
        directory=str(storage / search_id),
        source=str(storage.parent / "space.yaml"),
        tracking_uri=f"sqlite:///{storage}/mlflow.db",
        metric="val_accuracy",
        created=created,
        uid=uid or f"uid of {storage / search_id}",
    )


def _age(search_id: str, seconds: float) -> None:
    (file,) = user_folders.state_directory().glob(f"{search_id}.*json")
    os.utime(file, (file.stat().st_atime, file.stat().st_mtime - seconds))


def test_latest_is_the_one_started_last(tmp_path: Path) -> None:
    first, second = _entry(tmp_path, "one"), _entry(tmp_path, "two")
    catalog.register(first)
    catalog.register(second)
    _age("one", 60)
    assert catalog.find() == second
    catalog.register(first)
    _age("two", 30)
    assert catalog.find() == first


def test_found_by_id_by_folder_and_in_a_storage_without_catalogue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = _entry(tmp_path / "runs", "one")
    catalog.register(entry)
    assert catalog.find("one") == catalog.find(str(tmp_path / "runs/one")) == entry
    monkeypatch.setenv("TLSEARCH_STATE_DIR", str(tmp_path / "another"))
    with pytest.raises(StorageError, match="no search"):
        catalog.find("one")
    assert catalog.find("one", tmp_path / "runs") == entry
    monkeypatch.chdir(tmp_path)
    assert catalog.find("one", Path("runs")) == catalog.find("runs/one") == entry
    with pytest.raises(StorageError, match=f"it is a search's own folder: give its storage, --storage {tmp_path}/runs"):
        catalog.find("one", Path("runs/one"))


def test_unknown_id_names_the_nearest(tmp_path: Path) -> None:
    catalog.register(_entry(tmp_path, "emoji-1"))
    with pytest.raises(StorageError, match="nearest is 'emoji-1'"):
        catalog.find("emojy-1")


def test_a_deleted_search_and_a_broken_entry_are_passed_over(tmp_path: Path) -> None:
    kept, gone = _entry(tmp_path, "kept"), _entry(tmp_path, "gone")
    catalog.register(kept)
    catalog.register(gone)
    shutil.rmtree(tmp_path / "gone")
    for name, text in (("broken", "{half"), ("list", "[1]"), ("number", "7")):
        (user_folders.state_directory() / f"{name}.json").write_text(text)
        (tmp_path / name).mkdir()
        (tmp_path / name / catalog.MANIFEST).write_text(text)
    assert catalog.find() == kept
    assert [one for _, one in catalog.searches(tmp_path)] == [kept]


@pytest.mark.parametrize("content", ["", "{}", '{"search_id": '])
def test_a_search_whose_file_is_damaged_is_named(tmp_path: Path, content: str) -> None:
    catalog.register(_entry(tmp_path / "runs", "one"))
    file = tmp_path / "runs/one" / catalog.MANIFEST
    file.write_text(content)
    for search_id, storage in (("one", None), ("one", tmp_path / "runs"), (None, tmp_path / "runs")):
        with pytest.raises(StorageError, match="cannot be read") as caught:
            catalog.find(search_id, storage)
        assert str(file) in str(caught.value)
    catalog.register(_entry(tmp_path / "runs", "two"))
    assert catalog.find().search_id == "two"  # it is passed over where another is meant
    with pytest.raises(StorageError, match="no search 'three'"):
        catalog.find("three")


def test_two_searches_of_one_name_are_both_kept_and_told_apart(tmp_path: Path) -> None:
    first, second = _entry(tmp_path / "a/runs", "baseline"), _entry(tmp_path / "b/runs", "baseline")
    catalog.register(first)
    catalog.register(second)
    with pytest.raises(StorageError) as caught:
        catalog.find("baseline")
    assert {first.directory, second.directory} <= {line.strip() for line in str(caught.value).splitlines()}
    assert "--storage" in str(caught.value)
    assert catalog.find("baseline", tmp_path / "a/runs") == first
    assert catalog.find(second.directory) == second
    shutil.rmtree(second.directory)
    assert catalog.find("baseline") == first


def test_a_search_made_again_in_the_same_folder_is_the_one_that_counts(tmp_path: Path) -> None:
    catalog.register(_entry(tmp_path, "one"))
    shutil.rmtree(tmp_path / "one")
    again = _entry(tmp_path, "one", uid="another", created=2.0)
    catalog.register(again)
    assert catalog.find("one") == again
    assert len(list(user_folders.state_directory().glob("*.json"))) == 1


def test_a_catalogue_of_the_version_before_is_read_and_replaced(tmp_path: Path) -> None:
    entry = _entry(tmp_path, "one")
    plain = asdict(entry)
    for name in ("uid", "cwd", "moved_from"):
        del plain[name]
    for file in (entry.path / catalog.MANIFEST, user_folders.state_directory(write=True) / "one.json"):
        file.write_text(json.dumps(plain))
    found = catalog.find("one")
    assert found.uid == "" and found.created == entry.created
    catalog.register(found)
    assert catalog.find("one") == found
    assert not (user_folders.state_directory() / "one.json").exists()


def test_a_moved_search_is_where_it_lies(tmp_path: Path) -> None:
    project = tmp_path / "project"
    entry = _entry(project / "runs", "one")
    catalog.register(entry)
    for name in ("space.yaml", "runs/mlflow.db"):
        (project / name).write_text("")
    shutil.move(project / "runs", tmp_path / "large/runs")  # the storage alone
    found = catalog.find("one", tmp_path / "large/runs")
    assert found.directory == str(tmp_path / "large/runs/one") and found.moved_from == entry.directory
    assert found.source == str(project / "space.yaml")
    assert found.tracking_uri == f"sqlite:///{tmp_path}/large/runs/mlflow.db"
    shutil.move(tmp_path / "large/runs", project / "runs")
    assert catalog.find("one").moved_from == ""
    shutil.move(project, tmp_path / "50% of what?")  # all of it
    found = catalog.find("one", tmp_path / "50% of what?/runs")
    assert found.source == str(tmp_path / "50% of what?/space.yaml")
    assert found.tracking_uri == f"sqlite:///{tmp_path}/50%25 of what%3F/runs/mlflow.db"


def test_a_renamed_folder_renames_the_search(tmp_path: Path) -> None:
    catalog.register(_entry(tmp_path, "one"))
    (tmp_path / "one").rename(tmp_path / "two")
    assert catalog.find("two", tmp_path).search_id == "two"


def test_a_linked_storage_has_not_moved(tmp_path: Path) -> None:
    entry = _entry(tmp_path / "runs", "one")
    catalog.register(entry)
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    found = catalog.find("one", tmp_path / "link")
    assert found.moved_from == "" and catalog.copies_of(found) == []


def test_a_copy_knows_its_original(tmp_path: Path) -> None:
    entry = _entry(tmp_path / "runs", "one")
    catalog.register(entry)
    shutil.copytree(tmp_path / "runs", tmp_path / "copy")
    copy = catalog.find("one", tmp_path / "copy")
    assert [one.path for one in catalog.copies_of(copy)] == [entry.path] and catalog.copies_of(entry) == []
    catalog.register(_entry(tmp_path / "other", "one"))  # of the same name only
    assert [one.path for one in catalog.copies_of(copy)] == [entry.path]


def test_only_the_stores_of_own_starts_are_trusted(tmp_path: Path) -> None:
    server, database = "http://mlflow.example.org:5000", "postgresql://me@db.example.org/x"
    foreign = replace(_entry(tmp_path, "one"), tracking_uri=server)
    catalog.register(foreign)  # as `resume` does
    catalog.find("one")
    assert not is_trusted(server)
    catalog.register(foreign, own=(server, database, "auto"))
    catalog.register(foreign)
    catalog.find("one")
    assert is_trusted(server) and is_trusted(database)
    assert "me@" not in "".join(one.read_text() for one in user_folders.state_directory().glob("*.json"))


def test_the_store_in_the_catalogue_of_an_earlier_version_is_trusted(tmp_path: Path) -> None:
    user_folders.state_directory(write=True)
    plain = {"directory": str(tmp_path / "one"), "tracking_uri": "https://old.example.org"}
    (user_folders.state_directory() / "one.json").write_text(json.dumps(plain))
    catalog.searches()
    assert is_trusted("https://old.example.org/")
