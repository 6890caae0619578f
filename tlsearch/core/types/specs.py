"""What trials are made of: data, weights, transforms, budgets; one point of the space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from tlsearch.core.label_tasks import TaskName
from tlsearch.core.metrics import Objective
from tlsearch.core.types.images import PixelFormat
from tlsearch.core.types.trial_config import Scalar, TrialConfig

Layout = Literal["auto", "classes"]

MAX_PIXELS = 89_478_485  # of one image, by default: as many as Pillow reads without a warning
CONTEXT_BYTES = 5e8  # of a process's CUDA context with its kernels, which torch does not count


@dataclass(frozen=True, kw_only=True)
class SplitSpec:
    """``data.split``: fractions of the images; the rest trains.

    Attributes:
        val: Fraction of the images for validation.
        test: Fraction of the images for the sealed test split, which only ``promote`` opens.
        seed: Seed of the shuffle.
        group_by: Regular expression, searched in the path below the class folder; images with the same first
            group stay in one split. Only for source folder.
    """

    val: float = 0.15
    test: float = 0.15
    seed: int = 0
    group_by: str | None = None


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """Where the images come from; ``path`` is absolute once the file is read, and ``image_size`` None is auto.

    Attributes:
        source: Kind of the data set. ``digits`` is scikit-learn's, for a trial run without images of your own.
        path: The folder of images, the manifest file, the folder of torchvision's files, or a local Hugging
            Face set. A folder or a manifest may be s3://. A relative path starts at the space file.
        split: How images are split where the source has no ready split.
        image_size: Side of the square images that a model sees, in pixels; auto is the size of the weights, or
            ``image_size`` of the space.
        name: Class of torchvision.datasets, such as CIFAR10, or the ID of a set on the Hugging Face Hub.
        download: Whether a set that is not on this machine may be downloaded.
        options: Further arguments of the torchvision class or of datasets.load_dataset.
        image_column: Column of the images in a Hugging Face set; by default the only one of that kind.
        label_column: Column of the class labels in a Hugging Face set; by default the only one of that kind.
        max_pixels: Images of more pixels are refused, by ``check`` and by trials alike.
        layout: Whether folders named train, val or test are splits (auto), or every folder is a class (classes).
        task: Whether an image has one class (single_label) or any number of them (multi_label): a table then names them
            in one cell, as ``cat|dog``, and an empty cell is an image without a class.
        channels: Channels of each image. auto is 3, RGB, for pictures, and of 16-bit images, arrays (.npy) and
            multispectral TIFF their own number. 3 with ``bits`` 8 reads any picture as RGB of 8 bits.
        bits: Bits of each value; auto is as the images have them.
        mean: Mean of each channel, of values scaled to 0 to 1; by default that of the weights for RGB of 8 bits, else
            measured on training images.
        std: Standard deviation of each channel, as ``mean``.
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
    max_pixels: int = MAX_PIXELS
    layout: Layout = "auto"
    task: TaskName = "single_label"
    channels: int | None = None
    bits: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @property
    def pixel_format(self) -> PixelFormat:
        """How images are decoded; RGB of 8 bits where nothing is said."""
        return PixelFormat(channels=self.channels or 3, bits=self.bits or 8)

    def completed(self, found: DataSpec) -> DataSpec:
        """This, with what ``found`` says of the images' channels where this says nothing."""
        names = ("channels", "bits", "mean", "std")
        left = {name: getattr(found, name) for name in names if getattr(self, name) is None}
        return replace(self, **left)

    def size_of(self, config: TrialConfig) -> int | None:
        """Side of the images of a trial in pixels; None is that of the weights."""
        return self.image_size if config.image_size is None else config.image_size


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
class CacheSpec:
    """Budgets of each machine's caches; sizes in GB, None is auto.

    Attributes:
        directory: Empty is TLSEARCH_CACHE_DIR or the user's cache folder, looked up on the node where the trial runs.
        images_gb: Disk for decoded images on each machine, in GB; auto follows the free space, 0 turns the
            cache off.
        features_gb: Disk for cached features on each machine, in GB; auto follows the free space, 0 turns the
            cache off.
        feature_precision: Whether features are kept in 32 bits (full) or 16 bits (half).
        views: Number of fixed augmented views of each image that epochs rotate through, so that their features
            can be cached; 1 augments every epoch afresh.
    """

    directory: str = ""
    images_gb: float | None = None
    features_gb: float | None = None
    feature_precision: Literal["full", "half"] = "full"
    views: int = 1


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The shape of a model: its size and its latency follow from it, whatever its weights and however it is trained.

    Attributes:
        backbone: A name, with an optional ``@VERSION``.
        num_classes: Outputs of the head.
        image_size: Side of the input images in pixels; None is the default weights' own.
        channels: Of the input images.
        features: What the head sees of a transformer's tokens, which is up to four times as wide.
    """

    backbone: str
    num_classes: int
    image_size: int | None = None
    channels: int = 3
    features: str | None = None

    @classmethod
    def of(cls, config: TrialConfig, data: DataSpec, num_classes: int) -> ModelSpec:
        """The model that a trial on these data builds."""
        return cls(
            backbone=config.backbone,
            num_classes=num_classes,
            image_size=data.size_of(config),
            channels=data.pixel_format.channels,
            features=config.features,
        )


@dataclass(frozen=True, kw_only=True)
class TrialSetup:
    """What all trials of one search share.

    Attributes:
        weights: By backbone; a backbone that is absent uses its library's default weights.
        num_threads: CPU threads of one trial.
        device: ``auto`` is CUDA where the trial was given a GPU, else the CPU.
        precision: ``auto`` is fp32 on the CPU and bf16 on CUDA.
        compiled: Whether training goes through ``torch.compile``.
        deterministic: Whether only algorithms are used that repeat to the bit on a GPU.
        refit: Train on train and val together and keep the last epoch's model: val can choose none then.
        folds: K, where a trial is trained once for each of K folds of the images of train and val; 0 is off.
        fold: Of one such training: which fold is its val, from 1; 0 is the trial as a whole.
        depths: Unfreeze depths that the search may try: one pass over the images then stores what all of them read.
        data_digest: Of the images that the search began with, see ``seen_digest``; a trial refuses others, on whatever
            node and whenever it starts. Empty: whichever there are.
        weights_digests: The same of each backbone's weights.
        soft_targets: File with the probabilities that training learns in place of the labels, see
            ``tlsearch.train.write_soft_targets``; empty: the labels.
    """

    data: DataSpec
    weights: Mapping[str, WeightsSource] = field(default_factory=dict)
    max_epochs: int = 20
    metric: str = "val_accuracy"
    num_threads: int = 1
    device: str = "auto"
    precision: str = "auto"
    compiled: bool = False
    deterministic: bool = False
    cache: CacheSpec = field(default_factory=CacheSpec)
    refit: bool = False
    folds: int = 0
    fold: int = 0
    depths: tuple[int, ...] = ()
    data_digest: str = ""
    weights_digests: Mapping[str, str] = field(default_factory=dict)
    soft_targets: str = ""

    @property
    def objective(self) -> Objective:
        """The metric, and whether it is to be maximised or minimised."""
        return Objective.of(self.metric)

    def weights_of(self, backbone: str) -> WeightsSource:
        """Where a backbone's weights come from; the library's default ones where nothing is said of it."""
        return self.weights.get(backbone, WeightsSource())

    @property
    def num_reports(self) -> int:
        """Reports of a whole trial: one of each epoch, or of each fold."""
        return self.folds or self.max_epochs


@dataclass(frozen=True, kw_only=True)
class TrialAssignment:
    """One trial, ready to run anywhere: all a worker needs.

    Attributes:
        number: Optuna's trial number.
        seed: Seed of everything random in the trial.
        directory: The trial's folder in the search's storage; holds its checkpoints.
        gpus: The fraction of one GPU that the trial was given, 0 to 1: with 0 it computes on the CPU. None: outside
            of a search, on whatever device ``setup`` names.
        shares: Whether what stands still in the trial's model is written once for all trials of its search, see
            `tlsearch.core.layout.frozen_folder`; else it lies in the trial's own folder.
    """

    number: int
    seed: int
    config: TrialConfig
    setup: TrialSetup
    directory: str
    gpus: float | None = None
    shares: bool = False
