"""The list of searches, and removing one: with its study, its repeats and, where asked, what it has in MLflow."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from preparing import prepare
from search_doubles import drive
from typer.testing import CliRunner

import tlsearch.cli.commands  # noqa: F401  # its modules add their commands
from tlsearch.app.catalog import catalog
from tlsearch.app.catalog.remove_search import plan_removal, remove_search
from tlsearch.app.catalog.search_list import list_searches
from tlsearch.app.catalog.stored import read_record
from tlsearch.app.searches.execute import search_plan
from tlsearch.app.searches.prepare import RunOptions
from tlsearch.app.views.cache_contents import searches_total
from tlsearch.app.views.outcome import find_checkpoint
from tlsearch.cli.root import app
from tlsearch.core.errors import StorageError
from tlsearch.search import holding
from tlsearch.search.study.rdb import connect
from tlsearch.search.study.storage import finish_removals
from tlsearch.tracking.runs import KIND, TRIAL, search_tags

TEXT = """
name: small
data: {source: digits}
weights: {squeezenet1_1: none}
space: {backbone: squeezenet1_1, head_lr: {log: [1.0e-3, 1.0e-2]}}
search: {trials: 2, max_epochs: 1}
"""


def make(root: Path, name: str, *, parent: str = "", more: str = "", ran: bool = True) -> catalog.SearchEntry:
    root.mkdir(exist_ok=True)
    (root / "space.yaml").write_text(TEXT.replace("max_epochs: 1", f"max_epochs: 1{more}"))
    prepared = prepare(RunOptions(file=root / "space.yaml", name=name))
    if ran:
        assert drive(search_plan(prepared)) == "finished"
    entry = replace(prepared.entry, parent=parent)
    catalog.register(entry)
    return entry


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def test_the_list_shows_every_search_with_what_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = make(tmp_path / "a", "one"), make(tmp_path / "b", "one", ran=False)
    make(tmp_path / "a", "broken", ran=False)
    (tmp_path / "a/tlsearch_runs/broken/study.json").write_text("{half")
    found = {one.entry.directory: one for one in list_searches()}
    ran = found[first.directory]
    assert ran.num_trials == 2 and ran.best is not None and ran.num_bytes > 100
    files = [one for one in first.path.rglob("*") if one.is_file()]
    assert ran.num_bytes == sum(one.stat().st_size for one in files)
    assert found[second.directory].num_trials == 0 and found[second.directory].best is None
    assert found[str(tmp_path / "a/tlsearch_runs/broken")].state == "unknown"
    assert [one.entry.directory for one in list_searches(tmp_path / "b/tlsearch_runs")] == [second.directory]
    with holding(first.path, ""):
        states = {one.entry.directory: one.state for one in list_searches()}
    assert states[first.directory] == "running" and states[second.directory] == "interrupted"
    code, text = run("list", "--json")
    assert code == 0 and len(json.loads(text)) == 3
    assert {"search_id", "state", "created", "trials", "best", "directory", "num_bytes"} <= set(json.loads(text)[0])
    code, text = run("list")
    assert code == 0 and text.count(" one ") == 2 and "study" in text
    monkeypatch.setattr("tlsearch.cli.session.out._width", 80)
    code, text = run("list", "--storage", str(tmp_path / "b/tlsearch_runs"))
    assert code == 0 and "│ interrupted │" in text and f"in {tmp_path / 'b/tlsearch_runs'}" in text.splitlines()[-1]
    assert searches_total() == {"entries": 3, "num_bytes": sum(one.num_bytes for one in list_searches())}
    assert run("list", "--storage", str(tmp_path / "none"))[0] == 2


def test_removing_takes_folder_study_repeats_and_the_catalogues_entry(tmp_path: Path) -> None:
    study = f", study: 'sqlite:///{tmp_path}/studies.db'"
    entry = make(tmp_path, "one", more=study)
    repeat, other = make(tmp_path, "one-confirm", parent="one", ran=False), make(tmp_path, "two", ran=False)
    code, text = run("remove", "one", "--json")
    assert code == 2 and "--yes" in text and entry.path.is_dir()
    code, text = run("remove", "one", "--yes", "--json")
    removed = json.loads(text)
    assert code == 0 and removed["removed"] == ["one", "one-confirm"] and removed["num_bytes"] > 100
    assert not entry.path.exists() and not repeat.path.exists()
    assert sorted(path.name for path in entry.path.parent.iterdir()) == ["two"]
    assert connect(f"sqlite:///{tmp_path}/studies.db", writable=False).get_all_studies() == []
    assert [one for _, one in catalog.searches()] == [other]
    assert run("remove", "one", "--yes")[0] == 2
    assert make(tmp_path, "one", more=study).uid != entry.uid  # the name is free again


def test_a_search_that_runs_or_is_promoted_is_left_alone(tmp_path: Path) -> None:
    entry = make(tmp_path, "one", ran=False)
    for command in ("", "promote"):
        with holding(entry.path, command):
            code, text = run("remove", "one", "--yes")
        assert code == 2 and "in use by process" in text and (not command or "(tlsearch promote)" in text)
    assert entry.path.is_dir()


def test_what_a_death_has_left_is_no_search_and_is_removed_later(tmp_path: Path) -> None:
    entry = make(tmp_path, "one", ran=False)
    left = entry.path.rename(entry.path.with_name(".removed-0123"))
    assert catalog.searches(left.parent) == [] and catalog.searches() == []
    finish_removals(left.parent)
    assert not left.exists()


@pytest.fixture
def client(tmp_path: Path) -> Any:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _record(client: Any, entry: catalog.SearchEntry) -> dict[str, str]:
    """The search's own run, two trials with models, the second of which is registered."""
    known = client.get_experiment_by_name("small")
    experiment = known.experiment_id if known else client.create_experiment("small")
    tags = search_tags(entry.recorded)
    ids = {"search": client.create_run(experiment, tags={**tags, KIND: "search"}).info.run_id}
    for number in range(2):
        run_id = client.create_run(experiment, tags={**tags, KIND: "trial", TRIAL: str(number)}).info.run_id
        model = client.create_logged_model(experiment, name=f"m{number}", source_run_id=run_id, tags=tags)
        client.finalize_logged_model(model.model_id, "READY")
        ids[f"trial {number}"], ids[f"model {number}"] = run_id, model.model_id
    client.create_registered_model(f"small of {entry.uid}")
    client.create_model_version(f"small of {entry.uid}", source=model.artifact_location, run_id=run_id)
    return ids


