"""The lines of a new space file: each key with its value, the reason for it, and what else it could be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tlsearch.app.checks.resolution import advised_folds
from tlsearch.app.init.candidates import AtHand
from tlsearch.app.init.facts import DataFacts, Machine
from tlsearch.app.init.rules import DOMAINS, Budget, Distance, deepest_stage, epochs_of, image_size, num_trials, size_of
from tlsearch.app.production.within_time import SEARCH_SHARE
from tlsearch.core.label_tasks import DEFAULT_TASK, TASKS
from tlsearch.core.text import agree, plural
from tlsearch.space.libraries.backbones import backbone_facts

_IMBALANCED = 3.0
_SMALL_PX = 180
_LOW_DISK_GB = 10
_MIRRORS = "none, where a mirrored image is another class (digits, letters)"
_BACKBONE_LR = {"near": (1e-5, 3e-4), "open": (3e-5, 1e-3), "middle": (3e-5, 1e-3), "far": (1e-4, 1e-3)}
_PLACES = {
    "file": "from a file that you named",
    "package": "in an installed package",
    "cache": "on this machine",
    "download": "downloaded when the search begins",
    "nowhere": "neither on this machine nor to be downloaded from here",
}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One line of the file.

    Attributes:
        key: From the root.
        value: As YAML.
        reason: Why, in sentences; empty where the key says it.
        instead: What else it could be; empty where nothing is worth a line.
    """

    key: tuple[str, ...]
    value: str
    reason: str = ""
    instead: str = ""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """All that the choices follow from.

    Attributes:
        chosen: The backbones, in order.
        domain: As the user named it; empty for none.
        distance_reason: Where the distance comes from.
    """

    data: DataFacts
    machine: Machine
    budget: Budget
    chosen: Sequence[AtHand]
    distance: Distance
    domain: str
    distance_reason: str

    @property
    def gpu(self) -> bool:
        """Whether trials run on GPUs."""
        return bool(self.machine.gpus)

    @property
    def epochs(self) -> int:
        """Epochs of a whole trial."""
        return epochs_of(self.data, gpu=self.gpu)

    @property
    def depths(self) -> tuple[int, int]:
        """The largest depth that the data bear, and what of it the time allows."""
        return deepest_stage(self.data, self.chosen, self.distance, self.epochs, self.budget)

    @property
    def trials(self) -> tuple[int, float]:
        """Trials that fit, and the seconds of the fewest that say anything."""
        augmented = "light" in augmentation(self).value
        return num_trials(self.data, self.chosen, self.depths[1], self.epochs, self.budget, augmented=augmented)


def data_choices(data: DataFacts, chosen: Sequence[AtHand], path: str) -> list[Choice]:
    """The section ``data``."""
    choices = [Choice(key=("data", "source"), value=data.spec.source), Choice(key=("data", "path"), value=path)]
    if data.spec.layout != "auto":
        choices.append(Choice(key=("data", "layout"), value=data.spec.layout, reason="Every top folder is a class."))
    if data.spec.task != DEFAULT_TASK:
        reason = "Cells of the column label name several classes, with a bar between them; an empty one names none."
        choices.append(Choice(key=("data", "task"), value=data.spec.task, reason=reason))
    if "val" not in data.ready:
        choices.append(_split(data))
    size = image_size(data, chosen)
    if size is None:
        reason, instead = "The size that the weights were trained at.", "160, for half the work and some accuracy"
    elif data.sides[1] < _SMALL_PX:
        reason = f"The shorter side of the images has {data.sides[1]:g} px (median): more than {size} px add little."
        instead = "auto, the size of each backbone's weights"
    else:
        reason = f"{size} px suit all the backbones; their own sizes differ."
        instead = "auto, the size of each backbone's weights"
    return [*choices, Choice(key=("data", "image_size"), value=str(size or "auto"), reason=reason, instead=instead)]


def _split(data: DataFacts) -> Choice:
    split = data.spec.split
    parts = f"val: {split.val:g}" + ("" if data.ready else f", test: {split.test:g}") + f", seed: {split.seed}"
    lacking = "val/" if data.ready else "train/, val/ or test/"
    reasons = [f"Without {lacking} the images are split class by class; the test split stays sealed until promote."]
    instead = ""
    if split.group_by:
        reasons.append("Images that look alike share the name that group_by finds, and stay in one split.")
        parts += f", group_by: '{split.group_by}'"
    elif data.spec.source == "folder":
        instead = "group_by: '^([^_]+)_' beside seed keeps a_1.png and a_2.png in one split"
    if data.leaks:
        reasons.append(
            f"{plural(data.leaks, 'picture')} {agree(data.leaks, 'stands', 'stand')} in train and in val, so that "
            "accuracies look too good. Where images belong together (frames of a film, one patient), say what they "
            "share in group_by, a regular expression on the path below the class folder."
        )
    if not data.ready and not split.test:
        reasons.append("A class has fewer than 3 images, so no test split is made: promote needs --without-test.")
    return Choice(key=("data", "split"), value=f"{{{parts}}}", reason=" ".join(reasons), instead=instead)


