"""What a search says of itself when it starts: its file, its data, its versions; kept in its folder and in MLflow."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath

from tlsearch.app.catalog.catalog import RESOLVED, SOURCE, SearchEntry
from tlsearch.app.catalog.gather_facts import complete_facts, keep_facts
from tlsearch.app.catalog.stored import Status
from tlsearch.config import SpaceFile, masked_yaml
from tlsearch.core import __version__
from tlsearch.core.codec import read_json, to_plain
from tlsearch.core.errors import StorageError
from tlsearch.core.files import write_atomically
from tlsearch.core.printable import markdown_code
from tlsearch.core.secrets import mask
from tlsearch.core.text import command
from tlsearch.core.types import DataSetFacts, Scalar, SearchRecord, Tracker
from tlsearch.data import ImageIndex, data_card
from tlsearch.results import leaderboard, leaderboard_csv
from tlsearch.results.leaderboard.leaderboard_notes import leaderboard_notes
from tlsearch.results.leaderboard.screen_notes import screen_json
from tlsearch.space.syntax import list_as_written

DATA_CARD = "data_card.json"
ENVIRONMENT = "environment.json"

_MAX_SCANNED = 5_000  # images that are opened for the data card of a search: some ten seconds
_PACKAGES = ("torch", "torchvision", "timm", "ray", "optuna", "mlflow", "numpy", "pillow")


def environment() -> dict[str, str]:
    """The versions that a result may depend on."""
    found = {"tlsearch": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def keep_evidence(entry: SearchEntry, index: ImageIndex) -> None:
    """Writes data card and versions into the search's folder.

    Raises:
        StorageError: The folder cannot be written; the search can be resumed.
    """
    # A search must not wait minutes for it; `check` looks at every set whole.
    num_images = sum(len(split) for split in index.splits.values())
    card = to_plain(data_card(index, scan=num_images <= _MAX_SCANNED))
    try:
        write_atomically(entry.path / DATA_CARD, json.dumps(card, indent=2))
        write_atomically(entry.path / ENVIRONMENT, json.dumps(environment(), indent=2))
    except OSError as error:  # this runs beside the first trials, so the disk may have filled up meanwhile
        raise StorageError(
            f"the search's folder {entry.path} cannot be written: {error.strerror}; make room, or make the disk "
            "writable, then go on with `tlsearch resume`"
        ) from error


def kept_environment(entry: SearchEntry) -> dict[str, str]:
    """The versions of the search's last start; empty where it did not keep them."""
    try:
        found = read_json(entry.path / ENVIRONMENT)
    except (OSError, ValueError):
        return {}
    return {str(name): str(value) for name, value in found.items()}


def start_artifacts(entry: SearchEntry) -> dict[str, str]:
    """What is kept, by file name, as MLflow may show it."""
    kept = (entry.path / name for name in (SOURCE, RESOLVED, DATA_CARD, ENVIRONMENT))
    texts = {path.name: path.read_text(encoding="utf-8") for path in kept if path.is_file()}
    return {name: masked_yaml(text) if name.endswith(".yaml") else mask(text) for name, text in texts.items()}


def search_params(file: SpaceFile) -> Mapping[str, Scalar]:
    """What MLflow shows beside the search's run."""
    search = file.search
    return {
        "trials": search.trials,
        "max_epochs": search.max_epochs,
        **({"folds": search.num_folds} if search.num_folds else {}),
        "metric": search.metric,
        "sampler": search.sampler,
        "scheduler": "asha" if search.scheduler else "none",
        "seed": search.seed,
    }


def record_start(tracker: Tracker, entry: SearchEntry, file: SpaceFile) -> None:
    """Has a tracker record that a search starts or goes on, with all that is kept of it.

    Raises:
        TrackingError: See ``MlflowTracker.search_started``.
    """
    data = data_facts(entry, file)
    description = search_description(entry, file, data)
    tracker.search_started(search_params(file), start_artifacts(entry), description=description, data=data)


def record_end(
    tracker: Tracker, entry: SearchEntry, record: SearchRecord, status: Status, *, timeout_s: float = 30.0
) -> None:
    """Has a tracker record how a search ended, with its leaderboard.

    Args:
        timeout_s: How long to wait for the runs of all trials, which the leaderboard names.
    """
    tracker.flush(timeout_s)
    facts = complete_facts(entry, [trial.config for trial in record.trials])
    keep_facts(entry, facts)
    artifacts = {
        "leaderboard.csv": leaderboard_csv(record, tracker.run_ids(), facts),
        "notes.txt": "\n".join(leaderboard_notes(record, leaderboard(record, {}, facts), facts)),
    }
    if facts.screen is not None:
        artifacts["screen.json"] = json.dumps(screen_json(facts.screen), indent=2)
    tracker.search_ended(status, artifacts)


def data_facts(entry: SearchEntry, file: SpaceFile) -> DataSetFacts | None:
    """The data set as its card says, without opening it; None where the search kept no card."""
    try:
        card = read_json(entry.path / DATA_CARD)
        images = {str(name): int(split["images"]) for name, split in card["splits"].items()}
        digest, num_classes = str(card["digest"]), len(card["classes"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    spec = file.data
    source = spec.path or spec.name or spec.source
    return DataSetFacts(
        name=spec.name or (PurePath(source).name if spec.path else spec.source),
        digest=digest,
        source=mask(source),
        source_type=spec.source,
        images=images,
        num_classes=num_classes,
    )


def search_description(entry: SearchEntry, file: SpaceFile, data: DataSetFacts | None) -> str:
    """What the page of the search's run says first, in Markdown."""
    search, backbones = file.search, list_as_written(file.space.get("backbone"))[1]
    lines = [
        f"- **search** {markdown_code(entry.search_id)}: up to {search.trials} trials of {search.max_epochs} epochs"
        f"{f' on each of {search.num_folds} folds' if search.num_folds else ''}"
    ]
    lines[0] += f", {search.sampler}, {'ASHA' if search.scheduler else 'no early stopping'}"
    if data is not None:
        counts = ", ".join(f"{count} {split}" for split, count in data.images.items())
        lines.append(f"- **data** {markdown_code(data.source)}: {data.num_classes} classes; {counts} images")
    if backbones:
        lines.append(f"- **backbones** {', '.join(markdown_code(str(name)) for name in backbones)}")
    if entry.parent:
        lines.append(f"- trains the best configurations of {markdown_code(entry.parent)} again (`tlsearch confirm`)")
    own = "" if entry.parent else f"; {command('results', entry.search_id)}, {command('report', entry.search_id)}"
    lines.append(f"- the trials are the runs below this one{own}")
    return "\n".join(lines)
