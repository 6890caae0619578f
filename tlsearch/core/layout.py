"""The names inside a search's folder, and what stays of a trial that is not among the best."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

VAL_LOGITS = "val_logits.safetensors"  # in a trial's folder: of its best epoch, on the validation images
FROZEN = "frozen"  # in a search's folder: tensors that stand still, once for all of its trials


@dataclass(frozen=True, kw_only=True)
class SearchFolder:
    """Where a search keeps what; nothing is created by looking.

    Attributes:
        root: The search's folder in its storage, absolute.
    """

    root: Path

    @property
    def journal(self) -> Path:
        """The study, unless it is in a database: Optuna's journal, the only truth."""
        return self.root / "study.journal"

    @property
    def pointer(self) -> Path:
        """Which database holds the study, under which name; absent where the journal does."""
        return self.root / "study.json"

    @property
    def lock(self) -> Path:
        """Held by the one process that may write; its text says which."""
        return self.root / "lock"

    @property
    def stop_request(self) -> Path:
        """Asks the process that holds the lock to end the search as Ctrl-C does."""
        return self.root / "stop"

    @property
    def dashboard(self) -> Path:
        """Where Ray's dashboard is while the search runs on a cluster."""
        return self.root / "ray.json"

    @property
    def screen(self) -> Path:
        """What one pass over the images said of each backbone, and which of them the space was narrowed to."""
        return self.root / "screen.json"

    @property
    def log(self) -> Path:
        """What the driver has to tell, one JSON object a line."""
        return self.root / "log.jsonl"

    @property
    def worker_logs(self) -> Path:
        """The same of each worker, in a file of its own."""
        return self.root / "logs"

    def trial(self, number: int) -> Path:
        """The folder of one trial's checkpoints."""
        return self.root / "trials" / str(number)

    def doing(self, number: int) -> Path:
        """What a trial does before its next epoch; absent most of the time."""
        return self.trial(number) / "doing.json"

    def running(self, number: int) -> Path:
        """The checkpoint that a trial goes on from."""
        return self.trial(number) / "running"

    def best(self, number: int) -> Path:
        """The model of a trial's best epoch; absent where it is not kept."""
        return self.trial(number) / "best"

    def val_logits(self, number: int) -> Path:
        """The trial's logits on the validation images, or on those that its folds hold out, at its best epoch."""
        return self.trial(number) / VAL_LOGITS


def frozen_folder(model: Path) -> Path:
    """Where the trials of a search keep what they have in common.

    Args:
        model: Of one of them: ``<search>/trials/<number>/best``.
    """
    return Path(os.path.abspath(model)).parent.parent.parent / FROZEN


def evict_trial(folder: Path) -> None:
    """Deletes the models of an ended trial; its validation logits stay, which ensembles are chosen by."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.name == VAL_LOGITS:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        folder.rmdir()  # where nothing is left
