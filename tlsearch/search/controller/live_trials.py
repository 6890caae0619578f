"""What a search knows of a trial that runs or is about to."""

from __future__ import annotations

from dataclasses import dataclass, field

from tlsearch.core.types import TrialConfig
from tlsearch.search.scheduling.stopping_rules import Verdict


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
