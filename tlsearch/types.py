"""Frozen dataclasses and small Protocols that cross floors; standard library only.

Units: ``*_s`` seconds, ``*_bytes`` bytes, accuracies are fractions, epochs count from 1,
image sizes are pixels of the square crop. All timestamps are Unix time in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Literal, Protocol

Scalar = str | int | float | bool | None
Mode = Literal["max", "min"]
CropMode = Literal["center", "squash"]

METRIC_MODES: Mapping[str, Mode] = {
    "val_accuracy": "max",
    "val_loss": "min",
    "val_macro_f1": "max",
    "val_balanced_accuracy": "max",
    "val_top5_accuracy": "max",
}


# --- what a trial is made of -------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SplitSpec:
    """How a source without a ready split is cut.

    Attributes:
        val: Fraction of the images for validation.
        test: Fraction of the images for the sealed test split.
        seed: Seed of the stratified shuffle.
        group_by: For folders a regular expression whose first group (or whole match), searched in
            the path relative to the class folder, names the group; images of one group stay in
            one split. None: every image is its own group.
    """

    val: float = 0.15
    test: float = 0.15
    seed: int = 0
    group_by: str | None = None


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """Where the images come from.

    Attributes:
        source: ``folder``, ``manifest``, ``torchvision``, ``huggingface`` or ``digits``.
        path: Absolute: the folder; the manifest; the folder of torchvision's files; a local Hugging Face set.
        image_size: Side of the crop in pixels; None means the weights' own.
        name: Class name of a torchvision set (``CIFAR10``), or id of a set on the Hugging Face Hub.
        download: Whether a set that is not on this machine may be fetched.
        options: Further arguments of the torchvision class or of ``datasets.load_dataset``.
        image_column: Of a Hugging Face set; None finds the one column of images.
        label_column: Of a Hugging Face set; None finds the one column of class labels.
    """

    source: str
    path: str | None = None
    split: SplitSpec = field(default_factory=SplitSpec)
    image_size: int | None = None
    name: str | None = None
    download: bool = False
    options: Mapping[str, Scalar] = field(default_factory=dict, hash=False)
    image_column: str | None = None
    label_column: str | None = None


@dataclass(frozen=True, kw_only=True)
class WeightsSource:
    """Where one backbone's pretrained weights come from.

    Attributes:
        kind: ``default`` the library's own weights; ``file`` a local .pth or .safetensors; ``url`` such a
            file elsewhere; ``package`` a file inside an installed package; ``none`` random initialisation.
        path: Absolute path of a ``file``.
        url: Address of a ``url``: https://, http:// or s3://.
        package: Import name of a ``package``.
        file: Path inside the package.
        match: ``name`` by parameter name; ``order`` by order, shape and kind of tensor.
        transform: Whose evaluation transform to use: another backbone's, or another version's of this one;
            None the backbone's DEFAULT.
        version: A version of the library's weights, e.g. ``IMAGENET1K_V1``.
    """

    kind: Literal["default", "file", "url", "package", "none"] = "default"
    path: str | None = None
    url: str | None = None
    package: str | None = None
    file: str | None = None
    match: Literal["name", "order"] = "name"
    transform: str | None = None
    version: str | None = None


@dataclass(frozen=True, kw_only=True)
class TransformSpec:
    """An evaluation transform: resize, centre crop, scale to [0, 1], normalise.

    Attributes:
        resize_size: Length of the shorter side after the resize, in pixels; of both sides with ``squash``.
        crop_size: Side of the square centre crop, in pixels.
        interpolation: ``nearest``, ``bilinear`` or ``bicubic``.
        mean: Per channel (RGB), of values in [0, 1].
        std: Per channel (RGB).
        crop_mode: ``center`` keeps the image's proportions; ``squash`` makes it square, as timm does.
    """

    resize_size: int
    crop_size: int
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    crop_mode: CropMode = "center"


@dataclass(frozen=True, kw_only=True)
class CacheSpec:
    """Budgets of the node's stores; None means auto.

    ``directory`` is empty for the default: TLSEARCH_CACHE_DIR or the user's cache folder, looked
    up on the node where the trial runs.
    """

    directory: str = ""
    images_gb: float | None = None
    features_gb: float | None = None
    feature_precision: Literal["full", "half"] = "full"
    views: int = 1


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """One point of the space, complete; a field is None where the parameter has no effect.

    Attributes:
        backbone: torchvision's name, or ``timm/<name>``.
        unfreeze_depth: 0 = head only, 1..4 = the last stages and the head, 5 = everything.
        bn_policy: frozen, train, adapt or stats; None where the backbone has no batch norm.
        unfreeze_schedule: at_once or progressive; None at depth 0.
        layer_decay: Factor on backbone_lr for each stage further from the head; None below depth 2.
        head_dropout: Rate before the new classifier; None keeps the backbone's own.
        warmup_epochs: Epochs of a linear rise of the rates from near zero; for one_cycle its rising phase.
        mixup: Alpha of the Beta distribution; 0 is off. Where cutmix is on too, each batch takes one of them.
        cutmix: Alpha of the Beta distribution; 0 is off.
        ema: Decay per step of the averaged weights that are evaluated and kept; 0 is off.
        grad_clip: Largest norm of all gradients together; None is off.
        class_balance: none, weighted_loss or sampler.
        head_init: random, or probe: the head of the linear probe (LP-FT, Kumar et al. 2022).
    """

    backbone: str
    unfreeze_depth: int = 0
    head_lr: float = 1e-3
    backbone_lr: float | None = None
    bn_policy: str | None = None
    unfreeze_schedule: str | None = None
    augmentation: str = "none"
    weight_decay: float = 1e-4
    batch_size: int = 32
    optimizer: str = "adamw"
    layer_decay: float | None = None
    lr_schedule: str = "constant"
    warmup_epochs: int = 0
    label_smoothing: float = 0.0
    head_dropout: float | None = None
    mixup: float = 0.0
    cutmix: float = 0.0
    ema: float = 0.0
    grad_clip: float | None = None
    class_balance: str = "none"
    head_init: str = "random"


@dataclass(frozen=True, kw_only=True)
class TrialSetup:
    """What all trials of one search share.

    Attributes:
        weights: By backbone; a backbone that is absent uses its library's default weights.
        num_threads: CPU threads of one trial.
        device: ``auto`` is CUDA where the trial was given a GPU, else the CPU.
        precision: ``auto`` is fp32 on the CPU and bf16 on CUDA.
        refit: Train on train and val together and keep the last epoch's model: val can choose none then.
        depths: Unfreeze depths that the search may try: one pass over the images then stores what all of them read.
    """

    data: DataSpec
    weights: Mapping[str, WeightsSource] = field(default_factory=dict)
    max_epochs: int = 20
    metric: str = "val_accuracy"
    num_threads: int = 1
    device: str = "auto"
    precision: str = "auto"
    cache: CacheSpec = field(default_factory=CacheSpec)
    refit: bool = False
    depths: tuple[int, ...] = ()

    @property
    def mode(self) -> Mode:
        """Whether the metric is to be maximised or minimised."""
        return METRIC_MODES[self.metric]


@dataclass(frozen=True, kw_only=True)
class TrialAssignment:
    """One trial, ready to run anywhere: all a worker needs.

    Attributes:
        number: Optuna's trial number.
        seed: Seed of everything random in the trial.
        directory: The trial's folder in the search's storage; holds its checkpoints.
    """

    number: int
    seed: int
    config: TrialConfig
    setup: TrialSetup
    directory: str


# --- what a trial says -------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """One epoch's figures.

    Attributes:
        epoch: From 1.
        metrics: train_loss, train_accuracy, val_loss, val_accuracy, val_macro_f1, epoch_seconds,
            images_per_second and what else the trial measured; all finite.
        timestamp: When the epoch ended.
        source: ``features`` or ``pixels``: what the epoch read.
        source_reason: Why.
    """

    epoch: int
    metrics: Mapping[str, float]
    timestamp: float
    source: str = "pixels"
    source_reason: str = ""


class Decision(str, Enum):
    """What the search answers to a report."""

    CONTINUE = "continue"
    STOP = "stop"  # cut by the scheduler, or the budget is spent: PRUNED
    COMPLETE = "complete"  # reached max_epochs, or plateaued past the first rung: COMPLETE


class TrialState(str, Enum):
    """A trial's state as the user sees it; the study's own states follow section 6 of the design."""

    RUNNING = "running"
    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"
    INFEASIBLE = "infeasible"


REASONS = ("completed", "plateaued", "asha", "diverged", "memory", "constraint", "error", "budget")


@dataclass(frozen=True, kw_only=True)
class TrialOutcome:
    """How a trial ended; ``reason`` is one of REASONS, ``error`` the message of a failed one."""

    state: TrialState
    reason: str
    epochs_run: int
    best_value: float | None = None
    best_epoch: int | None = None
    error: str = ""


class Reporter(Protocol):
    """Takes a trial's reports and answers each with a decision."""

    def report(self, report: EpochReport) -> Decision: ...


