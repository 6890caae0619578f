"""Which rows of a leaderboard to show: by state and by conditions such as ``backbone=resnet18``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from tlsearch.core.errors import UsageError
from tlsearch.core.types import TrialState
from tlsearch.results.leaderboard.leaderboard import LeaderboardRow

_CONDITION = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*(<=|>=|!=|=|<|>)\s*(.*?)\s*")
_ORDERS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_COLUMNS = (
    "trial",
    "state",
    "reason",
    "best_value",
    "best_epoch",
    "epochs_run",
    "rank",
    "parameters",
    "trainable_parameters",
    "latency_ms",
    "seconds",
)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A parameter or column against a value; ``=`` and ``!=`` take the wildcards * and ?."""

    name: str
    sign: str
    value: str

    def holds(self, cells: Mapping[str, Any]) -> bool:
        """Whether a row with these cells meets it; a cell that the row does not have meets ``!=`` only."""
        cell = cells.get(self.name)
        if cell is None:
            return self.sign == "!=" or (self.sign == "=" and self.value.lower() in ("none", "null"))
        if self.sign in _ORDERS:
            number = _number(cell)
            return number is not None and _ORDERS[self.sign](number, float(self.value))
        return _equal(cell, self.value) == (self.sign == "=")


def parse_condition(text: str) -> Condition:
    """Reads ``unfreeze_depth>=2``.

    Raises:
        UsageError: It is not a condition.
    """
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise UsageError(f"a condition is NAME=VALUE, or with != < <= > >= in place of =, not {text!r}")
    name, sign, value = match.groups()
    if sign in _ORDERS and _number(value) is None:
        raise UsageError(f"{sign} compares with a number, in {text!r} with {value!r}")
    return Condition(name=name, sign=sign, value=value)


def select_rows(
    rows: Sequence[LeaderboardRow], *, states: Sequence[str] = (), conditions: Sequence[str] = ()
) -> list[LeaderboardRow]:
    """The rows that are in one of the states and meet all conditions, in their order.

    Raises:
        UsageError: An unknown state, an unreadable condition, or a name that no trial has.
    """
    known = [state.value for state in TrialState]
    for state in states:
        if state not in known:
            raise UsageError(f"a trial's state is one of {', '.join(known)}, not {state!r}{_nearest(state, known)}")
    parsed = [parse_condition(text) for text in conditions]
    names = [*dict.fromkeys(name for row in rows for name in row.params), *_COLUMNS]
    for condition in parsed:
        if rows and condition.name not in names:
            hint = _nearest(condition.name, names)
            raise UsageError(f"no trial of this search has {condition.name!r}, only {', '.join(names)}{hint}")
    return [
        row
        for row in rows
        if (not states or row.state in states) and all(condition.holds(_cells(row)) for condition in parsed)
    ]


def _cells(row: LeaderboardRow) -> dict[str, Any]:
    return {**row.as_json(), **row.details(), **row.params}


def _equal(cell: Any, value: str) -> bool:
    if isinstance(cell, bool):
        return str(cell).lower() == value.lower()
    number = _number(value)
    if isinstance(cell, (int, float)) and number is not None:
        return abs(float(cell) - number) <= 1e-9 * max(abs(float(cell)), abs(number))
    return fnmatchcase(str(cell), value)


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _nearest(name: str, names: Sequence[str]) -> str:
    near = get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
