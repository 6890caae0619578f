"""Who hears of a search and who keeps it, and what was found before it began."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from tlsearch.core.secrets import mask
from tlsearch.core.types.search_records import SearchRecord
from tlsearch.core.types.trial_config import Scalar, TrialConfig
from tlsearch.core.types.trials import (
    Decision,
    EpochReport,
    TrialOutcome,
)


class SearchObserver(Protocol):
    """Hears what happens in a search, in order, on the driver's thread; must return at once.

    A subclass overrides the events it needs.
    """

    def trial_started(self, number: int, config: TrialConfig) -> None:
        """A trial starts, or continues after a resume."""
        return

    def trial_reported(self, number: int, report: EpochReport, decision: Decision) -> None:
        """An epoch's report and its decision are in the study."""
        return

    def trial_ended(self, number: int, outcome: TrialOutcome) -> None:
        """A trial's end is in the study."""
        return


@dataclass(frozen=True, kw_only=True)
class RecordedSearch:
    """A search as a tracking store has it.

    Attributes:
        uri: The store: a database, a server or a folder.
        experiment: Name of its experiment.
        search_id: Its ID, for people.
        uid: Its unique id, by which its runs are found; empty for a search of a version that had none.
    """

    uri: str
    experiment: str
    search_id: str
    uid: str = ""


@dataclass(frozen=True, kw_only=True)
class DataSetFacts:
    """The images of a search, as a tracker shows them; none is opened for it.

    Attributes:
        name: For people; data sets of different content may share it.
        digest: Stands for the content, in hex.
        source: Folder, file or set that the images come from.
        source_type: ``folder``, ``manifest``, ...
        images: Number of images by split.
        num_classes: Number of classes.
    """

    name: str
    digest: str
    source: str
    source_type: str
    images: Mapping[str, int]
    num_classes: int


class Tracker(SearchObserver, Protocol):
    """Records a search for people to look at (MLflow, or the in-memory twin).

    ``artifacts`` are texts by file name. Every call returns at once; the work is done in order in
    the background. Calls may be repeated (a resume sends all again): what is recorded is the same.
    """

    def search_started(
        self,
        params: Mapping[str, Scalar],
        artifacts: Mapping[str, str],
        *,
        description: str = "",
        data: DataSetFacts | None = None,
    ) -> None: ...

    def record_search(self, record: SearchRecord) -> None: ...

    def keep_model(self, number: int, checkpoint: Path) -> None: ...

    def drop_model(self, number: int) -> None: ...

    def search_ended(
        self, status: Literal["finished", "interrupted", "failed"], artifacts: Mapping[str, str]
    ) -> None: ...

    def run_ids(self) -> Mapping[int, str]: ...

    def flush(self, timeout_s: float = 30.0) -> bool:
        """Waits until all is sent or the store is away; whether all is sent."""
        ...

    def close(self, timeout_s: float = 30.0) -> int:
        """Sends what is left, for at most ``timeout_s``; returns how many records stay unsent."""
        ...


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at before a search.

    Attributes:
        name: What, e.g. ``storage`` or ``ray``; with the node where there are several.
        status: ``fail`` stops a search or would spoil it; ``warn`` may be meant so.
        text: What was found, secrets masked.
        advice: What to do about it; empty where nothing is to be done.
    """

    name: str
    status: Literal["ok", "warn", "fail"]
    text: str
    advice: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", mask(self.text))
