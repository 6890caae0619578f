"""torchvision's data sets: those whose code was read, what each loads, and why the others are refused.

Read in torchvision 0.29. A set that is in neither table is refused. Options are those that choose classes or images,
with the values that they may have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tlsearch.core.types import Scalar

_FLAG = (False, True)
_SEED = range(2**32)


@dataclass(frozen=True, kw_only=True)
class Readable:
    """A set that may be read.

    Attributes:
        reads: What its code loads, and why that runs no code of a file.
        options: The arguments that ``data.options`` may have, each with its values.
        needs: What must be in its folder, so that opening it unpacks nothing.
        follows: Whether its code walks folders and follows links between them, in circles too.
    """

    reads: str
    options: Mapping[str, range | tuple[Scalar, ...]] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    follows: bool = False


_IDX = "arrays of raw bytes (IDX); files of versions before 0.7 by torch.load, weights_only"

READABLE: Mapping[str, Readable] = {
    "CIFAR10": Readable(reads="a pickle, after its MD5, by an unpickler that makes arrays alone (torchvision_open)"),
    "CIFAR100": Readable(reads="as CIFAR10"),
    "CLEVRClassification": Readable(reads="JSON and image files"),
    "Caltech101": Readable(reads="folders of image files; its .mat files of outlines are not opened"),
    "Caltech256": Readable(reads="folders of image files"),
    "Country211": Readable(reads="folders of image files", follows=True),
    "DTD": Readable(reads="text and image files", options={"partition": range(1, 11)}),
    "EMNIST": Readable(reads=_IDX, options={"split": ("byclass", "bymerge", "balanced", "letters", "digits", "mnist")}),
    "EuroSAT": Readable(reads="folders of image files", follows=True),
    "FER2013": Readable(reads="a CSV, after its MD5"),
    "FGVCAircraft": Readable(
        reads="text and image files", options={"annotation_level": ("variant", "family", "manufacturer")}
    ),
    "FakeData": Readable(
        reads="nothing: it makes its images",
        options={"size": range(4, 100_001), "num_classes": range(2, 10_001), "random_offset": _SEED},
    ),
    "FashionMNIST": Readable(reads=_IDX),
    "Flowers102": Readable(reads="MATLAB arrays (scipy.io.loadmat), after their MD5, and image files"),
    "Food101": Readable(reads="JSON and image files"),
    "GTSRB": Readable(reads="a CSV and folders of image files", follows=True),
    "INaturalist": Readable(
        reads="folders of image files",
        options={"version": ("2017", "2018", "2019", "2021_train", "2021_train_mini", "2021_valid")},
    ),
    "ImageFolder": Readable(reads="folders of image files", options={"allow_empty": _FLAG}, follows=True),
    "ImageNet": Readable(
        reads="meta.bin by torch.load, weights_only, and folders of image files",
        needs=("meta.bin", "train", "val"),
        follows=True,
    ),
    "Imagenette": Readable(reads="folders of image files", options={"size": ("full", "320px", "160px")}, follows=True),
    "KMNIST": Readable(reads=_IDX),
    "LFWPeople": Readable(
        reads="text, after its MD5, and image files", options={"image_set": ("original", "funneled", "deepfunneled")}
    ),
    "MNIST": Readable(reads=_IDX),
    "Omniglot": Readable(reads="folders of image files", options={"background": _FLAG}),
    "OxfordIIITPet": Readable(reads="text and image files"),
    "Places365": Readable(reads="text, after its MD5, and image files", options={"small": _FLAG}),
    "QMNIST": Readable(
        reads=_IDX, options={"what": ("train", "test", "test10k", "test50k", "nist"), "compat": (True,)}
    ),
    "RenderedSST2": Readable(reads="folders of image files", follows=True),
    "SEMEION": Readable(reads="a table of numbers, after its MD5"),
    "STL10": Readable(reads="arrays of raw bytes, after their MD5, and text", options={"folds": range(10)}),
    "SUN397": Readable(reads="text and folders of image files"),
    "SVHN": Readable(reads="MATLAB arrays (scipy.io.loadmat), after their MD5"),
    "StanfordCars": Readable(reads="MATLAB arrays (scipy.io.loadmat makes arrays alone) and image files"),
    "USPS": Readable(reads="a table of numbers, compressed"),
}

_CAPTIONS = "its images have captions, not classes"
_PLACES = "its images have boxes or masks, not classes"
_PAIRS = "it holds pairs of images, not classes"
_VIDEOS = "it holds videos, not images"

REFUSED: Mapping[str, str] = {
    "LSUN": "it loads a pickle from the current folder, which may run any program",
    "LSUNClass": "it loads a pickle from the current folder, which may run any program",
    "PCAM": "its HDF5 files can name other files of this machine as their content, and another program fetches them",
    "DatasetFolder": "it needs a function of yours to load files",
    "VisionDataset": "it is the base of the others, and has no images",
    "CelebA": "its images have many attributes, not one class, and another program fetches it",
    **dict.fromkeys(("CocoCaptions", "Flickr30k", "Flickr8k", "SBU"), _CAPTIONS),
    **dict.fromkeys(
        ("Cityscapes", "CocoDetection", "Kitti", "SBDataset", "VOCDetection", "VOCSegmentation", "WIDERFace"), _PLACES
    ),
    **dict.fromkeys(("HMDB51", "Kinetics", "MovingMNIST", "UCF101"), _VIDEOS),
    **dict.fromkeys(("LFWPairs", "PhotoTour"), _PAIRS),
    **dict.fromkeys(("FlyingChairs", "FlyingThings3D", "HD1K", "KittiFlow", "Sintel"), "it is for optical flow"),
    **dict.fromkeys(
        (
            "CREStereo", "CarlaStereo", "ETH3DStereo", "FallingThingsStereo", "InStereo2k", "Kitti2012Stereo",
            "Kitti2015Stereo", "Middlebury2014Stereo", "SceneFlowStereo", "SintelStereo",
        ),
        "it is for stereo matching",
    ),
}  # fmt: skip
