"""What a worker and the driver send each other, as JSON text inside Tune's dicts; and a worker's progress file.

Tune copies, flattens and prints configs and results; one string under one key passes untouched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlsearch.core.codec import from_plain, parse_json, to_plain
from tlsearch.core.files import write_atomically
from tlsearch.core.types import EpochReport, TrialAssignment, TrialOutcome

KEY = "tlsearch"


@dataclass(frozen=True, kw_only=True)
class Job:
    """Driver to worker: one trial to run.

    Attributes:
        reported: The last epoch that the study holds.
        max_failures: Retries of the trial inside its worker.
        limits: Constraints on what the worker measures before the first epoch.
        gauged: What that is, by name.
        measured: What an earlier worker has measured already.
    """

    assignment: TrialAssignment
    reported: int
    max_failures: int
    limits: Mapping[str, float] = field(default_factory=dict)
    gauged: tuple[str, ...] = ()
    measured: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Message:
    """Worker to driver: an epoch's report, or why the trial cannot go on.

    Attributes:
        node: The id of the worker's node.
        report: The report, where there is one.
        outcome: How the trial ended, in place of a report.
        measured: What the worker has measured for the constraints.
    """

    number: int
    node: str
    report: EpochReport | None = None
    outcome: TrialOutcome | None = None
    measured: Mapping[str, float] = field(default_factory=dict)


def pack(value: Job | Message) -> dict[str, str]:
    """The one-key dict that travels."""
    return {KEY: json.dumps(to_plain(value))}


def unpack_job(config: Mapping[str, Any]) -> Job:
    """The job in a Tune config."""
    return from_plain(Job, parse_json(config[KEY], "a trial's job", dict))


def unpack_message(result: Mapping[str, Any]) -> Message:
    """The message in a Tune result."""
    return from_plain(Message, parse_json(result[KEY], "a trial's message", dict))


@contextmanager
def telling(path: Path, what: str) -> Iterator[None]:
    """Keeps a small file there while the body runs; the trial may write its own progress over it.

    Where it cannot be written nothing is said.
    """
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"what": what}))
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
