"""A space file that has changed since its search began: refused by name, or taken over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from preparing import prepare, prepare_changed, prepare_resume
from search_doubles import drive

from tlsearch.app.catalog import catalog
from tlsearch.app.catalog.space_diff import Difference, differences
from tlsearch.app.catalog.stored import read_record
from tlsearch.app.searches.execute import search_plan
from tlsearch.app.searches.prepare import Prepared, RunOptions
from tlsearch.app.searches.resume_changed import ChangedSearch
from tlsearch.core.errors import SpaceError, StorageError
from tlsearch.core.types import SearchRecord
from tlsearch.space import load

FILE = """
name: changing
data: {source: digits}
weights: {squeezenet1_1: none}
space:
  backbone: [squeezenet1_1]
  unfreeze_depth: {int: [0, 2]}
  head_lr: {log: [1.0e-3, 1.0e-2]}
search: {trials: 4, max_epochs: 4}
"""
BOTH = (
    ("[squeezenet1_1]", "[squeezenet1_1, resnet18]"),
    ("squeezenet1_1: none", "squeezenet1_1: none, resnet18: none"),
)
WIDER = (*BOTH, ("[0, 2]", "[0, 5]"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(FILE)
    return path


def begin(file: Path, *overrides: str) -> catalog.SearchEntry:
    """A search that has run as its file says, with made-up trials."""
    prepared = prepare(RunOptions(file=file, overrides=overrides, name="one"))
    run(prepared)
    return catalog.find("one")


def run(prepared: Prepared) -> SearchRecord:
    assert drive(search_plan(prepared)) == "finished"
    return read_record(prepared.entry)


def change(file: Path, *changes: tuple[str, str]) -> None:
    text = file.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)


def test_an_unchanged_file_is_resumed(file: Path) -> None:
    entry = begin(file, "search.seed=3", "space.head_lr.log=[1e-4,1e-1]")
    prepared = prepare_resume(entry, trials="+2")
    assert prepared.file.search.trials == 6 and prepared.file.search.seed == 3
    assert len(run(prepared).trials) == 6
    change(file, ("name: changing", "# a comment changes nothing\nname: changing"))
    again = prepare_resume(catalog.find("one"))  # nor does what was given on the command line
    assert again.file.search.trials == 6
    assert catalog.find("one").overrides == ("search.seed=3", "space.head_lr.log=[1e-4,1e-1]", "search.trials=6")


def test_a_changed_file_is_refused_by_what_has_changed(file: Path) -> None:
    entry = begin(file)
    change(file, *WIDER, ("trials: 4", "trials: 9"))
    with pytest.raises(StorageError) as caught:
        prepare_resume(entry)
    assert str(caught.value).splitlines()[1:] == [
        "  weights.resnet18.path: null -> 'none'",
        "  space.backbone: ['squeezenet1_1'] -> ['squeezenet1_1', 'resnet18']",
        "  space.unfreeze_depth.int: [0, 2] -> [0, 5]",
        "  search.trials: 4 -> 9",
        "`tlsearch resume one --changed` goes on with the file as it is now, --stored as it was",
    ]
    assert prepare_resume(entry, stored=True).file.search.trials == 4
    file.write_text("name: [broken")
    with pytest.raises(StorageError, match="it has errors: "):
        prepare_resume(entry)
    file.unlink()
    assert prepare_resume(entry).file.search.trials == 4


def test_a_changed_file_is_taken_over(file: Path) -> None:
    entry = begin(file)
    before = read_record(entry).trials
    change(
        file, *WIDER, ("trials: 4", "trials: 12"), ("max_epochs: 4", "max_epochs: 4, start_with: [{unfreeze_depth: 5}]")
    )
    taken: ChangedSearch = prepare_changed(entry)
    assert taken.carried is not None and taken.carried.inside == (0, 1, 2, 3)
    assert taken.carried.num_new_points == 2  # and a first look at the new backbone
    assert {one.dotted for one in taken.changes} == {
        "weights.resnet18.path",
        "space.backbone",
        "space.unfreeze_depth.int",
        "search.trials",
        "search.start_with",
    }
    after = run(taken.prepared).trials
    assert after[:4] == before and [trial.number for trial in after] == list(range(12))
    assert after[4].params["unfreeze_depth"] == 5
    assert {trial.config.backbone for trial in after} == {"squeezenet1_1", "resnet18"}
    assert (entry.path / "space.yaml").read_text() == file.read_text()
    assert prepare_resume(catalog.find("one")).file.search.trials == 12  # nothing has changed since
    assert prepare_changed(catalog.find("one")).changes == []


def test_settings_change_without_a_new_study(file: Path) -> None:
    entry = begin(file)
    change(file, ("trials: 4", "trials: 6, patience: 2, max_failures: 0"))
    taken = prepare_changed(entry, trials="5")
    assert taken.carried is None
    assert {one.dotted for one in taken.changes} == {"search.trials", "search.patience", "search.max_failures"}
    assert len(run(taken.prepared).trials) == 5


@pytest.mark.parametrize(
    ("old", "new", "dotted"),
    [
        ("source: digits", "source: digits, split: {seed: 7}", "data.split.seed"),
        ("source: digits", "source: digits, image_size: 96", "data.image_size"),
        ("name: changing", "name: other", "name"),
        ("max_epochs: 4", "max_epochs: 8", "search.max_epochs"),
        ("trials: 4", "trials: 4, metric: val_loss", "search.metric"),
        ("max_epochs: 4", "max_epochs: 4, sampler: fixed, start_with: [{unfreeze_depth: 0}]", "search.sampler"),
    ],
)
def test_what_trials_have_in_common_does_not_change(file: Path, old: str, new: str, dotted: str) -> None:
    entry = begin(file)
    change(file, (old, new))
    with pytest.raises(SpaceError, match="start a new search") as caught:
        prepare_changed(entry)
    assert dotted in {problem.dotted for problem in caught.value.faults}
    assert all(problem.line for problem in caught.value.faults)
    assert prepare_resume(entry, stored=True).file.name == "changing"


def test_weights_change_for_what_was_not_tried(file: Path) -> None:
    change(file, *BOTH)
    entry = begin(file, "search.trials=1")
    change(file, ("resnet18: none", "resnet18: {path: none, transform: resnet50}"))
    assert [one.dotted for one in prepare_changed(entry).changes] == ["weights.resnet18.transform"]
    change(file, ("squeezenet1_1: none", "squeezenet1_1: {path: none, transform: resnet50}"))
    with pytest.raises(SpaceError, match="trials of squeezenet1_1 have begun from other weights"):
        prepare_changed(catalog.find("one"))


def test_problems_of_the_new_file_are_listed(file: Path) -> None:
    entry = begin(file)
    change(file, ("{int: [0, 2]}", "{int: [0, 9]}"))
    with pytest.raises(SpaceError, match=r"space\.yaml:7:"):
        prepare_changed(entry)
    with pytest.raises(StorageError, match="has no file of its own"):
        prepare_changed(replace(entry, parent="another"))


def test_a_changed_value_is_shown_briefly_with_what_a_mapping_holds_and_the_end_of_a_path() -> None:
    depth = Difference(path=("space", "unfreeze_depth"), before=0, after={"when": {"head": ["a", "b"]}, "int": [0, 3]})
    assert str(depth) == "space.unfreeze_depth: 0 -> {when: {head: ['a', 'b']}, int: [0, 3]}"
    before, after = (f"/{'folder/' * 20}{name}.pth" for name in ("old", "new"))
    shown = str(Difference(path=("weights",), before=before, after={"resnet18": after}))
    assert "/old.pth' -> {resnet18: '/" in shown and shown.endswith("/new.pth'}") and len(shown) <= 60 + 60 + 13


def test_passwords_are_not_shown(file: Path, tmp_path: Path) -> None:
    stored = load(file)[0]
    now = replace(stored, search=replace(stored.search, study="postgresql://me:secret@host/db"))
    assert [str(one) for one in differences(stored, now)] == ["search.study: 'auto' -> 'postgresql://me:***@host/db'"]
