"""Images in another place: the same ones are gone on with, others are refused, and nothing else of a search changes."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
from preparing import prepare_changed, prepare_confirm, prepare_or_resume, prepare_resume
from search_doubles import drive
from small_search import pictures_search
from typer.testing import CliRunner

import tlsearch.cli.commands  # noqa: F401  # its modules add their commands
from tlsearch.app.catalog.catalog import RESOLVED, SearchEntry, find
from tlsearch.app.catalog.gather_facts import read_space_file
from tlsearch.app.catalog.stored import keep_end, read_record, stored_file
from tlsearch.app.searches.execute import search_plan
from tlsearch.app.searches.moved_data import follow_data
from tlsearch.app.searches.prepare import RunOptions
from tlsearch.app.searches.rerun import rerun_trial
from tlsearch.app.searches.run_or_resume import nothing_left
from tlsearch.app.views.report import write_search_report
from tlsearch.cli.root import app
from tlsearch.core.errors import DataError, SpaceError, StorageError


def make(root: Path, **options: object) -> SearchEntry:
    entry = pictures_search(root, **options)
    keep_end(entry, "finished")
    return entry


def move(root: Path, *, named: bool = True) -> Path:
    """Moves the images, and names their new place in the space file."""
    place = root / "disk/pictures"
    place.parent.mkdir()
    (root / "images").rename(place)
    if named:
        rename(root, place)
    return place


def rename(root: Path, place: Path) -> None:
    text = (root / "space.yaml").read_text()
    (root / "space.yaml").write_text(text.replace("path: ./images", f"path: {place}"))


def test_a_search_goes_on_with_the_same_images_in_another_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entry = make(tmp_path)
    made = prepare_confirm(entry, top=1, seeds=2).prepared.entry
    place = move(tmp_path)
    with pytest.raises(
        SpaceError, match=r"images' does not exist; .*`tlsearch resume one --data PLACE` has the search"
    ):
        stored_file(entry, "")
    with caplog.at_level(logging.WARNING):
        entry = follow_data(entry)
    [said] = caplog.messages
    assert said == f"one goes on with the same images in {place}; they were in {tmp_path}/images"
    assert nothing_left(entry).startswith("nothing to do: 2 of 2 trials ended")
    prepared = prepare_resume(find("one"), trials="+1")
    assert prepared.file.data.path == prepared.index.root == str(place)
    assert drive(search_plan(prepared)) == "finished" and len(read_record(entry).trials) == 3
    again = prepare_confirm(find("one"), top=1, seeds=2).prepared
    assert again.resumed and again.entry.uid == made.uid and again.file.data.path == str(place)
    caplog.clear()
    assert follow_data(find("one")) == find("one") and not caplog.messages


def test_a_changed_file_is_taken_over_with_the_new_place(tmp_path: Path) -> None:
    entry = make(tmp_path)
    move(tmp_path)
    file = tmp_path / "space.yaml"
    file.write_text(file.read_text().replace("trials: 2", "trials: 4"))
    entry = follow_data(entry)
    with pytest.raises(StorageError, match=r"has changed since the search began:\n  search.trials: 2 -> 4\n"):
        prepare_resume(entry)
    assert [one.dotted for one in prepare_changed(entry).changes] == ["search.trials"]


def test_other_images_in_the_new_place_are_refused(tmp_path: Path) -> None:
    entry = make(tmp_path)
    stored = (entry.path / RESOLVED).read_bytes()
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "images", other)
    (other / "circle/00.png").unlink()
    rename(tmp_path, other)
    assert follow_data(entry) == entry  # those of before are still there: the change of the file is refused, as any is
    with pytest.raises(StorageError, match=r"has changed since the search began:\n  data.path: "):
        prepare_resume(entry)
    with pytest.raises(DataError, match="the search cannot go on with those in"):
        follow_data(entry, data_path=other)
    shutil.rmtree(tmp_path / "images")
    with pytest.raises(DataError, match=r"class 'circle': 8 -> 7 images(.|\n)*cannot go on with those in .*other"):
        follow_data(entry)
    with pytest.raises(DataError, match="nowhere"):
        follow_data(entry, data_path=tmp_path / "nowhere")
    assert (entry.path / RESOLVED).read_bytes() == stored


def test_images_given_on_the_command_line_are_followed_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    entry = make(tmp_path, data_path=Path("images"))
    place = move(tmp_path)
    assert follow_data(entry) == entry  # the file's path was not what counted
    follow_data(entry, data_path=Path("disk/pictures"))
    found = find("one")
    assert found.data_path == str(place) and prepare_resume(found, trials="+1").file.data.path == str(place)
    place.rename(tmp_path / "again")
    options = RunOptions(file=tmp_path / "space.yaml", name="one", data_path=tmp_path / "again")
    assert prepare_or_resume(options).file.data.path == find("one").data_path == str(tmp_path / "again")


def test_run_or_resume_follows_the_space_file(tmp_path: Path) -> None:
    entry = make(tmp_path)
    place = move(tmp_path)
    prepared = prepare_or_resume(RunOptions(file=tmp_path / "space.yaml", name="one"))
    assert prepared.resumed and prepared.entry.uid == entry.uid and prepared.file.data.path == str(place)


def test_commands_find_the_images_after_a_resume_with_nothing_to_do(ended_search: SearchEntry) -> None:
    root = ended_search.path.parents[1]
    keep_end(ended_search, "finished")
    place = move(root)
    done = CliRunner().invoke(app, ["resume", "small"])
    assert done.exit_code == 0 and "nothing to do: 3 of 3 trials ended" in done.output
    file = read_space_file(find("small"))
    assert file is not None and file.data.path == str(place)
    assert rerun_trial(ended_search, 0).equal
    made = write_search_report(ended_search, log=False)
    assert "model" not in made.skipped


def test_a_search_whose_space_file_is_gone_is_given_the_place(ended_search: SearchEntry) -> None:
    root = ended_search.path.parents[1]
    keep_end(ended_search, "finished")
    (root / "space.yaml").unlink()
    place = move(root, named=False)
    done = CliRunner().invoke(app, ["resume", "small", "--data", str(place)])
    assert done.exit_code == 0 and prepare_resume(find("small")).file.data.path == str(place)
