"""What all trials of a search are made from, images and weights, by digest: one search has one of each.

Every value of a study was measured on the images of then. One leaderboard, one stopping rule and one choice of the best
cannot mix them with values on other images, so nothing that trains or scores goes on once they have changed.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.catalog.gather_facts import read_facts
from tlsearch.app.catalog.stored import read_record, stored_file
from tlsearch.app.checks.feasibility import weights_digests
from tlsearch.config import SpaceFile
from tlsearch.core.codec import read_json, read_shaped, to_plain
from tlsearch.core.errors import DataError
from tlsearch.core.files import write_atomically
from tlsearch.core.label_tasks import class_counts, classes_of
from tlsearch.data import ImageIndex, Split, load_index, nfc, seen_digest
from tlsearch.space import Space

logger = logging.getLogger(__name__)

INPUTS = "inputs.json"
_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class _Part:
    images: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class _Data:
    """Digests of a data set; ``digest`` is empty where files stay closed, ``seen`` leaves out the test split."""

    digest: str
    seen: str | None = None
    classes: tuple[str, ...]
    splits: Mapping[str, Mapping[str, _Part]]

    @property
    def totals(self) -> dict[str, int]:
        """Images by split."""
        return {name: sum(part.images for part in parts.values()) for name, parts in self.splits.items()}


@dataclass(frozen=True, kw_only=True)
class _Inputs:
    """What ``inputs.json`` holds."""

    format: Literal[1]
    data: _Data
    weights: Mapping[str, str]


def keep_inputs(entry: SearchEntry, file: SpaceFile, space: Space, index: ImageIndex) -> None:
    """Writes what the search's trials are made from into its folder."""
    inputs = _Inputs(format=1, data=_data_now(index), weights=weights_digests(file, space.backbones()))
    write_atomically(entry.path / INPUTS, json.dumps(to_plain(inputs), indent=2))


def refuse_changed_inputs(entry: SearchEntry, file: SpaceFile, index: ImageIndex, *, purpose: str) -> None:
    """Sees to it that images and weights are those that the search began with.

    Images of the test split alone may change, with a warning: no trial looks at them.

    Args:
        purpose: What cannot be done: ``the search cannot go on``.

    Raises:
        DataError: They have changed; says what, and what to do.
    """
    refuse_changed_images(entry, index, purpose=purpose)
    kept = _kept(entry)
    known = {**_weights_of_models(entry), **(kept.weights if kept is not None else {})}
    tried = [name for name in tried_backbones(entry) if name in known]
    now = weights_digests(file, tried) if tried else {}
    changed = [f"{name}: {known[name][:8]} -> {now[name][:8]}" for name in now if now[name] != known[name]]
    if changed:
        raise DataError(_message(entry, "weights have changed since trials began from them", changed, purpose))


def refuse_changed_images(entry: SearchEntry, index: ImageIndex, *, purpose: str) -> None:
    """Sees to it that the images are those that the search began with, as ``refuse_changed_inputs`` does."""
    kept = _kept(entry)
    before = kept.data if kept is not None else _data_of_facts(entry)
    found = list(_data_changes(before, _data_now(index))) if before else []
    if before is None or not found:
        return
    if before.seen == seen_digest(index):
        logger.warning("the test split has changed since %s began: %s", entry.search_id, "; ".join(found))
        return
    digests = f"digest {before.digest[:8]} -> {index.digest[:8]}"
    raise DataError(_message(entry, f"the images have changed since the search began ({digests})", found, purpose))


def unchanged_inputs(entry: SearchEntry, *, purpose: str) -> tuple[SpaceFile, ImageIndex]:
    """What a search goes by and its images, both as they were for its trials.

    Args:
        purpose: What cannot be done otherwise: ``its trials cannot be averaged``.

    Raises:
        SpaceError: The data are gone.
        DataError: As of ``refuse_changed_inputs``.
    """
    file, _ = stored_file(entry, f"so {purpose}")
    index = load_index(file.data)
    refuse_changed_inputs(entry, file, index, purpose=purpose)
    return file, index


