"""Reads the runs of a search out of a SQLite file of MLflow's without importing MLflow, which takes seconds."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from tlsearch.errors import TrackingError
from tlsearch.tracking.runs import KIND, SEARCH_ID, SEARCH_UID, TRIAL
from tlsearch.tracking.schema import deleted_fault
from tlsearch.tracking.sqlite_file import sqlite_path

_BUSY_S = 5.0  # how long a writer is waited for
_EXPERIMENT = "SELECT experiment_id, lifecycle_stage FROM experiments WHERE name = ?"
_MODE = "?workflowType=machine_learning"
_RUNS = """
SELECT number.value, runs.run_uuid FROM runs
JOIN tags AS search ON search.run_uuid = runs.run_uuid AND search.key = ? AND search.value = ?
JOIN tags AS kind ON kind.run_uuid = runs.run_uuid AND kind.key = ? AND kind.value = 'trial'
JOIN tags AS number ON number.run_uuid = runs.run_uuid AND number.key = ?
LEFT JOIN tags AS uid ON uid.run_uuid = runs.run_uuid AND uid.key = ?
WHERE runs.experiment_id = ? AND runs.lifecycle_stage = 'active' AND COALESCE(uid.value, '') = ?
ORDER BY runs.start_time, runs.run_uuid
"""


def runs_page(uri: str, experiment: str) -> str:
    """What follows the address of MLflow's UI so that it opens on the training runs of an experiment.

    Without it the UI opens in its mode for language models, whatever the experiment says (3.17). Only the mode
    where the store is no SQLite file, or does not hold the experiment.
    """
    path = sqlite_path(uri)
    found: list[tuple[object, object]] = []
    if path is not None and path.is_file():
        try:
            with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=_BUSY_S)) as database:
                found = database.execute(_EXPERIMENT, (experiment,)).fetchall()
        except sqlite3.Error:
            found = []
    active = [number for number, stage in found if stage == "active"]
    return f"/#/experiments/{active[0]}/runs{_MODE}" if len(active) == 1 else f"/#/experiments{_MODE}"


def peek_run_ids(path: Path, *, experiment: str, search_id: str, uid: str = "") -> dict[int, str]:
    """The runs of a search's trials by trial number, of several of one trial the oldest; ``uid`` as for ``find_runs``.

    Raises:
        TrackingError: The file is missing, locked or no database of MLflow's; or the experiment is missing or deleted.
    """
    if not path.exists():
        raise TrackingError(f"the MLflow database {path} does not exist")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=_BUSY_S)) as database:
            found = database.execute(_EXPERIMENT, (experiment,)).fetchone()
            if found is None:
                raise TrackingError(f"the MLflow database {path} has no experiment {experiment!r}")
            if found[1] != "active":
                raise TrackingError("; ".join(deleted_fault(experiment, str(found[0]), str(path))))
            name = (SEARCH_UID, uid) if uid else (SEARCH_ID, search_id)
            rows = database.execute(_RUNS, (*name, KIND, TRIAL, SEARCH_UID, found[0], uid)).fetchall()
    except sqlite3.Error as error:
        raise TrackingError(f"the MLflow database {path} cannot be read: {error}") from error
    ids: dict[int, str] = {}
    for number, run_id in rows:
        if number.isdecimal():
            ids.setdefault(int(number), run_id)
    return dict(sorted(ids.items()))
