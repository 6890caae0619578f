"""Overrides, paths, and the way back to text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from space_files import load_space_file
from sqlalchemy import make_url

from tlsearch.config import dump_resolved
from tlsearch.config.document.loader import parse_value
from tlsearch.config.document.yaml_text import SpaceDumper
from tlsearch.core.errors import SpaceError, SpaceProblem

TEXT = """\
name: emoji
data: {source: folder, path: images, split: {group_by: '^(\\d+)'}}
weights:
  mobilenet_v2: ../w.pth
  resnet18: {path: w.safetensors, match: order, transform: IMAGENET1K_V1}
  resnet34: none
  vgg11: https://host/w.pth?version=2
  resnet50: {package: yaml, file: fake.pth, match: order}
space:
  backbone: [mobilenet_v2, resnet18]
  head_lr: {log: [1e-4, 1e-1]}
search:
  time_budget: 1h30m
  scheduler: none
  start_with: [{backbone: resnet18, head_lr: 1e-3}, {head_lr: 0.1}]
resources: {max_concurrent: 2, gpus_per_trial: 0.5}
cache: {images_gb: 2}
tracking: {uri: "sqlite:///db/mlflow.db?timeout=5"}
storage: runs
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "spaces"
    package = tmp_path / "packages" / "somebodys_weights"
    for one in (folder, folder / "images", package):
        one.mkdir(parents=True)
    for one in (tmp_path / "w.pth", folder / "w.safetensors", package / "fake.pth", package / "__init__.py"):
        one.touch()
    monkeypatch.syspath_prepend(str(package.parent))
    path = folder / "space.yaml"
    path.write_text(TEXT.replace("package: yaml", "package: somebodys_weights"))
    return path


def only_problem(file: Path, *overrides: str, data: Path | None = None) -> SpaceProblem:
    with pytest.raises(SpaceError) as caught:
        load_space_file(file, overrides, data)
    assert len(caught.value.faults) == 1, caught.value.faults
    return caught.value.faults[0]


def test_paths_are_relative_to_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent.parent)
    loaded = load_space_file(Path("spaces/space.yaml"))
    assert loaded.data.path == str(file.parent / "images")
    assert loaded.weights["mobilenet_v2"].path == str(file.parent.parent / "w.pth")
    assert loaded.weights["resnet18"].path == str(file.parent / "w.safetensors")
    assert loaded.weights["resnet34"].kind == "none"
    assert loaded.weights["resnet50"].kind == "package" and loaded.weights["resnet50"].match == "order"
    assert loaded.storage == str(file.parent / "runs")
    assert loaded.tracking.uri == f"sqlite:///{file.parent}/db/mlflow.db?timeout=5"


@pytest.mark.parametrize("uri", ["http://host:5000", "postgresql://u:p@host/db", "databricks", "sqlite:////var/x.db"])
def test_other_stores_pass_as_they_are(file: Path, uri: str) -> None:
    assert load_space_file(file, [f"tracking.uri={uri}"]).tracking.uri == uri


def test_the_resolved_text_reads_back_equal_from_any_folder(file: Path, tmp_path: Path) -> None:
    loaded = load_space_file(file, ["search.seed=5"])
    copy = tmp_path / "elsewhere.yaml"
    copy.write_text(dump_resolved(loaded), encoding="utf-8")
    assert load_space_file(copy) == loaded
    assert dump_resolved(load_space_file(copy)) == dump_resolved(loaded)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]))
)


@given(st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=5))
def test_what_the_dumper_writes_the_loader_reads(value: Any) -> None:
    read = parse_value(yaml.dump(value, Dumper=SpaceDumper, allow_unicode=True))
    assert read == value and type(read) is type(value)


def test_overrides_reach_every_place(file: Path) -> None:
    overrides = [
        "search.trials=3",
        "search.start_with.0.head_lr=1e-2",
        "search.start_with[1].head_lr=0.05",
        "space.unfreeze_depth={int: [0, 2]}",
        "weights.mobilenet_v2=none",
        "name='2024'",
        "search.trials=4",
    ]
    loaded = load_space_file(file, overrides)
    assert loaded.search.trials == 4
    assert [entry["head_lr"] for entry in loaded.search.start_with] == [0.01, 0.05]
    assert loaded.space["unfreeze_depth"] == {"int": [0, 2]}
    assert loaded.weights["mobilenet_v2"].kind == "none"
    assert loaded.name == "2024"
    assert loaded.document.as_dict()["search"]["trials"] == 4


