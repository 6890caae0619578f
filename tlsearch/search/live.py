"""A trial that runs or is about to: what the search knows of it, what its worker is given, why it cannot go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tlsearch.search.judge import Verdict
from tlsearch.search.messages import Job, Message
from tlsearch.types import TrialAssignment, TrialConfig


@dataclass(kw_only=True)
class Live:
    """What is known of a trial that runs or is about to.

    Attributes:
        epoch: The last one that the study holds.
        deaths: Node ids of workers that died; empty where unknown.
        first_look: Whether proposals wait for it, and ASHA does not stop it.
        heard: When it began here or reported last, by the search's own clock.
    """

    number: int
    config: TrialConfig
    seed: int
    bracket: int
    first_look: bool = False
    heard: float = 0.0
    epoch: int = 0
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    deaths: list[str] = field(default_factory=list)
    measured: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Handout:
    """A trial for a worker; ``reported`` is the last epoch that the study holds.

    Attributes:
        limits: Constraints that the worker has to measure.
        measured: What is known of them already.
    """

    assignment: TrialAssignment
    reported: int
    limits: Mapping[str, float] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)

    def job(self, max_failures: int) -> Job:
        """What travels to the worker."""
        return Job(
            assignment=self.assignment,
            reported=self.reported,
            max_failures=max_failures,
            limits=self.limits,
            measured=self.measured,
        )


@dataclass(frozen=True, kw_only=True)
class TrialFailure:
    """Why a trial cannot go on: ``reason`` is diverged, memory, storage, constraint or error."""

    reason: str
    error: str
    traceback: str = ""
    measured: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, message: Message) -> TrialFailure:
        """What a worker says."""
        return cls(reason=message.reason, error=message.error, traceback=message.traceback, measured=message.measured)
