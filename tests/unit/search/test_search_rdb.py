"""A study in a database: the same search, found from its folder, one writer, whatever happened."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from search_checks import check_agreement, study_trials
from search_doubles import drive, killed_at, make_plan
from services import postgres_server
from sqlalchemy import Engine, create_engine, event, text

from tlsearch.core.errors import StorageError
from tlsearch.core.types import EpochReport, TrialState
from tlsearch.search import SearchPlan, read_search, read_status
from tlsearch.search.controller.controller import Controller
from tlsearch.search.study.rdb import Pointer, connect, database_errors, read_pointer, write_pointer
from tlsearch.search.study.storage import open_for_writing, study_attrs
from tlsearch.search.study.study import Study


def sqlite_plan(root: Path, **search: object) -> SearchPlan:
    return make_plan(root, study=f"sqlite:///{root.parent}/team.db", **search)


def told(root: Path) -> list[tuple[object, ...]]:
    """What must not depend on where the study is: all but times."""
    return [
        (t.number, t.state, t.reason, t.params, t.seed, t.reports, t.best_value, t.best_epoch)
        for t in read_search(root).trials
    ]


def test_a_search_in_a_database_is_the_same_search(tmp_path: Path) -> None:
    plan = sqlite_plan(tmp_path / "s", trials=6, start_with=({"unfreeze_depth": 2},))
    assert drive(plan, slots=2) == "finished"
    check_agreement(plan)
    drive(make_plan(tmp_path / "journal", trials=6, start_with=({"unfreeze_depth": 2},)), slots=2)
    assert told(tmp_path / "s") == told(tmp_path / "journal")
    assert not plan.folder.journal.exists()
    assert read_search(tmp_path / "s").search_id == "s"
    assert read_status(tmp_path / "s").num_waiting == 0


def test_two_searches_share_a_database(tmp_path: Path) -> None:
    first, second = sqlite_plan(tmp_path / "a", trials=2), sqlite_plan(tmp_path / "b", trials=3, seed=1)
    drive(first)
    drive(second)
    drive(sqlite_plan(tmp_path / "a", trials=4))
    assert [len(read_search(tmp_path / name).trials) for name in ("a", "b")] == [4, 3]


def test_the_name_of_another_search_is_refused(tmp_path: Path) -> None:
    drive(sqlite_plan(tmp_path / "s", trials=1))
    other = make_plan(tmp_path / "elsewhere" / "s", study=f"sqlite:///{tmp_path}/team.db")
    with pytest.raises(StorageError, match="holds a study 's' already: choose another --name"):
        drive(other)
    drive(sqlite_plan(tmp_path / "s", trials=2))  # the lock was given back, and the first is as it was
    assert len(read_search(tmp_path / "s").trials) == 2


@pytest.mark.parametrize("point", ["after_ask:2", "before_report_write:3", "after_report_write:2", "before_tell:2"])
def test_killed_and_resumed(tmp_path: Path, point: str) -> None:
    plan = sqlite_plan(tmp_path / "s", trials=4)
    killed_at(point, lambda: drive(plan))
    assert drive(plan) == "finished"
    check_agreement(plan)
    drive(make_plan(tmp_path / "whole", trials=4))
    assert told(tmp_path / "s") == told(tmp_path / "whole")


@pytest.fixture
def counts() -> Iterator[Counter[str]]:
    """How many statements and commits all databases have had."""
    found: Counter[str] = Counter()

    def commit(*_: object) -> None:
        found["commits"] += 1

    def statement(*_: object) -> None:
        found["statements"] += 1

    event.listen(Engine, "commit", commit)
    event.listen(Engine, "before_cursor_execute", statement)
    yield found
    event.remove(Engine, "commit", commit)
    event.remove(Engine, "before_cursor_execute", statement)


def opened(plan: SearchPlan) -> Study:
    return open_for_writing(plan.folder, attrs=study_attrs(plan), url=plan.search.study)


def report_of(epoch: int) -> EpochReport:
    return EpochReport(epoch=epoch, metrics={"val_accuracy": 0.1 * epoch}, timestamp=float(epoch))


def test_what_belongs_together_is_one_transaction(tmp_path: Path, counts: Counter[str]) -> None:
    study = opened(plan := sqlite_plan(tmp_path / "s", trials=3, scheduler=None))
    controller = Controller(plan, study)
    for epoch in range(plan.setup.max_epochs + 1):
        counts.clear()
        if not epoch:
            assert controller.next_trial() is not None
        else:
            controller.report(0, report_of(epoch))
        ends = epoch == plan.setup.max_epochs
        assert counts["commits"] == 1 + ends, f"epoch {epoch}"  # the last report ends the trial
    study.close()


def test_the_writer_reads_no_trial_from_the_database_twice(tmp_path: Path, counts: Counter[str]) -> None:
    drive(sqlite_plan(tmp_path / "s", trials=3))
    study = opened(sqlite_plan(tmp_path / "s", trials=3))
    before = study.trials()
    counts.clear()
    assert study.trials() == before and study.trial(2).number == 2 and not counts
    study.set_attrs(2, {})  # nothing to write
    study.close()


@pytest.mark.parametrize("cut", ["set_trial_user_attr", "set_trial_intermediate_value"])
def test_a_report_that_is_cut_in_half_was_never_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    study = opened(plan := sqlite_plan(tmp_path / "s", trials=2))
    controller = Controller(plan, study)
    controller.next_trial()
    controller.report(0, report_of(1))
    written = getattr(RDBStorage, cut)

    def interrupted(*args: object, **more: object) -> None:
        written(*args, **more)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(RDBStorage, cut, interrupted)
        controller.report(0, report_of(2))
    for trial in (study.trials()[0], study_trials(tmp_path / "s")[0]):
        assert list(trial.intermediate_values) == [1] and "report:2" not in trial.user_attrs
    study.close()


def test_memory_says_what_the_database_holds(tmp_path: Path) -> None:
    study = opened(plan := sqlite_plan(tmp_path / "s", trials=5, start_with=({"unfreeze_depth": 2},)))
    controller = Controller(plan, study)
    for number in range(4):
        assert controller.next_trial() is not None
        for epoch in range(1, plan.setup.max_epochs + 1 if number < 3 else 2):
            controller.report(number, report_of(epoch))

    def said(trials: list[FrozenTrial]) -> list[tuple[object, ...]]:
        own = ("number", "state", "values", "params", "distributions", "user_attrs", "system_attrs")
        return [(*(getattr(trial, name) for name in own), trial.intermediate_values) for trial in trials]

    assert said(study.trials()) == said(study_trials(tmp_path / "s"))
    study.close()


def test_a_proposal_that_a_crash_cut_in_half_is_completed(tmp_path: Path) -> None:
    """In a database of an earlier version an ask was several transactions: the trial has a parameter alone."""
    plan = sqlite_plan(tmp_path / "s", trials=3, sampler="random")
    drive(make_plan(tmp_path / "whole", trials=3, sampler="random"))
    drive(sqlite_plan(tmp_path / "s", trials=1, sampler="random"))
    from tlsearch.search.sampling.tpe import make_sampler

    study = opened(plan)
    study._study.sampler = make_sampler("random", seed=0, number=1)
    trial = study._study.ask()
    trial.suggest_categorical("backbone", ["resnet18", "mobilenet_v2"])
    study.close()
    assert read_search(tmp_path / "s").trials[-1].number == 0  # half a proposal is not shown
    assert drive(plan) == "finished"
    check_agreement(plan)
    trials = read_search(tmp_path / "s").trials
    assert [trial.number for trial in trials] == [0, 1, 2]
    assert trials[2].params == read_search(tmp_path / "whole").trials[2].params


@pytest.mark.parametrize("attribute", ["seed", "params", "config"])
def test_an_ask_cut_before_any_attribute_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attribute: str
) -> None:
    plan = sqlite_plan(tmp_path / "s", trials=2)
    write = optuna.Trial.set_user_attr

    def cut(trial: optuna.Trial, key: str, value: object) -> None:
        if key == attribute:
            raise KeyboardInterrupt
        write(trial, key, value)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(optuna.Trial, "set_user_attr", cut)
        drive(plan)
    assert read_search(tmp_path / "s").trials == ()
    assert drive(plan) == "finished"
    check_agreement(plan)
    assert len(read_search(tmp_path / "s").trials) == 2


def test_a_study_stays_where_it_is(tmp_path: Path) -> None:
    drive(sqlite_plan(tmp_path / "s", trials=1))
    with pytest.raises(StorageError, match=r"the study is in a database.*search\.study must name it"):
        drive(make_plan(tmp_path / "s", trials=2))
    with pytest.raises(StorageError, match="does not hold the study 's' any more"):
        drive(make_plan(tmp_path / "s", trials=2, study=f"sqlite:///{tmp_path}/new.db"))
    drive(make_plan(tmp_path / "j", trials=1))
    with pytest.raises(StorageError, match=r"the study is the journal .*search\.study must be auto"):
        drive(sqlite_plan(tmp_path / "j", trials=2))


def test_a_moved_database_is_found_at_its_new_address(tmp_path: Path) -> None:
    drive(sqlite_plan(tmp_path / "s", trials=1))
    (tmp_path / "team.db").rename(tmp_path / "moved.db")
    drive(make_plan(tmp_path / "s", trials=2, study=f"sqlite:///{tmp_path}/moved.db"))
    assert [trial.state for trial in read_search(tmp_path / "s").trials].count(TrialState.RUNNING) == 0
    assert len(read_search(tmp_path / "s").trials) == 2


def test_a_server_that_is_not_there_is_told_without_the_password(tmp_path: Path) -> None:
    pytest.importorskip("psycopg2")
    message = r"postgresql\+psycopg2://me:\*\*\*@127\.0\.0\.1:9/db failed: .*refused"
    with pytest.raises(StorageError, match=message) as caught:
        connect("postgresql+psycopg2://me:secret@127.0.0.1:9/db", writable=True)
    assert "secret" not in str(caught.value)


def test_a_missing_driver_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "MySQLdb", None)
    with pytest.raises(StorageError, match="whose driver mysqldb is not installed"):
        connect("mysql://host/db", writable=True)


def test_a_server_without_a_named_driver_gets_the_one_that_the_extra_brings() -> None:
    pytest.importorskip("psycopg2")
    with pytest.raises(StorageError, match=r"postgresql://me@127\.0\.0\.1:9/db failed: .*psycopg2.*refused"):
        connect("postgresql://me@127.0.0.1:9/db", writable=True)


def test_errors_of_the_database_become_ours(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/empty.db")
    with pytest.raises(StorageError, match="no such table"), database_errors("sqlite:///x"), engine.connect() as open_:
        open_.execute(text("select * from nowhere"))


def test_the_pointer_is_its_owners(tmp_path: Path) -> None:
    path, pointer = tmp_path / "study.json", Pointer(url="postgresql://me:secret@host/db", name="s")
    assert read_pointer(path) is None
    write_pointer(path, pointer)
    assert read_pointer(path) == pointer and path.stat().st_mode & 0o077 == 0
    path.write_text(json.dumps({"url": 1}))
    with pytest.raises(StorageError, match="cannot be read"):
        read_pointer(path)


@pytest.fixture
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server of this test's own."""
    with postgres_server() as server:
        yield server.url().replace("+psycopg2", "")


@pytest.mark.slow
def test_a_search_in_postgresql(tmp_path: Path, postgres: str) -> None:
    plan = make_plan(tmp_path / "s", trials=5, study=postgres)
    assert drive(plan, slots=2) == "finished"
    check_agreement(plan)
    drive(make_plan(tmp_path / "journal", trials=5), slots=2)
    assert told(tmp_path / "s") == told(tmp_path / "journal")
    assert study_trials(tmp_path / "s")[0].state.is_finished()
