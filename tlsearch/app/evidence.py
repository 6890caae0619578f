"""What a search says of itself when it starts: its file, its data, its versions; kept in its folder and in MLflow."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from tlsearch import __version__
from tlsearch.app.catalog import RESOLVED, SOURCE, SearchEntry, write_atomically
from tlsearch.config import SpaceFile, without_password
from tlsearch.data import ImageIndex, data_card
from tlsearch.types import Scalar

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
    """Writes data card and versions into the search's folder."""
    # A search must not wait minutes for it; `check` looks at every set whole.
    num_images = sum(len(split) for split in index.splits.values())
    card = data_card(index, scan=num_images <= _MAX_SCANNED).to_json()
    write_atomically(entry.path / DATA_CARD, json.dumps(card, indent=2))
    write_atomically(entry.path / ENVIRONMENT, json.dumps(environment(), indent=2))


def kept_environment(entry: SearchEntry) -> dict[str, str]:
    """The versions of the search's last start; empty where it did not keep them."""
    try:
        found = json.loads((entry.path / ENVIRONMENT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(name): str(value) for name, value in found.items()}


def start_artifacts(entry: SearchEntry) -> dict[str, str]:
    """What is kept, by file name, as MLflow may show it."""
    kept = (entry.path / name for name in (SOURCE, RESOLVED, DATA_CARD, ENVIRONMENT))
    return {path.name: without_password(path.read_text(encoding="utf-8")) for path in kept if path.is_file()}


def search_params(file: SpaceFile) -> Mapping[str, Scalar]:
    """What MLflow shows beside the search's run."""
    search = file.search
    return {
        "trials": search.trials,
        "max_epochs": search.max_epochs,
        "metric": search.metric,
        "sampler": search.sampler,
        "scheduler": "asha" if search.scheduler else "none",
        "seed": search.seed,
    }
