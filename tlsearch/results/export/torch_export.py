"""torch.export: a program in one .pt2 file that runs without the model's code."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch
from torch import Tensor

from tlsearch.results.export.base import Exported, Run, description, dynamic_batch, example_inputs
from tlsearch.results.inference.predictor import Classifier

EXTRA = "tlsearch.json"  # what describes the model, inside the file


def write(classifier: Classifier, path: Path) -> None:
    """Writes the program with a dynamic batch; labels and preprocessing are in its extra file tlsearch.json."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own parts
        program = torch.export.export(
            Exported(classifier).eval(),
            example_inputs(classifier),
            dynamic_shapes=dynamic_batch(classifier),
        )
        torch.export.save(program, str(path), extra_files={EXTRA: json.dumps(description(classifier))})


def open_model(path: Path) -> Run:
    """Runs a file that this process has just written; a file from elsewhere is not to be opened so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.export.load(str(path)).module()

    def run(*images: Tensor) -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            logits, scores = module(*images)
        return logits, scores

    return run
