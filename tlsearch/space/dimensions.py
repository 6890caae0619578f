"""The dimensions that a space can have: their kind, their bounds, their defaults.

Their order here is the order in which a trial's values are decided, unless a condition of the user
needs another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tlsearch.config import one_of, show, suggest
from tlsearch.core.types import Scalar
from tlsearch.space.backbone_tables import timm_is_newer
from tlsearch.space.backbones import TIMM, backbone_facts, backbone_names, split_version, timm_families
from tlsearch.space.bn_policies import BN_POLICIES


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One dimension's rules.

    Attributes:
        kind: ``choice`` takes one of ``choices``; ``whole`` and ``real`` take numbers.
        default: The value where the space leaves it out; None for backbone, which is required, for head_dropout
            (the backbone's own rate) and for grad_clip (off).
        low: Smallest value, inclusive unless ``above_low``.
        high: Largest value, inclusive.
        label: What messages call it; empty is its name.
        meaning: What it does, in a sentence, with its unit.
        where: Where it has an effect; empty is everywhere.
    """

    name: str
    kind: Literal["choice", "whole", "real"]
    default: Scalar
    choices: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    above_low: bool = False
    label: str = ""
    meaning: str = ""
    where: str = ""

    def problem(self, value: object) -> str | None:
        """What is wrong with a value of this dimension, None if nothing is."""
        if self.name == "backbone":
            return _backbone_problem(value)
        if self.kind == "choice":
            return self._choice_problem(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"{self.label or self.name} takes {self._range()}, not {show(value)}"
        if self.kind == "whole" and not isinstance(value, int):
            return f"{self.label or self.name} takes {self._range()}, not {show(value)}"
        if not math.isfinite(value) or not self.low <= value <= self.high or (self.above_low and value == self.low):
            return f"{self.label or self.name} takes {self._range()}, not {show(value)}"
        return None

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


PARAMETERS: Mapping[str, Parameter] = {
    one.name: one
    for one in (
        Parameter(
            name="backbone",
            kind="choice",
            default=None,
            meaning=(
                "Pretrained model: a classifier of torchvision, or ``timm/NAME``; ``NAME@VERSION`` names a version "
                "of its weights."
            ),
        ),
        Parameter(
            name="unfreeze_depth",
            kind="whole",
            default=0,
            low=0,
            high=5,
            meaning="Stages that train with the head: 0 is the head alone, 1 to 4 the last stages, 5 everything.",
        ),
        Parameter(
            name="head_lr",
            kind="real",
            default=1e-3,
            low=0,
            above_low=True,
            high=10,
            meaning="Learning rate of the head.",
        ),
        Parameter(
            name="backbone_lr",
            kind="real",
            default=1e-4,
            low=0,
            above_low=True,
            high=10,
            meaning=(
                "Learning rate of the last stage; ``{ratio_of: head_lr, log: [0.001, 1]}`` makes it a factor of "
                "head_lr."
            ),
            where="unfreeze_depth > 0",
        ),
        Parameter(
            name="bn_policy",
            kind="choice",
            default="frozen",
            choices=tuple(BN_POLICIES),
            meaning=(
                "What batch-norm layers do: "
                + ", ".join(f"``{one.name}`` {one.meaning}" for one in BN_POLICIES.values())
                + "."
            ),
            where=(
                "the backbone has batch norm; "
                + ", ".join(f"``{one.name}``" for one in BN_POLICIES.values() if not one.at_depth_0)
                + ": unfreeze_depth > 0"
            ),
        ),
        Parameter(
            name="unfreeze_schedule",
            kind="choice",
            default="at_once",
            choices=("at_once", "progressive"),
            meaning=(
                "Whether stages unfreeze all at once, or one after the other from the head on (gradual unfreezing)."
            ),
            where="unfreeze_depth > 0; ``progressive``: unfreeze_depth >= 2",
        ),
        Parameter(
            name="augmentation",
            kind="choice",
            default="none",
            choices=("none", "light", "strong"),
            meaning="Strength of the random augmentation of training images.",
        ),
        Parameter(
            name="weight_decay",
            kind="real",
            default=1e-4,
            low=0,
            high=10,
            meaning="Weight decay: decoupled in AdamW, an L2 penalty in SGD. Biases and norm parameters have none.",
        ),
        Parameter(
            name="batch_size",
            kind="whole",
            default=32,
            low=1,
            high=65536,
            meaning="Images in a batch. Where the space leaves it out it fits the data, at most 32; see ``defaults``.",
        ),
        Parameter(
            name="optimizer",
            kind="choice",
            default="adamw",
            choices=("adamw", "sgd"),
            meaning="Optimizer of all parameters that train.",
        ),
        Parameter(
            name="layer_decay",
            kind="real",
            default=1.0,
            low=0,
            above_low=True,
            high=1,
            meaning="Factor on backbone_lr for each further stage away from the head.",
            where="unfreeze_depth >= 2",
        ),
        Parameter(
            name="lr_schedule",
            kind="choice",
            default="constant",
            choices=("constant", "cosine", "one_cycle"),
            meaning=(
                "How learning rates change over the steps: not at all, along a cosine to 0, or up and down (one_cycle)."
            ),
        ),
        Parameter(
            name="warmup_epochs",
            kind="whole",
            default=0,
            low=0,
            high=1000,
            meaning="Epochs in which learning rates rise; fewer than max_epochs.",
        ),
        Parameter(
            name="grad_clip",
            kind="real",
            default=None,
            low=0,
            above_low=True,
            high=1e6,
            meaning="Largest norm of all gradients together; none does not clip.",
        ),
        Parameter(
            name="label_smoothing",
            kind="real",
            default=0.0,
            low=0,
            high=0.9,
            meaning="Label smoothing of the cross-entropy, a fraction.",
        ),
        Parameter(
            name="head_dropout",
            kind="real",
            default=None,
            low=0,
            high=0.95,
            meaning="Dropout rate before the new classifier; by default the backbone's own.",
        ),
        Parameter(
            name="mixup",
            kind="real",
            default=0.0,
            low=0,
            high=10,
            meaning="Alpha of the Beta distribution of mixup; 0 is off.",
        ),
        Parameter(
            name="cutmix",
            kind="real",
            default=0.0,
            low=0,
            high=10,
            meaning="Alpha of the Beta distribution of CutMix; 0 is off.",
        ),
        Parameter(
            name="class_balance",
            kind="choice",
            default="none",
            choices=("none", "weighted_loss", "sampler"),
            meaning=(
                "How rare classes are weighed: not at all, by the loss, or by drawing them as often as others "
                "(sampler)."
            ),
        ),
        Parameter(
            name="head_init",
            kind="choice",
            default="probe",
            choices=("random", "probe"),
            meaning=(
                "How the head starts: from random weights, or from the linear probe on the backbone's features (LP-FT)."
            ),
        ),
        Parameter(
            name="ema",
            kind="real",
            default=0.0,
            low=0,
            high=0.99999,
            meaning="Decay per step of the averaged weights, which are evaluated and kept; 0 is off.",
        ),
    )
}

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
    return f"{name} has no weights {version!r}{suggest(version, facts.versions)}"
