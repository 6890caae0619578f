"""Files that are added to the run of a search after it has ended: a report and its pictures."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from tlsearch.errors import TrackingError
from tlsearch.secrets import mask
from tlsearch.tracking.runs import KIND, find_runs
from tlsearch.tracking.sqlite_file import sqlite_path
from tlsearch.tracking.store import connect, find_experiment, store_errors
from tlsearch.tracking.worker import Away, Refused

logger = logging.getLogger(__name__)


def log_search_files(
    uri: str,
    *,
    experiment: str,
    search_id: str,
    files: Mapping[str, Path],
    uid: str = "",
    tags: Mapping[str, str] | None = None,
) -> str | None:
    """Adds files to the artifacts of a search's own run, and tags to it; what is there under the same name is replaced.

    Args:
        uri: The MLflow store.
        experiment: The search's experiment.
        search_id: The search.
        files: Local files by their path among the artifacts, as ``plots/history.png``.
        uid: The search's unique id; see ``find_runs``.
        tags: Set after the files.

    Returns:
        The id of the run; None, with a warning, where MLflow cannot take them, whatever the reason: the files are
        in the search's folder.
    """
    try:
        path = sqlite_path(uri)
        if path is not None and not path.exists():
            raise TrackingError(f"{path} does not exist")
        client = connect(uri)
        found = find_experiment(client, experiment, uri)
        if found is None:
            raise TrackingError(f"it has no experiment {experiment!r}")
        with store_errors(uri):
            runs = find_runs(client, found.experiment_id, search_id, uid)
            parent = next((run for run in runs if run.data.tags.get(KIND) == "search"), None)
            if parent is None:
                raise TrackingError(f"it has no run of {search_id}")
            for name, file in files.items():
                folder = str(PurePosixPath(name).parent)
                assert file.name == PurePosixPath(name).name, "MLflow keeps a file's name"
                client.log_artifact(parent.info.run_id, str(file), None if folder == "." else folder)
            for key, value in (tags or {}).items():
                client.set_tag(parent.info.run_id, key, value)
    except (TrackingError, Away, Refused) as error:
        logger.warning("%s: not logged to MLflow at %s: %s", ", ".join(files), mask(uri), error)
        return None
    return str(parent.info.run_id)
