"""The dimensions that a space can have: the hyperparameters of a trial, and the rules that judge their values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from tlsearch.config import one_of, show, suggest
from tlsearch.core.types import Hyperparameter, Scalar, hyperparameters
from tlsearch.space.adapt_methods import ADAPT_METHODS, PLAIN
from tlsearch.space.bn_policies import BN_POLICIES
from tlsearch.space.libraries.backbone_tables import timm_is_newer
from tlsearch.space.libraries.backbones import TIMM, backbone_facts, backbone_names, split_version, timm_families


@dataclass(frozen=True, kw_only=True)
class Parameter(Hyperparameter):
    """One dimension's rules.

    Attributes:
        kind: ``choice`` takes one of ``choices``; ``whole`` and ``real`` take numbers.
        label: What messages call it; empty is its name.
    """

    name: str
    kind: Literal["choice", "whole", "real"]
    label: str = ""

    def problem(self, value: object) -> str | None:
        """What is wrong with a value of this dimension, None if nothing is."""
        if self.name == "backbone":
            return _backbone_problem(value)
        if self.kind == "choice":
            return self._choice_problem(value)
        if not self._has(value):
            return f"{self.label or self.name} takes {self._range()}, not {show(value)}{self._without_quotes(value)}"
        return None

    def _has(self, value: object) -> bool:
        """Whether it is a number of this dimension's kind, in its range."""
        if isinstance(value, bool) or not isinstance(value, int if self.kind == "whole" else int | float):
            return False
        return self.low <= value <= self.high and math.isfinite(value) and not (self.above_low and value == self.low)

    def _without_quotes(self, value: object) -> str:
        """What helps where a number was written as a text."""
        if isinstance(value, str):
            with suppress(ValueError):
                number = int(value) if self.kind == "whole" else float(value)
                return "; write it without quotes" if self._has(number) else ""
        return ""

    def coerce(self, value: Scalar) -> Scalar:
        """A value that has no problem, in the dimension's own type."""
        return float(value) if self.kind == "real" and isinstance(value, int) else value

    def _choice_problem(self, value: object) -> str | None:
        if isinstance(value, str) and value in self.choices:
            return None
        return f"{self.name} takes {one_of(self.choices)}, not {show(value)}{suggest(value, self.choices, most=0)}"

    def _range(self) -> str:
        kind = "whole numbers" if self.kind == "whole" else "numbers"
        low = f"above {self.low:g}" if self.above_low else f"from {self.low:g}"
        return f"{kind} {low} to {self.high:g}"


_KINDS: Mapping[type, Literal["choice", "whole", "real"]] = {str: "choice", int: "whole", float: "real"}


def _bn_policies() -> dict[str, Any]:
    """What the table of BN policies says of their dimension."""
    listed = BN_POLICIES.values()
    deeper = ", ".join(f"``{one.name}``" for one in listed if not one.at_depth_0)
    return {
        "choices": tuple(BN_POLICIES),
        "meaning": f"What batch-norm layers do: {', '.join(f'``{one.name}`` {one.meaning}' for one in listed)}.",
        "where": f"the backbone has batch norm; {deeper}: unfreeze_depth > 0",
    }


def _adapt_methods() -> dict[str, Any]:
    """What the table of methods to adapt stages says of their dimension."""
    listed = ADAPT_METHODS.values()
    needs = {one.need.words: [f"``{each.name}``" for each in listed if each.need is one.need] for one in listed}
    needs.pop(PLAIN.need.words)
    meanings = ", ".join(f"``{one.name}`` {one.meaning}" for one in listed)
    return {
        "choices": tuple(ADAPT_METHODS),
        "meaning": f"What trains of the trainable stages: {meanings}.",
        "where": "; ".join(("unfreeze_depth > 0", *(f"{', '.join(names)}: {words}" for words, names in needs.items()))),
    }


# Dimensions whose rows are completed by a table of their values.
_TABLES: Mapping[str, Callable[[], dict[str, Any]]] = {"bn_policy": _bn_policies, "adapt": _adapt_methods}


def _parameters() -> Iterator[Parameter]:
    for name, kind, row in hyperparameters():
        rules = vars(row) | (_TABLES[name]() if name in _TABLES else {})
        yield Parameter(name=name, kind=_KINDS[kind], **rules)


PARAMETERS: Mapping[str, Parameter] = {one.name: one for one in _parameters()}

# Dimensions that may be written as a ratio: of which other one, and the rules of the ratio itself.
RATIO_OF: Mapping[str, str] = {"backbone_lr": "head_lr"}
RATIOS: Mapping[str, Parameter] = {
    name: Parameter(
        name=name, kind="real", default=0.1, low=0, above_low=True, high=1e4, label=f"the ratio of {name} to {other}"
    )
    for name, other in RATIO_OF.items()
}


def _backbone_problem(value: object) -> str | None:
    if not isinstance(value, str):
        return f"a backbone is a name like resnet50 or timm/tf_efficientnet_lite0, not {show(value)}"
    name, version = split_version(value)
    facts = backbone_facts(name)
    if facts is None:
        names = backbone_names()
        if TIMM + name in names:
            return f"the backbone {name!r} is not torchvision's; did you mean 'timm/{name}'?"
        families = f"; of timm's models it may be one of {', '.join(timm_families())}" if name.startswith(TIMM) else ""
        return f"the backbone {name!r} is not known{suggest(name, names)}{families}"
    if value == name or version in facts.versions:
        return None
    if version is not None and facts.is_timm and timm_is_newer():
        return None  # the model room asks timm itself
    if not facts.versions:
        return f"{name} has no published weights, so no version {version!r}"
    return f"{name} has no weights {version or ''!r}{suggest(version or '', facts.versions)}"
