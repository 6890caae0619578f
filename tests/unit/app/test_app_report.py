"""The report that `run` writes at its end, and the whole one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_search import small_search

from tlsearch.app import report
from tlsearch.app.report import report_at_end, write_search_report
from tlsearch.types import ParameterImportance


def test_the_report_of_run_leaves_out_what_takes_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = small_search(tmp_path)
    done: list[str] = []

    def watched(name: str, result: Any) -> None:
        monkeypatch.setattr(report, name, lambda *_, **__: done.append(name) or result)

    watched("find_run_ids", {})
    watched("log_search_files", "run")
    watched("parameter_importance", ParameterImportance(reason="too few"))
    page = report_at_end(entry)
    assert page == entry.path / "report" / "report.html" and done == ["find_run_ids", "log_search_files"]
    short = page.read_text()
    assert short.count("Left out here: <code>tlsearch report</code>") == 2 and "Worst mistakes" not in short
    assert (page.parent / "leaderboard.csv").exists() and (page.parent / "plots" / "history.png").exists()
    result = write_search_report(entry)
    assert result.page == page and result.run_id == "run" and done.count("parameter_importance") == 1
    whole = page.read_text()
    assert "Left out here" not in whole and "Worst mistakes" in whole


def test_a_report_that_fails_does_not_fail_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    entry = small_search(tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(report, "find_run_ids", fail)
    assert report_at_end(entry) is None
    assert "planted" in caplog.text
