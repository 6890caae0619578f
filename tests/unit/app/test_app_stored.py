"""A search whose storage has moved or was copied: commands act on the folder that they are given."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import pytest
from preparing import prepare, prepare_changed, prepare_confirm, prepare_resume
from search_doubles import drive

from tlsearch.app.catalog import catalog
from tlsearch.app.catalog.gather_facts import read_space_file
from tlsearch.app.catalog.space_diff import differences, file_now
from tlsearch.app.catalog.stored import keep_end, read_record, settle, stored_file
from tlsearch.app.searches.execute import make_tracker, search_plan
from tlsearch.app.searches.prepare import RunOptions
from tlsearch.app.searches.run_or_resume import nothing_left
from tlsearch.app.views.status import overview
from tlsearch.core.errors import SpaceError, StorageError
from tlsearch.search.study.rdb import read_pointer
from tlsearch.tracking import TrackedSearch

TEXT = """
name: small
data: {source: manifest, path: ./images.csv}
weights: {squeezenet1_1: none}
space: {backbone: squeezenet1_1, head_lr: {log: [1.0e-3, 1.0e-2]}}
search: {trials: 2, max_epochs: 1, study: STUDY}
tracking: {uri: "sqlite:///tlsearch_runs/mlflow.db"}
"""


def make(root: Path, *, study: str = "auto", **options: object) -> catalog.SearchEntry:
    root.mkdir(exist_ok=True)
    (root / "images").mkdir()
    rows = ["path,label"]
    for number in range(12):
        (root / f"images/{number}.png").write_bytes(bytes([number]))  # no trial of a double opens one
        rows.append(f"images/{number}.png,{'ab'[number % 2]}")
    (root / "images.csv").write_text("\n".join(rows))
    (root / "space.yaml").write_text(TEXT.replace("STUDY", study))
    prepared = prepare(RunOptions(file=root / "space.yaml", name="one", **options))  # type: ignore[arg-type]
    assert drive(search_plan(prepared)) == "finished"
    (root / "tlsearch_runs").mkdir(exist_ok=True)
    (root / "tlsearch_runs/mlflow.db").write_bytes(b"")
    return catalog.find("one")


def test_a_copy_goes_on_where_it_lies_as_a_search_of_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    entry = make(tmp_path / "home")
    journal = (entry.path / "study.journal").read_bytes()
    manifest = (entry.path / catalog.MANIFEST).read_bytes()
    shutil.copytree(tmp_path / "home/tlsearch_runs", tmp_path / "new/tlsearch_runs")
    copy = catalog.find("one", tmp_path / "new/tlsearch_runs")
    assert copy.uid == entry.uid  # reading changes nothing
    with caplog.at_level(logging.WARNING):
        prepared = prepare_resume(copy, trials="+1")
    assert "is a copy of the search in" in caplog.text
    assert drive(search_plan(prepared)) == "finished"
    assert len(read_record(prepared.entry).trials) == 3 and len(read_record(entry).trials) == 2
    assert (entry.path / "study.journal").read_bytes() == journal
    assert (entry.path / catalog.MANIFEST).read_bytes() == manifest
    assert prepared.entry.uid not in ("", entry.uid) and prepared.entry.directory.startswith(str(tmp_path / "new"))
    assert prepared.entry.tracking_uri == f"sqlite:///{tmp_path}/new/tlsearch_runs/mlflow.db"
    with pytest.raises(StorageError, match="2 searches have the name 'one'"):
        catalog.find("one")
    again = settle(catalog.find("one", tmp_path / "new/tlsearch_runs"))
    assert again.uid == prepared.entry.uid and settle(entry) == entry


def test_a_storage_that_was_moved_goes_on_as_the_same_search(tmp_path: Path) -> None:
    entry = make(tmp_path / "home")
    shutil.move(tmp_path / "home/tlsearch_runs", tmp_path / "large")
    found = catalog.find("one", tmp_path / "large")
    assert len(read_record(found).trials) == 2 and overview(found).settings is not None
    prepared = prepare_resume(found, trials="+1")
    assert prepared.entry.uid == entry.uid and prepared.file.data.path == str(tmp_path / "home/images.csv")
    assert prepared.file.tracking.uri == f"sqlite:///{tmp_path}/large/mlflow.db"
    assert drive(search_plan(prepared)) == "finished"
    assert not (tmp_path / "home/tlsearch_runs").exists()
    settled = catalog.find("one")
    assert settled.moved_from == "" and settled.directory == str(tmp_path / "large/one")
    assert prepare_resume(settled).resumed and prepare_changed(settled).changes == []
    repeated = prepare_confirm(settled, top=1, seeds=2).prepared
    assert repeated.entry.directory == str(tmp_path / "large/one-confirm")
    shutil.move(tmp_path / "large", tmp_path / "larger")  # what was interrupted goes on there
    again = prepare_confirm(catalog.find("one", tmp_path / "larger"), top=1, seeds=2).prepared
    assert again.resumed and again.entry.directory == str(tmp_path / "larger/one-confirm")
    assert again.entry.uid == repeated.entry.uid


def test_a_project_that_was_moved_finds_its_images_beside_it(tmp_path: Path) -> None:
    entry = make(tmp_path / "home")
    keep_end(entry, "finished")
    shutil.move(tmp_path / "home", tmp_path / "renamed")
    found = catalog.find("one", tmp_path / "renamed/tlsearch_runs")
    file = read_space_file(found)
    assert file is not None and file.data.path == str(tmp_path / "renamed/images.csv")
    assert found.source == str(tmp_path / "renamed/space.yaml")
    assert nothing_left(found).startswith("nothing to do: 2 of 2 trials ended")
    prepared = prepare_resume(found)
    assert prepared.entry.uid == entry.uid and not (tmp_path / "home").exists()
    assert stored_file(prepared.entry, "")[0].data.path == str(tmp_path / "renamed/images.csv")


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_a_study_in_a_file_of_the_storage_moves_along(tmp_path: Path, how: str) -> None:
    make(tmp_path / "home", study="'sqlite:///tlsearch_runs/study.db'")
    (shutil.move if how == "moved" else shutil.copytree)(tmp_path / "home/tlsearch_runs", tmp_path / "new")
    found = catalog.find("one", tmp_path / "new")
    assert len(read_record(found).trials) == 2
    pointer = read_pointer(found.path / "study.json")
    assert pointer is not None and pointer.url == f"sqlite:///{tmp_path}/home/tlsearch_runs/study.db"  # a look
    prepared = prepare_resume(found, trials="+1")
    pointer = read_pointer(found.path / "study.json")
    assert pointer is not None and pointer.url == f"sqlite:///{tmp_path}/new/study.db"
    assert drive(search_plan(prepared)) == "finished" and len(read_record(prepared.entry).trials) == 3


def test_a_copy_whose_study_is_in_the_same_database_is_refused(tmp_path: Path) -> None:
    entry = make(tmp_path / "home", study=f"'sqlite:///{tmp_path}/studies.db'")
    shutil.copytree(entry.path.parent, tmp_path / "copy")
    with pytest.raises(StorageError, match="both would write to one study, 'one'"):
        prepare_resume(catalog.find("one", tmp_path / "copy"))
    assert prepare_resume(entry).resumed


def test_a_linked_space_file_is_read_through_its_link(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    make(tmp_path / "home")
    space, target = tmp_path / "home/space.yaml", tmp_path / "configs/space.yaml"
    shutil.copy(space, target)
    space.unlink()
    space.symlink_to("../configs/space.yaml")
    (tmp_path / "configs/images.csv").write_text("path,label\n")  # what the target's folder has is not meant
    entry = prepare(RunOptions(file=space, name="two")).entry
    assert entry.source == str(space)
    target.write_text(target.read_text().replace("trials: 2", "trials: 3"))
    stored, _ = stored_file(entry, "")
    assert [str(one) for one in differences(stored, file_now(entry, stored)[0])] == ["search.trials: 2 -> 3"]
    assert prepare_changed(entry).prepared.file.data.path == str(tmp_path / "home/images.csv")


def test_what_was_given_on_the_command_line_keeps_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "home"
    root.mkdir()
    monkeypatch.chdir(root)
    os.symlink(root / "images.csv", root / "link.csv")
    entry = make(root, overrides=("data.path=./link.csv", "storage=./runs"))
    assert entry.directory == str(root / "runs/one")
    monkeypatch.chdir(tmp_path)
    assert prepare_resume(entry).file.data.path == str(root / "link.csv")
    monkeypatch.chdir(root)
    given = prepare(RunOptions(file=root / "space.yaml", name="two", data_path=Path("link.csv"))).entry
    monkeypatch.chdir(tmp_path)
    assert prepare_resume(given).file.data.path == str(root / "link.csv")


def test_the_run_of_a_repetition_hangs_in_that_of_its_own_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = make(tmp_path / "home")
    made = prepare_confirm(entry, top=1, seeds=2).prepared.entry
    monkeypatch.setattr("tlsearch.app.searches.execute.MlflowTracker", lambda search: search)
    search: TrackedSearch = make_tracker(made)  # type: ignore[assignment]
    assert (search.parent_search, search.parent_uid, search.uid) == ("one", entry.uid, made.uid)


def test_images_that_are_gone_are_to_be_put_back(tmp_path: Path) -> None:
    entry = make(tmp_path / "home")
    (tmp_path / "home/images.csv").rename(tmp_path / "home/moved.csv")
    with pytest.raises(SpaceError, match=r"data.path: .*images.csv.* does not exist; .* move it back, or make a link"):
        stored_file(entry, "so it cannot be resumed")
    (tmp_path / "home/images.csv").symlink_to("moved.csv")
    stored_file(entry, "so it cannot be resumed")