def _message(entry: SearchEntry, what: str, changes: list[str], purpose: str) -> str:
    more = [f"and {len(changes) - _SHOWN} more"] if len(changes) > _SHOWN else []
    return (
        f"{what}:\n  "
        + "\n  ".join([*changes[:_SHOWN], *more])
        + f"\n{purpose}: what its trials reached is not comparable with trials on anything else, and `--changed` takes "
        "over settings only. Put back what was there, or start a new search with `tlsearch run FILE`; the best "
        f"configurations of {entry.search_id} (`tlsearch results`) can begin it, as search.start_with"
    )


def _kept(entry: SearchEntry) -> _Inputs | None:
    """The inputs in the search's folder; None for a search of a version that wrote no such file."""
    try:
        return read_shaped(entry.path / INPUTS, _Inputs)
    except FileNotFoundError:
        return None


def _data_now(index: ImageIndex) -> _Data:
    splits = {name: _per_class(split, index.classes) for name, split in index.splits.items()}
    return _Data(digest=index.digest, seen=seen_digest(index), classes=index.classes, splits=splits)


def _per_class(split: Split, classes: tuple[str, ...]) -> dict[str, _Part]:
    totals = {label: hashlib.sha256() for label in range(len(classes))}
    for i, (key, labels) in enumerate(zip(split.keys, split.labels, strict=True)):
        for label in classes_of(labels):
            totals[label].update(key.encode("utf-8", "surrogateescape") + b"\0")
            totals[label].update(split.digests[i] if split.digests else b"")
    counts = class_counts(split.labels)
    return {
        classes[label]: _Part(images=counts[label], digest=total.hexdigest()[:16]) for label, total in totals.items()
    }


def _data_of_facts(entry: SearchEntry) -> _Data | None:
    """As far as an earlier version kept it: the images of each split, without their classes."""
    facts = read_facts(entry)
    if not facts.digest:
        return None
    splits = {name: {"": _Part(images=count, digest="")} for name, count in facts.images.items()}
    return _Data(digest=facts.digest, classes=tuple(facts.classes), splits=splits)


def _data_changes(before: _Data, now: _Data) -> Iterator[str]:
    """What differs, in words; nothing where the digests are equal."""
    if before.digest == now.digest:
        return
    said = 0
    for line in _class_changes(before.classes, now.classes):
        said += 1
        yield line
    for name in dict.fromkeys((*before.splits, *now.splits)):
        then, today = before.totals.get(name, 0), now.totals.get(name, 0)
        if then != today:
            said += 1
            yield f"{name}: {then} -> {today} images"
    for name, split in before.splits.items():
        for label, part in split.items():
            other = now.splits.get(name, {}).get(label)
            if other is not None and other != part:
                said += 1
                same = other.images == part.images
                how = "other files or contents" if same else f"{part.images} -> {other.images} images"
                yield f"{name}, class {label!r}: {how}"
    if not said:
        yield "the same classes and counts: files were renamed, replaced or edited"


def _class_changes(earlier: Sequence[str], later: Sequence[str]) -> Iterator[str]:
    before, now = [nfc(name) for name in earlier], [nfc(name) for name in later]
    if before == now:
        return
    gone, new = [name for name in before if name not in now], [name for name in now if name not in before]
    parts = [f"{len(before)} -> {len(now)}"]
    parts += [f"new: {', '.join(map(repr, new))}"] if new else []
    parts += [f"gone: {', '.join(map(repr, gone))}"] if gone else []
    yield f"classes: {'; '.join(parts)}" if new or gone else "classes: in another order"


def _models(entry: SearchEntry) -> Iterator[dict[str, Any]]:
    for file in entry.path.glob("trials/*/best/checkpoint.json"):
        try:
            yield read_json(file)
        except (OSError, ValueError):
            continue


def _weights_of_models(entry: SearchEntry) -> dict[str, str]:
    """The digest of each backbone's weights, as far as a kept model tells."""
    found = {}
    for model in _models(entry):
        backbone, digest = model.get("backbone"), model.get("weights_digest")
        if isinstance(backbone, str) and isinstance(digest, str):
            found[backbone] = digest
    return found


def tried_backbones(entry: SearchEntry) -> list[str]:
    """Those that trials have begun from, in their order."""
    return list(dict.fromkeys(trial.config.backbone for trial in read_record(entry).trials))