def weights_choices(chosen: Sequence[AtHand], relative: dict[str, str]) -> list[Choice]:
    """The section ``weights``: entries for files and packages; the libraries' own weights need none.

    Args:
        relative: Of each ``file`` its path as the space file writes it.
    """
    choices = []
    for one in chosen:
        if one.place == "file":
            choices.append(Choice(key=("weights", one.name), value=relative[one.path]))
        elif one.place == "package" and one.candidate.package is not None:
            package, file = one.candidate.package
            value = f"{{package: {package}, file: {file}, match: order}}"
            reason = "ImageNet weights, in an installed package: nothing is downloaded."
            choices.append(Choice(key=("weights", one.name), value=value, reason=reason))
    return choices


def space_choices(seen: Seen) -> list[Choice]:
    """The section ``space``."""
    data = seen.data
    wanted, deepest = seen.depths
    choices = [_backbones(seen), _depth(seen, wanted, deepest), *_features(seen)]
    head = "The new head starts from a solved linear probe (head_init: probe), so it needs no high rate."
    choices.append(Choice(key=("space", "head_lr"), value=_log(3e-4, 1e-2), reason=head))
    if deepest:
        reason = "Below the head's: pretrained features are worth keeping; above 1e-3 they are lost within an epoch."
        choices.append(Choice(key=("space", "backbone_lr"), value=_log(*_BACKBONE_LR[seen.distance]), reason=reason))
        if any((facts := backbone_facts(one.name)) and facts.has_batch_norm for one in seen.chosen):
            reason = "Batch norm: keep it as it was pretrained, or train it in the stages that train."
            instead = "[frozen, train, adapt], to try statistics of these images, too"
            choices.append(Choice(key=("space", "bn_policy"), value="[frozen, train]", reason=reason, instead=instead))
        reason, instead = "So few epochs must end at a small rate.", "[constant, cosine, one_cycle]"
        choices.append(Choice(key=("space", "lr_schedule"), value="cosine", reason=reason, instead=instead))
    choices.append(augmentation(seen))
    if data.imbalance >= _IMBALANCED:
        reason = f"The largest class has {data.imbalance:.0f} times the images of the smallest."
        refused = TASKS[data.spec.task].refused
        fit = [one for one in ("none", "weighted_loss", "sampler") if ("class_balance", one) not in refused]
        choices.append(Choice(key=("space", "class_balance"), value=f"[{', '.join(fit)}]", reason=reason))
    return [*choices, Choice(key=("space", "weight_decay"), value=_log(1e-5, 1e-2))]


def _features(seen: Seen) -> list[Choice]:
    """What the heads of transformers see."""
    names = [one.name for one in seen.chosen if (facts := backbone_facts(one.name)) and facts.has_class_token]
    if not names:
        return []
    reason = f"Of {', '.join(names)}: a head alone may read the class tokens of the last four blocks better."
    return [Choice(key=("space", "features"), value="[cls, last4]", reason=reason, instead="[cls, cls_mean, last4]")]


def _log(low: float, high: float) -> str:
    return f"{{log: [{low:.1e}, {high:.1e}]}}".replace("e-0", "e-")


def _backbones(seen: Seen) -> Choice:
    places = "; ".join(f"{one.name}: weights {_PLACES[one.place]}" for one in seen.chosen)
    reason = f"{'Sizes for a GPU' if seen.gpu else 'Small enough for CPU cores'}. {places}."
    if any(one.candidate.self_supervised for one in seen.chosen):
        reason += " Self-supervised weights depend less on the classes of ImageNet than supervised ones."
    other = "resnet18, mobilenet_v3_large, efficientnet_b0" if not seen.gpu else "resnet50, convnext_tiny, vit_b_16"
    instead = f"any of torchvision's classifiers, or timm/NAME: {other}"
    value = f"[{', '.join(one.name for one in seen.chosen)}]"
    return Choice(key=("space", "backbone"), value=value, reason=reason, instead=instead)


def _depth(seen: Seen, wanted: int, deepest: int) -> Choice:
    amount = f"{size_of(seen.data).capitalize()} data ({seen.data.num_train:,} training images)"
    reason = f"Stages that train with the head: 0 is the head alone, 5 everything. {amount}; {seen.distance_reason}"
    if deepest < wanted:
        reason += (
            f" {wanted} would suit the data, but takes too long for {seen.budget.minutes:g} minutes on this machine."
        )
    value = "0" if deepest == 0 else f"{{int: [0, {deepest}]}}"
    instead = f"{{int: [0, {max(deepest + 1, wanted)}]}}, with more time" if max(deepest, wanted - 1) < 5 else ""
    if deepest == 0:
        instead = "{int: [0, 1]}, to train the last stage, too (with backbone_lr: {log: [1.0e-5, 3.0e-4]})"
    return Choice(key=("space", "unfreeze_depth"), value=value, reason=reason, instead=instead)


