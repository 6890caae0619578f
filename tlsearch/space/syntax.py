"""The syntax of a dimension: a scalar, a list, ``{int|float|log: [lo, hi], step}``, ``{when: {...}, ...}``.

``{choice: [...]}`` is a list too, so that it can stand beside ``when``. With ``ratio_of: head_lr`` the values of
backbone_lr are factors of another dimension's. ``backbone: {from: [...], screen: true}`` has the listed backbones
screened before the first trial.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tlsearch.config import Document, Keys, nearest, show, suggest
from tlsearch.core.errors import SpaceProblem
from tlsearch.core.types import Scalar
from tlsearch.space.conditions import Condition
from tlsearch.space.dimensions import PARAMETERS, RATIO_OF, Parameter
from tlsearch.space.domains import Domain, Fixed, FloatRange, IntRange, listed

_LISTS = ("choice", "from")
_FORMS = (*_LISTS, "int", "float", "log")
_KEYS = (*_FORMS, "step", "when", "ratio_of", "screen")
_WRITE = "write a value, a list, or {int|float|log: [lo, hi]}"


class _Refused(Exception):
    """What was being read is wrong; its errors are noted."""


class DomainReader:
    """Reads dimensions, collecting errors; ``None`` in place of what is wrong."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[SpaceProblem] = []

    def read(self, parameter: Parameter, raw: Any) -> Domain | None:
        """The domain of one dimension, conditions aside."""
        path: Keys = ("space", parameter.name)
        try:
            if isinstance(raw, list):
                return self._choice(parameter, raw, path)
            if isinstance(raw, dict):
                return self._form(parameter, raw, path)
            problem = f"must not be empty: {_WRITE}" if raw is None else parameter.problem(raw)
            if problem:
                raise self._refused(path, problem)
            return Fixed(value=parameter.coerce(raw))
        except _Refused:
            return None

    def _refused(self, path: Keys, message: str, *, at_key: bool = False) -> _Refused:
        self._problem(path, message, at_key=at_key)
        return _Refused()

    def _problem(self, path: Keys, message: str, *, at_key: bool = False) -> None:
        self.problems.append(self.document.problem(path, message, at_key=at_key))

    def _form(self, parameter: Parameter, raw: Mapping[str, Any], path: Keys) -> Domain:
        unknown = [key for key in raw if key not in _KEYS]
        for key in unknown:
            self._problem((*path, key), f"the key {key!r} is not known{suggest(key, _KEYS)}", at_key=True)
        forms = [key for key in raw if key in _FORMS]
        if len(forms) != 1:
            if not any(nearest(key, _FORMS) for key in unknown):
                given = f"it has {' and '.join(forms)}" if forms else "it has none"
                self._problem(path, f"a dimension has exactly one of int, float, log or choice; {given}", at_key=True)
            raise _Refused
        form = forms[0]
        if form in _LISTS:
            if form == "from" and parameter.name != "backbone":
                message = f"from lists backbones to be screened; write {parameter.name} as a list"
                raise self._refused((*path, form), message, at_key=True)
            if "step" in raw:
                self._problem((*path, "step"), "step goes with int and float", at_key=True)
            if not isinstance(raw[form], list):
                raise self._refused((*path, form), f"must be a list, not {show(raw[form])}")
            return self._choice(parameter, raw[form], (*path, form))
        domain = self._range(parameter, form, raw, path)
        if unknown:
            raise _Refused
        return domain

    def _choice(self, parameter: Parameter, raw: list[Any], path: Keys) -> Domain:
        if not raw:
            raise self._refused(path, f"a list needs at least one value of {parameter.name}")
        values: list[Any] = []
        num_problems = len(self.problems)
        for index, value in enumerate(raw):
            problem = parameter.problem(value)
            if problem:
                self._problem((*path, index), problem)
            elif parameter.coerce(value) in values:
                self._problem((*path, index), f"a list has each value once; {show(value)} stands in it twice")
            else:
                values.append(parameter.coerce(value))
        if len(self.problems) > num_problems:
            raise _Refused
        return listed(values)

    def _range(self, parameter: Parameter, form: str, raw: Mapping[str, Any], path: Keys) -> Domain:
        where = (*path, form)
        if parameter.kind == "choice":
            raise self._refused(
                path, f"{parameter.name} is chosen from a list, not from a range: {_WRITE}", at_key=True
            )
        if (parameter.kind == "whole") != (form == "int"):
            right = "whole numbers: write int" if parameter.kind == "whole" else "real numbers: write log or float"
            raise self._refused(where, f"{parameter.name} takes {right}, not {form}", at_key=True)
        ends = raw[form]
        if not isinstance(ends, list) or len(ends) != 2:
            raise self._refused(where, f"a range is written [low, high], not {show(ends)}")
        # before the ends themselves, since a log range from 0 breaks this rule whatever the dimension allows
        if form == "log" and _is_number(ends[0]) and ends[0] <= 0:
            raise self._refused((*where, 0), f"a log range begins above 0, not at {show(ends[0])}")
        num_problems = len(self.problems)
        for index, end in enumerate(ends):
            problem = parameter.problem(end)
            if problem:
                self._problem((*where, index), problem)
        if len(self.problems) > num_problems:
            raise _Refused
        low, high = ends
        if low > high:
            raise self._refused(where, f"a range is written [low, high]; {show(low)} is above {show(high)}")
        if "step" in raw:
            self._check_step(form, raw["step"], low, high, (*path, "step"))
        if low == high:
            return Fixed(value=parameter.coerce(low))
        if form == "int":
            return IntRange(low=low, high=high, step=raw.get("step", 1))
        step = raw.get("step")
        return FloatRange(
            low=float(low), high=float(high), log=form == "log", step=None if step is None else float(step)
        )

    def _check_step(self, form: str, step: Any, low: float, high: float, path: Keys) -> None:
        message = ""
        if form == "log":
            message = "step goes with int and float, not with log"
        elif not _is_number(step) or (form == "int" and not isinstance(step, int)):
            message = f"step must be a {'whole ' if form == 'int' else ''}number, not {show(step)}"
        elif step <= 0:
            message = f"step must be above 0, not {show(step)}"
        elif step > high - low:
            message = f"step must fit between {low:g} and {high:g}; {show(step)} does not"
        elif (high - low) / step > 1e6:
            message = f"step must make at most a million values between {low:g} and {high:g}, unlike {show(step)}"
        elif abs((high - low) / step - round((high - low) / step)) > 1e-6:
            message = f"whole steps must lead from {low:g} to {high:g}; steps of {show(step)} do not"
        if message:
            raise self._refused(path, message + self.document.place((*path[:-1], form)))

    def read_screen(self, name: str, raw: Mapping[str, Any]) -> bool | None:
        """Whether the listed backbones are to be screened, from ``screen``; None where it is wrong."""
        path: Keys = ("space", name, "screen")
        if name != "backbone" or "from" not in raw:
            self._problem(path, "screen goes with backbone: {from: [...], screen: true}", at_key=True)
        elif not isinstance(raw["screen"], bool):
            self._problem(path, f"screen is true or false, not {show(raw['screen'])}")
        else:
            return raw["screen"]
        return None

    def read_ratio(self, name: str, raw: Any) -> str | None:
        """Of which dimension this one's values are factors, from ``ratio_of``."""
        path: Keys = ("space", name, "ratio_of")
        if name not in RATIO_OF:
            self._problem(path, f"ratio_of goes with {' and '.join(RATIO_OF)}, not with {name}", at_key=True)
        elif raw != RATIO_OF[name]:
            self._problem(path, f"{name} may be a ratio of {RATIO_OF[name]}, not of {show(raw)}")
        else:
            return RATIO_OF[name]
        return None

    def read_when(self, name: str, raw: Any) -> tuple[Condition, ...] | None:
        """The user's conditions of a dimension, from ``when``."""
        path: Keys = ("space", name, "when")
        found: list[Condition] = []
        num_problems = len(self.problems)
        if name == "backbone":
            self._problem(path, "backbone always exists and takes no condition", at_key=True)
        elif not isinstance(raw, dict) or not raw:
            self._problem(path, f"when must be a mapping like {{unfreeze_depth: {{ge: 2}}}}, not {show(raw)}")
        else:
            for on, value in raw.items():
                try:
                    found.append(self._condition(name, on, value, (*path, on)))
                except _Refused:
                    continue
        return tuple(found) if len(self.problems) == num_problems else None

    def _condition(self, name: str, on: str, raw: Any, path: Keys) -> Condition:
        if on not in PARAMETERS:
            names = [one for one in PARAMETERS if one != name]
            raise self._refused(path, f"the dimension {on!r} is not known{suggest(on, names)}", at_key=True)
        if on == name:
            raise self._refused(path, f"{name} cannot depend on itself", at_key=True)
        parameter = PARAMETERS[on]
        if isinstance(raw, dict):
            return self._bounds(parameter, raw, path)
        values = raw if isinstance(raw, list) else [raw]
        if not values:
            raise self._refused(path, "a condition needs at least one value")
        problems = [(index, problem) for index, value in enumerate(values) if (problem := parameter.problem(value))]
        for index, problem in problems:
            self._problem((*path, index) if isinstance(raw, list) else path, problem)
        if problems:
            raise _Refused
        return Condition(on=on, values=tuple(parameter.coerce(value) for value in values))

    def _bounds(self, parameter: Parameter, raw: Mapping[str, Any], path: Keys) -> Condition:
        num_problems = len(self.problems)
        if parameter.kind == "choice":
            raise self._refused(path, f"{parameter.name} has no order: give a value or a list of values")
        if not raw:
            raise self._refused(path, "a condition has ge, le or both")
        for key, value in raw.items():
            if key not in ("ge", "le"):
                self._problem((*path, key), f"a condition has ge, le or both, not {key!r}", at_key=True)
            elif not _is_number(value):
                self._problem((*path, key), f"{key} must be a number, not {show(value)}")
        if len(self.problems) > num_problems:
            raise _Refused
        ge, le = raw.get("ge"), raw.get("le")
        if ge is not None and le is not None and ge > le:
            raise self._refused(path, f"ge {show(ge)} is above le {show(le)}: no value is both")
        return Condition(on=parameter.name, ge=ge, le=le)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def list_as_written(raw: Any) -> tuple[str | None, list[Any]]:
    """The key of a mapping that holds a dimension's list, None where it stands alone, and the list; one value is one.

    Args:
        raw: The dimension as its file writes it.
    """
    if isinstance(raw, dict):
        key = next((one for one in _LISTS if isinstance(raw.get(one), list)), None)
        return key, [] if key is None else raw[key]
    return None, raw if isinstance(raw, list) else [] if raw is None else [raw]


def place_of_value(name: str, value: Scalar, document: Document) -> Keys:
    """The path of a value in the list of a dimension; of the dimension where it is not in a list."""
    path: Keys = ("space", name)
    raw = document.as_dict().get("space", {}).get(name)
    key, listed = list_as_written(raw)
    if key is None and not isinstance(raw, list) or value not in listed:
        return path
    return (*path, *([key] if key else []), listed.index(value))
