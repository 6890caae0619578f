"""JSON files of a search's folder that another program has changed: an error that names the file, or done without."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from preparing import stub_entry
from search_doubles import QuickTrial, drive, make_plan

from tlsearch.app.catalog import catalog
from tlsearch.app.catalog.gather_facts import FACTS, read_facts, read_space_file
from tlsearch.app.catalog.provenance import DATA_CARD, ENVIRONMENT, data_facts, kept_environment
from tlsearch.app.catalog.stored import ENDED, kept_end
from tlsearch.app.cluster.relay import locate
from tlsearch.app.production.conclude import CONFIRMED, read_confirmed
from tlsearch.app.searches.input_digests import INPUTS, _kept
from tlsearch.app.views.cache_contents import cache_entries
from tlsearch.app.views.status import overview, trial_doing
from tlsearch.core.errors import TlsearchError
from tlsearch.core.layout import SearchFolder
from tlsearch.results.promotion.test_split import USES, read_uses
from tlsearch.search.inspect.running_status import read_dashboard
from tlsearch.search.study.rdb import read_pointer
from tlsearch.testing.replay import read_curves

RESOLVED = """
name: stub
data: {source: digits}
weights: {resnet18: none}
space: {backbone: resnet18}
search: {trials: 2, max_epochs: 2}
"""
Entry = catalog.SearchEntry

KEYS = ("status", "data", "splits", "uses", "directory", "kind", "digest", "classes", "rule", "key", "what", "url")
DEEP = '{"a": ' * 100_000 + "1" + "}" * 100_000
DAMAGED: tuple[str, ...] = (
    DEEP,
    "[" * 100_000,
    "",
    "\0" * 64,
    "3",
    "null",
    "[]",
    "{}",
    '{"a": ' + "9" * 5000 + "}",
    *(json.dumps(dict.fromkeys(KEYS, odd)) for odd in (None, 3, "x", [1], {"x": 1}, [[{}]])),
)

READERS: dict[str, Callable[[Entry], object]] = {
    "search.json": lambda entry: catalog.read_entry(entry.path),
    "lock": lambda entry: overview(entry).as_json(),
    "study.json": lambda entry: read_pointer(SearchFolder(root=entry.path).pointer),
    "ray.json": lambda entry: read_dashboard(SearchFolder(root=entry.path).dashboard),
    "trials/0/doing.json": lambda entry: trial_doing(entry.directory, 0),
    ENDED: kept_end,
    ENVIRONMENT: kept_environment,
    DATA_CARD: lambda entry: data_facts(entry, read_space_file(entry)),  # type: ignore[arg-type]
    FACTS: read_facts,
    INPUTS: _kept,
    CONFIRMED: read_confirmed,
    USES: lambda entry: read_uses(entry.path),
    "curves.json": lambda entry: read_curves(entry.path / "curves.json"),
}


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    made = stub_entry(tmp_path / "one", RESOLVED)
    drive(make_plan(made.path, trials=2, max_epochs=2), factory=QuickTrial)
    return made


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_named_or_done_without(name: str, entry: Entry) -> None:
    path = entry.path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    for text in DAMAGED:
        path.write_text(text)
        try:
            READERS[name](entry)
        except TlsearchError as error:
            assert Path(name).name in str(error) and len(str(error)) < 1000, text[:80]


def test_damaged_files_of_the_caches_and_of_submitted_searches_are_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLSEARCH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TLSEARCH_STATE_DIR", str(tmp_path / "state"))
    for place in ("cache/images", "cache/features", "cache/solutions", "state/submitted"):
        (tmp_path / place).mkdir(parents=True)
        for number, text in enumerate(DAMAGED):
            (tmp_path / place / f"{number}.json").write_text(text)
    found: list[Any] = list(cache_entries())
    assert len(found) >= len(DAMAGED)
    with pytest.raises(TlsearchError):
        locate("0")