def augmentation(seen: Seen) -> Choice:
    """How training images are varied."""
    key = ("space", "augmentation")
    if seen.domain and not DOMAINS[seen.domain].mirrors:
        reason = "Every augmentation mirrors images, which changes digits and letters."
        return Choice(
            key=key, value="none", reason=reason, instead="[none, light], where a mirrored image keeps its class"
        )
    if not seen.depths[1] and not seen.gpu:
        reason = "The head alone trains on cached features in no time; augmented images are computed in every epoch."
        instead = "[none, light] with `cache: {views: 4}`: four fixed views of every image, with cached features"
        return Choice(key=key, value="none", reason=reason, instead=instead)
    if seen.gpu:
        reason = "light crops and mirrors; strong also changes colours and erases parts."
        return Choice(key=key, value="[none, light, strong]", reason=reason, instead=_MIRRORS)
    reason = "light crops and mirrors. Without it trials read cached features, which is much cheaper."
    return Choice(key=key, value="[none, light]", reason=reason, instead=_MIRRORS)


def search_choices(seen: Seen) -> list[Choice]:
    """The sections ``search`` and ``resources``, and ``cache`` where the disk is small."""
    trials, _ = seen.trials
    minutes, data = seen.budget.minutes, seen.data
    where = plural(len(seen.machine.gpus), "GPU") if seen.gpu else plural(seen.machine.cores, "CPU core")
    val = data.images["val"]
    fits = (
        f"What {minutes:g} minutes on {where} allow by a rough estimate, and what {val:,} validation images "
        "can tell apart; the time budget ends the search anyway."
    )
    share = f"`run --promote` gives {SEARCH_SHARE:.0%} of it to the search, the rest to confirm and promote."
    choices = [
        Choice(key=("search", "trials"), value=str(trials), reason=fits),
        Choice(key=("search", "max_epochs"), value=str(seen.epochs), instead="more, with more time"),
        *_folds(seen),
        Choice(key=("search", "time_budget"), value=f"{minutes:g}m", reason=share),
    ]
    task = TASKS[data.spec.task]
    metric = task.metrics[task.imbalanced_metric if data.imbalance >= _IMBALANCED else task.default_metric]
    instead = ", ".join(name for name in task.metrics if name != metric.name)
    choices.append(Choice(key=("search", "metric"), value=metric.name, reason=metric.note, instead=instead))
    scheduler = "{asha: {grace_period: 1, reduction_factor: 3}}"
    reason = "ASHA stops weak trials: at each rung about one in three goes on."
    choices.append(Choice(key=("search", "scheduler"), value=scheduler, reason=reason, instead="none"))
    return [*choices, *_resources(seen)]


def _folds(seen: Seen) -> list[Choice]:
    """Whether trials are trained on folds: said where there are few validation images."""
    folds = advised_folds(seen.data.images["val"], seen.data.per_class.values())
    if not folds:
        return []
    reason = "So few validation images choose mostly the luckiest trial; with folds each image judges once."
    instead = f"{folds}, at the cost of up to {folds} trainings a trial; no models are kept but the promoted one"
    return [Choice(key=("search", "folds"), value="0", reason=reason, instead=instead)]


def _resources(seen: Seen) -> list[Choice]:
    machine, choices = seen.machine, list[Choice]()
    if seen.gpu:
        threads = max(1, min(4, machine.cores // len(machine.gpus)))
        reason = "A GPU for each trial, shared once trials have shown that they fit, and threads that decode images."
        instead = "gpus_per_trial: 1, so that no trials share a GPU"
        choices.append(Choice(key=("resources", "gpus_per_trial"), value="auto", reason=reason, instead=instead))
        choices.append(Choice(key=("resources", "cpus_per_trial"), value=str(threads)))
    elif seen.budget.slots < machine.cores:
        reason = f"{machine.memory_gb:.0f} GB of memory: a trial needs one or two."
        choices.append(Choice(key=("resources", "max_concurrent"), value=str(seen.budget.slots), reason=reason))
    if machine.disk_gb < _LOW_DISK_GB:
        reason = f"Only {machine.disk_gb:.0f} GB of disk are free."
        choices.append(
            Choice(key=("cache", "features_gb"), value=f"{max(0.5, machine.disk_gb / 4):.1f}", reason=reason)
        )
    return choices
