"""Tune's searcher: asks the conductor, which asks the study. It holds nothing that must survive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from ray.tune.search import Searcher

from tlsearch.search.controller.controller import Conductor
from tlsearch.search.ray_tune.bridge import Watch
from tlsearch.search.worker.messages import pack


class StudySearcher(Searcher):
    """Hands out trials up to the live limit."""

    def __init__(self, conductor: Conductor, watch: Watch, *, live_limit: Callable[[], int]) -> None:
        super().__init__()
        self._conductor = conductor
        self._watch = watch
        self._live_limit = live_limit

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """A trial's job; None while all slots are taken or trials have to end first; FINISHED when none will come.

        Tune asks again at every turn after a None, and never after FINISHED.
        """
        answer: Any = Searcher.FINISHED
        with self._watch.guard():
            if not self._conductor.exhausted and self._watch.error is None:
                answer = self._next_job(trial_id)
        return cast("dict[str, Any] | None", answer)  # Tune compares with FINISHED, a string

    def _next_job(self, trial_id: str) -> dict[str, str] | str | None:
        if len(self._watch.handed_out) >= self._live_limit():
            return None
        job = self._conductor.next_trial()
        if job is None:
            return Searcher.FINISHED if self._conductor.exhausted else None
        self._watch.handed_out[trial_id] = job.assignment.number
        return pack(job)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The trial has left Tune, however it ended."""
        self._watch.handed_out.pop(trial_id, None)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the only truth."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its own description of the run, which is never read
