"""One command that starts a search, or goes on with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from preparing import prepare_or_resume

from tlsearch.app.searches.prepare import RunOptions
from tlsearch.core.errors import StorageError, UsageError

TEXT = """
name: small
data: {source: digits}
weights: {resnet18: none}
space: {backbone: resnet18}
search: {trials: 2, max_epochs: 1}
"""


def options(tmp_path: Path, name: str | None = "one") -> RunOptions:
    path = tmp_path / "space.yaml"
    path.write_text(TEXT)
    return RunOptions(file=path, name=name)


def test_the_first_start_prepares_and_the_second_resumes(tmp_path: Path) -> None:
    first = prepare_or_resume(options(tmp_path))
    assert not first.resumed
    again = prepare_or_resume(options(tmp_path))
    assert again.resumed and again.entry.directory == first.entry.directory
    assert again.file == first.file


def test_without_a_name_there_is_nothing_to_find(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--name"):
        prepare_or_resume(options(tmp_path, None))


def test_a_start_that_died_before_its_search_existed_does_not_block_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "tlsearch_runs" / "one"
    folder.mkdir(parents=True)
    (folder / "space.yaml").write_text("half")
    (folder / ".resolved.yaml.17.tmp").write_text("half")
    assert not prepare_or_resume(options(tmp_path)).resumed


def test_a_folder_with_anything_else_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "tlsearch_runs" / "one"
    folder.mkdir(parents=True)
    (folder / "study.journal").write_text("{}")
    with pytest.raises(StorageError, match="must be new"):
        prepare_or_resume(options(tmp_path))
    assert (folder / "study.journal").read_text() == "{}"
