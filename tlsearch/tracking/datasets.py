"""The data set of a search as MLflow shows it: a logged input of its run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tlsearch.types import DataSetFacts

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

_DIGEST = 16  # hex digits; MLflow takes at most 36 characters
_MAX_NAME = 500


def dataset_input(data: DataSetFacts) -> DatasetInput:
    """The data set as an input that a run was trained on; logged again it is the same."""
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    source_type, source = _source(data)
    profile = {"num_rows": sum(data.images.values()), "num_classes": data.num_classes}
    profile |= {f"num_{split}": count for split, count in data.images.items()}
    dataset = Dataset(
        name=data.name[:_MAX_NAME],
        digest=data.digest[:_DIGEST],
        source_type=source_type,
        source=json.dumps(source),
        profile=json.dumps(profile),
    )
    return DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, "training")])


def _source(data: DataSetFacts) -> tuple[str, dict[str, str]]:
    """MLflow's name for the kind of source, and what its UI makes a link of."""
    if data.source.startswith("s3://"):
        return "s3", {"uri": data.source}
    if data.source.startswith(("http://", "https://")):
        return "http", {"url": data.source}
    if data.source_type == "huggingface" and not data.source.startswith("/"):
        return "hugging_face", {"path": data.source}
    return "local", {"uri": data.source}