class RunningTrial(Protocol):
    """A trial that is trained epoch by epoch.

    Opening one picks up the trial's running checkpoint, if there is one. ``step`` trains and
    evaluates one epoch, writes the checkpoints that are due, then returns; it raises TrialFault
    (Diverged, Infeasible, FrozenMoved) where the trial cannot go on.
    """

    @property
    def epochs_done(self) -> int: ...

    @property
    def reports(self) -> Sequence[EpochReport]:
        """Reports of epochs done, oldest first; the running checkpoint carries them.

        After a resume at least the report of the checkpoint's own epoch is here: if the driver died
        between checkpoint and report, that epoch is reported again from here, not skipped.
        """
        ...

    def step(self) -> EpochReport: ...

    def close(self) -> None: ...


class TrialFactory(Protocol):
    """Opens a trial: the real fine-tuning, or a replayed one in tests."""

    def __call__(self, assignment: TrialAssignment) -> RunningTrial: ...


# --- what the search says ----------------------------------------------------------------


class SearchObserver(Protocol):
    """Hears what happens in a search, in order, on the driver's thread; must return at once.

    After a resume ``trial_started`` comes again for trials that go on.
    """

    def trial_started(self, number: int, config: TrialConfig) -> None: ...

    def trial_reported(self, number: int, report: EpochReport, decision: Decision) -> None: ...

    def trial_ended(self, number: int, outcome: TrialOutcome) -> None: ...


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial as the study tells it; ``params`` are the active dimensions, Optuna's names merged.

    Attributes:
        measured: What the search's constraints look at: params_millions, checkpoint_mb, latency_ms.
    """

    number: int
    state: TrialState
    reason: str
    params: Mapping[str, Scalar]
    config: TrialConfig
    seed: int
    best_value: float | None = None
    best_epoch: int | None = None
    reports: tuple[EpochReport, ...] = ()
    error: str = ""
    started: float | None = None
    ended: float | None = None
    measured: Mapping[str, float] = field(default_factory=dict)

    @property
    def epochs_run(self) -> int:
        """The last epoch reported; 0 before the first report."""
        return self.reports[-1].epoch if self.reports else 0


@dataclass(frozen=True, kw_only=True)
class SearchRecord:
    """A search as its study tells it: the truth that results are read from."""

    search_id: str
    experiment: str
    metric: str
    mode: Mode
    directory: str
    trials: tuple[TrialRecord, ...] = ()

    @property
    def best(self) -> TrialRecord | None:
        """The trial with the best best-epoch value among complete and pruned ones; ties: the earlier."""
        done = [
            t
            for t in self.trials
            if t.best_value is not None
            and t.state in (TrialState.COMPLETE, TrialState.PRUNED)
            and t.reason != "diverged"
        ]
        sign = 1 if self.mode == "max" else -1
        return max(done, key=lambda t: (sign * (t.best_value or 0.0), -t.number), default=None)


@dataclass(frozen=True, kw_only=True)
class ParameterImportance:
    """How much each parameter mattered for being among the best trials at one common epoch.

    Attributes:
        values: Shares that sum to 1, largest first; empty where there is too little to tell.
        spread: By parameter the range of its share over trials drawn again (10 % to 90 %).
        epoch: The epoch at which all trials are compared, from 1.
        num_trials: Trials compared.
        num_top: How many of them count as the best.
        reason: Why there are no values.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    spread: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    epoch: int | None = None
    num_trials: int = 0
    num_top: int = 0
    reason: str = ""


class Tracker(SearchObserver, Protocol):
    """Records a search for people to look at (MLflow, or the in-memory twin).

    ``artifacts`` are texts by file name. Every call returns at once; the work is done in order in
    the background. Calls may be repeated (a resume sends all again): what is recorded is the same.
    """

    def search_started(self, params: Mapping[str, Scalar], artifacts: Mapping[str, str]) -> None: ...

    def keep_model(self, number: int, checkpoint: Path) -> None: ...

    def drop_model(self, number: int) -> None: ...

    def search_ended(
        self, status: Literal["finished", "interrupted", "failed"], artifacts: Mapping[str, str]
    ) -> None: ...

    def run_ids(self) -> Mapping[int, str]: ...

    def close(self, timeout_s: float = 30.0) -> int:
        """Sends what is left, for at most ``timeout_s``; gives how many records stay unsent."""
        ...


# --- what the doctor says ----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at before a search.

    Attributes:
        name: What, e.g. ``storage`` or ``ray``; with the node where there are several.
        status: ``fail`` stops a search or would spoil it; ``warn`` may be meant so.
        text: What was found.
        advice: What to do about it; empty where nothing is to be done.
    """

    name: str
    status: Literal["ok", "warn", "fail"]
    text: str
    advice: str = ""