def test_overrides_make_absent_sections(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("name: a\ndata: {source: digits}\nspace: {backbone: resnet18}\nsearch:\n")
    loaded = load_space_file(path, ["search.seed=3", "cache.images_gb=1", "data.split.val=0.3"])
    assert (loaded.search.seed, loaded.cache.images_gb, loaded.data.split.val) == (3, 1.0, 0.3)


def test_the_problem_of_an_override_names_it(file: Path) -> None:
    problem = only_problem(file, "search.trials=0")
    assert (problem.file, problem.line) == ("", 0)
    assert "at least 1, not 0 (given by --set search.trials=0)" in problem.message


def test_a_whole_number_that_is_too_large_is_one_problem(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(f"name: a\ndata: {{source: digits}}\nspace: {{backbone: resnet18}}\nsearch: {{trials: {10**20}}}\n")
    assert "2^63" in only_problem(path).message, "and not what is wrong with the value that stands in for it"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("search.trials", "KEY=VALUE"),
        ("=3", "KEY=VALUE"),
        ("search..trials=3", "KEY=VALUE"),
        ("search.trials=[", "not valid YAML"),
        ("search.trials={a: 1, a: 2}", "only once"),
        ("search.start_with.7.head_lr=1", "has 2 entries"),
        ("search.start_with.x.head_lr=1", "an index is needed"),
        ("name.deeper=1", "name is 'emoji', so it cannot hold 'deeper'"),
        ("search.trails=1", "did you mean 'trials'"),
    ],
)
def test_a_wrong_override_is_a_problem(file: Path, override: str, words: str) -> None:
    problem = only_problem(file, override)
    assert words in problem.message and f"--set {override}" in problem.message
    assert problem.line == 0


def test_paths_of_the_command_line_are_relative_to_the_current_folder(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    loaded = load_space_file(file, ["weights.mobilenet_v2=w.pth"], Path("other"))
    assert loaded.data.path == str(tmp_path / "other")
    assert loaded.weights["mobilenet_v2"].path == str(tmp_path / "w.pth")
    assert "given by --data nowhere" in only_problem(file, data=Path("nowhere")).message


def test_fewer_trials_on_the_command_line_are_a_short_try(file: Path) -> None:
    assert load_space_file(file, ["search.trials=1"]).search.trials == 1


def test_storage_may_not_be_a_file(file: Path) -> None:
    assert "storage must be a folder" in only_problem(file, f"storage={file}/below").message
    assert "needs a folder" in only_problem(file, f"tracking.uri=sqlite:///{file}/x.db").message
    assert "is a folder" in only_problem(file, f"tracking.uri=sqlite:///{file.parent}").message


def test_a_database_lies_beside_its_file_whatever_the_folder_is_called(file: Path) -> None:
    odd = file.parent.with_name("50% of a?b#c%20d")
    file.parent.rename(odd)
    space = odd / "space.yaml"
    space.write_text(space.read_text().replace("db/ml", "my%20"))
    loaded = load_space_file(space, ["search.study=sqlite:///study.db"])
    assert make_url(loaded.tracking.uri).database == str(odd / "my flow.db")
    assert make_url(loaded.tracking.uri).query == {"timeout": "5"}
    (odd / "resolved.yaml").write_text(dump_resolved(loaded))
    again = load_space_file(odd / "resolved.yaml")
    assert (again.tracking.uri, again.search.study) == (loaded.tracking.uri, loaded.search.study)


@pytest.mark.parametrize("override", ["storage=$SCRATCH/runs", "storage=${HOME}", "tracking.uri=sqlite:///$HOME/m.db"])
def test_a_folder_named_after_a_variable_is_not_made(file: Path, override: str) -> None:
    assert "variables of the environment are not replaced" in only_problem(file, override).message


def test_an_address_that_is_no_bucket_is_one_error(file: Path) -> None:
    assert only_problem(file, "storage=gs://bucket/runs").path == ("storage",)
