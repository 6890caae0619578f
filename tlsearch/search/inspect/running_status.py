"""What a search is doing now, for somebody in another terminal; reads only, needs no Ray."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import TrialState as OptunaState

from tlsearch.core.codec import read_json
from tlsearch.core.files import write_atomically
from tlsearch.core.layout import SearchFolder
from tlsearch.core.types import SearchRecord
from tlsearch.search.study.lock import Holder, runner_of
from tlsearch.search.study.records import record_of
from tlsearch.search.study.storage import open_for_reading


@dataclass(frozen=True, kw_only=True)
class SearchStatus:
    """A search at one moment.

    Attributes:
        holder: The process that runs it; None where none does: trials that are RUNNING in the record
            then wait for a resume.
        num_waiting: Points that will be tried next, before the sampler proposes.
        last_report: When the last report came, Unix time; None before the first.
        dashboard: Address of Ray's dashboard while the search runs on a cluster; empty else.
        log: The file that the search's process writes its log to; None where there is none.
    """

    record: SearchRecord
    holder: Holder | None
    num_waiting: int = 0
    last_report: float | None = None
    dashboard: str = ""
    log: Path | None = None


def read_status(
    directory: Path,
    *,
    search_id: str = "",
    experiment: str = "",
    metric: str = "",
    moved: Callable[[str], str] | None = None,
) -> SearchStatus:
    """The search's status; arguments and errors as of ``read_search``."""
    folder = SearchFolder(root=Path(directory))
    holder = runner_of(folder.lock)
    study = open_for_reading(folder, moved)
    record = record_of(study, directory, search_id=search_id, experiment=experiment, metric=metric, live=bool(holder))
    trials = study.trials() if study else []
    return SearchStatus(
        record=record,
        holder=holder,
        num_waiting=sum(trial.state is OptunaState.WAITING for trial in trials),
        last_report=max((report.timestamp for trial in record.trials for report in trial.reports), default=None),
        dashboard=read_dashboard(folder.dashboard) if holder else "",
        log=folder.log if folder.log.exists() else None,
    )


@contextmanager
def telling_dashboard(path: Path, url: str) -> Iterator[None]:
    """The file says where the dashboard is while the body runs.

    Args:
        path: The file; what an earlier start has left there goes.
        url: ``http://HOST:PORT``; empty where there is none, as on an own Ray.
    """
    path.unlink(missing_ok=True)
    if url:
        write_atomically(path, json.dumps({"dashboard": url}))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def read_dashboard(path: Path) -> str:
    """What the file says; empty where it is not there. Only a search that runs has a dashboard."""
    try:
        return str(read_json(path)["dashboard"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
