"""Logs for programs: each line is JSON with its search, node and trial, bounded, and holds no secret."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from search_doubles import drive, make_plan

from tlsearch.search import json_logs
from tlsearch.search.json_logs import TrialTeller, WorkerLog, logging_to

ours, others = logging.getLogger("tlsearch.search.somewhere"), logging.getLogger("alibrary.somewhere")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def _handlers_of_this_test() -> Iterator[None]:
    """A worker keeps its handlers for its life, a test must not."""
    root, package = logging.getLogger(), logging.getLogger("tlsearch")
    before, level = list(root.handlers), package.level
    yield
    for handler in [one for one in root.handlers if one not in before]:
        root.removeHandler(handler)
        handler.close()
    package.setLevel(level)


def test_a_line_tells_all_of_its_record(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with logging_to(path, search="emoji-1"):
        ours.info("a thing of %s", "interest", extra={"trial": 3})
        ours.debug("too small a thing")
        others.info("another's thing")
        try:
            raise ValueError("broken")
        except ValueError:
            others.exception("it went wrong:\nthere")
    ours.warning("after the search")
    first, second = lines(path)
    assert (first["message"], first["level"], first["trial"]) == ("a thing of interest", "INFO", 3)
    assert (first["search"], first["logger"]) == ("emoji-1", "tlsearch.search.somewhere")
    assert first["node"] and first["time"].endswith("+00:00") and "error" not in first
    assert (second["level"], second["trial"], second["message"]) == ("ERROR", None, "it went wrong:\nthere")
    assert second["error"].splitlines()[-1] == "ValueError: broken"
    assert logging.getLogger("tlsearch").level == logging.NOTSET


def test_no_secret_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = {name: f"hidden-{name.lower()}" for name in ("PGPASSWORD", "RAY_AUTH_TOKEN", "AWS_SECRET_ACCESS_KEY")}
    for name, value in hidden.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TEAM_TOKEN", "on")  # masks no ordinary word
    path = tmp_path / "log.jsonl"
    with logging_to(path, search="s"):
        ours.warning("on postgresql://me:pass-word@db/x with %s", hidden)
        try:
            raise RuntimeError(f"refused: {hidden['PGPASSWORD']}")
        except RuntimeError:
            ours.exception("no connection")
    text = path.read_text()
    assert "hidden-" not in text and "pass-word" not in text
    assert "on postgresql://me:***@db/x" in lines(path)[0]["message"] and "refused: ***" in lines(path)[1]["error"]


def test_a_log_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_logs, "_DRIVER_BYTES", 1000)
    with logging_to(tmp_path / "log.jsonl", search="s"):
        for number in range(100):
            ours.info("number %d", number)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl", "log.jsonl.1", "log.jsonl.2"]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    assert lines(tmp_path / "log.jsonl")[-1]["message"] == "number 99"


def test_a_log_that_cannot_be_written_is_no_matter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with logging_to(tmp_path / "gone" / "log.jsonl", search="s"):
        ours.warning("unheard")
    assert not (tmp_path / "gone").exists() and "Logging error" not in capsys.readouterr().err


@pytest.mark.usefixtures("_handlers_of_this_test")
def test_a_worker_names_the_trial_that_it_holds(tmp_path: Path) -> None:
    log = WorkerLog(tmp_path, node="0123456789abcdef")
    for number in (4, 7):
        log.about(number)
        ours.info("an epoch")
    (path,) = (tmp_path / "logs").iterdir()
    assert [(line["trial"], line["search"]) for line in lines(path)] == [(4, tmp_path.name), (7, tmp_path.name)]
    assert all(line["node"].endswith("/01234567") for line in lines(path))


@pytest.mark.usefixtures("_handlers_of_this_test")
def test_a_worker_that_does_not_see_the_folder_makes_none(tmp_path: Path) -> None:
    before = list(logging.getLogger().handlers)
    WorkerLog(tmp_path / "elsewhere", node="n").about(1)
    assert logging.getLogger().handlers == before and list(tmp_path.iterdir()) == []


def test_the_driver_tells_of_every_trial(tmp_path: Path) -> None:
    plan = make_plan(tmp_path / "s", trials=2, max_epochs=2, scheduler=None)
    with logging_to(tmp_path / "log.jsonl", search="s"):
        drive(plan, observers=[TrialTeller("val_accuracy")])
    logged = [line for line in lines(tmp_path / "log.jsonl") if line["logger"] == "tlsearch.search.json_logs"]
    assert [line["trial"] for line in logged] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert logged[1]["message"].startswith("trial 0, epoch 1: val_accuracy 0.") and "continue" in logged[1]["message"]
    assert logged[3]["message"] == "trial 0 is complete (completed) after 2 epochs"
