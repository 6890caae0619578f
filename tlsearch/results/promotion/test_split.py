"""The test split is looked at once: its digest, what it shares with the other splits, and who has used it.

A use is on record before the first test image is decoded, in the search's folder (``test_uses.json``) and at the
experiment in MLflow. The evidence is added to it; the same model is never evaluated twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlsearch.config.checkpoint_meta import META_FILE
from tlsearch.config.ensemble_meta import ENSEMBLE_FILE, is_ensemble
from tlsearch.core.codec import from_plain, read_json
from tlsearch.core.errors import StorageError

if TYPE_CHECKING:
    from tlsearch.data import ImageIndex

USES = "test_uses.json"
_FORMAT = 1
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class TestSplit:
    """The test split, hashed but not decoded.

    Attributes:
        digest: sha256 (hex) over the contents of its images, whatever their names and order.
        overlap: (test image, train or val image) with the same content.
    """

    __test__ = False  # no test class, whatever pytest thinks of its name

    digest: str
    num_images: int
    overlap: tuple[tuple[str, str], ...]

    def overlap_text(self) -> str:
        """The overlap in words."""
        pairs = ", ".join(f"{ours} = {theirs}" for ours, theirs in self.overlap[:_SHOWN])
        more = f" and {len(self.overlap) - _SHOWN} more" if len(self.overlap) > _SHOWN else ""
        return f"{len(self.overlap)} of {self.num_images} test images are in train or val too: {pairs}{more}"


@dataclass(frozen=True, kw_only=True)
class TestUse:
    """One look at a test split.

    Attributes:
        digest: The split's.
        search_id: The search whose model looked at it; ``trial`` is the trial there.
        model: sha256 of the model's checkpoint, see ``checkpoint_digest``.
        at: Unix time in seconds.
        evidence: What it gave; None where the process died before.
    """

    __test__ = False

    digest: str
    search_id: str
    trial: int
    model: str
    at: float
    evidence: Mapping[str, Any] | None = None

    def brief(self) -> dict[str, Any]:
        """What other searches must know of it: all but the evidence."""
        plain = asdict(self)
        del plain["evidence"]
        return plain


def hash_test_split(index: ImageIndex) -> TestSplit | None:
    """Reads the test images' bytes, without decoding them; None where the data have no test split.

    Raises:
        DataError: An image cannot be read.
    """
    if "test" not in index.splits or not len(index.splits["test"]):
        return None
    test = index.splits["test"]
    digests = index.reader.digests(test.keys)
    known = {
        digest: key
        for name in ("train", "val")
        for key, digest in zip(index.splits[name].keys, index.splits[name].digests, strict=True)
    }
    overlap = tuple((key, known[digest]) for key, digest in zip(test.keys, digests, strict=True) if digest in known)
    total = hashlib.sha256(b"".join(sorted(digests))).hexdigest()
    return TestSplit(digest=total, num_images=len(test), overlap=overlap)


def checkpoint_digest(directory: Path) -> str:
    """sha256 (hex) that stands for a model's weights and classes; of an ensemble, for its members and their weights.

    Raises:
        StorageError: The checkpoint is missing.
    """
    try:
        if is_ensemble(directory):
            content = read_json(directory / ENSEMBLE_FILE)
            parts = [[one["count"], one["temperature"], *_identity(one["checkpoint"])] for one in content["members"]]
        else:
            parts = _identity(read_json(directory / META_FILE))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"a model checkpoint must be readable: {directory}: {error}") from error
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _identity(checkpoint: Mapping[str, Any]) -> list[Any]:
    whole = [checkpoint.get(key) for key in ("weights_sha256", "frozen_sha256", "backbone", "classes")]
    return [*whole, *(one["sha256"] for one in checkpoint.get("shared_files", ()))]


def read_uses(folder: Path) -> list[TestUse]:
    """The uses on record in a search's folder.

    Raises:
        StorageError: The record is damaged.
    """
    path = folder / USES
    if not path.exists():
        return []
    try:
        return [from_plain(TestUse, one) for one in read_json(path)["uses"]]
    except (ValueError, TypeError, KeyError) as error:
        raise StorageError(f"the record of the test split's use is damaged: {path}: {error}") from error


def uses_text(uses: Sequence[TestUse]) -> str:
    """The record as it is written."""
    return json.dumps({"format": _FORMAT, "uses": [asdict(use) for use in uses]}, indent=2)


def other_uses(uses: Sequence[TestUse], *, digest: str, model: str) -> list[TestUse]:
    """The looks at this split by other models: each could have been chosen by it."""
    return [use for use in uses if use.digest == digest and use.model != model]
