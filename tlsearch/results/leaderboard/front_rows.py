"""The Pareto front of a search with two objectives, as rows, JSON and a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tlsearch.core.metrics import COSTS
from tlsearch.core.text import plural
from tlsearch.core.types import Scalar, SearchRecord


@dataclass(frozen=True, kw_only=True)
class FrontRow:
    """A trial that no other one dominates.

    Attributes:
        trial: Its number.
        value: The metric at its best epoch.
        cost: What its model costs, in the unit of the objective.
        model: Its backbone, with the image size where that is searched.
        best: Whether it is the search's best trial by the metric.
    """

    trial: int
    value: float
    cost: float
    model: str
    params: Mapping[str, Scalar]
    best: bool

    @property
    def cost_text(self) -> str:
        """The cost with three digits."""
        return f"{self.cost:.3g}"


def front_rows(record: SearchRecord) -> list[FrontRow]:
    """The trials of the front, the cheapest first; none without a second objective."""
    return [
        FrontRow(
            trial=one.number,
            value=one.best_value,
            cost=one.measured[record.cost],
            model=one.config.model,
            params=one.params,
            best=record.best is not None and record.best.number == one.number,
        )
        for one in record.front
        if one.best_value is not None
    ]


def front_json(record: SearchRecord) -> dict[str, Any] | None:
    """What ``--json`` says of the front; None without a second objective."""
    if not record.cost:
        return None
    rows = front_rows(record)
    return {
        "objectives": [record.metric, record.cost],
        "trials": [{"trial": one.trial, "value": one.value, "cost": one.cost, "model": one.model} for one in rows],
    }


def cost_label(record: SearchRecord) -> str:
    """The second objective with its unit: ``latency_ms, ms an image``."""
    return f"{record.cost}, {COSTS[record.cost]}" if record.cost in COSTS else record.cost


def front_title(record: SearchRecord) -> str:
    """What the table of the front shows."""
    return f"Pareto front of {record.metric} and {record.cost}"


def front_sentence(record: SearchRecord) -> str:
    """How far the front reaches; empty without a second objective."""
    if not record.cost:
        return ""
    rows = front_rows(record)
    if not rows:
        return f"{front_title(record)}: no trial has a result yet"
    first, last = rows[0], rows[-1]
    reach = f"{record.metric} {first.value:.4f} at {record.cost} {first.cost_text}"
    if len(rows) > 1:
        reach += f", to {last.value:.4f} at {last.cost_text}"
    return f"{front_title(record)}: {plural(len(rows), 'trial')}, {reach}"
