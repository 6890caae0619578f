"""A search with many trials at a time, looked at while it runs: the short form of the thousand trials on Ray."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from search_doubles import QuickTrial, Recorder, drive, make_plan

from tlsearch.app.catalog import catalog
from tlsearch.app.views.outcome import read_leaderboard
from tlsearch.app.views.status import overview
from tlsearch.core.types import TrialOutcome, TrialState

TRIALS, SLOTS = 90, 16


class Onlooker(Recorder):
    """Asks for status and results at every tenth end, as another terminal would, and compares with what it heard."""

    def __init__(self, entry: catalog.SearchEntry) -> None:
        super().__init__()
        self._entry = entry
        self.looks: list[dict[str, bool]] = []  # what agreed; an observer that raises is only logged

    def trial_ended(self, number: int, outcome: TrialOutcome) -> None:
        super().trial_ended(number, outcome)
        ended = {event[1]: event[2] for event in self.of("ended")}
        if len(ended) % 10:
            return
        record, rows = overview(self._entry).status.record, read_leaderboard(self._entry, run_ids=True).rows
        states = {one: outcome.state for one, outcome in ended.items()}
        self.looks.append(
            {
                "status": {t.number: t.state for t in record.trials if t.number in ended} == states,
                "values": {t.number: t.best_value for t in record.trials if t.number in ended}
                == {one: outcome.best_value for one, outcome in ended.items()},
                "running": all(t.state is TrialState.RUNNING for t in record.trials if t.number not in ended),
                "results": {row.trial: row.state for row in rows if row.trial in ended}
                == {one: state.value for one, state in states.items()},
                "rows": {row.trial for row in rows} == {t.number for t in record.trials},
            }
        )


def test_status_and_results_say_what_has_happened(tmp_path: Path) -> None:
    plan = make_plan(tmp_path / "s", trials=TRIALS)
    plan.folder.root.mkdir()
    entry = catalog.SearchEntry(
        search_id="s",
        experiment="stub",
        directory=str(plan.folder.root),
        source="space.yaml",
        tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
        metric="val_accuracy",
        created=1.0,
    )
    onlooker = Onlooker(entry)
    assert drive(plan, slots=SLOTS, order=1, factory=QuickTrial, observers=[onlooker]) == "finished"
    assert len(onlooker.looks) == TRIALS // 10
    assert [look for look in onlooker.looks if not all(look.values())] == []
    trials = overview(entry).status.record.trials
    assert [trial.number for trial in trials] == list(range(TRIALS))
    assert Counter(t.state for t in trials).keys() == {TrialState.COMPLETE, TrialState.PRUNED}
