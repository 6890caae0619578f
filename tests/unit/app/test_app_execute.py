"""A search and its records: MLflow is opened beside the trials, after the first report."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from preparing import prepare
from search_doubles import drive
from small_search import SPACE, write_shapes

from tlsearch.app.catalog.bucket_searches import Through
from tlsearch.app.catalog.stored import read_record
from tlsearch.app.searches import execute
from tlsearch.app.searches.prepare import RunOptions
from tlsearch.core.errors import SearchStopped, TrackingError
from tlsearch.core.layout import VAL_LOGITS
from tlsearch.core.types import EndReason, TrialOutcome
from tlsearch.search import SearchPlan
from tlsearch.trial import open_running


def test_a_store_that_cannot_be_opened_stops_the_search_and_is_raised_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise TrackingError("no such store")

    monkeypatch.setattr(execute, "keep_evidence", refused)
    stopped, first = threading.Event(), execute.FirstReport()
    with (
        pytest.raises(TrackingError, match="no such store"),
        execute._opening(cast(Any, SimpleNamespace(entry=0, index=0)), cast(Any, None), first.came, failed=stopped.set),
    ):
        assert not stopped.wait(0.1)
        first.trial_ended(0, TrialOutcome(reason=EndReason.ERROR))
        assert stopped.wait(60)


def test_the_logits_of_a_trial_stay_where_its_model_goes(tmp_path: Path) -> None:
    for number in range(4):
        for name in ("best", "running"):
            (tmp_path / "trials" / str(number) / name).mkdir(parents=True)
            (tmp_path / "trials" / str(number) / name / "file").touch()
    for number in (0, 1, 3):
        (tmp_path / "trials" / str(number) / VAL_LOGITS).touch()
    tidier = execute.Tidier(cast(Any, SimpleNamespace(kept=(0,))), directory=tmp_path)
    for number in range(3):
        tidier.trial_ended(number, TrialOutcome(reason=EndReason.COMPLETED))
    left = {path.relative_to(tmp_path / "trials").as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    running = {"3/best/file", "3/running/file", f"3/{VAL_LOGITS}"}
    assert left == {"0/best/file", f"0/{VAL_LOGITS}", f"1/{VAL_LOGITS}"} | running
    assert not (tmp_path / "trials" / "2").exists()


def _in_this_process(plan: SearchPlan, *, factory: Any, lock: Any, **options: Any) -> str:
    return drive(plan, factory=open_running, **options)


def test_a_damaged_image_ends_the_search_at_its_first_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shapes(tmp_path / "images")
    image = tmp_path / "images" / "train" / "square" / "03.png"
    image.write_bytes(image.read_bytes()[:60])
    (tmp_path / "space.yaml").write_text(SPACE.format(more=""))
    prepared = prepare(RunOptions(file=tmp_path / "space.yaml", name="small"))
    monkeypatch.setattr(execute, "run_search", _in_this_process)
    with pytest.raises(SearchStopped) as stopped:
        execute._searched(prepared, Through(), (), threading.Event())
    message = str(stopped.value)
    assert message.startswith(
        "the search has stopped, since trial 0 has met damaged images, which every trial reads: 1 "
    )
    assert f"{image}: " in message and "repair or remove" in message
    assert "`tlsearch resume` goes on once they are what they were" in message
    assert [trial.outcome for trial in read_record(prepared.entry).trials if trial.outcome is not None][0].error
    assert len(read_record(prepared.entry).trials) == 1
