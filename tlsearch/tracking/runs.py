"""The MLflow runs of one search, by their tags: found once, made where missing, one for each trial."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlsearch.core.crash import crash_point
from tlsearch.core.types import RecordedSearch
from tlsearch.tracking.mlflow_store import quoted

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

KIND = "tlsearch.kind"
SEARCH_ID = "tlsearch.search_id"
SEARCH_UID = "tlsearch.search_uid"  # runs are found by it: two searches may have one ID
TRIAL = "tlsearch.trial"
PARENT_SEARCH = "tlsearch.parent_search"
STATE = "tlsearch.state"
REASON = "tlsearch.reason"
ERROR = "tlsearch.error"
BEST_MODEL = "tlsearch.best_model"
PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"

_PAGE = 1000
_MARK = " ... [cut from {} characters]"


@dataclass(frozen=True, kw_only=True)
class TrackedSearch(RecordedSearch):
    """A search that is being recorded; its experiment is made where there is none.

    Beside a SQLite file the experiment's artifacts go into the folder ``mlartifacts``.

    Attributes:
        metric: The search's metric, for ``best_<metric>``.
        served_code: The models-from-code script of kept models.
        parent_search: ID of the search in whose run this one's is nested; empty for none.
        parent_uid: Its unique id.
    """

    metric: str
    served_code: Path
    parent_search: str = ""
    parent_uid: str = ""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One value of a metric; ``time_ms`` is its report's own time, so that a resend is the same point."""

    key: str
    value: float
    time_ms: int
    step: int


@dataclass(kw_only=True)
class KnownRun:
    """What is known of a run without asking again.

    Attributes:
        params: Those already logged; MLflow refuses to change one.
        steps: Of the search's own run: the steps of its progress that are logged; None where they are not known.
    """

    run_id: str
    status: str = "RUNNING"
    state: str = ""
    params: dict[str, str] = field(default_factory=dict)
    steps: set[int] | None = None

    def has_ended(self, state: str) -> bool:
        """Whether the run is closed with this state."""
        return self.state == state and self.status not in ("RUNNING", "SCHEDULED")


class RunTable:
    """The runs of a search by trial number, read in one go at construction.

    Where an answer of the server was lost and a run exists twice, the first is kept and the others are deleted.
    """

    def __init__(self, client: MlflowClient, experiment_id: str, search: TrackedSearch) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self._search = search
        self._parent: KnownRun | None = None
        self.trials: dict[int, KnownRun] = {}
        for run in find_runs(client, experiment_id, search):
            self._add(run)

    def parent(self, *, at: float) -> KnownRun:
        """The search's own run; made, with the start time ``at``, where there is none."""
        if self._parent is None:
            tags = {KIND: "search", **search_tags(self._search), **self._link()}
            self._parent = self._create(self._search.search_id, tags, at=at)
        return self._parent

    def _link(self) -> dict[str, str]:
        """Tags that hang the search's run into that of the search it belongs to."""
        search = self._search
        if not search.parent_search:
            return {}
        parent = replace(search, search_id=search.parent_search, uid=search.parent_uid)
        runs = find_runs(self._client, self._experiment_id, parent)
        above = next((run for run in runs if run.data.tags.get(KIND) == "search"), None)
        return {PARENT_SEARCH: search.parent_search} | ({PARENT: above.info.run_id} if above else {})

    def trial(self, number: int, *, at: float) -> KnownRun:
        """The run of a trial; made, with the start time ``at``, where there is none."""
        if number not in self.trials:
            tags = {
                KIND: "trial",
                **search_tags(self._search),
                TRIAL: str(number),
                STATE: "running",
                PARENT: self.parent(at=at).run_id,
            }
            self.trials[number] = self._create(trial_name(self._search.search_id, number), tags, at=at)
        return self.trials[number]

    def _create(self, name: str, tags: Mapping[str, str], *, at: float) -> KnownRun:
        tags = {**tags, "mlflow.source.name": "tlsearch", "mlflow.user": _user()}
        run = self._client.create_run(self._experiment_id, start_time=int(at * 1000), tags=tags, run_name=name)
        crash_point("run_created")
        return KnownRun(run_id=run.info.run_id, state=tags.get(STATE, ""), steps=set())

    def _add(self, run: Run) -> None:
        known = KnownRun(
            run_id=run.info.run_id,
            status=run.info.status,
            state=run.data.tags.get(STATE, ""),
            params=dict(run.data.params),
        )
        if run.data.tags.get(KIND) == "search":
            if self._parent is not None:
                self._client.delete_run(known.run_id)
                return
            self._parent = known
        elif (number := trial_number(run)) is not None:
            if number in self.trials:
                self._client.delete_run(known.run_id)
                return
            self.trials[number] = known


