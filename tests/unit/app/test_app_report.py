"""The report that `run` writes at its end, and the whole one."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape
from typing import Any

import pytest
import yaml

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.catalog.gather_facts import read_space_file
from tlsearch.app.catalog.stored import read_record
from tlsearch.app.views import report
from tlsearch.app.views.report import report_at_end, write_search_report
from tlsearch.app.views.report_settings import best_space, log_scaled, search_settings
from tlsearch.core.types import ParameterImportance
from tlsearch.search import holding
from tlsearch.space import load


@pytest.fixture
def entry(ended_search: SearchEntry) -> SearchEntry:
    return ended_search


def test_the_report_of_run_leaves_out_what_takes_long(entry: SearchEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def watched(name: str, result: Any) -> None:
        monkeypatch.setattr(report, name, lambda *_, **__: done.append(name) or result)

    watched("find_run_ids", {})
    watched("log_search_files", "run")
    watched("parameter_importance", ParameterImportance(reason="too few"))
    with holding(entry.path, "run") as lock:
        page = report_at_end(entry, lock)
    assert page == entry.path / "report" / "report.html" and done == ["find_run_ids", "log_search_files"]
    short = page.read_text()
    assert short.count("Left out here: <code>tlsearch report</code>") == 2 and "Worst mistakes" not in short
    assert (page.parent / "leaderboard.csv").exists() and (page.parent / "plots" / "history.png").exists()
    result = write_search_report(entry)
    assert result.page == page and result.run_id == "run" and done.count("parameter_importance") == 1
    whole = page.read_text()
    assert "Left out here" not in whole and "Worst mistakes" in whole
    assert "the kept logits of" in whole and "that leave each image out" in whole
    header, *rows = (page.parent / "label_errors.csv").read_text().splitlines()
    assert header == "key,split,label,suggested,confidence" and result.files["label_errors.csv"].exists()
    assert {row.split(",")[1] for row in rows} <= {"train", "val"}


def test_a_report_that_fails_does_not_fail_the_search(
    entry: SearchEntry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(report, "find_run_ids", fail)
    with holding(entry.path, "run") as lock:
        assert report_at_end(entry, lock) is None
    assert "planted" in caplog.text


def test_settings_and_a_best_trial_that_can_be_run_are_on_the_page(
    entry: SearchEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "find_run_ids", lambda *_, **__: {})
    best = read_record(entry).best
    assert best is not None
    page = write_search_report(entry, with_model=False, with_importance=False, log=False).page.read_text()
    assert "In place of the file’s <code>space</code> and <code>weights</code>" in page
    whole, first, resolved = (unescape(text) for text in re.findall(r'<pre class="copy">(.*?)</pre>', page, re.DOTALL))
    home = entry.path.parents[1]
    own = yaml.safe_load((home / "space.yaml").read_text())
    alone, entry_first = home / "alone.yaml", home / "first.yaml"
    searched = {"trials": 1, "sampler": "tpe"}
    alone.write_text(yaml.safe_dump({**own, **yaml.safe_load(whole), "search": searched}))
    _, space = load(alone)
    assert space.to_config(space.complete({})) == best.config
    copied = yaml.safe_load(first)
    entry_first.write_text(yaml.safe_dump({**own, **copied, "search": {**searched, **copied["search"]}}))
    file, space = load(entry_first)
    (point,) = file.search.start_with
    assert space.to_config(space.complete(point)) == best.config
    assert yaml.safe_load(resolved) == yaml.safe_load((entry.path / "resolved.yaml").read_text())
    meta = json.loads((entry.path / "trials" / str(best.number) / "best" / "checkpoint.json").read_text())
    assert meta["weights_id"] in page and meta["weights_digest"][:16] in page


def test_a_password_in_the_space_file_is_not_on_the_page(entry: SearchEntry) -> None:
    resolved = entry.path / "resolved.yaml"
    tree = yaml.safe_load(resolved.read_text())
    tree["tracking"]["uri"] = "postgresql://me:secret@host/db"
    resolved.write_text(yaml.safe_dump(tree))
    found = search_settings(entry, read_space_file(entry), read_record(entry))
    assert "secret" not in found.resolved and "host/db" in found.resolved


def test_what_the_space_draws_by_ratio_is_known(entry: SearchEntry) -> None:
    file, _ = load(entry.path.parents[1] / "space.yaml")
    assert log_scaled(file) == {"head_lr"} and log_scaled(None) == frozenset()


def test_a_solved_head_is_shown_without_what_would_train_it(entry: SearchEntry) -> None:
    best = read_record(entry).best
    assert best is not None
    solved = replace(best, config=replace(best.config, unfreeze_depth=0, head="ridge", head_penalty=0.1))
    home = entry.path.parents[1]
    own = yaml.safe_load((home / "space.yaml").read_text())
    alone = home / "alone.yaml"
    alone.write_text(yaml.safe_dump({**own, **yaml.safe_load(best_space(solved, None)), "search": {"trials": 1}}))
    _, space = load(alone)
    assert space.to_config(space.complete({})).head == "ridge"
