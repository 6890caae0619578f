"""Logs for programs: one JSON object a line, each with its search, its node and, where it tells of one, its trial.

Only the command that runs a search and its workers set them up.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

from tlsearch.core.layout import SearchFolder
from tlsearch.core.secrets import mask
from tlsearch.core.text import plural
from tlsearch.core.types import Decision, EpochReport, SearchObserver, TrialConfig, TrialOutcome

logger = logging.getLogger(__name__)

_DRIVER_BYTES, _WORKER_BYTES = 10_000_000, 2_000_000  # of one file; then it is set aside, and the older ones go
_DRIVER_OLDER, _WORKER_OLDER = 2, 1
_PACKAGE = "tlsearch"


@contextmanager
def logging_to(path: Path, *, search: str) -> Iterator[None]:
    """This process's records go into the file while the body runs: ours from INFO on, others' from WARNING on.

    Ray, Optuna and MLflow keep theirs to their own handlers.

    Args:
        path: Made, or gone on with; bounded, older lines are in ``<path>.1`` and ``.2``.
        search: The search's ID.
    """
    handler = _handler(path, _DRIVER_BYTES, _DRIVER_OLDER, JsonLines(search=search, node=socket.gethostname()))
    root, ours = logging.getLogger(), logging.getLogger(_PACKAGE)
    level = ours.level
    root.addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        ours.setLevel(level)
        root.removeHandler(handler)
        handler.close()


class WorkerLog:
    """The log of a worker's process, for its whole life; every line tells of the trial that it holds then."""

    def __init__(self, search_folder: Path, *, node: str) -> None:
        """Begins a file of its own in the search's folder, where this machine sees that; else there is none.

        Args:
            search_folder: As the trials' assignments name it.
            node: Ray's id of the node.
        """
        host = socket.gethostname()
        self._lines = JsonLines(search=search_folder.name, node=f"{host}/{node[:8]}")
        folder = SearchFolder(root=search_folder).worker_logs
        try:
            folder.mkdir(exist_ok=True)  # no parents: a search's folder that is not here is not made
        except OSError:
            return
        root = logging.getLogger()
        path = folder / f"{host}-{os.getpid()}.jsonl"
        root.addHandler(_handler(path, _WORKER_BYTES, _WORKER_OLDER, self._lines))
        to_ray = logging.StreamHandler(sys.stderr)  # into Ray's own log of the worker, as without a handler
        to_ray.setLevel(logging.WARNING)
        root.addHandler(to_ray)
        logging.getLogger(_PACKAGE).setLevel(logging.INFO)

    def about(self, trial: int) -> None:
        """The worker holds another trial."""
        self._lines.trial = trial


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time, level, logger, message, search, trial, node, and the error if there is one.

    Secrets are masked.
    """

    def __init__(self, *, search: str, node: str) -> None:
        super().__init__()
        self._search, self._node = search, node
        self.trial: int | None = None

    def format(self, record: logging.LogRecord) -> str:
        """The line; the record's own ``trial`` (``extra={"trial": 3}``) comes before this process's."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": mask(record.getMessage()),
            "search": self._search,
            "trial": getattr(record, "trial", self.trial),
            "node": self._node,
        }
        if record.exc_info:
            line["error"] = mask(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


class TrialTeller(SearchObserver):
    """Logs what becomes of each trial."""

    def __init__(self, metric: str) -> None:
        self._metric = metric

    def trial_started(self, number: int, config: TrialConfig) -> None:
        words = f"{config.model}, unfreeze_depth {config.unfreeze_depth}, head_lr {config.head_lr:.3g}"
        logger.info("trial %d is dispatched: %s", number, words, extra={"trial": number})

    def trial_reported(self, number: int, report: EpochReport, decision: Decision) -> None:
        value = report.metrics.get(self._metric)
        words = (number, report.epoch, self._metric, value, decision.value)
        logger.info("trial %d, epoch %d: %s %s, %s", *words, extra={"trial": number})

    def trial_ended(self, number: int, outcome: TrialOutcome) -> None:
        words = f"{outcome.state.value} ({outcome.reason}) after {plural(outcome.epochs_run, 'epoch')}"
        error = f": {outcome.error}" if outcome.error else ""
        logger.info("trial %d is %s%s", number, words, error, extra={"trial": number})


class _File(RotatingFileHandler):
    """A file that is full, or gone, does not concern the search, which says itself where it cannot write."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Says nothing."""


def _handler(path: Path, max_bytes: int, num_older: int, lines: JsonLines) -> logging.Handler:
    handler = _File(path, maxBytes=max_bytes, backupCount=num_older, encoding="utf-8", delay=True)
    handler.setFormatter(lines)
    handler.addFilter(lambda record: record.levelno >= logging.WARNING or record.name.split(".")[0] == _PACKAGE)
    return handler
