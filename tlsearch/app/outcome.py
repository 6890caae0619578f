"""Reads what a search has found: its results, its MLflow UI, predictions of its models."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tlsearch.app.catalog import SearchEntry, find
from tlsearch.app.run import read_record
from tlsearch.errors import DataError, StorageError
from tlsearch.results import results_json
from tlsearch.tracking import find_run_ids

BEST = "best"


def read_results(entry: SearchEntry) -> dict[str, Any]:
    """The published shape of ``results --json``; the study is the truth, MLflow gives its run ids."""
    run_ids = find_run_ids(entry.tracking_uri, experiment=entry.experiment, search_id=entry.search_id)
    return results_json(read_record(entry), run_ids)


def serve_ui(entry: SearchEntry, *, host: str, port: int) -> int:
    """Runs the MLflow server on the search's store until it is ended; gives its exit code."""
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", entry.tracking_uri]
    try:
        return subprocess.run([*command, "--host", host, "--port", str(port)], check=False).returncode
    except KeyboardInterrupt:
        return 0


def find_checkpoint(model: str, storage: Path | None = None) -> str:
    """What ``model`` names: an existing folder or an MLflow URI as it is, else a search's checkpoint.

    Args:
        model: Folder, ``models:/...``, ``runs:/...``, a search's ID (its best trial) or ``ID:TRIAL``.
        storage: Where to look for the search instead of the catalogue.

    Raises:
        StorageError: No such search, trial or checkpoint.
    """
    if Path(model).is_dir() or "/" in model:
        return model
    search_id, _, number = model.partition(":")
    entry = find(search_id, storage)
    if number:
        if not number.isdigit():
            raise StorageError(f"a model of a search is named ID or ID:TRIAL with a trial's number, not {model!r}")
        trial = int(number)
    else:
        best = read_record(entry).best
        if best is None:
            raise StorageError(f"the search {entry.search_id} has no trial with a result yet")
        trial = best.number
    folder = entry.path / "trials" / str(trial) / BEST
    if not folder.is_dir():
        raise StorageError(
            f"trial {trial} of {entry.search_id} has no model in {folder}: a search keeps those of its "
            "tracking.keep_best best trials"
        )
    return str(folder)


def predict_images(
    model: str, images: Sequence[Path], *, storage: Path | None = None, device: str = "auto"
) -> list[dict[str, Any]]:
    """Predictions in the published shape: [{path, label, score, top: [{label, score}]}]."""
    from tlsearch.results.predictor import load_model, predict

    files = _image_files(images)
    loaded = load_model(find_checkpoint(model, storage), device=device)
    return [asdict(prediction) for prediction in predict(loaded, files)]


def _image_files(images: Sequence[Path]) -> list[Path]:
    from tlsearch.data import IMAGE_SUFFIXES

    files: list[Path] = []
    for path in images:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
            if not found:
                raise DataError(f"a folder to predict holds images; {path} has none")
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise DataError(f"no such image file or folder: {path}")
    return files