def test_runs_and_models_go_where_asked_but_for_registered_ones(tmp_path: Path, client: Any) -> None:
    entry, other = make(tmp_path, "one", ran=False), make(tmp_path / "b", "one", ran=False)
    mine, theirs = _record(client, entry), _record(client, other)
    removal = plan_removal(entry)
    assert removal.num_runs == 2 and removal.shared_with == ""
    done = remove_search(removal, with_runs=True)
    assert done.as_json()["mlflow"] == {"runs": 1, "models": 1, "registered": 1}
    active = {run.info.run_id for run in client.search_runs([client.get_experiment_by_name("small").experiment_id])}
    assert active == {mine["search"], mine["trial 1"], *(theirs[k] for k in ("search", "trial 0", "trial 1"))}
    models = client.search_logged_models([client.get_experiment_by_name("small").experiment_id])
    assert {one.model_id for one in models} == {mine["model 1"], theirs["model 0"], theirs["model 1"]}


def test_the_runs_of_a_copy_are_those_of_its_original(tmp_path: Path) -> None:
    entry = make(tmp_path, "one", ran=False)
    shutil.copytree(tmp_path / "tlsearch_runs", tmp_path / "copy")
    removal = plan_removal(catalog.find("one", tmp_path / "copy"))
    with pytest.raises(StorageError, match="remove it without --mlflow"):
        remove_search(removal, with_runs=True)
    remove_search(removal, with_runs=False)
    assert not (tmp_path / "copy/one").exists() and catalog.find("one") == entry


def test_a_model_is_named_by_its_searchs_folder_too(tmp_path: Path) -> None:
    entry = make(tmp_path, "one")
    make(tmp_path / "b", "one", ran=False)
    for number in range(2):
        (entry.path / f"trials/{number}/best").mkdir(parents=True, exist_ok=True)
    best = read_record(entry).best
    assert best is not None
    assert find_checkpoint(entry.directory) == str(entry.path / f"trials/{best.number}/best")
    assert find_checkpoint(f"{entry.directory}:1") == str(entry.path / "trials/1/best")
    folder = str(entry.path / "trials/0/best")
    assert find_checkpoint(folder) == folder and find_checkpoint("models:/x@champion") == "models:/x@champion"
    with pytest.raises(StorageError, match="2 searches have the name 'one'"):
        find_checkpoint("one")


def test_the_cache_tells_what_searches_take(tmp_path: Path) -> None:
    make(tmp_path, "one", ran=False)
    code, text = run("cache")
    assert code == 0 and "1 search: 0.0 MB (`tlsearch list`, `tlsearch remove ID`)" in text
    assert json.loads(run("cache", "--json")[1])["searches"]["entries"] == 1
