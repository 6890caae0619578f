"""The hyperparameters of a trial. A new one is a field here, with its row, and what reads it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, replace
from typing import Annotated, get_args, get_type_hints

Scalar = str | int | float | bool | None

SOLVED_HEADS = ("ridge", "logistic", "cosine")  # no step is taken with them
TRAINED = "head is linear"  # where a hyperparameter of the training has an effect


@dataclass(frozen=True, kw_only=True)
class Hyperparameter:
    """The rules of one hyperparameter as a dimension of a space.

    Attributes:
        default: The value where the space leaves it out; None is that of the field.
        low: Smallest value, inclusive unless ``above_low``.
        high: Largest value, inclusive.
        meaning: What it does, in a sentence, with its unit.
        where: Where it has an effect; empty is everywhere.
    """

    default: Scalar = None
    choices: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    above_low: bool = False
    meaning: str = ""
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """One point of the space, complete; a field is None where the parameter has no effect.

    A str takes one of its row's choices; those of ``bn_policy`` and ``adapt`` are in tables of their own in ``space``.
    A trial's values are decided in the order of the fields, unless a condition of the user needs another. The fields'
    defaults are those of files that were written before a field existed; a search's are the rows'.
    """

    backbone: Annotated[
        str,
        Hyperparameter(
            meaning=(
                "Pretrained model: a classifier of torchvision, or ``timm/NAME``; ``NAME@VERSION`` names a version "
                "of its weights."
            )
        ),
    ]
    image_size: Annotated[
        int | None,
        Hyperparameter(
            low=1,
            high=4096,
            meaning=(
                "Side of the square images that the model sees, in pixels. Where the space leaves it out it is that of "
                "``data.image_size``. A range is moved to the multiples that a backbone takes."
            ),
            where="``data.image_size`` is auto",
        ),
    ] = None
    unfreeze_depth: Annotated[
        int,
        Hyperparameter(
            low=0,
            high=5,
            meaning="Stages that train with the head: 0 is the head alone, 1 to 4 the last stages, 5 everything.",
        ),
    ] = 0
    features: Annotated[
        str | None,
        Hyperparameter(
            choices=("cls", "mean", "cls_mean", "last4"),
            meaning=(
                "What the head sees of a transformer's tokens: the class token, the mean of the patch tokens, both, or "
                "the class tokens of the last four blocks; by default the model's own."
            ),
            where="the backbone's classifier reads a class token",
        ),
    ] = None
    head: Annotated[
        str,
        Hyperparameter(
            choices=("linear", *SOLVED_HEADS),
            meaning=(
                "How the classifier comes about: ``linear`` trains it; the others solve it on the frozen features in "
                "one go, so that a trial takes a moment: ``ridge`` regression, ``logistic`` regression, or ``cosine`` "
                "(the nearest class mean)."
            ),
            where="``ridge``, ``logistic``, ``cosine``: unfreeze_depth is 0",
        ),
    ] = "linear"
    head_penalty: Annotated[
        float | None,
        Hyperparameter(
            default=0.1,
            low=0,
            above_low=True,
            high=1e6,
            meaning=(
                "Penalty of the squared weights of a solved head, beside the mean cross-entropy of an image, with "
                "features whose mean square is 1; for ``ridge`` it is scaled to squared errors."
            ),
            where="head is ridge or logistic",
        ),
    ] = None
    head_lr: Annotated[
        float,
        Hyperparameter(low=0, above_low=True, high=10, meaning="Learning rate of the head.", where=TRAINED),
    ] = 1e-3
    backbone_lr: Annotated[
        float | None,
        Hyperparameter(
            default=1e-4,
            low=0,
            above_low=True,
            high=10,
            meaning="Learning rate of the last stage; ``{ratio_of: head_lr, log: [0.001, 1]}``: a factor of head_lr.",
            where="unfreeze_depth > 0",
        ),
    ] = None
    bn_policy: Annotated[str | None, Hyperparameter(default="frozen")] = None
    unfreeze_schedule: Annotated[
        str | None,
        Hyperparameter(
            default="at_once",
            choices=("at_once", "progressive"),
            meaning="Whether stages unfreeze at once, or one after the other from the head on (gradual unfreezing).",
            where="unfreeze_depth > 0; ``progressive``: unfreeze_depth >= 2",
        ),
    ] = None
    adapt: Annotated[str, Hyperparameter()] = "none"
    lora_rank: Annotated[
        int | None,
        Hyperparameter(
            default=8,
            low=1,
            high=1024,
            meaning="Rank of the updates of ``lora``: the narrow side of their matrices.",
            where="adapt is ``lora``",
        ),
    ] = None
    augmentation: Annotated[
        str,
        Hyperparameter(
            choices=("none", "light", "strong"),
            meaning="Strength of the random augmentation of training images.",
            where=TRAINED,
        ),
    ] = "none"
    weight_decay: Annotated[
        float,
        Hyperparameter(
            low=0,
            high=10,
            meaning="Weight decay: decoupled in AdamW, an L2 penalty in SGD. Biases and norm parameters have none.",
            where=TRAINED,
        ),
    ] = 1e-4
    batch_size: Annotated[
        int,
        Hyperparameter(
            low=1,
            high=65536,
            meaning="Images in a batch. Where the space leaves it out it fits the data, at most 32; see ``defaults``.",
            where=TRAINED,
        ),
    ] = 32
    optimizer: Annotated[
        str, Hyperparameter(choices=("adamw", "sgd"), meaning="Optimizer of all parameters that train.", where=TRAINED)
    ] = "adamw"
    layer_decay: Annotated[
        float | None,
        Hyperparameter(
            default=1.0,
            low=0,
            above_low=True,
            high=1,
            meaning="Factor on backbone_lr for each further stage away from the head.",
            where="unfreeze_depth >= 2",
        ),
    ] = None
    lr_schedule: Annotated[
        str,
        Hyperparameter(
            choices=("constant", "cosine", "one_cycle"),
            meaning="How learning rates change with the steps: not at all, by a cosine to 0, up and down (one_cycle).",
            where=TRAINED,
        ),
    ] = "constant"
    warmup_epochs: Annotated[
        int,
        Hyperparameter(
            low=0, high=1000, meaning="Epochs in which learning rates rise; fewer than max_epochs.", where=TRAINED
        ),
    ] = 0
    grad_clip: Annotated[
        float | None,
        Hyperparameter(
            low=0,
            above_low=True,
            high=1e6,
            meaning="Largest norm of all gradients together; none does not clip.",
            where=TRAINED,
        ),
    ] = None
    label_smoothing: Annotated[
        float,
        Hyperparameter(low=0, high=0.9, meaning="Label smoothing of the cross-entropies, a fraction.", where=TRAINED),
    ] = 0.0
    head_dropout: Annotated[
        float | None,
        Hyperparameter(
            low=0,
            high=0.95,
            meaning="Dropout rate before the new classifier; by default the backbone's own.",
            where=TRAINED,
        ),
    ] = None
    mixup: Annotated[
        float,
        Hyperparameter(low=0, high=10, meaning="Alpha of the Beta distribution of mixup; 0 is off.", where=TRAINED),
    ] = 0.0
    cutmix: Annotated[
        float,
        Hyperparameter(low=0, high=10, meaning="Alpha of the Beta distribution of CutMix; 0 is off.", where=TRAINED),
    ] = 0.0
    class_balance: Annotated[
        str,
        Hyperparameter(
            choices=("none", "weighted_loss", "sampler"),
            meaning="How rare classes are weighed: not at all, by the loss, or drawn as often as others (sampler).",
            where=TRAINED,
        ),
    ] = "none"
    head_init: Annotated[
        str,
        Hyperparameter(
            default="probe",
            choices=("random", "probe"),
            meaning="How the head starts: from random weights, or the linear probe on the backbone's features (LP-FT).",
            where=TRAINED,
        ),
    ] = "random"
    ema: Annotated[
        float,
        Hyperparameter(
            low=0,
            high=0.99999,
            meaning="Decay per step of the averaged weights, which are evaluated and kept; 0 is off.",
            where=TRAINED,
        ),
    ] = 0.0

    @property
    def solved(self) -> bool:
        """Whether the head is solved on the frozen features, so that nothing trains."""
        return self.head in SOLVED_HEADS

    @property
    def model(self) -> str:
        """What decides the size of its model, and the time of one image: ``resnet18 at 96 px``, ``vit_b_16 last4``."""
        sized = self.backbone if self.image_size is None else f"{self.backbone} at {self.image_size} px"
        return sized if self.features is None else f"{sized} {self.features}"

    @property
    def adapted(self) -> str:
        """How its stages are adapted, ``lora 8``; empty where they train as they are."""
        rank = "" if self.lora_rank is None else f" {self.lora_rank}"
        return "" if self.adapt == "none" else f"{self.adapt}{rank}"

    @property
    def short(self) -> str:
        """In a few words: ``resnet18 depth 2 lr 1.0e-03/2.1e-05 bn train``."""
        if self.solved:
            penalty = "" if self.head_penalty is None else f" {self.head_penalty:.1e}"
            return f"{self.model} depth 0 {self.head}{penalty}"
        rates = f"{self.head_lr:.1e}" + (f"/{self.backbone_lr:.1e}" if self.backbone_lr is not None else "")
        words = [self.model, f"depth {self.unfreeze_depth}", f"lr {rates}"]
        if self.bn_policy is not None and self.unfreeze_depth:
            words.append(f"bn {self.bn_policy}")
        augmentation = "" if self.augmentation == "none" else self.augmentation
        return " ".join(filter(None, (*words, self.adapted, augmentation)))


def hyperparameters() -> Iterator[tuple[str, type, Hyperparameter]]:
    """The name of each field in their order, with its type and its row, whose default is known."""
    hints = get_type_hints(TrialConfig, include_extras=True)
    for one in fields(TrialConfig):
        hint = hints[one.name]
        (row,) = hint.__metadata__
        kind = next(iter(get_args(hint.__origin__)), hint.__origin__)  # without its None
        own = None if one.default is MISSING else one.default
        yield one.name, kind, row if row.default is not None else replace(row, default=own)
