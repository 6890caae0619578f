"""A trained model out of a checkpoint's folder."""

from __future__ import annotations

from pathlib import Path

from tlsearch.errors import StorageError
from tlsearch.model import StagedModel, build_model
from tlsearch.train import ModelMeta, read_model_checkpoint


def load_trained(directory: Path) -> tuple[StagedModel, ModelMeta]:
    """Loads the model of a checkpoint, in eval mode on the CPU, with what it says of itself.

    Neither the pretrained weights nor the training data are needed.

    Args:
        directory: Holds checkpoint.json, e.g. a trial's ``best`` folder.

    Raises:
        StorageError: No checkpoint there, one that is damaged, or one that does not fit its backbone.
    """
    directory = Path(directory)
    checkpoint = read_model_checkpoint(directory)
    meta = checkpoint.meta
    model = build_model(meta.backbone, num_classes=len(meta.classes), weights=None, image_size=meta.image_size, seed=0)
    try:
        model.load_state_dict(checkpoint.state)
    except RuntimeError as error:
        raise StorageError(f"the checkpoint must fit {meta.backbone}: {directory}: {error}") from error
    return model.eval(), meta
