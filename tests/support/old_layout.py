"""A search as earlier versions left it: each trial's model has what stands still in its own folder, in one file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tlsearch.config.checkpoint_meta import read_model_file
from tlsearch.train import read_tensors, write_tensors


def to_old_layout(search: Path) -> None:
    """Rewrites the models of a search's trials, and removes its folder of shared tensors."""
    for best in search.glob("trials/*/best"):
        shared = [file for file in read_model_file(best).files if file.shared]
        tensors = {name: tensor for file in shared for name, tensor in read_tensors(best, file).items()}
        path = best / "checkpoint.json"
        content = json.loads(path.read_text())
        content.pop("shared_files", None)
        if tensors:
            frozen = write_tensors(best, "frozen", tensors)
            content |= {"frozen_file": frozen.name, "frozen_sha256": frozen.sha256}
        path.write_text(json.dumps(content))
    shutil.rmtree(search / "frozen", ignore_errors=True)