def search_tags(search: RecordedSearch) -> dict[str, str]:
    """Tags that name the search of a run or a model: its ID for people, its unique id to find it by."""
    return {SEARCH_ID: search.search_id} | ({SEARCH_UID: search.uid} if search.uid else {})


def search_filter(search: RecordedSearch) -> str:
    """MLflow's filter for ``search_tags``; without a unique id it finds other searches of that ID as well."""
    key, value = (SEARCH_UID, search.uid) if search.uid else (SEARCH_ID, search.search_id)
    return f"tags.`{key}` = {quoted(value)}"


def pages(search: Callable[[str | None], Any]) -> Iterator[Any]:
    """All that a search of MLflow's finds; ``search`` gives the page of a token, None for the first one."""
    token: str | None = None
    while True:
        page = search(token)
        yield from page
        token = page.token
        if not token:
            return


def find_runs(client: MlflowClient, experiment_id: str, search: RecordedSearch) -> Iterator[Run]:
    """All runs of a search that are not deleted, oldest first.

    Where the search has no unique id, as in an early version, runs with one are another's.
    """
    found = pages(
        lambda token: client.search_runs(
            [experiment_id],
            filter_string=search_filter(search),
            max_results=_PAGE,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
    )
    return (run for run in found if run.data.tags.get(SEARCH_UID, "") == search.uid)


def trial_name(search_id: str, number: int) -> str:
    """What a trial's run and model are called, so that those of two searches differ."""
    return f"{search_id} trial {number}"


def trial_number(run: Run) -> int | None:
    """The number of the trial that a run holds; None for another run."""
    text = run.data.tags.get(TRIAL, "")
    return int(text) if run.data.tags.get(KIND) == "trial" and text.isdecimal() else None


def cut(text: str, limit: int) -> str:
    """The text in at most ``limit`` characters; says so where something is missing."""
    if len(text) <= limit:
        return text
    mark = _MARK.format(len(text))
    return text[: limit - len(mark)] + mark


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A search's ID, and its unique id where it has one."""

    search_id: str
    uid: str


def model_origin(uri: str) -> Origin | None:
    """The search of ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, ``models:/m-ID`` or ``runs:/RUN/...``.

    None where MLflow's own store does not know it, or no search of tlsearch made it.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    scheme, _, name = uri.partition(":/")
    name = name.strip("/")
    client = MlflowClient()
    try:
        if scheme == "runs":
            return _origin(client.get_run(name.partition("/")[0]).data.tags)
        if scheme != "models":
            return None
        registered, at, alias = name.partition("@")
        if at:
            return _origin(client.get_model_version_by_alias(registered, alias).tags)
        registered, slash, version = name.rpartition("/")
        if slash:
            return _origin(client.get_model_version(registered, version).tags)
        return _origin(client.get_logged_model(name).tags)
    except MlflowException:
        return None


def _origin(tags: dict[str, str]) -> Origin | None:
    if SEARCH_ID not in tags:
        return None
    return Origin(search_id=tags[SEARCH_ID], uid=tags.get(SEARCH_UID, ""))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in some containers
        return "unknown"
